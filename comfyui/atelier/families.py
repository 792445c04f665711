"""What the engine's families take of ComfyUI's networks, and how a network is recognised."""

from dataclasses import dataclass, field

from .errors import EngineError


@dataclass(frozen=True)
class Family:
    """One network of ComfyUI that the engine evaluates in its place."""

    names: tuple  # the engine's, of files that ComfyUI takes for this network
    time: str  # the network's argument that holds the timestep
    inputs: dict  # the network's argument -> the engine's input
    patch: int = 1  # latents along each side of a token
    absent_is_fine: tuple = ()  # arguments that may be anything: the network does not read them either
    prepare: object = field(default=None, repr=False)  # changes the arguments in place
    # Of the tensors of a file: arguments that its network does not read, as other files of the family do.
    unread: object = field(default=lambda tensors: (), repr=False)


def _split_sizes(arguments):
    """SDXL's `y`: pooled text, then six sizes as they are (see Delegation.settle_sdxl)."""
    y = arguments["y"]
    if y is not None:
        arguments["y"], arguments["time_ids"] = y[:, :-6], y[:, -6:].float()


def _settle_control(arguments):
    """VACE: one control video and its strength; several are added up by ComfyUI's network alone."""
    import torch

    control, strength = arguments.pop("vace_context", None), arguments.pop("vace_strength", None)
    if control is None:
        return
    if control.shape[1] != 1:
        raise EngineError(f"{control.shape[1]} VACE controls in a chain; the engine takes one")
    arguments["vace_context"] = control[:, 0]
    value = float(strength[0]) if strength else 1.0
    arguments["vace_strength"] = torch.full((control.shape[0],), value)


def _unseen(tensors):
    """Wan: states of pictures, where the network has no layers for them."""
    return () if "img_emb.proj.1.weight" in tensors else ("clip_fea",)


_WAN = {"context": "context", "clip_fea": "clip_fea"}
FAMILIES = {
    "WAN21": Family(("wan", "wan_i2v"), "timestep", _WAN, patch=2, unread=_unseen),
    # The mask is part of the times already, which are 0 for frames that are given.
    "WAN22": Family(
        ("wan", "wan_i2v"), "timestep", _WAN, patch=2, absent_is_fine=("denoise_mask",), unread=_unseen
    ),
    "WAN21_Vace": Family(
        ("wan_vace",),
        "timestep",
        {**_WAN, "vace_context": "vace_context", "vace_strength": "vace_strength"},
        patch=2,
        prepare=_settle_control,
        unread=_unseen,
    ),
    "Flux": Family(
        ("flux",),
        "timestep",
        {"context": "context", "y": "y", "guidance": "guidance"},
        patch=2,
        absent_is_fine=("ref_latents_method",),
    ),
    "SD3": Family(("sd3",), "timesteps", {"context": "context", "y": "y"}, patch=2),
    "HunyuanDiT": Family(
        ("hunyuan_dit",),
        "t",
        {
            name: name
            for name in (
                "context",
                "text_embedding_mask",
                "encoder_hidden_states_t5",
                "text_embedding_mask_t5",
                "image_meta_size",
            )
        },
        patch=2,
    ),
    "SDXL": Family(
        ("sdxl",), "timesteps", {"context": "context", "y": "y", "time_ids": "time_ids"}, prepare=_split_sizes
    ),
}

def config_by_sizes(hello):
    """The name of ComfyUI's config for what it recognises by published sizes alone; None for every other family."""
    if hello["family"] == "sdxl":
        return "SDXL"
    if hello["family"] == "hunyuan_dit" and hello["config"].get("use_style_cond_and_image_meta_size", True):
        return "HunyuanDiT1"
    return None


def family_of(model):
    """Of a comfy.model_base model; its classes are looked at from the most special one up."""
    for kind in type(model).__mro__:
        if kind.__name__ in FAMILIES:
            if kind is not _stock_class(model):
                break
            return FAMILIES[kind.__name__]
    raise EngineError(
        f"ComfyUI takes this file for a {_stock_class(model).__name__}; "
        f"the engine evaluates {', '.join(FAMILIES)} in its place"
    )


def _stock_class(model):
    return next(kind for kind in type(model).__mro__ if kind.__module__.startswith("comfy."))
