"""Draws clips with the trained weights, for scores during training. The shipped path is the C++ program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from networks import GRID, PATCH, PIPELINE_TEXT, build_denoiser, text_bias, to_tokens
from pieces import Tokenizer
from teach_vae import Codec


@dataclass
class Setting:
    """How to draw: steps of Euler, guidance (1: one branch), shift of the noise levels, tokens padded to."""

    steps: int = 16
    guidance: float = 3.0
    shift: float = 3.0
    text_length: int = PIPELINE_TEXT


def sigmas(steps: int, shift: float) -> list[float]:
    """Shifted noise levels from 1 to 0, as the pipeline's scheduler spaces them."""
    levels = torch.linspace(1, 1 / 1000, steps + 1)[:-1]
    return (shift * levels / (1 + (shift - 1) * levels)).tolist() + [0.0]


class Sampler:
    """The model, loaded from work/model.pt and work/vae.pt."""

    def __init__(self, work: Path, tokenizer: Tokenizer, device: str):
        self._tokenizer, self._device = tokenizer, device
        self._net = build_denoiser()
        weights = {k: v.float() for k, v in torch.load(work / "model.pt").items()}
        missing = self._net.load_state_dict(weights, strict=False).missing_keys
        if any(not k.startswith("reader.") for k in missing):
            raise SystemExit(f"model.pt does not fit the networks: {missing[:5]}")
        self._net.to(device).eval().requires_grad_(False)
        self.codec = Codec(work / "vae.pt", device)

    @torch.no_grad()
    def draw(self, captions: list[str], setting: Setting, seed: int = 1000, batch: int = 128) -> np.ndarray:
        """Clips as bytes [captions, T, H, W, 3]; clip i starts from the noise of seed + i."""
        out = [self._draw(captions[i : i + batch], setting, seed + i) for i in range(0, len(captions), batch)]
        return np.concatenate(out)

    def _draw(self, captions: list[str], setting: Setting, seed: int) -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        shape = (PATCH // 4, GRID[0], 2 * GRID[1], 2 * GRID[2])
        x = to_tokens(torch.stack([torch.randn(shape, generator=g) for g in generators])).to(self._device)
        levels = sigmas(setting.steps, setting.shift)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            told = self._text(captions, setting.text_length)
            untold = self._text([""] * len(captions), setting.text_length)
            for now, after in zip(levels, levels[1:]):
                velocity = self._velocity(x, now, told)
                if setting.guidance != 1:
                    without = self._velocity(x, now, untold)
                    velocity = without + setting.guidance * (velocity - without)
                x = x + (after - now) * velocity
            return torch.cat([self.codec.decode(z) for z in x.split(32)]).numpy()

    def _text(self, captions: list[str], length: int) -> tuple[Tensor, Tensor]:
        tokens = torch.from_numpy(self._tokenizer.encode(captions)).long().to(self._device)
        return self._net["text"](tokens), text_bias(tokens, float(length))

    def _velocity(self, x: Tensor, level: float, text: tuple[Tensor, Tensor]) -> Tensor:
        time = torch.full((len(x),), 1000 * level, device=self._device)
        return self._net["dit"](x, time, *text).float()
