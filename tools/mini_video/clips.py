"""The training set: many clips as numbers, four captions each as tokens, and what the captions tell."""

from __future__ import annotations

import random
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from film import pack
from phrases import Narrator
from pieces import Tokenizer, labels
from world import sample_shown

CAPTIONS = 4  # per clip
CHUNK = 2000


@dataclass
class Clips:
    """Packed clips [N, NUMBERS], tokens [N, CAPTIONS, TEXT_LENGTH], labels [N, FIELDS]."""

    packed: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor

    def to(self, device: str) -> "Clips":
        """All tensors on a device."""
        return Clips(*(t.to(device) for t in vars(self).values()))


def _make_chunk(job: tuple[int, int, Path]) -> list[np.ndarray]:
    """One chunk of the set; runs in a process of its own."""
    seed, size, vocabulary = job
    rng = random.Random(seed)
    narrator, tokenizer = Narrator(rng), Tokenizer(vocabulary)
    packed, told, lines = [], [], []
    for _ in range(size):
        clip = sample_shown(rng)
        packed.append(pack(clip))
        told.append(labels(clip))
        lines += [narrator.caption(clip) for _ in range(CAPTIONS)]
    return [np.stack(packed), tokenizer.encode(lines).reshape(size, CAPTIONS, -1), np.array(told)]


def make_clips(size: int, seed: int, vocabulary: Path, processes: int) -> Clips:
    """`size` clips (a multiple of CHUNK, or fewer than CHUNK), the same for the same seed."""
    start, chunk = time.time(), min(CHUNK, size)
    jobs = [(seed * 100003 + i, chunk, vocabulary) for i in range(size // chunk)]
    with ProcessPoolExecutor(processes) as pool:
        parts = list(pool.map(_make_chunk, jobs))
    made = Clips(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts)))
    print(f"data: {len(made.packed)} clips, {CAPTIONS} captions each, {time.time() - start:.0f} s", flush=True)
    return made
