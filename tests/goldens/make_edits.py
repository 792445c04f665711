#!/usr/bin/env python3
"""Records image to image and inpainting: what the reference's pipelines make of pictures of formulas, with the model of another case.

    python tests/goldens/make_edits.py CASE [FOLDER]      # without CASE: lists them

FOLDER gets a link to the model. GOLDENS names a folder with further models. Each picture has a generator of its own, whose seed is
seed_noise plus its number.
"""
import functools
import os
import pathlib
import shutil
import sys

import numpy as np
import torch
from make import BOATS, FOX, HERE, Recorded
from PIL import Image

GOLDENS = pathlib.Path(os.environ.get("GOLDENS", HERE))
SEED = 7


def picture(width, height, kind):
    """Smooth colours, or a soft ellipse for a mask."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    if kind == "mask":
        far = ((x / width - 0.55) / 0.35) ** 2 + ((y / height - 0.4) / 0.3) ** 2
        level = np.clip(1.5 - far, 0, 1)
        return Image.fromarray(np.stack([level * 255, level * 240, level * 255], -1).astype(np.uint8))
    k = 1 if kind == "image" else 2
    waves = [np.sin(x * 9 * k / width + c) * np.cos(y * 7 / height - c * k) for c in range(3)]
    return Image.fromarray(((np.stack(waves, -1) * 0.5 + 0.5) * 255).astype(np.uint8))


def loaded(folder, value):
    from diffusers.utils import load_image

    return [loaded(folder, v) for v in value] if isinstance(value, list) else load_image(str(folder / value))


def pipeline_of(folder, o, name):
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(folder / "model", torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if "scheduler" in o:
        name, options = o["scheduler"]
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)
        pipe.scheduler.save_pretrained(folder / "model" / "scheduler")
    return pipe


def run(add, folder, o, name, call):
    """Records one call of a pipeline; the number of its pictures, and the shape of their latents."""
    pipe = pipeline_of(folder, o, name)
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    state = {"step": 0, "calls": 0}
    moments, encode, decode, step = [], pipe.vae.encode, pipe.vae.decode, pipe.scheduler.step
    count = call.get("num_images_per_prompt", 1) * (len(call["prompt"]) if isinstance(call["prompt"], list) else 1)
    is_masked = "mask_image" in call

    def recorded_encode(x, *args, **kwargs):
        out = encode(x, *args, **kwargs)
        moments.append(out.latent_dist.parameters)
        return out

    @functools.wraps(step)  # pipelines look at its arguments
    def recorded_step(model_output, timestep, sample, **kwargs):
        out = step(model_output, timestep, sample, **kwargs)
        add(f"step{state['step']}.guided", model_output)
        add(f"step{state['step']}.latents", out[0])
        state.update(step=state["step"] + 1, calls=0)
        return out

    def before(module, args, kwargs):
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        add(f"step{state['step']}.model_in" + (".1" if state["calls"] else ""), x)
        state["calls"] += 1

    def recorded_decode(z, *args, **kwargs):
        out = decode(z, *args, **kwargs)
        if not (is_masked and o.get("decodes_otherwise")):
            add("vae.in", z), add("vae.out", out[0])
        return out

    def after_step(pipe, i, t, tensors):
        state["last"] = tensors["latents"].clone()
        return tensors

    pipe.vae.encode, pipe.vae.decode, pipe.scheduler.step = recorded_encode, recorded_decode, recorded_step
    denoiser.register_forward_pre_hook(before, with_kwargs=True)
    given = {k: loaded(folder, v) if k in ("image", "mask_image") else v for k, v in call.items()}
    if o.get("size_of_image") and not is_masked:
        del given["height"], given["width"]
    image = pipe(**given, generator=[torch.Generator().manual_seed(SEED + i) for i in range(count)], output_type="pt",
                 callback_on_step_end=after_step).images
    if not (is_masked and o.get("decodes_otherwise")):
        add("image", image)
    last = state["last"]
    if last.dim() == 3:
        last = pipe._unpack_latents(last, call["height"], call["width"], pipe.vae_scale_factor)
    add("latents.final", last)
    add("image.moments", torch.cat(moments[:count])[:count])
    add("timesteps", pipe.scheduler.timesteps)
    if hasattr(pipe.scheduler, "sigmas"):
        add("sigmas", pipe.scheduler.sigmas)
    return count, (1, *last.shape[1:])


def link_model(folder, o):
    """The other case's model; with a scheduler of its own where the case asks for one."""
    source = (GOLDENS if (GOLDENS / o["model"]).exists() else HERE) / o["model"] / "model"
    to = folder / "model"
    if "scheduler" not in o:
        if not to.is_symlink():
            to.symlink_to(os.path.relpath(source, folder))
        return
    to.mkdir(exist_ok=True)
    for part in source.iterdir():
        if part.name != "scheduler" and not (to / part.name).is_symlink():
            (to / part.name).symlink_to(os.path.relpath(part, to))
    shutil.copytree(source / "scheduler", to / "scheduler", dirs_exist_ok=True)


