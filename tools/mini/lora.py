"""Low-rank adapters on the linear layers of mini: attached for training, written under the names of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Target:
    """Which layers of one network: its name in a pipeline, parts of layer names (any of them), and the rank."""

    network: str
    parts: tuple[str, ...]
    rank: int


class Lora:
    """Adds B A x to the output of each chosen linear layer; A and B are all that learns.

    A starts at random and B at zero, so that the networks start unchanged. Alpha is the rank: the scale is 1.
    """

    def __init__(self, networks: dict[str, nn.Module], targets: list[Target], seed: int = 0):
        self.factors: dict[str, nn.Parameter] = {}
        generator = torch.Generator().manual_seed(seed)
        for target in targets:
            for name, layer in networks[target.network].named_modules():
                if isinstance(layer, nn.Linear) and any(part in f"{name}." for part in target.parts):
                    self._attach(f"{target.network}.{name}", layer, target.rank, generator)

    def _attach(self, name: str, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        """Factors for one layer, and the hook that applies them."""
        down = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
        a, b = nn.Parameter(down), nn.Parameter(torch.zeros(layer.out_features, rank))
        self.factors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        layer.register_forward_hook(lambda _, inputs, out: out + F.linear(F.linear(inputs[0], a), b))

    def parameters(self) -> list[nn.Parameter]:
        """All factors."""
        return list(self.factors.values())

    def save(self, path: Path, note: str) -> None:
        """Writes the factors as float16 safetensors, with a sentence on what they do."""
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {name: p.detach().half().contiguous() for name, p in self.factors.items()}
        save_file(weights, path, metadata={"format": "pt", "description": note})

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Reads factors that save() wrote; the layers must be the same."""
        stored: dict[str, Tensor] = load_file(path)
        if stored.keys() != self.factors.keys():
            raise SystemExit(f"{path}: {sorted(stored.keys() ^ self.factors.keys())[:4]} on one side only")
        for name, p in self.factors.items():
            p.copy_(stored[name])
