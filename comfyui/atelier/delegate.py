"""A stock MODEL whose denoiser is evaluated by the engine: everything around it is ComfyUI's own.

The network is built without memory (on torch's meta device), so that names and sizes of its weights are there for the
nodes that look at them, and its forward call goes to the engine. Only what must differ is overridden: new versions of
ComfyUI add methods, and inherit them here.
"""

import inspect
import json
import struct

from . import pairs
from .alterations import Parts, refuse_options
from .errors import EngineError
from .experts import Experts
from .families import config_by_sizes, family_of
from .lora import AdapterFiles
from .patcher import patcher_class

# Of a safetensors header -> torch's.
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
MOST_HEADER_BYTES = 100 << 20
# Beside a network's tensors: how its predictions are meant, and bounds of its schedule. ComfyUI's SDXL reads them.
MARKS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


def read_header(path):
    """({name: meta tensor}, {metadata}) of a safetensors file; of its numbers the MARKS alone are read. Raises EngineError."""
    import torch

    values = {}
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MOST_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
            for name in set(MARKS) & set(header):
                begin, end = header[name]["data_offsets"]
                file.seek(8 + size + begin)
                values[name] = file.read(end - begin)
    except (OSError, ValueError, struct.error) as error:
        raise EngineError(f"{path} is no safetensors file that can be read: {error}", "checkpoint") from error
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, entry in header.items():
        kind = TYPES.get(entry["dtype"])
        if kind is None:
            raise EngineError(f"{path}: {name} is of type {entry['dtype']}, which is not read here", "checkpoint")
        tensors[name] = torch.empty(entry["shape"], dtype=getattr(torch, kind), device="meta")
        if values.get(name):
            tensors[name] = torch.frombuffer(bytearray(values[name]), dtype=getattr(torch, kind)).view(entry["shape"])
    return tensors, metadata


def stock_config(tensors, metadata, hello):
    """What ComfyUI takes the tensors of a file for, and the tensors without their prefix. Raises EngineError.

    hello: what the engine takes them for.
    """
    import comfy.model_detection as detection
    import comfy.supported_models
    import comfy.utils

    tensors = _bare(tensors)
    prefix = detection.unet_prefix_from_state_dict(tensors)
    without = comfy.utils.state_dict_prefix_replace(dict(tensors), {prefix: ""}, filter_keys=True)
    marks = {name: tensors[name] for name in MARKS if name in tensors}
    tensors = {**marks, **(without or tensors)}
    config = _detected(detection, tensors, metadata)
    by_sizes = getattr(comfy.supported_models, config_by_sizes(hello) or "", None)
    if by_sizes and (config is None or issubclass(by_sizes, type(config))):
        sizes = detection.detect_unet_config(tensors, "")
        config = by_sizes(sizes) if sizes else None
    if config is None:
        converted = detection.convert_diffusers_mmdit(dict(tensors), "")
        if converted is not None:
            tensors = converted
            config = _detected(detection, tensors, metadata)
    if config is None:
        raise EngineError("ComfyUI does not know what model this file holds: its tensors are of no network that it has", "checkpoint")
    return config, tensors


