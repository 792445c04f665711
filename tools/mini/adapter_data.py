"""What the two adapters of mini are shown: scenes, captions, and latents of their pictures from mini's own encoder."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from captions import Speaker
from drawing import pack, render
from nets import pack_latents
from scenes import Scene, Wish, sample
from words import COLOUR_NAMES, NEW_SHAPES, NEW_SHAPES_UNSEEN, SHAPES

RIM = 6.0  # pixels of white paper around each sticker
CAPTIONS = 3  # per scene
NEW_SHARE = 0.75  # of the scenes that teach a shape; the others keep what mini knows
KINDS = {"one": 0.34, "two": 0.34, "count": 0.16, "and": 0.06, "row": 0.10}
BATCH = 8


@dataclass
class Lesson:
    """Latents as tokens [N, 256, 32], and CAPTIONS captions for each."""

    latents: Tensor
    captions: list[list[str]]


def new_pair(rng: random.Random) -> tuple[str, str]:
    """A new shape in a colour that training shows."""
    return rng.choice([c for c in COLOUR_NAMES if c not in NEW_SHAPES_UNSEEN]), rng.choice(NEW_SHAPES)


def scene_with_new_shape(rng: random.Random) -> Scene:
    """A scene with at least one object of a new shape; never a combination that is held out."""
    while True:
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        places = {"two": 2, "and": 2, "row": 3}.get(kind, 1)
        pairs = [(rng.choice(COLOUR_NAMES), rng.choice(SHAPES)) for _ in range(places)]
        pairs[rng.randrange(places)] = new_pair(rng)
        if places > 1 and rng.random() < 0.15:
            pairs[rng.randrange(places)] = new_pair(rng)
        scene = sample(rng, Wish(kind, pairs))
        if scene:
            return scene


def scenes_for(name: str, rng: random.Random, count: int) -> list[Scene]:
    """Scenes for the adapter `name`."""
    share = NEW_SHARE if name in NEW_SHAPES else 0.0
    return [scene_with_new_shape(rng) if rng.random() < share else sample(rng) for _ in range(count)]


@torch.no_grad()
def encode(scenes: list[Scene], vae: AutoencoderKL, rim: float) -> Tensor:
    """Latents of drawn scenes as FLUX's tokens [N, 256, 32], shifted and scaled as the transformer wants them."""
    out = []
    for i in range(0, len(scenes), BATCH):
        part = scenes[i : i + BATCH]
        things, backgrounds = (torch.from_numpy(np.stack(x)) for x in zip(*map(pack, part)))
        pictures = render(things[:, : max(len(s.things) for s in part)], backgrounds, rim)
        latents = vae.encode(pictures * 2 - 1).latent_dist.mode()
        out.append(pack_latents((latents - vae.config.shift_factor) * vae.config.scaling_factor))
    return torch.cat(out)


def lesson(name: str, model: Path, count: int, seed: int, work: Path) -> Lesson:
    """The lesson of an adapter, kept in the work folder: a second call reads it."""
    kept = work / f"{name}-{count}-{seed}.pt"
    if kept.exists():
        return Lesson(**torch.load(kept))
    rng = random.Random(seed)
    # Scenes of few things are drawn faster when they are not drawn beside one of many.
    scenes = sorted(scenes_for(name, rng, count), key=lambda s: len(s.things))
    speaker = Speaker(rng)
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32).eval()
    captions = [[speaker.caption(s) for _ in range(CAPTIONS)] for s in scenes]
    made = Lesson(encode(scenes, vae, RIM if name == "sticker" else 0.0), captions)
    work.mkdir(parents=True, exist_ok=True)
    torch.save(vars(made), kept)
    return made
