"""Writes the diffusers folder (bf16) from the trained files: python3 export.py --work DIR --out models/mini-video

Needs no diffusers: the networks carry its names, and the configurations are written as it writes them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from autoencoder import VAE
from networks import PIPELINE_TEXT, TRANSFORMER, UMT5
from world import FRAMES, SIZE

LARGEST_FOLDER = int(3.8 * 2**20)  # bytes
VERSION = "0.39.0"  # of diffusers, whose form it is
# How mini-video wants to be run; read by atelier from model_index.json.
DEFAULTS = {
    "num_inference_steps": 24,
    "guidance_scale": 2.5,
    "height": SIZE,
    "width": SIZE,
    "num_frames": FRAMES,
    "fps": 8,
    "max_sequence_length": PIPELINE_TEXT,
}
SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler",
    "_diffusers_version": VERSION,
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "solver_order": 2,
    "solver_type": "bh2",
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
    "lower_order_final": True,
    "disable_corrector": [],
    "final_sigmas_type": "zero",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "sample_max_value": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "rescale_betas_zero_snr": False,
    "solver_p": None,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": VERSION,
    "boundary_ratio": None,
    "expand_timesteps": False,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.bfloat16().contiguous() for k, v in weights.items()}, path, metadata={"format": "pt"})


def _part(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one network, without its prefix."""
    return {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}


def write_folder(work: Path, out: Path) -> None:
    """Writes the folder."""
    shutil.rmtree(out, ignore_errors=True)
    weights, vae = torch.load(work / "model.pt"), torch.load(work / "vae.pt")
    wan = {"_class_name": "WanTransformer3DModel", "_diffusers_version": VERSION} | TRANSFORMER
    _write_json(out / "transformer/config.json", wan)
    _write_weights(out / "transformer/diffusion_pytorch_model.safetensors", _part(weights, "dit"))
    coder = {"_class_name": "AutoencoderKLWan", "_diffusers_version": VERSION} | VAE
    coder |= {"latents_mean": vae["mean"], "latents_std": vae["std"]}
    _write_json(out / "vae/config.json", coder)
    _write_weights(out / "vae/diffusion_pytorch_model.safetensors", vae["weights"])
    umt5 = {"architectures": ["UMT5EncoderModel"], "model_type": "umt5", "torch_dtype": "bfloat16"} | UMT5
    _write_json(out / "text_encoder/config.json", umt5)
    _write_weights(out / "text_encoder/model.safetensors", _part(weights, "text"))
    shutil.copytree(work / "tokenizer", out / "tokenizer")
    _write_json(out / "scheduler/scheduler_config.json", SCHEDULER)
    _write_json(out / "model_index.json", INDEX | {"_atelier": DEFAULTS})
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {size} bytes = {size / 2**20:.2f} MiB")
    if size > LARGEST_FOLDER:
        raise SystemExit("the folder is larger than 3.8 MiB")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    write_folder(a.work, a.out)


if __name__ == "__main__":
    main()
