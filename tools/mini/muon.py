"""Muon: momentum, orthogonalised by Newton-Schulz steps (K. Jordan, 2024), for matrices inside the blocks."""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonalise(g: Tensor) -> Tensor:
    """A batch of matrices [N, rows, columns] with their singular values moved close to one."""
    x = g.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Matrices of equal shape are stacked and stepped together."""

    def __init__(self, parameters: list[Tensor], momentum: float = 0.95):
        self._momentum = momentum
        self._groups: dict[tuple, list[Tensor]] = {}
        for p in parameters:
            self._groups.setdefault(tuple(p.shape), []).append(p)
        self._buffers = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self._groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients, which are then dropped."""
        for shape, group in self._groups.items():
            gradient = torch.stack([p.grad for p in group]).float()
            buffer = self._buffers[shape]
            buffer.lerp_(gradient, 1 - self._momentum)
            update = orthogonalise(gradient.lerp(buffer, self._momentum)) * max(1, shape[0] / shape[1]) ** 0.5
            torch._foreach_add_(group, list(update.unbind(0)), alpha=-rate)
            for p in group:
                p.grad = None
