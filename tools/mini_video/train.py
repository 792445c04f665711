"""Trains mini-video from scratch on one GPU, in resumable parts.

  python3 train.py vocabulary --work DIR          the vocabulary (CPU, seconds)
  python3 train.py text --work DIR                the text encoder's lessons
  python3 train.py vae --work DIR                 the autoencoder
  python3 train.py settle --work DIR              its decoder learns to take latents without noise (CPU, minutes)
  python3 train.py coded --work DIR               the checker on true clips that went through the autoencoder
  python3 train.py latents --work DIR             all clips as latents (flow does it if they are not there)
  python3 train.py flow --work DIR --part SECONDS the transformer and text encoder; repeat until --total is done
  python3 train.py score --work DIR               clips drawn with several settings, and their scores
  python3 train.py all --work DIR                 all of these that are not done yet
Several parts may be named; clips are made anew by each call. --tiny runs any part for a few steps on a CPU.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from clips import Clips, make_clips
from drawing_clips import Sampler, Setting
from film import pack, render, whole
from pieces import Tokenizer, write_vocabulary
from settle import settle
from score import evaluate, shares, strip_sheet, test_set
from teach_flow import FlowTrainer, Plan
from teach_text import teach_text
from teach_vae import LESSONS, TINY_LESSONS, Codec, VaeTrainer, encode_clips

TINY_STEPS = 3
SHEET_CLIPS = 15
SETTLING_CLIPS, SETTLING_STEPS = 64, 300


class Training:
    """The parts, with what they share."""

    def __init__(self, a: argparse.Namespace):
        self._a = a
        self._steps = TINY_STEPS if a.tiny else None
        self._folder = a.work / "tokenizer"

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._folder)

    @functools.cached_property
    def _clips(self) -> Clips:
        a = self._a
        return make_clips(a.clips, a.seed, self._folder, a.processes).to(a.device)

    def vocabulary(self) -> None:
        """The vocabulary."""
        write_vocabulary(self._folder, 2000 if self._a.tiny else 30000)

    def text(self) -> None:
        """The text encoder's lessons."""
        learned = teach_text(self._clips, self._a.text_seconds, 8 if self._a.tiny else 1024, self._steps)
        torch.save(learned, self._a.work / "text.pt")

    def vae(self) -> None:
        """The autoencoder."""
        a = self._a
        trainer = VaeTrainer(a.work, self._clips, TINY_LESSONS if a.tiny else LESSONS, a.graphed)
        trainer.run(a.vae_seconds, self._steps)
        trainer.save()
        torch.save(trainer.measured(1 if a.tiny else 24), a.work / "vae.pt")

    def settle(self) -> None:
        """The decoder learns to take clean latents."""
        count, steps = (4, TINY_STEPS) if self._a.tiny else (SETTLING_CLIPS, SETTLING_STEPS)
        settle(self._a.work / "vae.pt", self._clips, count, steps)

    def coded(self) -> None:
        """The checker on clips through the autoencoder, as they are and with noise on the latents (in their stds)."""
        a, codec = self._a, Codec(self._a.work / "vae.pt", self._a.device)
        items = test_set(a.captions)
        packed = torch.from_numpy(np.stack([pack(clip) for _, clip, _ in items])).to(a.device)
        tokens = torch.cat([codec.encode(render(*whole(p))) for p in packed.split(32)])
        for noise in (0.0, 0.1, 0.2):
            noisy = tokens + noise * torch.randn_like(tokens)
            clips = np.concatenate([codec.decode(t).numpy() for t in noisy.split(32)])
            jobs = [(frames, clip) for frames, (_, clip, _) in zip(clips, items)]
            result = shares([category for category, _, _ in items], jobs, a.processes)
            print(f"clips through the autoencoder, noise {noise}:", json.dumps(result), flush=True)
            if noise in (0.0, 0.2):
                rows = [(caption, frames) for (_, _, caption), frames in zip(items, clips)]
                strip_sheet(rows[:: a.captions]).save(a.work / f"coded-{noise}.png", optimize=True)

    def latents(self) -> None:
        """All clips through the autoencoder."""
        codec = Codec(self._a.work / "vae.pt", self._a.device)
        torch.save(encode_clips(self._clips, codec), self._a.work / "latents.pt")

    def flow(self) -> None:
        """A part of the flow training; the latents are made beside its compiling."""
        a, file = self._a, self._a.work / "latents.pt"
        maker = None if file.exists() else subprocess.Popen([sys.executable, __file__, "latents", *a.shared])
        trainer = FlowTrainer(a.work, self._clips, self._tokenizer, a.graphed)
        torch.manual_seed(a.seed + trainer.step)
        small = {"batch": 4, "steps": self._steps} if a.tiny else {}
        plan = Plan(a.total, a.part, a.end, a.last, **small)
        trainer.rehearse(plan.batch)
        if maker and maker.wait() != 0:
            raise SystemExit("the latents could not be made")
        trainer.run(plan, torch.load(file, map_location=a.device))
        trainer.save()

    def score(self) -> None:
        """Scores clips drawn by Python, to steer the training; the final scores are the C++ program's."""
        a = self._a
        sampler = Sampler(a.work, self._tokenizer, a.device)
        settings = [Setting(steps=2)] if a.tiny else [Setting(*s) for s in a.settings]
        results = {}
        for s in settings:
            name = f"{s.steps} steps, guidance {s.guidance}, shift {s.shift}, text {s.text_length}"
            results[name] = evaluate(lambda captions, s=s: sampler.draw(captions, s), a.captions, a.processes)
            print(name, json.dumps(results[name]), flush=True)
        (a.work / "python-scores.json").write_text(json.dumps(results, indent=1) + "\n")
        captions = [caption for _, _, caption in test_set(1)][:SHEET_CLIPS]
        drawn = sampler.draw(captions, settings[0])
        strip_sheet(list(zip(captions, drawn))).save(a.work / "sheet.png", optimize=True)

    def all(self) -> None:
        """Every part that is not done yet."""
        for name, made in (("vocabulary", "tokenizer"), ("text", "text.pt"), ("vae", "vae.pt")):
            if not (self._a.work / made).exists():
                getattr(self, name)()
                if name == "vae":
                    self.settle()
        self.flow()
        self.score()


