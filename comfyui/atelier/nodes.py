"""The nodes of this package besides the XDit+USP pair: loader, sampler, decoder, whole pictures and videos."""

import io

from . import experts, host, loading, patcher
from .delegate import Delegation
from .errors import EngineError
from .settings import ATTENTION, DTYPES, XDitUSPConfig

CATEGORY = "Atelier"
CONFIG = ("XDITUSPCONFIG", {"tooltip": "how many GPUs, and how they share the work; without it one GPU draws"})


class AtelierModelLoader:
    """A model of FLUX, SD3, SDXL or HunyuanDiT, or a diffusers folder of Wan, whose denoiser runs in the engine."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load_model"
    DESCRIPTION = (
        "A stock MODEL whose denoiser runs on several GPUs. Link it to KSampler, LoRA loaders and every other node "
        "that takes a MODEL."
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (loading.models(), {"tooltip": "a file, or a folder of models/diffusers"}),
                "weight_dtype": (list(DTYPES), {"default": "bf16"}),
            },
            "optional": {
                "xdit_usp_config": CONFIG,
                "attention_mode": (list(ATTENTION), {"default": "sdpa"}),
                "expert": (
                    list(experts.CHOICES),
                    {"default": experts.BY_NOISE, "tooltip": "of a folder with two denoisers (Wan 2.2 A14B): both, or one for its KSamplerAdvanced"},
                ),
            },
        }

    def load_model(self, model, weight_dtype, xdit_usp_config=None, attention_mode="sdpa", expert=experts.BY_NOISE):
        return (loading.load(loading.path_of_model(model), xdit_usp_config, weight_dtype, attention_mode, expert),)


class AtelierKSampler:
    """KSampler for delegated models: sees to it that both branches of guidance run side by side."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    DESCRIPTION = (
        "As KSampler. Both conditionings of a step go to the engine in one call, and where the model was loaded with "
        "data_parallel_size 2 each half of the GPUs takes one. Prompts of different lengths go one after the other."
    )

    @classmethod
    def INPUT_TYPES(cls):
        samplers, schedulers = _sampler_names()
        return {
            "required": {
                "model": ("MODEL",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"default": 6.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}),
                "sampler_name": (samplers,),
                "scheduler": (schedulers,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def sample(self, model, positive, negative, **settings):
        _delegation(model)
        import nodes

        widths = [len(c[0][0].shape) for c in (positive, negative) if c]
        if len(widths) == 2 and settings["cfg"] != 1.0:
            _say_if_apart(positive, negative)
        return nodes.KSampler().sample(model=model, positive=positive, negative=negative, **settings)


def _say_if_apart(positive, negative):
    a, b = positive[0][0].shape[1], negative[0][0].shape[1]
    if a != b:
        host.log.info(
            "[atelier] the prompts have %s and %s tokens: conditionings of different lengths are evaluated one after the other", a, b
        )


def _delegation(model) -> Delegation:
    delegation = getattr(model.model, "atelier", None)
    if delegation is None:
        raise EngineError("this model does not run in the engine: load it with Atelier's or XDit+USP's loader, or use KSampler")
    return delegation


def _sampler_names():
    try:
        import comfy.samplers

        return comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS
    except ImportError:
        return ["euler"], ["normal"]


class AtelierVAEDecode:
    """The autoencoder of a diffusers folder, its rows spread over the GPUs."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    DESCRIPTION = "Decodes latents on all GPUs at once, each its rows: large pictures need no tiles."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "samples": ("LATENT",),
                "model": ([*loading.folders(), loading.BUILT_IN, loading.BUILT_IN_VIDEO], {"tooltip": "a folder of models/diffusers, whose vae decodes"}),
            },
            "optional": {"xdit_usp_config": CONFIG},
        }

    _held = None  # the engine lives as long as the node

    def decode(self, samples, model, xdit_usp_config=None):
        config = xdit_usp_config or XDitUSPConfig(num_gpus=1)
        path = loading.path_of_model(model)
        served = loading.serve(path, config, "vae")
        self._held = patcher.hold(served, self._held)
        latents = samples["samples"].float()
        facts = served.start()["vae"]
        height, width = (n * facts["spatial"] for n in latents.shape[-2:])
        frames = [1 + (latents.shape[2] - 1) * facts["temporal"]] if latents.dim() == 5 else []
        pictures = served.decode(latents, [latents.shape[0], 3, *frames, height, width])
        if pictures.dim() == 5:
            pictures = pictures.movedim(1, 2).flatten(0, 1)
        return (pictures.movedim(1, -1).contiguous(),)


class _WholePipeline:
    """What the two nodes share that draw from a prompt."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "draw"
    FLAGS = []
    BUILT_IN, CAPTION = loading.BUILT_IN, "a red circle above a blue square"

    @classmethod
    def inputs(cls, **more):
        own = {"tooltip": "0: the model's own"}
        return {
            "required": {
                "model": ([*loading.folders(), cls.BUILT_IN], {"tooltip": f"a folder of models/diffusers, or {cls.BUILT_IN}"}),
                "prompt": ("STRING", {"multiline": True, "default": cls.CAPTION}),
                "negative_prompt": ("STRING", {"multiline": True, "default": ""}),
                "width": ("INT", {"default": 0, "min": 0, "max": 16384, "step": 8, **own}),
                "height": ("INT", {"default": 0, "min": 0, "max": 16384, "step": 8, **own}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 10000, **own}),
                "guidance": ("FLOAT", {"default": -1.0, "min": -1.0, "max": 100.0, "step": 0.1, "tooltip": "-1: the model's own"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                **more,
            },
            "optional": {"xdit_usp_config": CONFIG, "weight_dtype": (list(DTYPES), {"default": "bf16"})},
        }

    _held = None  # the engine lives as long as the node

    def frames(self, model, config, weight_dtype, row):
        """All that is drawn, [frames, H, W, 3]; what is None or left at its neutral value goes unsaid."""
        import torch

        config = config or XDitUSPConfig(num_gpus=1)
        served = loading.serve(loading.path_of_model(model), config, "all", weight_dtype, extra=self.FLAGS)
        host.make_room()
        self._held = patcher.hold(served, self._held)
        if row.get("guidance_scale", 0) < 0:
            del row["guidance_scale"]
        said = {name: value for name, value in row.items() if value not in (None, "") and (value or name in ("seed", "guidance_scale"))}
        return torch.cat([_frames_of(data) for _, data in served.draw([said], host.progress())])


class AtelierTextToImage(_WholePipeline):
    """The whole pipeline in the engine: text encoders, denoiser, autoencoder."""

    DESCRIPTION = "Draws pictures from a prompt with everything in the engine, as atelier t2i does."

    @classmethod
    def INPUT_TYPES(cls):
        return cls.inputs(batch_size=("INT", {"default": 1, "min": 1, "max": 64}))

    def draw(self, model, steps, guidance, batch_size, xdit_usp_config=None, weight_dtype="bf16", **row):
        row.update(num_inference_steps=steps, guidance_scale=guidance, num_images_per_prompt=batch_size)
        return (self.frames(model, xdit_usp_config, weight_dtype, row),)


class AtelierTextToVideo(_WholePipeline):
    """The same for models of videos; frames come one after another."""

    FLAGS = ["--quality", "100"]  # of WebP: lossless
    BUILT_IN, CAPTION = loading.BUILT_IN_VIDEO, "a red circle moves right"
    DESCRIPTION = "Draws a video from a prompt with everything in the engine, as atelier video does."

    @classmethod
    def INPUT_TYPES(cls):
        frames = {"default": 0, "min": 0, "max": 4096, "tooltip": "4k + 1; 0: the model's own"}
        return cls.inputs(num_frames=("INT", frames))

    def draw(self, model, steps, guidance, num_frames, xdit_usp_config=None, weight_dtype="bf16", **row):
        row.update(num_inference_steps=steps, guidance_scale=guidance, num_frames=num_frames)
        return (self.frames(model, xdit_usp_config, weight_dtype, row),)


def _frames_of(data):
    """Bytes of a picture or an animation -> [frames, H, W, 3] in [0, 1]."""
    import numpy
    import torch
    from PIL import Image, ImageSequence

    with Image.open(io.BytesIO(data)) as file:
        frames = [numpy.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
    return torch.from_numpy(numpy.stack(frames)).float().div(255)


NODE_CLASS_MAPPINGS = {
    "AtelierModelLoader": AtelierModelLoader,
    "AtelierKSampler": AtelierKSampler,
    "AtelierVAEDecode": AtelierVAEDecode,
    "AtelierTextToImage": AtelierTextToImage,
    "AtelierTextToVideo": AtelierTextToVideo,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AtelierModelLoader": "Atelier Load Diffusion Model",
    "AtelierKSampler": "Atelier KSampler (both branches at once)",
    "AtelierVAEDecode": "Atelier VAE Decode (all GPUs)",
    "AtelierTextToImage": "Atelier Text to Image",
    "AtelierTextToVideo": "Atelier Text to Video",
}
