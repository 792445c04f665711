"""Makes the training set: many scenes as numbers, three captions each as tokens, and what the captions tell."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from captions import Speaker
from drawing import pack
from scenes import sample
from text import Tokenizers, labels

CAPTIONS = 3  # per scene
CHUNK = 2000
CLIP_STORED = 32  # the end token pads: more columns would hold nothing else


@dataclass
class Scenes:
    """Packed things and backgrounds, T5 and CLIP tokens [N, CAPTIONS, tokens], labels [N, LABELS]."""

    things: torch.Tensor
    backgrounds: torch.Tensor
    t5: torch.Tensor
    clip: torch.Tensor
    labels: torch.Tensor

    def to(self, device: str) -> "Scenes":
        """All tensors on a device."""
        return Scenes(*(t.to(device) for t in vars(self).values()))


def _make_chunk(job: tuple[int, int, Path]) -> list[np.ndarray]:
    """One chunk of the set; runs in a process of its own."""
    seed, size, vocabularies = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rng = random.Random(seed)
    speaker, tokenizers = Speaker(rng), Tokenizers(vocabularies)
    packed, told, lines = [], [], []
    for _ in range(size):
        scene = sample(rng)
        packed.append(pack(scene))
        told.append(labels(scene))
        lines += [speaker.caption(scene) for _ in range(CAPTIONS)]
    t5 = tokenizers.t5(lines).reshape(size, CAPTIONS, -1)
    clip = tokenizers.clip(lines, CLIP_STORED).reshape(size, CAPTIONS, -1)
    return [np.stack([p[0] for p in packed]), np.stack([p[1] for p in packed]), t5, clip, np.stack(told)]


def make_scenes(size: int, seed: int, vocabularies: Path, processes: int) -> Scenes:
    """`size` scenes (a multiple of CHUNK, or fewer than CHUNK), the same for the same seed."""
    start = time.time()
    chunk = min(CHUNK, size)
    jobs = [(seed * 100003 + i, chunk, vocabularies) for i in range(size // chunk)]
    with ProcessPoolExecutor(processes) as pool:
        parts = list(pool.map(_make_chunk, jobs))
    scenes = Scenes(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts)))
    print(f"data: {len(scenes.things)} scenes, {CAPTIONS} captions each, {time.time() - start:.0f} s", flush=True)
    return scenes