def main() -> None:
    """Reads the command line and runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["vocabulary", "text", "vae", "settle", "coded", "latents", "flow", "score", "all"]
    parser.add_argument("parts", nargs="+", choices=parts, metavar="PART")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=64000)
    parser.add_argument("--text_seconds", type=float, default=10)
    parser.add_argument("--vae_seconds", type=float, default=140)
    parser.add_argument("--total", type=float, default=300, help="seconds of flow training over all parts")
    parser.add_argument("--part", type=float, default=300, help="seconds of flow training in this call")
    until = "no flow training later than this many seconds after the start"
    parser.add_argument("--until", type=float, default=float("inf"), help=until)
    parser.add_argument("--last", action="store_true", help="the rate falls to its end within this part")
    parser.add_argument("--captions", type=int, default=20, help="test captions a category")
    parser.add_argument(
        "--settings", type=json.loads, default=[[16, 3.0], [16, 1.0], [16, 2.0]], help="[[steps, guidance, ..], ..]"
    )
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--no_graph", action="store_true", help="launch the kernels of a step one by one")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    a = parser.parse_args()
    start = time.time()
    a.end = start + a.until
    a.work.mkdir(parents=True, exist_ok=True)
    a.device = "cuda" if torch.cuda.is_available() else "cpu"
    if a.tiny:
        a.clips, a.captions, a.processes = 16, 1, 1
    a.graphed = a.device == "cuda" and not a.no_graph
    a.shared = ["--work", a.work, "--seed", a.seed, "--clips", a.clips, "--processes", a.processes]
    a.shared = [str(v) for v in a.shared] + ["--tiny"] * a.tiny
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    # cuDNN's attention gave an illegal memory access in the compiled backward pass of torch 2.11.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.benchmark = True
    training = Training(a)
    for part in a.parts:
        getattr(training, part)()
        print(f"{part}: done after {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
