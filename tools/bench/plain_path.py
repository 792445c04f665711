"""How near pictures at full size are to the plain path: diffusers' pipeline, layer by layer, without fused kernels or graphs.

python3 tools/bench/plain_path.py --out FILE [--model FOLDER] [--size 1024] [--steps 4] [--device cuda]

Without --model, random weights of FLUX.1-schnell's sizes are written (33 GB in SCRATCH) with the tokenizers of
tests/goldens/flux_dev. The same prompts and seeds are drawn by Atelier (ATELIER) and by diffusers from the same files,
each in bfloat16 and in float32 (TF32 off); what is compared are the 8-bit pictures: PSNR in dB, the least of the prompts, and the
standard deviation of the values, as pictures without any would be alike for nothing.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import shutil
import subprocess
import tempfile

import diffusers
import numpy as np
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cuda/src/atelier"))
PROMPTS = ("A red fox asleep on a mossy stone, soft morning light", "two paper boats", "the harbour of a small town at night")
PARTS = {
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae": ["diffusers", "AutoencoderKL"],
    "transformer": ["diffusers", "FluxTransformer2DModel"], "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
}


def make_model(folder: pathlib.Path) -> None:
    """A diffusers folder with random weights that both programs open."""
    subprocess.run([ATELIER, "t2i", "--dummy", "FLUX.1-schnell", "--save_dummy", folder, "--quiet"], check=True)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(ROOT / "tests/goldens/flux_dev/model" / name, folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline", **PARTS}))


def draw_here(model: pathlib.Path, dtype: str, a: argparse.Namespace, folder: pathlib.Path) -> np.ndarray:
    """[prompts, height, width, 3] of bytes, by Atelier."""
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p, "seed": i}) + "\n" for i, p in enumerate(PROMPTS)))
    command = [ATELIER, "t2i", "--model_name", model, "--prompts_file", folder / "prompts.jsonl", "--device", a.device,
               "--torch_dtype", dtype, "--height", a.size, "--width", a.size, "--num_inference_steps", a.steps,
               "--guidance_scale", 3.5, "--output_dir", folder / dtype, "--quiet"]
    subprocess.run([str(word) for word in command], check=True)
    return np.stack([np.asarray(Image.open(folder / dtype / f"{i:06}.png")) for i in range(len(PROMPTS))])


@torch.inference_mode()
def draw_plainly(model: pathlib.Path, dtype: str, a: argparse.Namespace) -> np.ndarray:
    """The same by diffusers."""
    pipe = diffusers.FluxPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype)).to(a.device)
    pipe.set_progress_bar_config(disable=True)
    side = 2 * (a.size // (2 * pipe.vae_scale_factor))
    drawn = []
    for i, prompt in enumerate(PROMPTS):
        channels = pipe.transformer.config.in_channels // 4
        noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(i))  # the same for both types
        latents = pipe._pack_latents(noise, 1, channels, side, side).to(a.device, pipe.dtype)
        drawn += [pipe(prompt, height=a.size, width=a.size, num_inference_steps=a.steps, guidance_scale=3.5, latents=latents,
                       output_type="np").images[0]]
    return (np.stack(drawn) * 255).round().astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float | None:
    """The least PSNR of the pictures in dB; None where all are equal."""
    errors = ((a.astype(np.float64) - b) ** 2).mean(axis=(1, 2, 3)).max()
    return round(10 * math.log10(255**2 / errors), 2) if errors else None


def main() -> None:
    """Draws four times and compares each with each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path)
    for name, usual in (("size", 1024), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--device", default="cuda")
    a = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    drawn = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as scratch:
        scratch = pathlib.Path(scratch)
        model = a.model or scratch / "model"
        if not a.model:
            make_model(model)
        for dtype in ("bfloat16", "float32"):
            drawn[f"Atelier, {dtype}"] = draw_here(model, dtype, a, scratch)
            drawn[f"diffusers, {dtype}"] = draw_plainly(model, dtype, a)
            if a.device == "cuda":
                torch.cuda.empty_cache()
    rows = [{"of": x, "to": y, "psnr_db": psnr(drawn[x], drawn[y])} for x, y in itertools.combinations(drawn, 2)]
    for row in rows:
        print(f"{row['of']:22} {row['to']:22} {row['psnr_db']} dB", flush=True)
    what = f"8-bit pictures of {len(PROMPTS)} prompts at {a.size} px, {a.steps} steps, by diffusers layer by layer and by Atelier; the least PSNR"
    a.out.write_text(json.dumps({
        "what": what, "model": str(a.model) if a.model else "FLUX.1-schnell's sizes, random weights",
        "command": "tools/bench/plain_path.py --out FILE", "diffusers": diffusers.__version__, "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if a.device == "cuda" else "CPU",
        "standard_deviation_of_values": round(float(drawn["diffusers, float32"].std()), 1), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
