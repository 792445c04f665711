"""Draws pictures with the trained weights, for scores during training. The shipped path is the C++ program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets import build_denoiser, pack_latents, position_ids, unpack_latents
from text import TEXT_LENGTH, Tokenizers
from train_vae import Codec


@dataclass
class Setting:
    """How to draw: number of steps and the scale of true classifier-free guidance (1: one branch)."""

    steps: int = 12
    guidance: float = 2.0
    text_length: int = TEXT_LENGTH


def sigmas(steps: int) -> list[float]:
    """FLUX's noise levels without shifting, from 1 to 0."""
    return torch.linspace(1, 1 / steps, steps).tolist() + [0.0]


def rename_clip(weights: dict[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """CLIP's tensors under the names this version of transformers uses (5 dropped the prefix `text_model.`)."""
    prefixed = any(n.startswith("clip.text_model.") for n in names)
    out = {}
    for name, value in weights.items():
        bare = name.replace("clip.text_model.", "clip.")
        out[bare.replace("clip.", "clip.text_model.", 1) if prefixed and bare.startswith("clip.") else bare] = value
    return out


class Sampler:
    """mini, loaded from work/mini.pt and work/vae.pt."""

    def __init__(self, work: Path, tokenizers: Tokenizers, device: str):
        self._tokenizers, self._device = tokenizers, device
        self._net = build_denoiser()
        names = {n for n, _ in self._net.named_parameters()}
        weights = rename_clip(torch.load(work / "mini.pt"), names)
        missing = {n for n in names if not n.startswith("reader.")} ^ set(weights)
        if missing:
            raise SystemExit(f"mini.pt does not fit the networks: {sorted(missing)[:5]}")
        with torch.no_grad():
            for name, p in self._net.named_parameters():
                if name in weights:
                    p.copy_(weights[name])
        self._net.to(device).eval().requires_grad_(False)
        self.codec = Codec(work / "vae.pt", device)

    @torch.no_grad()
    def draw(self, captions: list[str], setting: Setting, seed: int = 1000, batch: int = 256) -> np.ndarray:
        """Pictures as bytes [captions, 256, 256, 3]; picture i starts from the noise of seed + i."""
        out = []
        for i in range(0, len(captions), batch):
            out.append(self._draw_batch(captions[i : i + batch], setting, seed + i))
        return np.concatenate(out)

    def _draw_batch(self, captions: list[str], setting: Setting, seed: int) -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        noise = torch.stack([torch.randn(8, 32, 32, generator=g) for g in generators])
        x = pack_latents(noise).to(self._device)
        levels = sigmas(setting.steps)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            told = self._text(captions, setting.text_length)
            untold = self._text([""] * len(captions), setting.text_length)
            for now, after in zip(levels, levels[1:]):
                velocity = self._velocity(x, now, told)
                if setting.guidance != 1:
                    without = self._velocity(x, now, untold)
                    velocity = without + setting.guidance * (velocity - without)
                x = x + (after - now) * velocity
            latents = unpack_latents(x)
            return torch.cat([self.codec.decode(z) for z in latents.split(64)]).numpy()

    def _text(self, captions: list[str], length: int) -> tuple[Tensor, Tensor]:
        """T5's tokens and CLIP's pooled vector."""
        t5 = torch.from_numpy(self._tokenizers.t5(captions, length)).long().to(self._device)
        clip = torch.from_numpy(self._tokenizers.clip(captions)).long().to(self._device)
        return self._net["t5"](t5)[0], self._net["clip"](clip).pooler_output

    def _velocity(self, x: Tensor, level: float, text: tuple[Tensor, Tensor]) -> Tensor:
        txt_ids, img_ids = position_ids(text[0].shape[1], self._device)
        return self._net["dit"](
            hidden_states=x,
            timestep=torch.full((len(x),), level, device=self._device),
            pooled_projections=text[1],
            encoder_hidden_states=text[0],
            txt_ids=txt_ids,
            img_ids=img_ids,
            return_dict=False,
        )[0].float()
