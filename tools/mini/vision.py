"""Reads colour, shape, place and extent of objects out of a picture by classic image processing.

Numpy, scipy and PIL only; it shares no code with drawing.py, so that neither can hide the other's mistakes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

PALETTE = {
    "red": (222, 56, 58),
    "orange": (245, 140, 36),
    "yellow": (250, 205, 52),
    "green": (70, 168, 86),
    "blue": (52, 104, 214),
    "purple": (136, 78, 196),
    "pink": (246, 142, 184),
    "white": (250, 250, 248),
    "black": (40, 40, 48),
    "brown": (136, 88, 56),
    "cyan": (58, 192, 206),
}
NAMES = list(PALETTE)
NOTHING = 99
FURTHEST_COLOUR = 42  # beyond this distance a pixel has no colour of the palette
LEAST_AREA = 330  # pixels
TEMPLATE_SIDE = 48
Templates = dict[str, tuple[np.ndarray, float]]  # shape name -> cropped mask and aspect


@dataclass
class Region:
    """One object found: centre and box (left, top, right, bottom) in pixels; overlap with its template, 0..1."""

    colour: str
    shape: str
    x: float
    y: float
    overlap: float
    box: tuple[int, int, int, int]


def _lab(colour: np.ndarray) -> np.ndarray:
    """L*a*b* of sRGB in 0..255, lightness weighted 0.6: shading should matter less than hue."""
    c = np.asarray(colour, np.float32) / 255
    c = np.where(c > 0.04045, ((np.maximum(c, 0) + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]], np.float32)
    x = c @ to_xyz / np.array([0.9505, 1, 1.089], np.float32)
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    lightness = 0.6 * (116 * f[..., 1] - 16)
    return np.stack([lightness, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1).astype(np.float32)


def _colour_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every colour of 6 bits a channel: L*a*b*, the nearest name's index, the distance to it."""
    grid = np.stack(np.meshgrid(*[np.arange(64) * 4 + 2] * 3, indexing="ij"), -1).reshape(-1, 3)
    lab = _lab(grid)
    distances = np.stack([np.linalg.norm(lab - _lab(np.array(PALETTE[n])), axis=1) for n in NAMES])
    return lab, distances.argmin(0).astype(np.int16), distances.min(0).astype(np.float32)


COLOUR_LAB, NEAREST, DISTANCE = _colour_tables()


def _polygon(points: list[tuple[float, float]]) -> np.ndarray:
    """A filled polygon, coordinates in -1..1, as a mask of 400 x 400."""
    picture = Image.new("1", (400, 400))
    ImageDraw.Draw(picture).polygon([(200 + x * 180, 200 + y * 180) for x, y in points], fill=1)
    return np.array(picture)


def _corners(count: int, turn: float = 0.0) -> list[tuple[float, float]]:
    """A regular polygon; `turn` in steps of a corner."""
    angles = [2 * math.pi * (i + turn) / count for i in range(count)]
    return [(math.cos(t), math.sin(t)) for t in angles]


def _star_points() -> list[tuple[float, float]]:
    """Five outer and five inner corners, tip up."""
    points = []
    for i in range(10):
        angle, radius = -math.pi / 2 + i * math.pi / 5, 0.46 if i % 2 else 1
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


def _heart_points() -> list[tuple[float, float]]:
    """The well-known heart curve."""
    points = []
    for t in np.linspace(0, 2 * math.pi, 120):
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.96 * math.sin(t) ** 3, -0.06 * y))
    return points


