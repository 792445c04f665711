"""Samples scene descriptions: which objects, where, how large, on which background. No pixels and no words here."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, field

from words import (
    BACKGROUND_NAMES,
    BACKGROUNDS_FAR,
    COLOUR_NAMES,
    HOLLOW_ENOUGH,
    INVERSE,
    OBJECT_STANDS_OUT,
    OBJECTS_FAR,
    PLACES,
    QUIET_BACKGROUNDS,
    RELATIONS,
    SHAPES,
    SIZE,
    pair_is_held_out,
    triple_is_held_out,
)

MIDDLE = SIZE / 2
MARGIN = 8  # pixels kept free along the border
KIND_WEIGHTS = {"one": 0.20, "two": 0.50, "count": 0.18, "and": 0.06, "row": 0.06}


@dataclass
class Thing:
    """One object; x, y, radius in pixels. `size` and `style` are the words for it, None where nothing is said."""

    colour: str
    shape: str
    size: str | None = None
    style: str | None = None
    x: float = MIDDLE
    y: float = MIDDLE
    radius: float = 40.0


@dataclass
class Background:
    """`second` is the other colour of a pattern; `vertical` and `phase` place stripes; `period` in pixels."""

    kind: str
    first: str
    second: str | None = None
    vertical: bool = False
    period: float = 32.0
    phase: float = 0.0
    mentioned: bool = True


@dataclass
class Scene:
    """kind: one, two (with a relation), and (two without), count (equal things), row (three, left to right)."""

    kind: str
    things: list[Thing]
    relation: str | None = None
    place: str | None = None
    in_row: bool = False
    background: Background = field(default_factory=lambda: Background("plain", "white"))

    def to_dict(self) -> dict:
        """Plain data, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict) -> "Scene":
        """The inverse of to_dict."""
        things = [Thing(**t) for t in data["things"]]
        return Scene(**{**data, "things": things, "background": Background(**data["background"])})


@dataclass
class Wish:
    """What a caller fixes in advance; everything else is sampled."""

    kind: str | None = None
    pairs: list[tuple[str, str]] | None = None  # (colour, shape) of the first things
    relation: str | None = None
    held_out_allowed: bool = False
    styles: bool = True


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows a combination that training must never see."""
    things = scene.things
    if any(pair_is_held_out(t.colour, t.shape) for t in things):
        return True
    relations: list[tuple[Thing, str]] = []
    if scene.kind in ("two", "and") and scene.relation in INVERSE:
        relations = [(things[0], scene.relation), (things[1], INVERSE[scene.relation])]
    if scene.kind == "row":
        relations = [(t, "left of") for t in things[:2]] + [(t, "right of") for t in things[1:]]
    return any(triple_is_held_out(t.colour, t.shape, r) for t, r in relations)


def sample(rng: random.Random, wish: Wish | None = None) -> Scene | None:
    """One scene; None only where the wish's pairs contradict each other or are held out."""
    wish = wish or Wish()
    while True:
        kind = wish.kind or rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
        scene = _SAMPLERS[kind](rng, wish)
        if scene is not None and (wish.held_out_allowed or not is_held_out(scene)):
            background = _sample_background(rng, {t.colour for t in scene.things})
            if background is not None:
                scene.background = background
                return scene
        if wish.pairs:
            return None


def _pairs(rng: random.Random, wish: Wish, count: int) -> list[tuple[str, str]]:
    """`count` pairs of colour and shape: the wished ones first."""
    pairs = list(wish.pairs or [])[:count]
    while len(pairs) < count:
        pairs.append((rng.choice(COLOUR_NAMES), rng.choice(SHAPES)))
    return pairs


def _style(rng: random.Random, wish: Wish) -> str | None:
    """A surface; mostly none."""
    return rng.choices([None, "glossy", "outlined", "striped"], [0.76, 0.10, 0.08, 0.06])[0] if wish.styles else None


def _clamp(value: float, low: float, high: float) -> float:
    """`value` moved into low..high."""
    return max(low, min(high, value))


def _sample_one(rng: random.Random, wish: Wish) -> Scene:
    """A single object, sometimes at a named place."""
    (pair,) = _pairs(rng, wish, 1)
    size = rng.choices([None, "small", "large"], [0.5, 0.25, 0.25])[0]
    radius = {None: rng.uniform(44, 58), "small": rng.uniform(24, 30), "large": rng.uniform(80, 98)}[size]
    place = rng.choice(list(PLACES)) if size != "large" and rng.random() < 0.35 else None
    if place:
        reach = (120 - radius) * 0.86
        x, y = (MIDDLE + d * (reach + rng.uniform(-6, 6)) + (0 if d else rng.uniform(-8, 8)) for d in PLACES[place])
    else:
        jitter = min(22, 118 - radius)
        x, y = (MIDDLE + rng.uniform(-jitter, jitter) for _ in range(2))
    return Scene("one", [Thing(*pair, size, _style(rng, wish), x, y, radius)], place=place)


