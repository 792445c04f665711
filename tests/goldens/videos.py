"""Makers of cases of whole pipelines that draw videos."""
import contextlib
import json
import os

import torch
from PIL import Image

from parts import link_tokenizer, open_folder, randomise, save_folder
from pipelines import is_outer, write
from recorder import SIDES, AnotherRun, Recorded, Run, hook_modules

FILES = {"image", "last_image", "reference_images", "video", "mask"}  # arguments of a call that are pictures


def drawn_picture(width, height, phase):
    """Smooth colours without an axis of symmetry."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(x / (4.0 + c) + phase) * torch.cos(y / (6.0 - c)) for c in range(3)]
    bytes_ = ((torch.stack(waves, -1) * 0.5 + 0.5) * 255).round().to(torch.uint8)
    return Image.fromarray(bytes_.numpy())


class VideoRun(Run):
    """Both denoisers of a pipeline that has two, and frames, if they are kept: they are most of a small case."""

    keeps_video = True

    @contextlib.contextmanager
    def attached(self):
        second = getattr(self.pipe, "transformer_2", None)
        hooks = []
        if second is not None:
            hooks = [second.register_forward_pre_hook(self.before, with_kwargs=True),
                     second.register_forward_hook(self.after, with_kwargs=True)]
            seen = set()

            def block(name, value):
                call = self.calls
                if (name, call) not in seen:
                    seen.add((name, call))
                    self.r.add(f"block.transformer_2.{name}" + self.suffix("@"), value)

            # What follows from the time alone is recorded of the first denoiser only.
            hooks += hook_modules(second, block, lambda name: self.is_wanted(name) and name != "condition_embedder")
        with super().attached():
            yield
        for hook in hooks:
            hook.remove()

    def encoded(self, name):
        sides = iter(SIDES)

        def hook(module, args, kwargs, out):
            side = next(sides)
            self.r.add(f"{side}input_ids", args[0])
            self.r.add(f"{side}mask", args[1])

        return hook

    def decoded(self, decode):
        def call(z, **kwargs):
            self.r.add("vae.in", z)
            return decode(z, **kwargs)

        return call

    def record(self, call, noise):
        self.rows = noise.shape[0]
        self.r.add("noise", noise)
        with self.attached():
            video = self.pipe(**call, latents=noise.clone(), output_type="pt").frames
        if self.keeps_video:
            self.r.add("video", video)
        self.r.add("timesteps", self.pipe.scheduler.timesteps)
        self.r.add("sigmas", self.pipe.scheduler.sigmas)
        self.r.add("latents.final", self.latents)


def shown(folder, call):
    """The call for the pipeline, and for golden.json: pictures are drawn, and written to files."""
    asked, told = {}, {}
    for key, value in call.items():
        if key not in FILES:
            asked[key] = told[key] = value
            continue
        many = isinstance(value[0], (list, tuple))
        pictures, names = [], []
        for i, size in enumerate(value if many else [value]):
            pictures.append(drawn_picture(*size))
            names.append({"png": f"inputs/{key}_{i:02}.png"})
            (folder / "inputs").mkdir(parents=True, exist_ok=True)
            pictures[-1].save(folder / names[-1]["png"])
        asked[key], told[key] = (pictures, names) if many else (pictures[0], names[0])
    return asked, told


def share(folder, o):
    """Parts that are those of another case become links to them."""
    for part, file in (("vae", "diffusion_pytorch_model.safetensors"), ("text_encoder", "model.safetensors")):
        mine, other = folder / "model" / part / file, folder.parent / o.get("like", folder.name) / "model" / part / file
        if other != mine and other.exists() and other.read_bytes() == mine.read_bytes():
            mine.unlink()
            mine.symlink_to(os.path.relpath(other, mine.parent))


def wan(folder, o):
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    model, seed, pipeline = folder / "model", o.get("seed", 1), o.get("pipeline", "WanPipeline")
    link_tokenizer(model, "tokenizer", "tokenizer_2")
    kind = diffusers.WanVACETransformer3DModel if "vace_layers" in o["transformer"] else diffusers.WanTransformer3DModel
    latent = o["vae"]["z_dim"]
    parts = dict(
        text_encoder=randomise(UMT5EncoderModel(UMT5Config(
            vocab_size=1608, num_layers=1, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **o["t5"])), seed),
        transformer=randomise(kind(text_dim=o["t5"]["d_model"], **o["transformer"]), seed + 1),
        vae=randomise(diffusers.AutoencoderKLWan(**o["vae"], latents_mean=[0.1 * (i % 3) for i in range(latent)],
                                                 latents_std=[1 + 0.2 * (i % 4) for i in range(latent)]), seed + 2),
        scheduler=diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=o["shift"]))
    entries = {"transformer_2": [None, None], **o.get("index", {})}
    if "boundary_ratio" in entries:
        parts["transformer_2"] = randomise(kind(text_dim=o["t5"]["d_model"], **o["transformer"]), seed + 3)
        del entries["transformer_2"]
    tokenizers = {"tokenizer": "T5TokenizerFast"}
    if "vision" in o:
        parts["image_encoder"] = randomise(CLIPVisionModel(CLIPVisionConfig(**o["vision"])), seed + 4)
        side = o["vision"]["image_size"]
        tokenizers["image_processor"] = "CLIPImageProcessor"
        (model / "image_processor").mkdir(parents=True, exist_ok=True)
        (model / "image_processor" / "preprocessor_config.json").write_text(json.dumps(
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side},
             "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
             "resample": 3, "rescale_factor": 1 / 255, "image_mean": [0.48145466, 0.4578275, 0.40821073],
             "image_std": [0.26862954, 0.26130258, 0.27577711]}, indent=2) + "\n")
    elif pipeline == "WanImageToVideoPipeline":
        entries |= {"image_encoder": [None, None], "image_processor": [None, None]}
    save_folder(model, pipeline, parts, tokenizers, **entries)
    share(folder, o)
    pipe, r = open_folder(model, pipeline), Recorded()
    asked, told = shown(folder, o["call"])
    spatial = 2 ** (len(o["vae"]["dim_mult"]) - 1)
    references = 1 if isinstance(asked.get("reference_images"), Image.Image) else len(asked.get("reference_images", []))
    size = (1, latent, (o["call"]["num_frames"] - 1) // 4 + 1 + references, o["call"]["height"] // spatial, o["call"]["width"] // spatial)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(7))
    VideoRun.keeps_video = o.get("keeps_video", True)
    VideoRun(r, pipe, is_outer(["blocks", "vace_blocks"], o.get("blocks", ("patch_embedding", "condition_embedder", "proj_out"))),
             {"embeds": "encoder_hidden_states"}).record(asked, noise)
    about = {"flow_shift": o["shift"]}
    for name, differs in o.get("runs", {}).items():
        more, more_told = shown(folder, differs)
        VideoRun(AnotherRun(r, name), pipe, lambda _: False).record({**asked, **more}, noise)
        about[f"{name}_run"] = more_told
    write(r, folder, {**o, "call": told}, "wan", pipeline, **about)