def _crop(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The mask's bounding box resized to a small square, and its width over height."""
    ys, xs = np.where(mask)
    box = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    small = Image.fromarray((box * 255).astype(np.uint8)).resize((TEMPLATE_SIDE, TEMPLATE_SIDE), Image.BILINEAR)
    return np.asarray(small) > 127, box.shape[1] / box.shape[0]


def _templates() -> Templates:
    """Shape name -> cropped mask and aspect."""
    row, column = np.mgrid[:400, :400]
    x, y = (column - 200) / 180, (row - 200) / 180
    radius, bar = np.hypot(x, y), 0.32 / 0.91
    masks = {
        "circle": _polygon(_corners(90)),
        "square": _polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
        "triangle": _polygon(_corners(3, -0.75)),
        "hexagon": _polygon(_corners(6)),
        "star": _polygon(_star_points()),
        "diamond": _polygon([(0, -1), (0.78, 0), (0, 1), (-0.78, 0)]),
        "heart": _polygon(_heart_points()),
        "ring": (radius < 1) & (radius > 0.47),
        "moon": (radius < 0.95) & (np.hypot(x - 0.42, y + 0.12) > 0.76),
        "cross": ((abs(x) < bar) & (abs(y) < 1)) | ((abs(y) < bar) & (abs(x) < 1)),
    }
    return {name: _crop(mask) for name, mask in masks.items()}


TEMPLATES = _templates()
_HOUSE = [(0, -1), (1, -0.1), (0.69, -0.1), (0.69, 0.86), (-0.69, 0.86), (-0.69, -0.1), (-1, -0.1)]
# What an adapter may teach; looked for only when asked, so that scores of mini itself stay what they are.
WITH_HOUSE = TEMPLATES | {"house": _crop(_polygon(_HOUSE))}


def shape_of(mask: np.ndarray, templates: Templates = TEMPLATES) -> tuple[str, float]:
    """The best template and the overlap with it, less a penalty for another aspect."""
    cropped, aspect = _crop(mask)
    best = ("none", 0.0)
    for name, (template, template_aspect) in templates.items():
        overlap = (cropped & template).sum() / max(1, (cropped | template).sum())
        score = float(overlap - 0.5 * abs(math.log(aspect / template_aspect)))
        if score > best[1]:
            best = (name, score)
    return best


def _background_colours(picture: np.ndarray) -> np.ndarray:
    """One or two colours seen along the border, and the same in shadow, as L*a*b*."""
    sides = [picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]]
    edge = np.concatenate([s.reshape(-1, 3) for s in sides])
    first = np.median(edge, 0)
    other = np.linalg.norm(_lab(edge) - _lab(first), axis=1) > 14
    colours = [first]
    if other.mean() > 0.08:
        colours.append(np.median(edge[other], 0))
    return np.concatenate([_lab(np.array(colours)), _lab(np.array(colours) * 0.8)])


def _named_pixels(picture: np.ndarray) -> np.ndarray:
    """Index into NAMES for each pixel; NOTHING for the background and for unnamed colours."""
    q = (picture.astype(np.uint8) >> 2).astype(np.int32)
    q = (q[..., 0] * 64 + q[..., 1]) * 64 + q[..., 2]
    index, distance, lab = NEAREST[q].copy(), DISTANCE[q], COLOUR_LAB[q]
    index[distance > FURTHEST_COLOUR] = NOTHING
    for colour in _background_colours(picture):
        index[((lab - colour) ** 2).sum(-1) < distance * distance] = NOTHING
    return index


def find_regions(picture: np.ndarray, fill_holes: bool = False, templates: Templates = TEMPLATES) -> list[Region]:
    """Connected regions of one colour that do not touch the border. `fill_holes`: also try each one filled."""
    index = _named_pixels(np.asarray(picture).astype(np.float32))
    regions = []
    for number, name in enumerate(NAMES):
        mask = index == number
        if mask.sum() < LEAST_AREA:
            continue
        mask = ndimage.binary_opening(mask, iterations=2)
        labelled, _ = ndimage.label(mask)
        for j, where in enumerate(ndimage.find_objects(labelled), 1):
            region = labelled[where] == j
            if region.sum() >= LEAST_AREA and not _touches(where, index.shape):
                regions.append(_region(name, region, where, fill_holes, templates))
    return regions


def _touches(where: tuple, extent: tuple) -> bool:
    """Whether the slices `where` reach the border of the picture."""
    return any(s.start <= 1 or s.stop >= side - 1 for s, side in zip(where, extent))


def _region(name: str, mask: np.ndarray, where: tuple, fill_holes: bool, templates: Templates) -> Region:
    """The region at the slices `where`, named after the template that fits it best."""
    top, bottom, left, right = where[0].start, where[0].stop, where[1].start, where[1].stop
    shape, overlap = shape_of(mask, templates)
    if fill_holes:
        filled = shape_of(ndimage.binary_fill_holes(mask), templates)
        shape, overlap = max((shape, overlap), filled, key=lambda found: found[1])
    return Region(name, shape, (left + right) / 2, (top + bottom) / 2, overlap, (left, top, right, bottom))


LEAST_PAPER = 200  # of 255, in every channel
PAPER_BAND = (2, 5)  # pixels outside the region


def paper_share(picture: np.ndarray, region: Region) -> float:
    """Share of the pixels close around a region that are as white as paper."""
    left, top, right, bottom = (v + d for v, d in zip(region.box, (-8, -8, 8, 8)))
    window = np.s_[max(0, top) : bottom, max(0, left) : right]
    index = _named_pixels(np.asarray(picture).astype(np.float32))[window]
    mask = ndimage.binary_opening(index == NAMES.index(region.colour), iterations=2)
    near, far = (ndimage.binary_dilation(ndimage.binary_fill_holes(mask), iterations=i) for i in PAPER_BAND)
    band = np.asarray(picture)[window][far & ~near]
    return float((band.min(-1) >= LEAST_PAPER).mean()) if len(band) else 0.0