def _sample_two(rng: random.Random, wish: Wish) -> Scene | None:
    """Two objects with a relation that the caption states."""
    relation = wish.relation or rng.choices(RELATIONS, [0.22, 0.22, 0.22, 0.22, 0.12])[0]
    return _inside(rng, wish) if relation == "inside" else _beside("two", relation, rng, wish)


def _sample_and(rng: random.Random, wish: Wish) -> Scene | None:
    """Two objects without a stated relation: the first is left of or above the second."""
    return _beside("and", rng.choice(["left of", "above"]), rng, wish)


def _inside(rng: random.Random, wish: Wish) -> Scene | None:
    """A small object within a large one."""
    inner, outer = _pairs(rng, wish, 2)
    if outer[1] not in HOLLOW_ENOUGH or not OBJECTS_FAR[inner[0], outer[0]]:
        return None
    sizes = rng.choice([None, "small"]), rng.choice([None, "large"])
    radius, x, y = rng.uniform(88, 104), MIDDLE + rng.uniform(-14, 14), MIDDLE + rng.uniform(-14, 14)
    if outer[1] == "triangle":
        radius, y = rng.uniform(98, 110), MIDDLE + rng.uniform(6, 10)
    # The widest part of these shapes is not at their centre.
    lower = {"heart": -0.04, "triangle": 0.18}.get(outer[1], 0.0) * radius
    small = Thing(*inner, sizes[0], None, x + rng.uniform(-4, 4), y + lower + rng.uniform(-4, 4), rng.uniform(24, 31))
    return Scene("two", [small, Thing(*outer, sizes[1], None, x, y, radius)], relation="inside")


def _beside(kind: str, relation: str, rng: random.Random, wish: Wish) -> Scene | None:
    """Two objects side by side or one above the other."""
    pairs = _pairs(rng, wish, 2)
    if pairs[0] == pairs[1]:
        return None
    sizes = [rng.choices([None, "small", "large"], [0.68, 0.17, 0.15])[0] for _ in range(2)]
    if sizes == ["large", "large"]:
        sizes[rng.randrange(2)] = None
    ranges = {None: (36, 46), "small": (22, 28), "large": (56, 62)}
    radii = [rng.uniform(*ranges[s]) for s in sizes]
    along, across = _along(rng, radii), _across(rng, radii)
    if relation in ("right of", "below"):
        along = [SIZE - a for a in along]
    sideways = relation in ("left of", "right of")
    things = []
    for pair, size, radius, a, w in zip(pairs, sizes, radii, along, across):
        x, y = (a, w) if sideways else (w, a)
        things.append(Thing(*pair, size, _style(rng, wish), x, y, radius))
    return Scene(kind, things, relation=relation)


def _along(rng: random.Random, radii: list[float]) -> list[float]:
    """Coordinates of two objects on the axis of their relation, the first one nearer to zero."""
    slack = SIZE - 2 * MARGIN - 2 * sum(radii)
    gap = rng.uniform(8, max(9, min(slack, 60)))
    start = MARGIN + rng.uniform(0.25, 0.75) * (slack - gap)
    return [start + radii[0], start + 2 * radii[0] + gap + radii[1]]


def _across(rng: random.Random, radii: list[float]) -> list[float]:
    """Coordinates on the other axis: about equal."""
    limit = 120 - max(radii)
    common = _clamp(rng.uniform(-20, 20), -limit, limit)
    return [_clamp(MIDDLE + common + rng.uniform(-8, 8), MARGIN + r, SIZE - MARGIN - r) for r in radii]


def _sample_count(rng: random.Random, wish: Wish) -> Scene | None:
    """Two to six equal objects: in a row, in a pattern as on dice, or scattered."""
    (pair,) = _pairs(rng, wish, 1)
    count = rng.choices([2, 3, 4, 5, 6], [0.24, 0.24, 0.22, 0.17, 0.13])[0]
    size = rng.choices([None, "small", "large"], [0.66, 0.24, 0.10 if count < 4 else 0])[0]
    medium = (33, 39) if count < 5 else (28, 33)
    radius = rng.uniform(*{None: medium, "small": (21, 25), "large": (46, 50)}[size])
    style = _style(rng, wish)
    for _ in range(20):
        layout = rng.random()
        in_row = count <= 3 and layout < 0.4
        if in_row:
            points, fitted = _row_points(rng, count, radius)
        else:
            points, fitted = _dice_points(rng, count, radius) if layout < 0.75 else _scatter(rng, count, radius)
        if _fits(points, fitted):
            things = [Thing(*pair, size, style, x, y, fitted) for x, y in points]
            return Scene("count", things, in_row=in_row)
    return None


