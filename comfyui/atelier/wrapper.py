"""WANVIDEOMODEL: what WanVideoWrapper's sampler takes, where that package is installed."""

import copy
import inspect
import sys
import weakref

from .errors import EngineError
from .patcher import hold

MISSING = (
    "this output is for ComfyUI-WanVideoWrapper's sampler, and that package is not loaded in this ComfyUI: "
    "install it, or link the second output (MODEL) to KSampler"
)


def wrapper_module():
    """The wrapper's module with its model classes; None where it is not installed."""
    nodes = sys.modules.get("nodes")
    loader = getattr(nodes, "NODE_CLASS_MAPPINGS", {}).get("WanVideoModelLoader") if nodes else None
    return sys.modules.get(loader.__module__) if loader else None


class AbsentError(EngineError, AttributeError):
    """Says why, and is what `hasattr` takes for no: caches of ComfyUI look at every output of a node."""


class Absent:
    """In place of a value that cannot be made: says why to whoever uses it."""

    def __init__(self, reason):
        object.__setattr__(self, "_reason", reason)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise AbsentError(self._reason)

    def __getitem__(self, key):
        raise EngineError(self._reason)


# Arguments of the wrapper's network that say where in the sampling a call is, or how the wrapper's own network is to
# work; nothing of them changes what is predicted.
HARMLESS = (
    "seq_len",
    "freqs",
    "device",
    "is_uncond",
    "current_step",
    "current_step_percentage",
    "last_step",
    "total_steps",
    "pred_id",
)
# Values that ask for nothing, besides those that the network's own forward call has as defaults.
NEUTRAL = (1.0, 0.0, 1, 0)
# Of the options that come with a call: where the wrapper would keep weights, and how it would merge LoRAs.
OF_WEIGHTS = ("block_swap_args", "linear_with_lora", "merge_loras")
# What the sampler sets on a network before it calls it -> what has asked for it.
ASKED = {
    "enable_teacache": "TeaCache",
    "enable_magcache": "MagCache",
    "enable_easycache": "the wrapper's EasyCache",
    "slg_blocks": "skip layer guidance (slg_args)",
    "video_attention_split_steps": "video_attention_split_steps",
    "lora_scheduling_enabled": "a LoRA whose strength changes from step to step",
}
TEXT_TOKENS = 512


