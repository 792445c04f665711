"""RMS norm over channels, SiLU, and each frame beside the two before it: all of an autoencoder that is no convolution.

On a GPU one kernel reads a pixel's channels once and writes them to the three frames that look at them; plain PyTorch
(`plain`, which is also the reference) needs a dozen passes over memory for the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = 3  # frames that a causal convolution looks at
ROWS = 64  # pixels that a program of the kernel takes

try:
    import triton
    import triton.language as tl
except ImportError:  # the CPU's PyTorch comes without it
    triton = None


def stacked(x: Tensor) -> Tensor:
    """[B, T, H, W, C] -> [B, T, H, W, 3C]: channels of the frames t - 2, t - 1 and t; zeros before the first."""
    frames = x.shape[1]
    padded = F.pad(x, (0, 0, 0, 0, 0, 0, TAPS - 1, 0))
    return torch.cat([padded[:, i : i + frames] for i in range(TAPS)], -1)


def rms_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """x [..., C] divided by its rms over C, times gamma [C]."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).clamp(min=1e-12)
    return x * (len(gamma) ** 0.5 / length).to(x.dtype) * gamma.to(x.dtype)


def plain(x: Tensor, gamma: Tensor) -> Tensor:
    """stacked(silu(rms_norm(x)))."""
    return stacked(F.silu(rms_norm(x, gamma)))


def normed(x: Tensor, gamma: Tensor) -> Tensor:
    """plain(x, gamma), on a GPU in one kernel: [B, T, H, W, C] -> [B, T, H, W, 3C]."""
    return _Normed.apply(x, gamma) if x.is_cuda else plain(x, gamma)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, gamma)
        out = x.new_empty(*x.shape[:-1], TAPS * x.shape[-1])
        pixels = x[..., 0].numel()
        grid = (triton.cdiv(pixels, ROWS),)
        _forward[grid](x, gamma, out, pixels, *_sizes(x))
        return out

    @staticmethod
    def backward(ctx, upward: Tensor):
        x, gamma = ctx.saved_tensors
        pixels = x[..., 0].numel()
        programs = triton.cdiv(pixels, ROWS)
        to_x = torch.empty_like(x)
        to_gamma = torch.empty(programs, len(gamma), device=x.device, dtype=torch.float32)
        _backward[(programs,)](x, gamma, upward.contiguous(), to_x, to_gamma, pixels, *_sizes(x))
        return to_x, to_gamma.sum(0)


def _sizes(x: Tensor) -> tuple[int, ...]:
    """What the kernels are compiled for: frames, pixels of a frame, channels and the next power of two, rows."""
    channels = x.shape[-1]
    return x.shape[1], x.shape[2] * x.shape[3], channels, triton.next_power_of_2(channels), ROWS


if triton is not None:

    @triton.jit
    def _forward(x_at, gamma_at, out_at, pixels, FRAMES: tl.constexpr, PLACES: tl.constexpr, C: tl.constexpr,
                 WIDE: tl.constexpr, ROWS: tl.constexpr):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        column = tl.arange(0, WIDE)
        there = (row < pixels)[:, None] & (column < C)[None, :]
        x = tl.load(x_at + row[:, None] * C + column[None, :], mask=there, other=0).to(tl.float32)
        gamma = tl.load(gamma_at + column, mask=column < C, other=0).to(tl.float32)
        y = x * tl.rsqrt(tl.maximum(tl.sum(x * x, 1), 1e-24) / C)[:, None] * gamma[None, :]
        y = (y * tl.sigmoid(y)).to(out_at.dtype.element_ty)
        frame = (row // PLACES) % FRAMES
        for later in tl.static_range(3):  # who looks at this pixel: its own frame and the next two
            at = out_at + (row + later * PLACES)[:, None] * (3 * C) + (2 - later) * C + column[None, :]
            tl.store(at, y, mask=there & (frame + later < FRAMES)[:, None])
        zeros = tl.zeros_like(y)
        for before in tl.static_range(1, 3):  # frames before the first
            at = out_at + row[:, None] * (3 * C) + (2 - before) * C + column[None, :]
            tl.store(at, zeros, mask=there & (frame < before)[:, None])

    @triton.jit
    def _backward(x_at, gamma_at, up_at, to_x_at, to_gamma_at, pixels, FRAMES: tl.constexpr, PLACES: tl.constexpr,
                  C: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        column = tl.arange(0, WIDE)
        there = (row < pixels)[:, None] & (column < C)[None, :]
        at = row[:, None] * C + column[None, :]
        x = tl.load(x_at + at, mask=there, other=0).to(tl.float32)
        gamma = tl.load(gamma_at + column, mask=column < C, other=0).to(tl.float32)[None, :]
        frame = (row // PLACES) % FRAMES
        up = tl.zeros_like(x)
        for later in tl.static_range(3):
            from_ = up_at + (row + later * PLACES)[:, None] * (3 * C) + (2 - later) * C + column[None, :]
            up += tl.load(from_, mask=there & (frame + later < FRAMES)[:, None], other=0).to(tl.float32)
        scale = tl.rsqrt(tl.maximum(tl.sum(x * x, 1), 1e-24) / C)[:, None]
        unit = x * scale
        y = unit * gamma
        gate = tl.sigmoid(y)
        up = up * gate * (1 + y * (1 - gate))
        tl.store(to_gamma_at + tl.program_id(0) * C + column, tl.sum(up * unit, 0), mask=column < C)
        up = up * gamma
        inner = tl.sum(up * unit, 1)[:, None] / C
        tl.store(to_x_at + at, (scale * (up - unit * inner)).to(to_x_at.dtype.element_ty), mask=there)
