"""WANVIDEOMODEL: what WanVideoWrapper's sampler takes, where that package is installed."""

import inspect
import sys

from .errors import EngineError

MISSING = (
    "this output is for ComfyUI-WanVideoWrapper's sampler, and that package is not loaded in this ComfyUI: "
    "install it, or link the second output (MODEL) to KSampler"
)


def wrapper_module():
    """The wrapper's module with its model classes; None where it is not installed."""
    nodes = sys.modules.get("nodes")
    loader = getattr(nodes, "NODE_CLASS_MAPPINGS", {}).get("WanVideoModelLoader") if nodes else None
    return sys.modules.get(loader.__module__) if loader else None


class Absent:
    """In place of a value that cannot be made: says why to whoever uses it."""

    def __init__(self, reason):
        object.__setattr__(self, "_reason", reason)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise EngineError(self._reason)

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
# Values that ask for nothing.
NEUTRAL = (1.0, 0.0, 1, 0)
TEXT_TOKENS = 512


class XDitUSPWanVideoModel:
    """Makes the value of the socket WANVIDEOMODEL."""

    @staticmethod
    def of(stock, base_precision, lora):
        """A patcher as the wrapper's loader returns it, its network in the engine that `stock` has; else an Absent."""
        module = wrapper_module()
        if module is None:
            return Absent(MISSING)
        import comfy.model_base
        import torch

        delegation = stock.model.atelier
        dtype = getattr(torch, {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[base_precision])
        try:
            network = delegated_network(module.WanModel, delegation, stock)
            model = module.WanVideoModel(
                module.WanVideoModelConfig(dtype), model_type=comfy.model_base.ModelType.FLOW, device=torch.device("cpu")
            )
        except (AttributeError, TypeError) as error:
            return Absent(f"this version of ComfyUI-WanVideoWrapper is built in another way than is known here ({error}); {INSTEAD}")
        model.diffusion_model = network
        model.__dict__["atelier"] = delegation
        model.is_patched = True
        patcher = type(stock)(model, stock.load_device, stock.offload_device, size=1)
        for name, value in items_of(dtype, delegation.engine.name).items():
            model[name] = value
        options = patcher.model_options.setdefault("transformer_options", {})
        options.update(block_swap_args=None, linear_with_lora=False, merge_loras=False)
        return patcher


INSTEAD = "link the second output (MODEL) to KSampler"


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
    known.update(ffn2_dim=known.get("ffn_dim"), attention_mode="sdpa", in_features=known.get("dim"))
    takes = inspect.signature(base.__init__).parameters
    arguments = {name: known[name] for name in takes if name in known}
    with torch.device("meta"):
        network = base(**arguments)
    kind = type("Atelier" + base.__name__, (base,), {"forward": forward_of(base), "to": lambda self, *a, **k: self})
    network.__class__ = kind
    network.__dict__["atelier"] = delegation
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
        predictions = predict(self.atelier, arguments)
        state = arguments.get("pred_id")
        return (predictions, None, state) if has_audio else (predictions, state)

    return forward


def predict(delegation, arguments):
    """One call of the wrapper's network: a list of videos in, the list of their predictions out."""
    import torch

    arguments = dict(arguments)
    arguments.pop("self", None)
    videos, times, texts = (arguments.pop(name) for name in ("x", "t", "context"))
    pictures, seen = arguments.pop("y", None), arguments.pop("clip_fea", None)
    refuse_features(arguments)
    x = torch.stack([v if pictures is None else torch.cat([v, pictures[i].to(v)]) for i, v in enumerate(videos)])
    texts = texts if isinstance(texts, (list, tuple)) else [texts]
    context = torch.stack([_padded(t) for t in texts])
    if context.shape[0] == 1 and x.shape[0] > 1:
        context = context.expand(x.shape[0], *context.shape[1:])
    inputs = {"context": context}
    if seen is not None:
        inputs["clip_fea"] = seen
    return list(delegation.evaluate(x, times, inputs, {}))


def _padded(text):
    import torch

    text = text.squeeze(0) if text.dim() == 3 else text
    missing = TEXT_TOKENS - text.shape[0]
    return torch.nn.functional.pad(text, (0, 0, 0, missing)) if missing > 0 else text


def refuse_features(arguments):
    """Raises EngineError for what asks for more than a plain call."""
    asked = [name for name, value in arguments.items() if name not in HARMLESS and not _asks_for_nothing(value)]
    if asked:
        raise EngineError(
            f"the wrapper's sampler asks for {', '.join(asked)}, which the engine does not take: unlink what sets it, or use the "
            "wrapper's own loader"
        )


def _asks_for_nothing(value):
    if value is None or value is False:
        return True
    if isinstance(value, (list, tuple, dict, str)):
        return len(value) == 0
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value in NEUTRAL


def refuse_vace_part(vace_model):
    if vace_model:
        raise EngineError("vace_model names a VACE module apart from its model: give the loader a file that holds both (wan2.1_vace_...)")


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
