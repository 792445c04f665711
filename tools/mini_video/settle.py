"""Teaches the decoder's first layers to take latents without noise.

While the autoencoder learns, its decoder sees the encoder's noise on every latent, and where a latent says little, that
noise is nearly all there is; a pipeline hands over clean latents. Without noise, clips on dark backgrounds turned white
towards their end. Half of the noise was enough for a right picture, and so was the mean of what the first layers make
of latents with it: here they learn to make that mean of clean ones. Everything behind them stays as it is, and all
happens at the size of the latents, in a minute on one core.
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from autoencoder import Autoencoder
from clips import Clips
from film import render, whole
from teach_vae import Codec

RATE = 1e-3
TEACHER_NOISE, LEARNER_NOISE = 0.5, 0.3  # in stds of the encoder's noise; the learner's is a random part of it
LOOKS = 2  # draws of noise that the teacher's answer is averaged over
WARM_UP = 20


def first_layers(vae: Autoencoder, latents: Tensor) -> Tensor:
    """What the decoder has behind its middle: [B, T', CHANNELS, h, w] -> [B, T', h, w, C]."""
    decoder = vae.decoder
    return decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents.permute(0, 1, 3, 4, 2))))


@torch.no_grad()
def _latents(vae: Autoencoder, packed: Tensor, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Means and stds of the latents of packed clips."""
    coded = [vae.encode(render(*whole(p)) * 2 - 1) for p in packed.split(batch)]
    mean, log_variance = (torch.cat(part) for part in zip(*coded))
    return mean, (0.5 * log_variance.clamp(-12, 8)).exp()


def settle(file: Path, clips: Clips, count: int, steps: int, batch: int = 8) -> None:
    """Changes the weights in `file` (vae.pt) by `steps` lessons on the latents of `count` clips."""
    start, device = time.time(), clips.packed.device
    teacher = Codec(file, device.type).vae
    learner = copy.deepcopy(teacher)
    mean, std = _latents(teacher, clips.packed[:count])
    parts = [learner.post_quant_conv, learner.decoder.conv_in, learner.decoder.mid_block]
    taught = [p.requires_grad_() for part in parts for p in part.parameters()]
    optimizer = torch.optim.Adam(taught, lr=RATE)
    for step in range(steps):
        share = min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = RATE * share
        index = torch.randint(0, len(mean), (batch,), device=device)
        z, noise = mean[index], std[index]
        with torch.no_grad():
            looks = [first_layers(teacher, z + TEACHER_NOISE * noise * torch.randn_like(z)) for _ in range(LOOKS)]
            wanted = torch.stack(looks).mean(0)
        part = LEARNER_NOISE * torch.rand(batch, 1, 1, 1, 1, device=device)
        made = first_layers(learner, z + part * noise * torch.randn_like(z))
        loss = (made - wanted).pow(2).mean() / wanted.var()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"settle {step} {time.time() - start:.0f}s relative error {loss.item():.4f}", flush=True)
    saved = torch.load(file)
    torch.save(saved | {"weights": {k: v.bfloat16().cpu() for k, v in learner.state_dict().items()}}, file)
