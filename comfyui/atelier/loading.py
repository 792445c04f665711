"""From the name of a model on a node to a delegated MODEL."""

import json
import os

from . import delegate, engine, experts, gguf, host, hunyuan_names, pairs, program, sdxl_names, wan_names
from .errors import EngineError
from .settings import XDitUSPConfig

BUILT_IN = "mini"  # the engine's own small model of pictures
BUILT_IN_VIDEO = "mini-video"  # and of videos


def _paths():
    import folder_paths

    return folder_paths


def files(kind):
    """Names for a node's list; one that explains itself where ComfyUI is not there or has none."""
    try:
        listed = [*_paths().get_filename_list(kind), *_gguf_files(kind)]
        return list(dict.fromkeys(listed)) or [f"(nothing in models/{kind})"]
    except ImportError:
        return ["(no ComfyUI)"]


def _gguf_files(kind):
    """Which ComfyUI does not list."""
    found = []
    for root in _paths().get_folder_paths(kind) if kind == "diffusion_models" else []:
        for folder, _, names in os.walk(root, followlinks=True):
            found += [os.path.relpath(os.path.join(folder, name), root) for name in names if name.endswith(gguf.ENDING)]
    return sorted(found)


def folders():
    """Diffusers folders in models/diffusers."""
    try:
        roots = _paths().get_folder_paths("diffusers")
    except (ImportError, KeyError):
        return []
    found = []
    for root in roots:
        for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
            if os.path.isfile(os.path.join(root, name, "model_index.json")):
                found.append(name)
    return found


def path_of(kind, name):
    """The full path of a listed file. Raises EngineError."""
    if name.startswith("("):
        raise EngineError(f"there is no model to load: {name.strip('()')}")
    return _paths().get_full_path_or_raise(kind, name)


def path_of_model(name):
    """Of a file, a diffusers folder, or a built-in model, as the loader's list has them."""
    if name in (BUILT_IN, BUILT_IN_VIDEO):
        return name
    for root in _paths().get_folder_paths("diffusers"):
        if os.path.isfile(os.path.join(root, name, "model_index.json")):
            return os.path.join(root, name)
    for kind in ("diffusion_models", "checkpoints"):
        path = _paths().get_full_path(kind, name)
        if path:
            return path
    raise EngineError(f"{name} is neither in models/diffusers, models/diffusion_models nor models/checkpoints")


def models():
    """All that the general loader takes."""
    listed = [n for kind in ("diffusion_models", "checkpoints") for n in files(kind) if not n.startswith("(")]
    return [*listed, *folders(), BUILT_IN, BUILT_IN_VIDEO]


def serve(path, config, parts, base_precision=None, attention_mode=None, extra=()):
    """The engine that serves a path; one for all loaders that ask for the same. Nothing starts yet."""
    arguments = ["--model_name", str(path), "--parts", parts, *config.arguments(base_precision, attention_mode), *extra]
    return engine.serve(program.require(config.program), arguments, os.path.basename(str(path)))


def load(path, config=None, base_precision=None, attention_mode=None, expert=experts.BY_NOISE):
    """A delegated MODEL of a file or a diffusers folder. expert: of experts.CHOICES. Raises EngineError."""
    config = config or XDitUSPConfig(num_gpus=1)
    served = serve(path, config, "denoiser", base_precision, attention_mode)
    host.make_room()
    hello = served.start()
    folder = "" if os.path.isfile(path) else hello["folder"]
    chosen = experts.chosen(folder, expert)
    if experts.has_two(folder):
        served.alone = served.alone or experts.Alone(folder)
    tensors, metadata = _tensors(folder or path)
    for names in (wan_names, hunyuan_names, sdxl_names):
        if names.MARK in tensors:
            tensors = names.original(tensors)
    stock, tensors = delegate.stock_config(tensors, metadata, hello)
    _settle_sizes(stock, hello)
    model = delegate.build(stock, tensors, served, _adapter_folder(), config.max_batch_size, chosen)
    if not folder:
        pairs.register(model.model.atelier, path, served, hello)
    if not served.holds:  # ComfyUI counts what it has loaded, which nobody has asked for yet
        served.close()
    return model


