"""Draws scenes with torch from signed distances, anti-aliased, in batches, on a CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scenes import Scene, Thing
from words import ALL_SHAPES, BACKGROUND_KINDS, BACKGROUNDS, COLOURS, SIZE, STYLES

MAX_THINGS = 6
# present, shape, x, y, radius, red, green, blue, glossy, outlined, striped
THING_NUMBERS = 8 + len(STYLES)
# kind, first colour (3), second colour (3), period, vertical, phase
BACKGROUND_NUMBERS = 10
PAPER = 0.98  # of white


def pack(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The scene as numbers: [MAX_THINGS, THING_NUMBERS] and [BACKGROUND_NUMBERS], colours in 0..1."""
    things = np.zeros((MAX_THINGS, THING_NUMBERS), np.float32)
    # What lies inside something must be drawn after it.
    order = scene.things[::-1] if scene.relation == "inside" else scene.things
    for row, thing in zip(things, order):
        row[:] = _pack_thing(thing)
    b = scene.background
    first, second = BACKGROUNDS[b.first], BACKGROUNDS[b.second or b.first]
    colours = [v / 255 for v in (*first, *second)]
    background = [BACKGROUND_KINDS.index(b.kind), *colours, b.period, b.vertical, b.phase]
    return things, np.array(background, np.float32)


def _pack_thing(thing: Thing) -> list[float]:
    """One row of pack()."""
    colour = [v / 255 for v in COLOURS[thing.colour]]
    styles = [thing.style == s for s in STYLES]
    return [1, ALL_SHAPES.index(thing.shape), thing.x, thing.y, thing.radius, *colour, *styles]


def render(things: Tensor, backgrounds: Tensor, rim: float = 0.0) -> Tensor:
    """Pictures [B, 3, SIZE, SIZE] in 0..1 from packed things [B, things, ..] and backgrounds [B, ..].

    `rim`: pixels of white paper around each object, as around a sticker.
    """
    batch = things.shape[0]
    line = torch.arange(SIZE, device=things.device, dtype=torch.float32) + 0.5
    x = line.view(1, 1, -1).expand(batch, SIZE, SIZE)
    y = line.view(1, -1, 1).expand(batch, SIZE, SIZE)
    picture = _draw_background(backgrounds.view(batch, -1, 1, 1), x, y)
    for i in range(things.shape[1]):
        picture = _draw_thing(picture, things[:, i].view(batch, -1, 1, 1), (x, y), rim)
    return torch.stack(picture, 1).clamp(0, 1)


def _square_wave_distance(phase: Tensor, period: Tensor) -> Tensor:
    """Signed distance in pixels to the border of stripes; `phase` counts periods."""
    return ((phase % 1.0 - 0.5).abs() - 0.25) * period


