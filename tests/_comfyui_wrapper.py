"""The delegate for ComfyUI-WanVideoWrapper against stand-ins of both forms of that package, which comfyui.py runs.

The calls are those of its sampler when nothing but a model, texts and sizes are given: version 1.2.5 (2025) and 1.4 (2026).
"""

import contextlib
import copy
import inspect
import sys
import types
import uuid

SIZES = {"dim": 64, "in_dim": 36, "num_heads": 2}
ROPE_COLUMNS = ((12, 6), (10, 5), (10, 5))  # of heads of 32: width of frames, rows, columns, and numbers of each


def networks(torch):
    class Old(torch.nn.Module):
        def __init__(self, dim=64, in_dim=16, num_heads=2, attention_mode="sdpa", vace_layers=None, vace_in_dim=None):
            super().__init__()
            self.vace_layers, self.vace_in_dim = vace_layers, vace_in_dim
            self.steered = {block: n for n, block in enumerate(vace_layers or [])}
            self.dim, self.in_dim, self.num_heads = dim, in_dim, num_heads
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(dim, dim)])
            self.rope_embedder = types.SimpleNamespace(k=None, num_frames=None)
            self.enable_teacache = self.enable_magcache = self.enable_easycache = False
            self.slg_blocks = None

        def forward(self, x, t, context, seq_len, is_uncond=False, current_step_percentage=0.0, current_step=0, last_step=0,
                    clip_fea=None, y=None, device="cuda", freqs=None, enhance_enabled=False, pred_id=None,
                    control_lora_enabled=False, vace_data=None, camera_embed=None, unianim_data=None, fun_ref=None, fun_camera=None,
                    audio_proj=None, audio_scale=1.0, pcd_data=None, controlnet=None, add_cond=None, attn_cond=None, nag_params={},
                    nag_context=None, multitalk_audio=None, ref_target_masks=None, inner_t=None):
            raise AssertionError("the base's own forward ran")

    class New(Old):
        def forward(self, x, t, context, seq_len, is_uncond=False, current_step_percentage=0.0, current_step=0, last_step=0,
                    total_steps=50, clip_fea=None, y=None, device="cuda", freqs=None, enhance_enabled=False, pred_id=None,
                    control_lora_enabled=False, vace_data=None, attn_cond=None, nag_params={}, inner_t=None, reverse_time=False,
                    ntk_alphas=[1.0, 1.0, 1.0], mtv_strength=1.0, s2v_motion_frames=[1, 0], humo_audio_scale=1.0,
                    wananim_pose_strength=1.0, x_ovi=None, seq_len_ovi=None, longcat_num_cond_latents=0, mtv_input=None,
                    one_to_all_controlnet_strength=0.0, transformer_options={}, rope_negative_offset=0, num_memory_frames=0, **more):
            raise AssertionError("the base's own forward ran")

    return Old, New


def plain_call(torch, base, x, context, **more):
    """All that the sampler says in the plainest of calls."""
    said = dict(t=torch.tensor([999.0]), seq_len=12, device="cpu", freqs=turns(torch), current_step=3, last_step=False,
                current_step_percentage=0.1, control_lora_enabled=False, enhance_enabled=False, nag_params={}, vace_data=None,
                is_uncond=True, pred_id=None, attn_cond=None, inner_t=None)
    if "x_ovi" in inspect.signature(base.forward).parameters:
        options = {"block_swap_args": None, "linear_with_lora": False, "merge_loras": False}
        said |= dict(reverse_time=False, ntk_alphas=[1.0, 1.0, 1.0], mtv_strength=1.0, s2v_motion_frames=[1, 0], humo_audio_scale=1,
                     wananim_pose_strength=1.0, x_ovi=None, seq_len_ovi=None, longcat_num_cond_latents=0,
                     one_to_all_controlnet_strength=0.0, transformer_options=options, rope_negative_offset=0, num_memory_frames=0)
    return {"x": x, "context": context, **said, **more}


def turns(torch, frame_number=None):
    """Turns by position as the sampler makes them; frame_number: of frames, slowed down as RIFLEx does."""
    rates = [10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width) for width, _ in ROPE_COLUMNS]
    if frame_number:
        rates[0][3] = 0.9 * 2 * torch.pi / frame_number
    angles = torch.outer(torch.arange(1024, dtype=torch.float64), torch.cat(rates))
    return torch.polar(torch.ones_like(angles), angles)


class Delegation:
    """Doubles what it is given, and keeps it."""

    def __init__(self):
        self.engine = types.SimpleNamespace(name="x", holds=False, release=lambda: setattr(self, "has_released", True))
        self.shapes, self.has_released = {}, False
        self.files = types.SimpleNamespace(of=lambda identity, patches, shapes: [f"{identity}: {sorted(patches)}"])

    def evaluate(self, x, times, inputs, options, adapters=None):
        self.seen = (x, times, inputs, adapters)
        return x[:, :16] * 2


