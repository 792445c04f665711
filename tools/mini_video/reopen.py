"""Makes a work folder of a diffusers folder, so that its flow training can go on: python3 reopen.py --model models/mini-video --work DIR

export.py turned round. What is not shipped starts anew: the reader, momenta, the count of steps and seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from networks import build_denoiser
from teach_flow import write_flow


def reopen(model: Path, work: Path) -> None:
    """Writes tokenizer/, vae.pt, flow.pt and model.pt."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    coder = json.loads((model / "vae/config.json").read_text())
    vae = {"weights": load_file(model / "vae/diffusion_pytorch_model.safetensors")}
    torch.save(vae | {"mean": coder["latents_mean"], "std": coder["latents_std"]}, work / "vae.pt")
    net = build_denoiser()
    parts = {"dit": "transformer/diffusion_pytorch_model.safetensors", "text": "text_encoder/model.safetensors"}
    for name, file in parts.items():
        shipped = load_file(model / file)
        shipped.pop("encoder.embed_tokens.weight", None)  # transformers' second name of "shared.weight"
        net[name].load_state_dict({k: v.float() for k, v in shipped.items()})
    weights = {k: p.detach() for k, p in net.named_parameters()}
    write_flow(work, weights, [p.bfloat16() for p in weights.values()], 0, 0.0)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    a = parser.parse_args()
    reopen(a.model, a.work)


if __name__ == "__main__":
    main()