def _row_points(rng: random.Random, count: int, radius: float) -> tuple[list, float]:
    """Points side by side, and the radius that fits."""
    radius = min(radius, 230 / count / 2 - 4)
    step = min(2 * radius + rng.uniform(8, 24), (240 - 2 * radius) / (count - 1))
    y = MIDDLE + rng.uniform(-20, 20)
    return [(MIDDLE + (i - (count - 1) / 2) * step, y + rng.uniform(-4, 4)) for i in range(count)], radius


_DICE = {
    2: [(-0.62, -0.3), (0.62, 0.3)],
    3: [(0, -0.75), (-0.85, 0.65), (0.85, 0.65)],
    4: [(-0.7, -0.7), (0.7, -0.7), (-0.7, 0.7), (0.7, 0.7)],
    5: [(-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)],
    6: [(-1.1, -0.62), (0, -0.62), (1.1, -0.62), (-1.1, 0.62), (0, 0.62), (1.1, 0.62)],
}


def _dice_points(rng: random.Random, count: int, radius: float) -> tuple[list, float]:
    """Points as on dice, and the radius unchanged."""
    reach = min(114 - radius, radius * 1.9 + 12) * 0.92
    return [tuple(MIDDLE + d * reach + rng.uniform(-4, 4) for d in uv) for uv in _DICE[count]], radius


def _scatter(rng: random.Random, count: int, radius: float) -> tuple[list, float]:
    """Random points that keep apart; the radius shrinks until they fit."""
    for _ in range(200):
        points: list[tuple[float, float]] = []
        low = MARGIN + radius
        for _ in range(20 * count):
            x, y = rng.uniform(low, SIZE - low), rng.uniform(low, SIZE - low)
            if all(math.hypot(x - a, y - b) > 2 * radius + 6 for a, b in points):
                points.append((x, y))
            if len(points) == count:
                return points, radius
        radius *= 0.97
    return [], radius


def _fits(points: list, radius: float) -> bool:
    """Whether equal discs at these points lie in the picture and do not touch."""
    if not points:
        return False
    apart = all(math.dist(p, q) >= 2 * radius + 4 for i, p in enumerate(points) for q in points[:i])
    return apart and all(radius + 5 <= v <= SIZE - 5 - radius for p in points for v in p)


def _sample_row(rng: random.Random, wish: Wish) -> Scene | None:
    """Three different objects from left to right."""
    pairs = _pairs(rng, wish, 3)
    if len(set(pairs)) < 3:
        return None
    radius = rng.uniform(29, 36)
    step = rng.uniform(2 * radius + 6, (236 - 2 * radius) / 2)
    y = MIDDLE + rng.uniform(-20, 20)
    things = []
    for i, pair in enumerate(pairs):
        things.append(Thing(*pair, None, None, MIDDLE + (i - 1) * step, y + rng.uniform(-5, 5), radius))
    return Scene("row", things)


def _sample_background(rng: random.Random, used: set[str]) -> Background | None:
    """A background whose colours keep away from the objects' colours; None if there is none."""

    def allowed(name: str) -> bool:
        return all(OBJECT_STANDS_OUT[u, name] for u in used)

    names = [n for n in BACKGROUND_NAMES if allowed(n)]
    if not names:
        return None
    if rng.random() >= 0.62:
        quiet = [n for n in QUIET_BACKGROUNDS if allowed(n)]
        return Background("plain", rng.choice(quiet or names), mentioned=False)
    kind = rng.choices(["plain", "gradient", "stripes", "checker", "dots"], [0.50, 0.17, 0.12, 0.09, 0.12])[0]
    first = rng.choice(names)
    seconds = [n for n in names if BACKGROUNDS_FAR[first, n]]
    if kind == "plain" or not seconds:
        return Background("plain", first)
    period = rng.choice([32.0, 42.67, 64.0])
    return Background(kind, first, rng.choice(seconds), rng.random() < 0.5, period, rng.random())


_SAMPLERS = {"one": _sample_one, "two": _sample_two, "and": _sample_and, "count": _sample_count, "row": _sample_row}
