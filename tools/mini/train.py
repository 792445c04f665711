"""Trains mini from scratch on one GPU, in resumable parts.

  python3 train.py vocabularies --work DIR            both tokenizers (CPU, seconds)
  python3 train.py prepare --work DIR                 the text encoder's first lessons, the autoencoder, latents
  python3 train.py flow --work DIR --part SECONDS     the denoiser; repeat until --total seconds are done
--tiny runs any part for a few steps on a CPU. Scenes and latents are made anew where they are not in DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from check import evaluate
from data import Scenes, make_scenes
from sampling import Sampler, Setting
from text import TEXT_LENGTH, Tokenizers
from train_flow import FlowTrainer, Plan
from train_text import pretrain
from train_vae import Codec, encode_scenes, train_vae
from vocab import write_vocabularies

TINY_STEPS = 3


def load_scenes(a: argparse.Namespace) -> Scenes:
    """The training set, from the work folder if it is there."""
    file = a.work / "scenes.pt"
    if file.exists():
        return Scenes(**torch.load(file)).to(a.device)
    scenes = make_scenes(a.scenes, a.seed, a.vocabularies, a.processes)
    torch.save(vars(scenes), file)
    return scenes.to(a.device)


def load_latents(a: argparse.Namespace, scenes: Scenes) -> torch.Tensor:
    """The scenes' latents, from the work folder if they are there."""
    file = a.work / "latents.pt"
    if file.exists():
        return torch.load(file, map_location=a.device)
    latents = encode_scenes(scenes, Codec(a.work / "vae.pt", a.device))
    torch.save(latents, file)
    return latents


def prepare(a: argparse.Namespace) -> None:
    """Text encoder, autoencoder, latents."""
    scenes = load_scenes(a)
    steps = TINY_STEPS if a.tiny else None
    batch = 8 if a.tiny else 1024
    torch.save(pretrain(scenes, Tokenizers(a.vocabularies), a.text_seconds, batch, steps), a.work / "text.pt")
    torch.manual_seed(a.seed)
    torch.save(train_vae(scenes, a.vae_seconds, steps), a.work / "vae.pt")
    load_latents(a, scenes)


def flow(a: argparse.Namespace) -> None:
    """A part of the denoiser's training, then a first score."""
    scenes = load_scenes(a)
    latents = load_latents(a, scenes)
    trainer = FlowTrainer(a.work, scenes, latents, Tokenizers(a.vocabularies))
    torch.manual_seed(a.seed + trainer.step)
    if a.device == "cuda":
        trainer.compile()
    plan = Plan(a.total, a.part, steps=TINY_STEPS, batch=4) if a.tiny else Plan(a.total, a.part)
    trainer.run(plan)
    trainer.save()
    score(a)


def score(a: argparse.Namespace) -> None:
    """Scores pictures drawn by Python, to steer the training; the final scores are the C++ program's."""
    sampler = Sampler(a.work, Tokenizers(a.vocabularies), a.device)
    settings = [Setting(steps=2)] if a.tiny else [Setting(*s) for s in a.settings]
    results = {}
    for s in settings:
        name = f"{s.steps} steps, guidance {s.guidance}, text {s.text_length}"
        results[name] = evaluate(lambda captions, s=s: sampler.draw(captions, s), a.captions, a.processes)
        print(name, json.dumps(results[name]), flush=True)
    (a.work / "python-scores.json").write_text(json.dumps(results, indent=1) + "\n")


def vocabularies(a: argparse.Namespace) -> None:
    """Both tokenizers."""
    write_vocabularies(a.vocabularies, TEXT_LENGTH, 2000 if a.tiny else 40000)


def main() -> None:
    """Reads the command line and runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"vocabularies": vocabularies, "prepare": prepare, "flow": flow, "score": score}
    parser.add_argument("part_name", choices=list(parts))
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--vocabularies", type=Path, help="folder of both tokenizers; default: the work folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=240000)
    parser.add_argument("--text_seconds", type=float, default=25)
    parser.add_argument("--vae_seconds", type=float, default=160)
    parser.add_argument("--total", type=float, default=650, help="seconds of flow training over all parts")
    parser.add_argument("--part", type=float, default=400, help="seconds of flow training in this call")
    parser.add_argument("--captions", type=int, default=60, help="test captions a category")
    parser.add_argument("--settings", type=json.loads, default=[[12, 1.0], [12, 2.0]], help="[[steps, guidance], ..]")
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    a.vocabularies = a.vocabularies or a.work
    a.device = "cuda" if torch.cuda.is_available() else "cpu"
    if a.tiny:
        a.scenes, a.captions, a.processes = 32, 2, 1
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    # cuDNN's attention gave an illegal memory access in the compiled backward pass of torch 2.11.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.benchmark = True
    start = time.time()
    parts[a.part_name](a)
    print(f"{a.part_name}: {time.time() - start:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