class XDitUSPWanVideoModel:
    """Makes the value of the socket WANVIDEOMODEL."""

    @staticmethod
    def of(stock, base_precision):
        """A patcher as the wrapper's loader returns it, its network in the engine that `stock` has; else an Absent."""
        module = wrapper_module()
        if module is None:
            return Absent(MISSING)
        import torch

        delegation = stock.model.atelier
        dtype = getattr(torch, {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[base_precision])
        try:
            network = delegated_network(module.WanModel, delegation, stock)
            model = model_around(module, network, dtype, stock.model.latent_format)
        except (AttributeError, TypeError) as error:
            return Absent(f"this version of ComfyUI-WanVideoWrapper is built in another way than is known here ({error}); {INSTEAD}")
        model.__dict__["atelier"] = delegation
        model.is_patched = True
        patcher = patcher_class(type(stock))(model, stock.load_device, stock.offload_device, size=1)
        patcher.patches = {key: list(entries) for key, entries in stock.patches.items()}
        patcher.patches_uuid = stock.patches_uuid
        for name, value in items_of(dtype, delegation.engine.name).items():
            model[name] = value
        options = patcher.model_options.setdefault("transformer_options", {})
        options.update(block_swap_args=None, linear_with_lora=False, merge_loras=False)
        return own(patcher)


INSTEAD = "link the second output (MODEL) to KSampler"


def model_around(module, network, dtype, latent_format):
    """The wrapper's model with this network; since 2026 it is made of its network and no longer a BaseModel."""
    import torch

    if "transformer" in inspect.signature(module.WanVideoModel.__init__).parameters:
        return module.WanVideoModel(module.WanVideoModelConfig(latent_format), network, device=torch.device("cpu"))
    import comfy.model_base

    config = module.WanVideoModelConfig(dtype)
    model = module.WanVideoModel(config, model_type=comfy.model_base.ModelType.FLOW, device=torch.device("cpu"))
    model.diffusion_model = network
    return model


_patchers = {}


def patcher_class(stock):
    """Patchers whose every clone has a network of its own: the nodes that set LoRAs clone, and the network is called alone."""
    if stock not in _patchers:
        clone = lambda self, *given, **named: own(stock.clone(self, *given, **named))
        _patchers[stock] = type("AtelierWrapperPatcher", (stock,), {"clone": clone})
    return _patchers[stock]


def own(patcher):
    """The patcher, with copies of its model and network that know it. Their weights and parts stay shared."""
    model = copy.copy(patcher.model)
    network = copy.copy(model.diffusion_model)
    network.__dict__["patcher"] = weakref.ref(patcher)
    model.__dict__["_modules"] = {**model.__dict__["_modules"], "diffusion_model": network}
    patcher.model = model
    return patcher


def adapters_of(network):
    """The LoRAs of the patcher that a network belongs to, as calls of the engine name them."""
    owner = network.__dict__.get("patcher")
    patcher = owner() if owner else None
    if patcher is None or not patcher.patches:
        return []
    if any(isinstance(entry[0], (list, tuple)) for entries in patcher.patches.values() for entry in entries):
        raise EngineError("a LoRA changes its strength from step to step, which the engine does not take")
    delegation = network.atelier
    return delegation.files.of(patcher.patches_uuid, patcher.patches, delegation.shapes)


def items_of(dtype, name):
    """What samplers of old and new versions of the wrapper read of a model; `sd` is None, so that none loads weights."""
    return {
        "dtype": dtype,
        "base_dtype": dtype,
        "weight_dtype": dtype,
        "base_path": name,
        "model_name": name,
        "manual_offloading": True,
        "quantization": "disabled",
        "auto_cpu_offload": False,
        "control_lora": False,
        "compile_args": None,
        "gguf": False,
        "gguf_reader": None,
        "fp8_matmul": False,
        "scale_weights": {},
        "sd": None,
        "lora": None,
    }


def delegated_network(base, delegation, stock):
    """The wrapper's network without weights, its forward call the engine's."""
    import torch

    known = dict(stock.model.model_config.unet_config)
    known.update(ffn2_dim=known.get("ffn_dim"), attention_mode="sdpa", in_features=known.get("dim"), out_features=known.get("dim"))
    if known.get("vace_layers"):  # ComfyUI counts them, the wrapper lists which blocks they steer
        known["vace_layers"] = list(delegation.engine.hello["config"]["vace_layers"])
    takes = inspect.signature(base.__init__).parameters
    arguments = {name: known[name] for name in takes if name in known}
    with torch.device("meta"):
        network = base(**arguments)
    members = {
        "forward": forward_of(base),
        "to": _moved,
        # No weights are here that could be moved or swapped.
        "named_parameters": lambda self, *given, **named: iter(()),
        "block_swap": lambda self, *given, **named: None,
    }
    kind = type("Atelier" + base.__name__, (base,), members)
    network.__class__ = kind
    network.__dict__["atelier"] = delegation
    return network


def _moved(network, *given, **named):
    """As `to` of a network: away from the GPUs, which the sampler's force_offload asks for, the engine gives its memory back."""
    if str(given[0] if given else named.get("device")).startswith("cpu"):
        network.atelier.engine.release()
    return network


def forward_of(base):
    """A forward call with the base's own signature; three values come back where the base's network has `x_ovi`."""
    signature = inspect.signature(base.forward)
    has_audio = "x_ovi" in signature.parameters

    def forward(self, *given, **named):
        bound = signature.bind(self, *given, **named)
        arguments = {}
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(value)
            else:
                arguments[name] = value
        refuse_state(self, arguments.get("freqs"))
        keep_loaded(self)
        control = control_of(self, arguments)
        predictions = predict(self.atelier, arguments, adapters_of(self), _defaults_of(signature), control)
        state = arguments.get("pred_id")
        return (predictions, None, state) if has_audio else (predictions, state)

    return forward


def keep_loaded(network):
    """The wrapper's sampler calls a network by itself: ComfyUI is told what it may unload."""
    held = network.__dict__.get("held")
    if held is None or not network.atelier.engine.holds:
        network.__dict__["held"] = hold(network.atelier.engine, held)


def _defaults_of(signature):
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def control_of(network, arguments):
    """VACE's inputs of a call, as a network of ComfyUI's takes them; `vace_data` leaves the arguments. {} for other models.

    A control counts from its start to its end, shares of the run, and in the first step from its start on.
    """
    import torch

    if not getattr(network, "vace_layers", None):
        return {}
    step, share, counted = arguments.get("current_step", 0), arguments.get("current_step_percentage", 0.0), []
    for one in arguments.pop("vace_data", None) or []:
        if not isinstance(one, dict):
            raise EngineError("the wrapper's sampler gives VACE's control in a form that is not known here: use its VACE encode node")
        is_on = one["start"] <= share <= one["end"] or one["end"] > 0 and step == 0 and share >= one["start"]
        if is_on and one["scale"][step] != 0:
            counted.append((one["context"], float(one["scale"][step])))
    if len(counted) > 1:
        raise EngineError(f"{len(counted)} VACE controls count in one step; the engine takes one: unlink prev_vace_embeds, or give them apart by start and end")
    if counted:
        (context,), strength = counted[0]
    else:  # nothing of the control stream reaches the model
        frames, height, width = arguments["x"][0].shape[1:]
        context, strength = torch.zeros(network.vace_in_dim, frames, height, width), 0.0
    return {"vace_context": context[None, None], "vace_strength": [strength]}


def predict(delegation, arguments, adapters=(), defaults=None, more=None):
    """One call of the wrapper's network: a list of videos in, the list of their predictions out.

    defaults: of the network's own forward call; more: inputs besides texts and pictures.
    """
    import torch

    arguments = dict(arguments)
    arguments.pop("self", None)
    videos, times, texts = (arguments.pop(name) for name in ("x", "t", "context"))
    pictures, seen = arguments.pop("y", None), arguments.pop("clip_fea", None)
    refuse_features(arguments, defaults or {})
    x = torch.stack([v if pictures is None else torch.cat([v, pictures[i].to(v)]) for i, v in enumerate(videos)])
    texts = texts if isinstance(texts, (list, tuple)) else [texts]
    context = torch.stack([_padded(t) for t in texts])
    if context.shape[0] == 1 and x.shape[0] > 1:
        context = context.expand(x.shape[0], *context.shape[1:])
    inputs = {"context": context, **(more or {})}
    if seen is not None:
        inputs["clip_fea"] = seen
    return list(delegation.evaluate(x, times, inputs, {}, adapters))


def _padded(text):
    import torch

    text = text.squeeze(0) if text.dim() == 3 else text
    missing = TEXT_TOKENS - text.shape[0]
    return torch.nn.functional.pad(text, (0, 0, 0, missing)) if missing > 0 else text


def refuse_features(arguments, defaults):
    """Raises EngineError for what asks for more than a plain call."""
    arguments = dict(arguments)
    options = arguments.pop("transformer_options", None) or {}
    asked = [name for name, value in arguments.items() if name not in HARMLESS and not _asks_for_nothing(value, defaults.get(name))]
    asked += [name for name, value in options.items() if name not in OF_WEIGHTS and not _asks_for_nothing(value)]
    if asked:
        raise EngineError(
            f"the wrapper's sampler asks for {', '.join(asked)}, which the engine does not take: unlink what sets it, or use the "
            "wrapper's own loader"
        )


def _asks_for_nothing(value, default=None):
    if value is None or value is False:
        return True
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
        return len(value) == 0 or list(value) == list(default)
    if isinstance(value, (list, tuple, dict, str)):
        return len(value) == 0
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value in NEUTRAL


def refuse_state(network, freqs):
    """Raises EngineError for what the sampler has set on the network in place of an argument."""
    asked = [what for name, what in ASKED.items() if not _asks_for_nothing(getattr(network, name, None))]
    rope = getattr(network, "rope_embedder", None)
    if getattr(rope, "k", None) or not _are_plain(freqs, network):
        asked.append("other positions (riflex_freq_index)")
    if asked:
        raise EngineError(f"the wrapper's sampler asks for {', '.join(asked)}; the engine does not do that: leave it out")


def _are_plain(freqs, network):
    """Whether turns by position [positions, half a head], complex, are those of the published model."""
    import torch

    if not isinstance(freqs, torch.Tensor) or not freqs.is_complex():
        return True
    head = network.dim // network.num_heads
    across = 2 * (head // 6)
    steps = [torch.arange(0, n, 2, dtype=torch.float64) / n for n in (head - 2 * across, across, across) if n]
    angles = torch.outer(torch.arange(freqs.shape[0], dtype=torch.float64), 10000.0 ** -torch.cat(steps))
    plain = torch.polar(torch.ones_like(angles), angles)
    return freqs.shape == plain.shape and bool((freqs.to(plain) - plain).abs().max() < 1e-2)


def refuse_vace_part(vace_model):
    if vace_model:
        raise EngineError(
            "vace_model names a VACE module apart from its model: unlink it, and give the loader a file that holds both (wan2.1_vace_...)"
        )


def with_loras(stock, loras):
    """The wrapper's list of LoRAs, merged as ComfyUI's own LoRA nodes do."""
    if not loras:
        return stock
    import comfy.sd
    import comfy.utils

    for lora in loras:
        for option in ("blocks", "layer_filter"):
            if lora.get(option):
                raise EngineError(f"the LoRA {lora.get('name', '')} is limited by {option}, which the engine does not take")
        strength = lora.get("strength", 1.0)
        if isinstance(strength, (list, tuple)):
            raise EngineError(f"the LoRA {lora.get('name', '')} changes its strength from step to step, which the engine does not take")
        if strength == 0:
            continue
        weights = comfy.utils.load_torch_file(lora["path"], safe_load=True)
        stock, _ = comfy.sd.load_lora_for_models(stock, None, weights, strength, 0)
    return stock