def _bare(tensors):
    """Without what some tools put before every name, which ComfyUI's detection does not look for."""
    for prefix in ("model.", "diffusion_model."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _detected(detection, tensors, metadata):
    takes_metadata = "metadata" in inspect.signature(detection.model_config_from_unet).parameters
    extra = {"metadata": metadata} if takes_metadata else {}
    try:
        return detection.model_config_from_unet(tensors, "", **extra)
    except (KeyError, AttributeError, IndexError):
        return None


def build(config, tensors, engine, folder, most=0, experts=None):
    """The MODEL of a stock config, its denoiser in the engine.

    folder: for adapter files; most: pictures that one evaluation takes, 0: any number; experts: None: the model has one.
    Raises EngineError.
    """
    import comfy.model_management as management
    import torch

    config.set_inference_dtype(torch.float32, None)  # of what is handed over; the engine rounds as it was told
    with torch.device("meta"):
        model = config.get_model(tensors, "", device=torch.device("meta"))
    config.model_type(tensors, "")  # where some configs make their latent format, which must have numbers
    model.latent_format = config.latent_format
    family = family_of(model)
    served = engine.start()["family"]
    if served not in family.names:
        raise EngineError(f"ComfyUI takes this file for {family.names[0]}, the engine for {served}", "checkpoint")
    delegation = Delegation(engine, family, AdapterFiles(folder), most, experts)
    delegation.settle(model, tensors)
    return patcher_class()(model, management.get_torch_device(), torch.device("cpu"), size=1)


class Delegation:
    """What a delegated model knows of its engine. Copies of a patcher share it through their model."""

    def __init__(self, engine, family, files, most=0, experts=None):
        self.engine, self.family, self.files, self.most = engine, family, files, most
        self.experts = experts or Experts()
        self.adapters = {}  # of each expert
        self.channels = 0  # of a prediction
        self.shapes = {}
        self.unread = ()  # inputs that this file's network leaves alone
        self.parts = None
        self.file = None  # of pairs.register

    # A patcher's clones share the model; nothing here is copied with it.
    def __deepcopy__(self, memo):
        return self

    def prepare(self, patcher):
        """Before the first call of a run: the workers with their weights, and the files of the patcher's LoRAs."""
        pairs.settle(self)
        named = self.files.of(patcher.patches_uuid, patcher.patches, self.shapes)
        self.adapters = dict.fromkeys(self.experts.all(), named)
        self.engine.load(self.experts.all()[0])

    def settle(self, model, tensors):
        """Puts the engine behind the model's network; tensors: of its file."""
        import torch

        self.channels = model.latent_format.latent_channels
        # Buffers such as schedules are ComfyUI's own and must have numbers.
        model.model_sampling = _sampling_of(model)
        held = {**model.diffusion_model.state_dict(), **tensors}
        self.shapes = {f"diffusion_model.{k}": tuple(v.shape) for k, v in held.items()}
        self.unread = self.family.unread(tensors)
        network = model.diffusion_model
        network.__class__ = network_class(type(network))
        network.__dict__["atelier"] = self
        self.parts = Parts(network)
        model.__dict__["atelier"] = self
        model.__class__ = model_class(type(model))
        if "sdxl" in self.family.names:
            self._settle_sdxl(model)
        model.device = torch.device("cpu")

    @staticmethod
    def _settle_sdxl(model):
        # The six sizes go to the engine as they are: it makes their sinusoids itself.
        import torch
        from comfy.ldm.modules.encoders.noise_aug_modules import CLIPEmbeddingNoiseAugmentation

        class AsTheyAre(torch.nn.Module):
            def forward(self, numbers):
                return numbers.unsqueeze(-1)

        model.embedder = AsTheyAre()
        # Of pictures in place of the pooled text; its schedule must have numbers too.
        schedule = {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
        model.noise_augmentor = CLIPEmbeddingNoiseAugmentation(noise_schedule_config=schedule, timestep_dim=1280)

    def evaluate(self, x, timesteps, arguments, options, adapters=None):
        """One forward call of the network; adapters: None for those of the patcher that was loaded last."""
        if self.family.prepare:
            self.family.prepare(arguments)
        inputs = {}
        for name, value in arguments.items():
            if name in self.unread:
                continue
            if name in self.family.inputs and value is not None:
                value = value if value.dim() == 0 or value.shape[0] == x.shape[0] else value.expand(x.shape[0], *value.shape[1:])
                # Tensors that lie beside the latents are padded as they are.
                inputs[self.family.inputs[name]] = self._padded(value) if value.dim() == x.dim() > 3 else value
            elif value is not None and name not in self.family.absent_is_fine:
                raise EngineError(
                    f"the network was given {name}, which the engine's {self.family.names[0]} does not take "
                    "(a ControlNet, a reference picture, or the like): use the stock loader for this graph"
                )
        height, width = x.shape[-2:]
        padded = self._padded(x)
        if timesteps.dim() == 0 or timesteps.shape[0] != x.shape[0]:
            timesteps = timesteps.reshape(-1).expand(x.shape[0])
        out = None
        for expert, rows in self._passes(timesteps, len(options.get("cond_or_uncond") or [0])):
            named = {name: value[rows] for name, value in inputs.items()}
            mine = self.adapters.get(expert, []) if adapters is None else adapters
            got = self.engine.predict(padded[rows].float(), timesteps[rows], named, self.channels, mine, expert)
            if out is None:
                out = got.new_empty(x.shape[0], *got.shape[1:])
            out[rows] = got
        return out[..., :height, :width].to(device=x.device, dtype=x.dtype)

    def _passes(self, timesteps, conditionings):
        """(expert, rows) of each evaluation. timesteps: [B], or by frame [B, frames], where frames that are given have 0."""
        highest = timesteps.reshape(timesteps.shape[0], -1).amax(1).tolist()
        for rows in self._parts(len(highest), conditionings):
            experts = [self.experts.of(highest[row]) for row in rows]
            for expert in sorted(set(experts)):
                yield expert, [row for row, of in zip(rows, experts) if of == expert]

    def _parts(self, batch, conditionings):
        """Rows of each evaluation: some pictures, each with all of its conditionings."""
        pictures = max(batch // conditionings, 1)
        if not self.most or pictures <= self.most or batch % conditionings:
            return [list(range(batch))]
        parts = []
        for first in range(0, pictures, self.most):
            some = range(first, min(first + self.most, pictures))
            parts.append([c * pictures + p for c in range(conditionings) for p in some])
        return parts

    def _padded(self, x):
        """Latents whose sides are multiples of the patch, continued as the stock networks do."""
        patch = self.family.patch
        down, right = -x.shape[-2] % patch, -x.shape[-1] % patch
        if not down and not right:
            return x
        import comfy.ldm.common_dit

        sides = (1, patch, patch) if x.dim() == 5 else (patch, patch)
        return comfy.ldm.common_dit.pad_to_patch_size(x, sides)


def _sampling_of(model):
    import comfy.model_base

    return comfy.model_base.model_sampling(model.model_config, model.model_type)


_classes = {}


def _derived(kind, stock, members):
    """One class for each stock class, so that copies of a model agree."""
    key = (kind, stock)
    if key not in _classes:
        _classes[key] = type("Atelier" + stock.__name__, (stock,), members)
    return _classes[key]


def network_class(stock):
    """A network of ComfyUI whose innermost forward call is the engine's: wrappers of other nodes stay around it."""
    name = "_forward" if hasattr(stock, "_forward") else "forward"
    signature = inspect.signature(getattr(stock, name))

    def evaluate(self, *given, **named):
        bound = signature.bind(self, *given, **named)
        arguments = {}
        for argument, value in bound.arguments.items():
            if signature.parameters[argument].kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(value)
            else:
                arguments[argument] = value
        for own in ("self", "return_dict"):
            arguments.pop(own, None)
        x = arguments.pop("x")
        options = arguments.pop("transformer_options", None) or {}
        timesteps = arguments.pop(self.atelier.family.time)
        refuse_options(options)
        self.atelier.parts.refuse_changes(self)
        return self.atelier.evaluate(x, timesteps, arguments, options)

    return _derived("network", stock, {name: evaluate})


def model_class(stock):
    """A model that needs no memory here, so that all conditionings of a step come in one call."""
    return _derived("model", stock, {"memory_required": lambda self, *args, **kwargs: 0})
