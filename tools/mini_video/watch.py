"""Watches a clip by classic image processing: what is seen, where it goes, and whether that is what was asked for.

Numpy and scipy only, with the colours and templates of the picture checker; it shares no code with film.py, so that
neither can hide the other's mistakes.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

import world  # noqa: F401  (finds the picture checker)
from vision import COLOUR_LAB, DISTANCE, NAMES, NEAREST, shape_of

GROUNDS = {
    "white": (247, 247, 244),
    "black": (36, 38, 46),
    "gray": (166, 170, 176),
    "light blue": (190, 207, 242),
    "light green": (196, 227, 201),
    "dark blue": (31, 53, 99),
}
DIFFERENT = 16  # L*a*b* distance between background and object
LEAST_AREA = 24  # pixels
LIKENESS = 0.62  # overlap with the template of the best frames
SLOW_BELOW, QUICK_ABOVE = 14.5, 27.0  # pixels over the clip
STILL_WITHIN = 3.0
NEAR_WALL = 5.0
BACK = 1.2  # pixels a frame that a steady object may go the other way


@dataclass
class Seen:
    """What was seen: names, and centre and area of the object in each frame (nan and 0 where there is none)."""

    colour: str
    shape: str
    likeness: float
    background: str
    centres: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    strangers: int
    shapes: list[str] = field(default_factory=list)


def _indices(pixels: np.ndarray) -> np.ndarray:
    """Rows of the checker's tables for pixels [..., 3]."""
    q = (pixels.astype(np.uint8) >> 2).astype(np.int32)
    return (q[..., 0] * 64 + q[..., 1]) * 64 + q[..., 2]


def _ground(frames: np.ndarray) -> tuple[str, np.ndarray]:
    """The background's name and its L*a*b*."""
    sides = [frames[:, :4], frames[:, -4:], frames[:, :, :4], frames[:, :, -4:]]
    median = np.median(np.concatenate([s.reshape(-1, 3) for s in sides]), 0)
    lab = COLOUR_LAB[_indices(median)]
    names = list(GROUNDS)
    table = COLOUR_LAB[_indices(np.array([GROUNDS[n] for n in names]))]
    return names[int(np.linalg.norm(table - lab, axis=1).argmin())], lab


def _largest(mask: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """The largest connected part, if it is large enough, and whether there is another such part."""
    labelled, _ = ndimage.label(mask)
    sizes = np.bincount(labelled.ravel(), minlength=2)[1:]
    found = labelled == 1 + int(sizes.argmax()) if sizes.max() >= LEAST_AREA else None
    return found, bool((sizes > LEAST_AREA).sum() > 1)


def watch(frames: np.ndarray) -> Seen:
    """Frames as bytes [T, H, W, 3]."""
    background, ground = _ground(frames)
    count = len(frames)
    centres, boxes, areas = np.full((count, 2), np.nan), np.full((count, 4), np.nan), np.zeros(count)
    colours: collections.Counter = collections.Counter()
    votes: collections.defaultdict = collections.defaultdict(list)
    strangers = 0
    for t, frame in enumerate(frames):
        index = _indices(frame)
        contrast = np.linalg.norm(COLOUR_LAB[index] - ground, axis=-1)
        largest, others = _largest(contrast > DIFFERENT)
        strangers += others
        if largest is None:
            continue
        # The outline lies where the contrast is half of that inside: blur then moves no edge.
        largest, _ = _largest((contrast > np.percentile(contrast[largest], 70) / 2) & largest)
        if largest is None:
            continue
        rows, columns = ndimage.find_objects(largest.astype(np.int32))[0]
        boxes[t] = columns.start, rows.start, columns.stop, rows.stop
        centres[t] = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
        areas[t] = largest.sum()
        inner = ndimage.binary_erosion(largest, iterations=2)
        named = index[inner if inner.any() else largest]
        colours.update(NEAREST[named[DISTANCE[named] < 42]].tolist())
        name, overlap = shape_of(largest)
        votes[name].append(overlap)
    shape = max(votes, key=lambda n: sum(votes[n])) if votes else "none"
    likeness = float(np.mean(sorted(votes[shape])[-5:])) if votes else 0.0
    colour = NAMES[colours.most_common(1)[0][0]] if colours else "none"
    return Seen(colour, shape, likeness, background, centres, areas, boxes, strangers)


def _axis(direction: tuple[int, int]) -> tuple[int, int]:
    """(axis, sign) of a direction."""
    return (0, direction[0]) if direction[0] else (1, direction[1])


def _moves(seen: Seen, direction: tuple[int, int], speed: str) -> bool:
    """There all the time, steadily that way, at that speed."""
    axis, sign = _axis(direction)
    if np.isnan(seen.centres).any():
        return False
    along, across = seen.centres[:, axis] * sign, seen.centres[:, 1 - axis]
    gone = along[-1] - along[0]
    steady = (np.diff(along) > -BACK).all() and np.ptp(across) < max(3.5, 0.3 * gone)
    paces = {"slowly": 4 < gone < SLOW_BELOW, "": SLOW_BELOW <= gone <= QUICK_ABOVE, "quickly": gone > QUICK_ABOVE}
    return bool(steady and paces[speed])


def _bounces(seen: Seen, direction: tuple[int, int], side: int) -> bool:
    """Goes to that wall, turns near it, and comes back."""
    axis, sign = _axis(direction)
    if np.isnan(seen.centres).any():
        return False
    along, across = seen.centres[:, axis] * sign, seen.centres[:, 1 - axis]
    turn = int(along.argmax())
    edge = seen.boxes[turn, axis + 2] if sign > 0 else seen.boxes[turn, axis]
    gap = side - edge if sign > 0 else edge
    there, back = along[turn] - along[0], along[turn] - along[-1]
    steady = (np.diff(along[: turn + 1]) > -BACK).all() and (np.diff(along[turn:]) < BACK).all()
    return bool(steady and 3 <= turn <= len(along) - 4 and min(there, back) > 6 and gap < NEAR_WALL
                and np.ptp(across) < 5)


def _stays(seen: Seen, frames: slice) -> bool:
    """Present and in one place in these frames."""
    centres = seen.centres[frames]
    return not np.isnan(centres).any() and bool((np.ptp(centres, 0) < STILL_WITHIN).all())


def verdicts(seen: Seen, clip: world.Clip, side: int) -> dict[str, bool]:
    """What of the caption is seen: colour, shape, motion, background, and nothing else."""
    absent = np.isnan(seen.centres[:, 0])
    if clip.kind == "move":
        motion = _moves(seen, clip.direction, clip.speed)
    elif clip.kind == "bounce":
        motion = _bounces(seen, clip.direction, side)
    elif clip.kind == "appear":
        motion = bool(absent[:3].all()) and _stays(seen, slice(-3, None))
    elif clip.kind == "disappear":
        motion = bool(absent[-3:].all()) and _stays(seen, slice(0, 3))
    else:
        motion = _stays(seen, slice(None))
    return {
        "colour": seen.colour == clip.colour,
        "shape": seen.shape == clip.shape and seen.likeness > LIKENESS,
        "motion": motion,
        "background": not clip.background_told or seen.background == clip.background,
        "alone": seen.strangers <= 2,
    }


def judge(frames: np.ndarray, clip: world.Clip) -> dict[str, bool]:
    """verdicts() of frames as bytes [T, H, W, 3]."""
    return verdicts(watch(frames), clip, frames.shape[1])
