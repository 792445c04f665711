"""Trains mini-video from scratch on one GPU, in resumable parts.

  python3 train.py vocabulary --work DIR          the vocabulary (CPU, seconds)
  python3 train.py text --work DIR                the text encoder's lessons
  python3 train.py vae --work DIR                 the autoencoder
  python3 train.py latents --work DIR             all clips as latents (flow does it if they are not there)
  python3 train.py flow --work DIR --part SECONDS the transformer and text encoder; repeat until --total is done
  python3 train.py score --work DIR               clips drawn with several settings, and their scores
  python3 train.py all --work DIR                 all of these that are not done yet
--tiny runs any part for a few steps on a CPU. Clips are made anew by each part.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from clips import Clips, make_clips
from drawing_clips import Sampler, Setting
from pieces import Tokenizer, write_vocabulary
from score import evaluate, strip_sheet, test_set
from teach_flow import FlowTrainer, Plan
from teach_text import teach_text
from teach_vae import Codec, VaeTrainer, encode_clips

TINY_STEPS = 3
SHEET_CLIPS = 15


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
        trainer = VaeTrainer(a.work, self._clips, a.vae_scale)
        trainer.run(a.vae_seconds, self._steps)
        trainer.save()
        torch.save(trainer.measured(1 if a.tiny else 24), a.work / "vae.pt")

    def latents(self) -> None:
        """All clips through the autoencoder."""
        codec = Codec(self._a.work / "vae.pt", self._a.device)
        torch.save(encode_clips(self._clips, codec), self._a.work / "latents.pt")

    def flow(self) -> None:
        """A part of the flow training; the latents are made beside its compiling."""
        a, file = self._a, self._a.work / "latents.pt"
        maker = None if file.exists() else subprocess.Popen([sys.executable, __file__, "latents", *a.shared])
        graphed = a.device == "cuda" and not a.no_graph
        trainer = FlowTrainer(a.work, self._clips, self._tokenizer, graphed)
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
        self.flow()
        self.score()


def main() -> None:
    """Reads the command line and runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part_name", choices=["vocabulary", "text", "vae", "latents", "flow", "score", "all"])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=32000)
    parser.add_argument("--text_seconds", type=float, default=10)
    parser.add_argument("--vae_seconds", type=float, default=140)
    parser.add_argument("--vae_scale", type=int, default=1, help="multiplies the autoencoder's batch")
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
    a.shared = ["--work", a.work, "--seed", a.seed, "--clips", a.clips, "--processes", a.processes]
    a.shared = [str(v) for v in a.shared] + ["--tiny"] * a.tiny
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    # cuDNN's attention gave an illegal memory access in the compiled backward pass of torch 2.11.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.benchmark = True
    getattr(Training(a), a.part_name)()
    print(f"{a.part_name}: {time.time() - start:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