def _draw_background(b: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """The three channels of the background; b: [B, BACKGROUND_NUMBERS, 1, 1]."""
    kind, period, vertical, phase = b[:, 0], b[:, 7], b[:, 8], b[:, 9]
    stripes = _square_wave_distance(torch.where(vertical > 0.5, x, y) / period + phase, period) + 0.5
    across = _square_wave_distance(x / period + phase, period)
    down = _square_wave_distance(y / period + phase, period)
    checker = 0.5 - torch.sign(across * down) * torch.minimum(across.abs(), down.abs())
    share = torch.where(kind == 1, (y - 16) / (SIZE - 32), torch.zeros_like(y))
    share = torch.where(kind == 2, stripes, share)
    share = torch.where(kind == 3, checker, share)
    share = torch.where(kind == 4, _dots(x, y, period * 0.8, phase), share).clamp(0, 1)
    light = 1.02 - 0.05 * ((x - 90) ** 2 + (y - 70) ** 2) / SIZE**2  # soft, from the upper left
    return [(b[:, 1 + c] * (1 - share) + b[:, 4 + c] * share) * light for c in range(3)]


def _dots(x: Tensor, y: Tensor, pitch: Tensor, phase: Tensor) -> Tensor:
    """Coverage of dots in rows, every second row shifted by half a pitch."""
    row = torch.floor(y / pitch)
    dx = ((x / pitch + phase + 0.5 * (row % 2)) % 1.0 - 0.5) * pitch
    dy = (y / pitch - row - 0.5) * pitch
    return pitch * 0.2 - torch.sqrt(dx * dx + dy * dy + 1e-9) + 0.5


def _draw_thing(picture: list[Tensor], t: Tensor, at: tuple[Tensor, Tensor], rim: float) -> list[Tensor]:
    """Draws one object with its shadow over the three channels; t: [B, THING_NUMBERS, 1, 1]."""
    x, y = at
    present, shape, radius = t[:, 0], t[:, 1], t[:, 4].clamp(min=1)
    u, v = (x - t[:, 2]) / radius, (y - t[:, 3]) / radius
    shadow = signed_distance(shape, u - 0.05 - 2 / radius, v - 0.08 - 3 / radius) * radius - rim
    dark = present * 0.30 * torch.sigmoid(-shadow / (2.2 + 0.03 * radius))
    inside = signed_distance(shape, u, v) * radius
    cover = present * (0.5 - inside).clamp(0, 1)
    surface = _surface(t, u, v, inside, radius)
    below = [p * (1 - dark) for p in picture]
    if rim > 0:
        paper = present * (rim + 0.5 - inside).clamp(0, 1)
        below = [p * (1 - paper) + PAPER * paper for p in below]
    return [p * (1 - cover) + s.clamp(0, 1) * cover for p, s in zip(below, surface)]


def _surface(t: Tensor, u: Tensor, v: Tensor, inside: Tensor, radius: Tensor) -> list[Tensor]:
    """The three channels of an object's surface: light, gloss, bands, contour."""
    glossy, outlined, striped = t[:, 8], t[:, 9], t[:, 10]
    rim = -torch.sigmoid((inside + 5) / 1.6) * (u + v).clamp(-1, 1)
    ball = 0.22 * (u * u + v * v).clamp(max=1.4) - 0.06
    shade = 1 - 0.085 * (u + v) + 0.07 * rim - glossy * ball
    spot = glossy * 0.75 * torch.exp(-((u + 0.34) ** 2 + (v + 0.36) ** 2) / 0.035)
    band = striped * (((((u + v) * radius / 16) % 1.0) - 0.5).abs() * 16 - 4.7).clamp(0, 1) * 0.8
    edge = outlined * (inside + 5.0).clamp(0, 1)
    channels = []
    for c in range(3):
        colour = t[:, 5 + c] * shade
        colour = colour + (1 - colour) * spot
        colour = colour * (1 - band) + (0.45 * colour + 0.55) * band
        channels.append(colour * (1 - edge) + 0.13 * edge)
    return channels


def _length(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean length, with a gradient everywhere."""
    return torch.sqrt(a * a + b * b + 1e-12)


def _box(u: Tensor, v: Tensor, half_width: float, half_height: float) -> Tensor:
    """Signed distance to an upright box."""
    du, dv = u.abs() - half_width, v.abs() - half_height
    return _length(du.clamp(min=0), dv.clamp(min=0)) + torch.maximum(du, dv).clamp(max=0)


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to an equilateral triangle, tip up."""
    k = 0.8660254
    return torch.maximum(u.abs() * k - (v - 0.16) * 0.5, v - 0.16) - 0.54


def _star(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to a five-pointed star: folded twice, then one edge."""
    c, s, inner = 0.809016994, 0.587785252, 0.46
    px, py = u.abs(), -v
    for side in (1, -1):
        over = 2 * torch.clamp(side * px * c - py * s, min=0)
        px, py = px - side * over * c, py + over * s
    px, py = px.abs(), py - 0.98
    bx, by = inner * s, inner * c - 1
    along = ((px * bx + py * by) / (bx * bx + by * by)).clamp(0, 0.98)
    return _length(px - bx * along, py - by * along) * torch.sign(py * bx - px * by) - 0.02


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to a heart."""
    x, y = u.abs() / 1.56, (0.72 - v) / 1.56
    lobe = _length(x - 0.25, y - 0.75) - 0.35355
    along = 0.5 * (x + y).clamp(min=0)
    near = torch.minimum(x**2 + (y - 1) ** 2, (x - along) ** 2 + (y - along) ** 2)
    body = torch.sqrt(near + 1e-12) * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, body) * 1.56


def _hexagon(u: Tensor, v: Tensor) -> Tensor:
    """Distance to the nearest side of a hexagon."""
    k = 0.8660254
    sides = torch.maximum((u * k + v * 0.5).abs(), (u * k - v * 0.5).abs())
    return torch.maximum(v.abs(), sides) - 0.84


def _moon(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to a crescent, one disc without another, a little tilted; exact outside its tips."""
    x, y = 0.9615 * u - 0.2747 * v, (0.2747 * u + 0.9615 * v).abs()
    tip_x, tip_y, shift = 0.5903, 0.7443, 0.4368
    beyond = shift * (x * tip_y - y * tip_x) > shift**2 * (tip_y - y).clamp(min=0)
    crescent = torch.maximum(_length(u, v) - 0.95, 0.76 - _length(x - shift, y))
    return torch.where(beyond, _length(x - tip_x, y - tip_y), crescent)


def _house(u: Tensor, v: Tensor) -> Tensor:
    """Distance to a house: a roof with eaves on upright walls."""
    slope = 0.6667 * u.abs() - 0.7451 * (v + 0.95)
    return torch.minimum(torch.maximum(slope, v + 0.1), _box(u, v - 0.36, 0.64, 0.47)) - 0.03


def signed_distance(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance in radii to the shape with index `shape` in ALL_SHAPES; u to the right, v down."""
    distance = _length(u, v) - 0.94
    others = [
        _box(u, v, 0.76, 0.76) - 0.05,
        _triangle(u, v),
        _star(u, v),
        _heart(u, v),
        _hexagon(u, v),
        (_length(u, v) - 0.7).abs() - 0.25,
        (u.abs() * 1.28 + v.abs() - 0.97) * 0.616,
        _moon(u, v),
        torch.minimum(_box(u, v, 0.29, 0.88), _box(u, v, 0.88, 0.29)) - 0.03,
        _house(u, v),
    ]
    for index, other in enumerate(others, 1):
        distance = torch.where(shape == index, other, distance)
    return distance
