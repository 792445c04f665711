"""Muon for matrices and convolutions beside Adam for the rest, with an average of the weights; no wait for the GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import world  # noqa: F401  (finds mini's modules)
from muon import orthogonalise

MOMENTUM = 0.95


class Optimizers:
    """Steps all parameters of a module. `share` scales every rate; it is a tensor so that a CUDA graph can hold it."""

    def __init__(self, net: nn.Module, matrices: list[Tensor], groups: list[tuple[list, float]], rate: float):
        self.parameters = list(net.parameters())
        device = self.parameters[0].device
        self.share = torch.zeros((), device=device)
        self.average = [p.detach().clone() for p in self.parameters]
        self._rate, self._by_shape = rate, {}
        for p in matrices:
            self._by_shape.setdefault(tuple(p.shape), []).append(p)
        self._momenta = {
            shape: torch.zeros(len(group), shape[0], group[0][0].numel(), device=device)
            for shape, group in self._by_shape.items()
        }
        self._groups = [([p for p in group], peak) for group, peak in groups]
        self._first = [[torch.zeros_like(p) for p in group] for group, _ in self._groups]
        self._second = [[torch.zeros_like(p) for p in group] for group, _ in self._groups]
        self._steps = torch.zeros((), device=device)

    def _tensors(self) -> list[Tensor]:
        moments = [t for group in [*self._first, *self._second] for t in group]
        return [*self.parameters, *self.average, *self._momenta.values(), *moments, self._steps]

    def state(self) -> list[Tensor]:
        """A copy of the weights and of all that a step changes."""
        return [t.detach().clone() for t in self._tensors()]

    @torch.no_grad()
    def restore(self, state: list[Tensor]) -> None:
        """Puts a copy back, in place."""
        for t, kept in zip(self._tensors(), state):
            t.copy_(kept)

    @torch.no_grad()
    def step(self, keep: float, clip: float = 1.0) -> None:
        """One update from the gradients, which are then dropped; `keep`: what the average keeps of itself."""
        gradients = [p.grad for p in self.parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp(max=1))
        for shape, group in self._by_shape.items():
            self._muon(shape, group)
        self._steps += 1
        for group, first, second in zip(self._groups, self._first, self._second):
            self._adam(*group, first, second)
        for p in self.parameters:
            p.grad = None
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)

    def _muon(self, shape: tuple, group: list[Tensor]) -> None:
        gradient = torch.stack([p.grad.flatten(1) for p in group])
        momentum = self._momenta[shape]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalise(gradient.lerp(momentum, MOMENTUM))
        update = update * (-self._rate * max(1, update.shape[1] / update.shape[2]) ** 0.5 * self.share)
        torch._foreach_add_(group, [u.view(shape) for u in update.unbind(0)])

    def _adam(self, group: list[Tensor], peak: float, first: list, second: list, b1=0.9, b2=0.99) -> None:
        gradients = [p.grad for p in group]
        torch._foreach_lerp_(first, gradients, 1 - b1)
        torch._foreach_lerp_(second, torch._foreach_mul(gradients, gradients), 1 - b2)
        size = torch._foreach_sqrt(torch._foreach_div(second, 1 - b2**self._steps))
        torch._foreach_add_(size, 1e-8)
        update = torch._foreach_div(first, size)
        torch._foreach_mul_(update, -peak * self.share / (1 - b1**self._steps))
        torch._foreach_add_(group, update)


def split(net: nn.Module, is_matrix) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of which is_matrix(name, p) holds, and the others."""
    named = list(net.named_parameters())
    return [p for n, p in named if is_matrix(n, p)], [p for n, p in named if not is_matrix(n, p)]
