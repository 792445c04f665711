"""The little world of mini-video: one coloured shape that moves, bounces, appears, disappears or stands still."""

from __future__ import annotations

import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "mini"))  # colours and shapes are those of mini

from words import OBJECT_STANDS_OUT

SIZE = 64  # frames are SIZE x SIZE pixels
FRAMES = 17
COLOUR_NAMES = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black"]
SHAPE_NAMES = ["circle", "square", "triangle", "star", "heart", "cross"]
BACKGROUND_NAMES = ["white", "black", "gray", "light blue", "light green", "dark blue"]
MOTIONS = [f"move {d}" for d in ("right", "left", "up", "down")]
MOTIONS += [f"bounce {d}" for d in ("right", "left", "up", "down")] + ["appear", "disappear", "still"]
SPEEDS = ["", "slowly", "quickly"]  # "" is the pace between the two; only of "move"
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}  # x to the right, y down

TRAVELS = {"slowly": (7, 11), "": (18, 23), "quickly": (31, 35)}  # pixels over the whole clip
RADII = (9, 12)
GAP = 2  # pixels between a bouncing object and the wall when it turns
# How far a shape reaches from its centre, in radii: to either side, up, down.
EXTENTS = {
    "circle": (0.94, 0.94, 0.94),
    "square": (0.81, 0.81, 0.81),
    "triangle": (0.93, 0.92, 0.7),
    "star": (0.95, 1.0, 0.81),
    "heart": (0.94, 1.0, 0.72),
    "cross": (0.91, 0.91, 0.91),
}
GROWING = 3  # frames from nothing to full size


@dataclass
class Clip:
    """One clip. x, y: where the object starts; amount: pixels travelled, or pixels a frame of a bounce;
    turn: the frame at which it turns, appears or disappears."""

    colour: str
    shape: str
    motion: str
    speed: str
    background: str
    background_told: bool
    radius: float
    x: float
    y: float
    amount: float = 0.0
    turn: float = 0.0

    def to_dict(self) -> dict:
        """All fields, for JSON."""
        return asdict(self)

    @property
    def kind(self) -> str:
        """The motion without its direction."""
        return self.motion.split()[0]

    @property
    def direction(self) -> tuple[int, int]:
        """Where it moves at first; (0, 0) where it does not."""
        words = self.motion.split()
        return DIRECTIONS[words[1]] if len(words) > 1 else (0, 0)


def pair_is_held_out(colour: str, shape: str) -> bool:
    """Colour and shape that training never joins (6 of the 54 pairs)."""
    return (COLOUR_NAMES.index(colour) + 2 * SHAPE_NAMES.index(shape)) % 9 == 4


def triple_is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Colour, shape and motion that training never joins (about one triple in ten)."""
    number = COLOUR_NAMES.index(colour) * 7 + SHAPE_NAMES.index(shape) * 3 + MOTIONS.index(motion) * 9
    return number % 10 == 1


def is_held_out(clip: Clip) -> bool:
    """Whether training must not show it."""
    pair = pair_is_held_out(clip.colour, clip.shape)
    return pair or triple_is_held_out(clip.colour, clip.shape, clip.motion)


def sample_motion(rng: random.Random) -> str:
    """Half of the clips move, a quarter bounces."""
    kind = rng.choices(["move", "bounce", "appear", "disappear", "still"], [10, 5, 2, 2, 1.5])[0]
    return f"{kind} {rng.choice(list(DIRECTIONS))}" if kind in ("move", "bounce") else kind


def sample(rng: random.Random, motion: str | None = None) -> Clip:
    """A random clip, held-out combinations included."""
    motion = motion or sample_motion(rng)
    colour, shape = rng.choice(COLOUR_NAMES), rng.choice(SHAPE_NAMES)
    background = rng.choice([b for b in BACKGROUND_NAMES if OBJECT_STANDS_OUT[colour, b]])
    speed = rng.choice(SPEEDS) if motion.startswith("move") else ""
    clip = Clip(colour, shape, motion, speed, background, rng.random() < 0.4, rng.uniform(*RADII), 0, 0)
    place(clip, rng)
    return clip


def sample_shown(rng: random.Random) -> Clip:
    """A random clip that training may show."""
    while is_held_out(clip := sample(rng)):
        pass
    return clip


def place(clip: Clip, rng: random.Random) -> None:
    """Chooses where the object starts and how far it goes, so that it stays inside the frame."""
    near, far = clip.radius + GAP, SIZE - clip.radius - GAP
    start = [rng.uniform(near, far), rng.uniform(near, far)]
    if clip.kind == "move":
        clip.amount = rng.uniform(*TRAVELS[clip.speed])
    elif clip.kind == "bounce":
        clip.turn, clip.amount = rng.uniform(6.5, 9.5), rng.uniform(2, 3)
    elif clip.kind in ("appear", "disappear"):
        clip.turn = rng.uniform(5, 10)
    for axis, sign in enumerate(clip.direction):
        if sign and clip.kind == "move":
            free = rng.uniform(near, far - clip.amount)
            start[axis] = free if sign > 0 else free + clip.amount
        elif sign:
            reach = EXTENTS[clip.shape][0 if axis == 0 else 1 + (sign > 0)] * clip.radius
            away = clip.turn * clip.amount + reach + GAP
            start[axis] = SIZE - away if sign > 0 else away
    clip.x, clip.y = start


def path(clip: Clip) -> np.ndarray:
    """Where the object is in each frame, and how large compared with its radius: [FRAMES, (x, y, size)]."""
    t = np.arange(FRAMES, dtype=np.float64)
    gone, size = np.zeros(FRAMES), np.ones(FRAMES)
    if clip.kind == "move":
        gone = t * clip.amount / (FRAMES - 1)
    elif clip.kind == "bounce":
        gone = (clip.turn - np.abs(t - clip.turn)) * clip.amount
    elif clip.kind == "appear":
        size = np.clip((t - clip.turn) / GROWING, 0, 1)
    elif clip.kind == "disappear":
        size = 1 - np.clip((t - clip.turn) / GROWING, 0, 1)
    dx, dy = clip.direction
    return np.stack([clip.x + dx * gone, clip.y + dy * gone, size], 1).astype(np.float32)