def edits(folder, o):
    folder.mkdir(parents=True, exist_ok=True)
    link_model(folder, o)
    for name, (width, height) in o["pictures"].items():
        picture(width, height, name.split(".")[0]).save(folder / name)
    r = Recorded()
    masked = {"mask_image": "mask.png", **o.get("masked", {})}
    for prefix, pipeline, call in (("", o["pipelines"][0], o["call"]), ("masked.", o["pipelines"][1], {**o["call"], **masked})):
        count, shape = run(lambda name, value: r.add(prefix + name, value), folder, o, pipeline, call)
    noise = []
    for i in range(count):
        g = torch.Generator().manual_seed(SEED + i)
        torch.randn(shape, generator=g)  # taken by the latents of the picture
        noise.append(torch.randn(shape, generator=g))
    r.add("noise", torch.cat(noise))
    r.write(folder, {"seed_noise": SEED, "call": o["call"], "masked_run": masked, "family": o["family"]})


FLUX = dict(family="flux", pipelines=("FluxImg2ImgPipeline", "FluxInpaintPipeline"))
SD3 = dict(family="sd3", pipelines=("StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
           decodes_otherwise=True)  # its inpainting leaves the shift of the latents out
SDXL = dict(family="sdxl", pipelines=("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"), size_of_image=True)
TWO = {"image.png": (50, 41), "other.png": (28, 16), "mask.png": (33, 70)}
ONE = {"image.png": (130, 111), "mask.png": (75, 60)}
CASES = {
    # two prompts with a picture each and two branches; committed
    "flux_edits": dict(FLUX, model="flux_two_branches", pictures=TWO, masked=dict(strength=0.8), call=dict(
        prompt=[FOX, BOATS], image=["image.png", "other.png"], strength=0.55, negative_prompt=["rain", "fog"], true_cfg_scale=2.0,
        guidance_scale=2.0, height=16, width=28, num_inference_steps=5, max_sequence_length=12)),
    "flux_edits_dev": dict(FLUX, model="flux_dev", pictures=ONE, masked=dict(strength=1.0), call=dict(
        prompt=FOX, image="image.png", height=96, width=64, num_inference_steps=7, guidance_scale=3.5, max_sequence_length=48)),
    "sd3_edits": dict(SD3, model="sd3_medium", pictures=ONE, masked=dict(strength=0.35), call=dict(
        prompt=BOATS, negative_prompt="blurry", image="image.png", strength=0.45, height=96, width=128, num_inference_steps=8,
        guidance_scale=5.0, max_sequence_length=32)),
    "sd35_edits": dict(SD3, model="sd35_medium", pictures=ONE, masked=dict(strength=1.0), call=dict(
        prompt=FOX, image="image.png", height=64, width=64, num_inference_steps=4, guidance_scale=4.0, max_sequence_length=32)),
    "sdxl_edits": dict(SDXL, model="sdxl", pictures={"image.png": (96, 64), "mask.png": (75, 60)}, call=dict(
        prompt=BOATS, negative_prompt="blurry", image="image.png", height=64, width=96, num_inference_steps=8, guidance_scale=5.0)),
    # its image to image takes the size of the picture, cut down to a multiple
    "sdxl_edits_odd": dict(SDXL, model="sdxl", pictures={"image.png": (101, 75), "mask.png": (30, 31)}, masked=dict(strength=0.5),
                           call=dict(prompt=[FOX, BOATS], negative_prompt=["blurry", ""], image=["image.png", "image.png"],
                                     strength=0.4, height=72, width=96, num_inference_steps=6, guidance_scale=3.0)),
    "flux_edits_schnell": dict(FLUX, model="flux_schnell", pictures={"image.png": (300, 200), "mask.png": (80, 64)}, call=dict(
        prompt=BOATS, image="image.png", height=64, width=96, num_inference_steps=4, guidance_scale=0.0, max_sequence_length=32)),
    "sdxl_edits_full": dict(SDXL, model="sdxl", pictures={"image.png": (64, 64), "mask.png": (64, 64)}, masked=dict(strength=1.0),
                            call=dict(prompt=FOX, image="image.png", strength=0.61, height=64, width=64, num_inference_steps=5,
                                      guidance_scale=6.0)),
}
for _name, _scheduler, _options in (("ancestral", "EulerAncestralDiscreteScheduler", {}), ("ddim", "DDIMScheduler", {}),
                                    ("heun", "HeunDiscreteScheduler", {}), ("ddpm", "DDPMScheduler", {}),
                                    ("sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
                                    ("unipc", "UniPCMultistepScheduler", {}), ("karras", "EulerDiscreteScheduler",
                                                                               {"use_karras_sigmas": True})):
    CASES["sdxl_edits_" + _name] = dict(CASES["sdxl_edits"], scheduler=(_scheduler, _options), masked=dict(strength=0.7))

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("cases: " + ", ".join(CASES))
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    edits(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else HERE / sys.argv[1]), CASES[sys.argv[1]])