class Patcher:
    """Of ComfyUI's ModelPatcher what is touched."""

    def __init__(self, model, load_device=None, offload_device=None, size=0):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.patches, self.patches_uuid, self.model_options = {}, uuid.uuid4(), {}

    def clone(self):
        other = type(self)(self.model, self.load_device, self.offload_device)
        other.patches, other.patches_uuid = {k: list(v) for k, v in self.patches.items()}, self.patches_uuid
        other.model_options = copy.deepcopy(self.model_options)
        return other


@contextlib.contextmanager
def wrapper_package(torch, base):
    """The wrapper's module as ComfyUI has it among its nodes."""

    class Items(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pipeline = {}

        def __getitem__(self, name):
            return self.pipeline[name]

        def __setitem__(self, name, value):
            self.pipeline[name] = value

    class OldModel(Items):
        def __init__(self, config, model_type=None, device=None):
            super().__init__()

    class NewModel(Items):
        def __init__(self, model_config, transformer, device=None):
            super().__init__()
            self.diffusion_model = transformer

    package = types.ModuleType("wrapper_package")
    is_new = "x_ovi" in inspect.signature(base.forward).parameters
    package.WanModel, package.WanVideoModel = base, NewModel if is_new else OldModel
    package.WanVideoModelConfig = lambda value: value
    loader = type("WanVideoModelLoader", (), {"__module__": "wrapper_package"})
    comfy_base = types.ModuleType("comfy.model_base")
    comfy_base.ModelType = types.SimpleNamespace(FLOW=1)
    comfy = types.ModuleType("comfy")
    comfy.model_base = comfy_base
    stubs = {
        "wrapper_package": package,
        "nodes": types.SimpleNamespace(NODE_CLASS_MAPPINGS={"WanVideoModelLoader": loader}),
        "comfy": comfy,
        "comfy.model_base": comfy_base,
    }
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def stock_of(delegation, patches=None, **sizes):
    config = types.SimpleNamespace(unet_config={**SIZES, **sizes})
    model = types.SimpleNamespace(atelier=delegation, model_config=config, latent_format=None)
    patcher = Patcher(model)
    patcher.patches = patches or {}
    return patcher


def cases(package, raises):
    from nodes_here.atelier import wrapper

    def wrapper_calls_agree(torch):
        g = torch.Generator().manual_seed(0)
        z, y, text = (torch.randn(*shape, generator=g) for shape in ((16, 3, 4, 4), (20, 3, 4, 4), (7, 64)))
        for base, arity in zip(networks(torch), (2, 3)):
            delegation = Delegation()
            network = wrapper.delegated_network(base, delegation, stock_of(delegation))
            assert isinstance(network, base) and network.in_dim == 36 and len(network.blocks) == 1
            assert network.to("cuda") is network and all(tensor.is_meta for tensor in network.state_dict().values())
            assert not delegation.has_released
            network.to("cpu")
            assert delegation.has_released, "what leaves the GPU gives its memory back"
            for _, parameter in network.named_parameters():  # as block swap does
                parameter.data = parameter.data.to("cpu")
            network.block_swap(3, False, False, vace_blocks_to_swap=None)
            out = network(**plain_call(torch, base, [z], [text], y=[y]))
            assert len(out) == arity and (out[0][0] == z * 2).all(), "the prediction comes back in a list"
            x, times, given, _ = delegation.seen
            assert x.shape == (1, 36, 3, 4, 4) and (x[0, 16:] == y).all() and times.tolist() == [999.0]
            assert given["context"].shape == (1, 512, 64) and (given["context"][0, 7:] == 0).all()

    def wrapper_features_are_refused(torch):
        z, text = torch.zeros(16, 3, 4, 4), torch.zeros(7, 64)
        old, new = networks(torch)

        def refused(words, base, state=None, **more):
            network = wrapper.delegated_network(base, Delegation(), stock_of(Delegation()))
            for name, value in (state or {}).items():
                setattr(network, name, value)
            raises(words, lambda: network(**plain_call(torch, base, [z], [text], **more)))

        for base in (old, new):
            refused(["vace_data"], base, vace_data=[{"context": [z], "scale": [1.0] * 5, "start": 0.0, "end": 1.0}])
            refused(["enhance_enabled"], base, enhance_enabled=True)
            refused(["riflex_freq_index"], base, freqs=turns(torch, 21))
            refused(["riflex_freq_index"], base, {"rope_embedder": types.SimpleNamespace(k=6, num_frames=21)}, freqs=None)
            refused(["TeaCache"], base, {"enable_teacache": True})
            refused(["MagCache"], base, {"enable_magcache": True})
            refused(["EasyCache"], base, {"enable_easycache": True})
            refused(["skip layer"], base, {"slg_blocks": [9]})
        refused(["mtv_input", "humo_audio_scale"], new, mtv_input={"a": 1}, humo_audio_scale=2.0)
        refused(["unianimate_poses"], new, unianimate_poses=z)
        refused(["ntk_alphas"], new, ntk_alphas=(1.0, 2.0, 2.0))
        refused(["attention_mode_override"], new, transformer_options={"merge_loras": True, "attention_mode_override": {"mode": "sageattn"}})

    def wrapper_steers(torch):
        """VACE: one control with its strength of the step, nothing outside of its part of the run; two at once are refused."""
        g = torch.Generator().manual_seed(0)
        z, context, text = (torch.randn(*shape, generator=g) for shape in ((16, 3, 4, 4), (96, 3, 4, 4), (7, 64)))
        one = {"context": [context], "scale": [0.5, 0.6, 0.7, 0.8], "start": 0.2, "end": 0.6, "seq_len": 12}
        late = {**one, "start": 0.5, "end": 1.0}
        for base in networks(torch):
            delegation = Delegation()
            delegation.engine.hello = {"config": {"vace_layers": [0, 1]}}
            network = wrapper.delegated_network(base, delegation, stock_of(delegation, vace_layers=2, vace_in_dim=96))
            assert network.vace_layers == [0, 1]

            def given(data, step, share):
                network(**plain_call(torch, base, [z], [text], vace_data=data, current_step=step, current_step_percentage=share))
                inputs = delegation.seen[2]
                assert inputs["vace_context"].shape == (1, 1, 96, 3, 4, 4)
                return inputs["vace_context"][0, 0], inputs["vace_strength"]

            got, strength = given([one], 2, 0.4)
            assert strength == [0.7] and (got == context).all()
            assert given([one], 0, 0.3)[1] == [0.5] and given([one, late], 2, 0.4)[1] == [0.7]
            for data, step, share in (([one], 3, 0.7), ([one], 1, 0.1), (None, 1, 0.4), ([{**one, "scale": [0.0] * 4}], 1, 0.4)):
                got, strength = given(data, step, share)
                assert strength == [0.0] and not got.any(), (step, share)
            raises(["2 VACE controls", "prev_vace_embeds"], lambda: given([one, late], 2, 0.55))

    def wrapper_has_its_loras(torch):
        """Of the loader, and of nodes that clone a model and add theirs to it."""
        z, text = torch.zeros(16, 3, 4, 4), torch.zeros(7, 64)
        for base in networks(torch):
            delegation = Delegation()
            stock = stock_of(delegation, {"diffusion_model.a.weight": [(0.7, "factors", 1.0, None, None)]})
            with wrapper_package(torch, base):
                value = wrapper.XDitUSPWanVideoModel.of(stock, "fp32")

            def adapters(patcher):
                patcher.model.diffusion_model(**plain_call(torch, base, [z], [text]))
                return delegation.seen[3]

            assert not isinstance(value, wrapper.Absent), value.__dict__
            assert value.model["base_path"] == "x" and value.model.is_patched
            assert adapters(value) == [f"{stock.patches_uuid}: ['diffusion_model.a.weight']"], delegation.seen[3]
            more = value.clone()
            more.patches["diffusion_model.b.weight"] = [(1.0, "factors", 1.0, None, None)]
            more.patches_uuid = uuid.uuid4()
            assert adapters(more) == [f"{more.patches_uuid}: ['diffusion_model.a.weight', 'diffusion_model.b.weight']"]
            assert adapters(value)[0].startswith(str(stock.patches_uuid)), "what was cloned keeps its own"
            more.patches["diffusion_model.b.weight"] = [([1.0, 0.5], "factors", 1.0, None, None)]
            raises(["step to step"], lambda: adapters(more))

    def wrapper_items_are_there(torch):
        items = wrapper.items_of(torch.bfloat16, "x")
        old = "dtype base_path model_name manual_offloading quantization auto_cpu_offload control_lora compile_args gguf"
        new = "base_dtype weight_dtype base_path model_name quantization auto_cpu_offload control_lora compile_args gguf_reader fp8_matmul scale_weights sd lora"
        assert set(f"{old} {new}".split()) <= set(items) and items["sd"] is None

    return [wrapper_calls_agree, wrapper_features_are_refused, wrapper_steers, wrapper_has_its_loras, wrapper_items_are_there]