def _adapter_folder():
    return _paths().get_temp_directory()


def _tensors(path):
    """Meta tensors of a file, or of the denoiser of a diffusers folder."""
    if path.endswith(gguf.ENDING):
        import torch

        return {name: torch.empty(shape, device="meta") for name, shape in gguf.read_shapes(path).items()}, {}
    if os.path.isfile(path):
        return delegate.read_header(path)
    for part in ("transformer", "unet"):
        folder = os.path.join(path, part)
        index = os.path.join(folder, "diffusion_pytorch_model.safetensors.index.json")
        if os.path.isfile(index):
            with open(index, encoding="utf-8") as file:
                names = sorted(set(json.load(file)["weight_map"].values()))
        else:
            names = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors")) if os.path.isdir(folder) else []
        tensors = {}
        for name in names:
            tensors.update(delegate.read_header(os.path.join(folder, name))[0])
        if tensors:
            return {**tensors, **_marks_of(path)}, {}
    raise EngineError(f"{path} holds no safetensors of a transformer or a unet", "checkpoint")


def _marks_of(folder):
    """How a folder's scheduler says that predictions are meant, as the tensors by which files say it."""
    import torch

    path = os.path.join(folder, "scheduler", "scheduler_config.json")
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        facts = json.load(file)
    said = {"v_pred": facts.get("prediction_type") == "v_prediction", "ztsnr": facts.get("rescale_betas_zero_snr")}
    return {name: torch.zeros(0) for name, is_so in said.items() if is_so}


def _settle_sizes(stock, hello):
    """What ComfyUI takes for granted of a family and the engine has read from the files."""
    c, unet = hello["config"], stock.unet_config
    if hello["family"] in ("sdxl", "hunyuan_dit"):
        scale = _vae_config(hello).get("scaling_factor")
        stock.latent_format.scale_factor = scale or stock.latent_format.scale_factor
    if hello["family"] == "hunyuan_dit":
        has_sizes = c.get("use_style_cond_and_image_meta_size", True)
        unet.update(size_cond=has_sizes, use_style_cond=has_sizes)
        ours = {
            "hidden_size": "hidden_size",
            "num_heads": "num_attention_heads",
            "mlp_ratio": "mlp_ratio",
            "text_states_dim": "cross_attention_dim",
            "text_states_dim_t5": "cross_attention_dim_t5",
            "text_len": "text_len",
            "text_len_t5": "text_len_t5",
        }
        unet.update({stocks: c[name] for stocks, name in ours.items() if name in c})
    if hello["family"].startswith("wan"):
        unet["num_heads"] = c["num_attention_heads"]  # ComfyUI: one for every 128 channels
        _settle_latents(stock.latent_format, _vae_config(hello))
    if hello["family"] != "flux":
        return
    unet["num_heads"] = c["num_attention_heads"]
    unet["hidden_size"] = c["num_attention_heads"] * c["attention_head_dim"]
    unet["axes_dim"] = c.get("axes_dims_rope", [16, 56, 56])
    unet["out_channels"] = unet["in_channels"] = c["in_channels"] // 4
    if unet["in_channels"] != stock.latent_format.latent_channels:
        stock.latent_format = _latent_format(unet["in_channels"], _vae_config(hello))


def _vae_config(hello):
    """Of the folder's autoencoder; {} where a file was loaded."""
    path = os.path.join(hello.get("folder") or "", "vae", "config.json")
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _settle_latents(latent_format, facts):
    """Mean and deviation by channel, where the folder's autoencoder has its own."""
    import torch

    for name in ("latents_mean", "latents_std"):
        values = facts.get(name)
        if values and len(values) == latent_format.latent_channels:
            setattr(latent_format, name, torch.tensor(values).view(1, -1, 1, 1, 1))


def _latent_format(channels, facts):
    """Of a model whose autoencoder is its own."""
    import comfy.latent_formats

    made = comfy.latent_formats.SD3()
    made.latent_channels = channels
    made.scale_factor, made.shift_factor = facts.get("scaling_factor", 1.0), facts.get("shift_factor") or 0.0
    made.latent_rgb_factors = None  # no preview
    return made
