"""Writes the diffusers folder (bf16) from the trained files: python3 export.py --work DIR --out models/mini"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from nets import CLIP, T5, TRANSFORMER, VAE
from sampling import rename_clip
from text import TEXT_LENGTH

LARGEST_FOLDER = 16 * 2**20  # bytes
# How mini wants to be run; read by atelier from model_index.json.
DEFAULTS = {
    "num_inference_steps": 12,
    "guidance_scale": 0.0,
    "true_cfg_scale": 2.0,
    "height": 256,
    "width": 256,
    "max_sequence_length": TEXT_LENGTH,
}


def _part(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one network, without its prefix."""
    return {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}


def _filled(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """The module with exactly these parameters, in bf16."""
    names = {n for n, _ in module.named_parameters()}
    if names != set(weights):
        raise SystemExit(f"{type(module).__name__}: {sorted(names ^ set(weights))[:5]} on one side only")
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(weights[name])
    return module.to(torch.bfloat16).eval()


def build_pipeline(work: Path) -> FluxPipeline:
    """The whole pipeline from work/mini.pt, work/vae.pt and both tokenizers in work."""
    saved = torch.load(work / "vae.pt")
    weights = rename_clip(torch.load(work / "mini.pt"), {"clip.text_model."})
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0,
        use_dynamic_shifting=False,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        base_shift=0.5,
        max_shift=1.15,
    )
    vae = AutoencoderKL(**VAE, shift_factor=saved["mean"], scaling_factor=1 / saved["std"])
    return FluxPipeline(
        scheduler=scheduler,
        vae=_filled(vae, saved["weights"]),
        transformer=_filled(FluxTransformer2DModel(**TRANSFORMER), _part(weights, "dit")),
        text_encoder=_filled(CLIPTextModel(CLIPTextConfig(**CLIP)), _part(weights, "clip")),
        text_encoder_2=_filled(T5EncoderModel(T5Config(**T5)), _part(weights, "t5")),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        tokenizer_2=T5TokenizerFast.from_pretrained(work / "tokenizer_2"),
    )


def write_folder(work: Path, out: Path) -> None:
    """Writes the folder, with the tokenizers' own files instead of the large tokenizer.json."""
    shutil.rmtree(out, ignore_errors=True)
    build_pipeline(work).save_pretrained(out)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(out / name)
        shutil.copytree(work / name, out / name)
    index = out / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_atelier": DEFAULTS}, indent=2) + "\n")
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {size} bytes = {size / 2**20:.2f} MiB")
    if size > LARGEST_FOLDER:
        raise SystemExit("the folder is larger than 16 MiB")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    write_folder(a.work, a.out)


if __name__ == "__main__":
    main()
