"""The words of mini's world: colours, shapes, relations, backgrounds, and combinations training never sees."""

from __future__ import annotations

import numpy as np

SIZE = 256  # pictures are SIZE x SIZE pixels

COLOURS = {
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
COLOUR_NAMES = list(COLOURS)
SHAPES = ["circle", "square", "triangle", "star", "heart", "hexagon", "ring", "diamond", "moon", "cross"]
# Shapes that mini itself does not know: an adapter teaches them.
NEW_SHAPES = ["house"]
ALL_SHAPES = SHAPES + NEW_SHAPES
NEW_SHAPES_UNSEEN = ["orange", "blue", "pink"]  # colours in which training never shows a new shape
STYLES = ["glossy", "outlined", "striped"]
# Shapes with enough room inside them to hold another shape.
HOLLOW_ENOUGH = ["circle", "square", "triangle", "heart", "hexagon", "diamond"]

RELATIONS = ["left of", "right of", "above", "below", "inside"]
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
# Named places of a single object: direction from the centre, x to the right, y down.
PLACES = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "center": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}

BACKGROUND_KINDS = ["plain", "gradient", "stripes", "checker", "dots"]
# Used when the caption does not speak of the background.
QUIET_BACKGROUNDS = [
    "white", "beige", "light blue", "light green", "light pink",
    "light yellow", "light purple", "light orange", "gray", "dark blue",
]  # fmt: skip


def _mix(colour: tuple, other: tuple, share: float) -> tuple:
    """`colour` with `share` of `other` mixed in."""
    return tuple(a * (1 - share) + b * share for a, b in zip(colour, other))


def _background_colours() -> dict[str, tuple]:
    """Background name -> RGB; paler or darker than the objects' colours, so that objects stand out."""
    white, night = (255, 255, 255), (16, 16, 24)
    table = {n: _mix(c, white, 0.2) for n, c in COLOURS.items() if n not in ("white", "black")}
    table |= {"white": (247, 247, 244), "black": (36, 38, 46), "gray": (166, 170, 176), "beige": (238, 224, 200)}
    for name in ("blue", "green", "pink", "yellow", "purple", "orange"):
        table[f"light {name}"] = _mix(COLOURS[name], white, 0.68)
    table |= {f"dark {n}": _mix(COLOURS[n], night, 0.58) for n in ("blue", "green", "purple", "red")}
    return table


BACKGROUNDS = _background_colours()
BACKGROUND_NAMES = list(BACKGROUNDS)


def _lab(colour: tuple) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour in 0..255."""
    c = np.asarray(colour, float) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    x = c @ to_xyz / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


_COLOUR_LAB = {n: _lab(c) for n, c in COLOURS.items()}
_BACKGROUND_LAB = {n: _lab(c) for n, c in BACKGROUNDS.items()}


def _far_table(left: dict, right: dict, least: float) -> dict[tuple[str, str], bool]:
    """(name, name) -> whether the two colours differ by more than `least` (CIE76 delta E)."""
    return {(a, b): bool(np.linalg.norm(left[a] - right[b]) > least) for a in left for b in right}


OBJECTS_FAR = _far_table(_COLOUR_LAB, _COLOUR_LAB, 34)
OBJECT_STANDS_OUT = _far_table(_COLOUR_LAB, _BACKGROUND_LAB, 34)
BACKGROUNDS_FAR = _far_table(_BACKGROUND_LAB, _BACKGROUND_LAB, 22)


def pair_is_held_out(colour: str, shape: str) -> bool:
    """Colour and shape that training never joins (11 of the 110 pairs; of a new shape, three colours)."""
    if shape in NEW_SHAPES:
        return colour in NEW_SHAPES_UNSEEN
    return (COLOUR_NAMES.index(colour) + 3 * SHAPES.index(shape)) % 10 == 4


def triple_is_held_out(colour: str, shape: str, relation: str) -> bool:
    """Colour, shape and relation that training never joins (one triple in ten)."""
    if relation not in INVERSE:
        return False
    number = COLOUR_NAMES.index(colour) * 7 + ALL_SHAPES.index(shape) * 3 + RELATIONS.index(relation) * 5
    return number % 10 == 1
