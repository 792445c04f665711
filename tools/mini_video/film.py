"""Draws clips with torch from signed distances, anti-aliased, in batches, on a CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from world import FRAMES, SIZE, Clip, path
from drawing import signed_distance
from words import BACKGROUNDS, COLOURS, SHAPES

HEAD = 8  # shape, radius, colour (3), background (3); then x, y, size of each frame
NUMBERS = HEAD + 3 * FRAMES


def pack(clip: Clip) -> np.ndarray:
    """The clip as numbers: [NUMBERS], colours in 0..1."""
    colours = [v / 255 for v in (*COLOURS[clip.colour], *BACKGROUNDS[clip.background])]
    head = np.array([SHAPES.index(clip.shape), clip.radius, *colours], np.float32)
    return np.concatenate([head, path(clip).ravel()])


def window(head: Tensor, where: Tensor, side: int, frames: int) -> tuple[Tensor, Tensor]:
    """What whole() gives, cut at random to `frames` frames of `side` x `side` pixels around the object."""
    batch, device = len(where), where.device
    start = torch.randint(0, FRAMES - frames + 1, (batch, 1), device=device)
    index = start + torch.arange(frames, device=device)
    cut = where.gather(1, index[..., None].expand(-1, -1, 3))
    jitter = (torch.rand(batch, 1, 2, device=device) - 0.5) * 0.8 * side
    corner = cut[:, frames // 2 : frames // 2 + 1, :2] - side / 2 + jitter
    return head, torch.cat([cut[..., :2] - corner, cut[..., 2:]], 2)


def whole(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Packed clips as they are: (head, where)."""
    return packed[:, :HEAD], packed[:, HEAD:].view(len(packed), FRAMES, 3)


def render(head: Tensor, where: Tensor, side: int = SIZE) -> Tensor:
    """Frames [B, T, 3, side, side] in 0..1 from the head of packed clips and (x, y, size) of each frame."""
    head, where = head.view(-1, HEAD, 1, 1, 1), where[..., None, None]
    line = torch.arange(side, device=head.device, dtype=torch.float32) + 0.5
    radius = head[:, 1] * where[:, :, 2].clamp(min=1e-3)
    u = (line.view(1, 1, 1, -1) - where[:, :, 0]) / radius
    v = (line.view(1, 1, -1, 1) - where[:, :, 1]) / radius
    u, v = torch.broadcast_tensors(u, v)
    cover = (0.5 - signed_distance(head[:, 0], u, v) * radius).clamp(0, 1) * (where[:, :, 2] > 0.05)
    shade = 1 - 0.07 * (u + v).clamp(-1.5, 1.5)
    channels = [head[:, 5 + c] * (1 - cover) + head[:, 2 + c] * shade * cover for c in range(3)]
    return torch.stack(channels, 2).clamp(0, 1)
