"""Trains the autoencoder on freshly drawn pictures, and turns all scenes into latents with it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import Scenes
from drawing import render
from nets import build_vae, count, pack_latents

BATCH = 32
LEARNING_RATE = 1.5e-3
LATENT_NOISE = 0.05  # added to latents in training: the decoder must bear what the denoiser leaves
KL_WEIGHT = 5e-4


def maybe_compile(function: Callable, device: str) -> Callable:
    """Compiled on a GPU, as it is on a CPU (where compiling costs more than it saves)."""
    return torch.compile(function, dynamic=False) if device == "cuda" else function


def _edges(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return picture[..., 1:, :] - picture[..., :-1, :], picture[..., 1:] - picture[..., :-1]


def _loss(vae: nn.Module, picture: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, mean absolute error): pixels, edges, 4x4 means, and a little pull of the latents to N(0, 1)."""
    with torch.autocast(picture.device.type, torch.bfloat16):
        mean, log_variance = vae.encoder(picture).chunk(2, 1)
        mean, log_variance = mean.float(), log_variance.float().clamp(-12, 8)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        drawn = vae.decoder(latent + LATENT_NOISE * torch.randn_like(mean)).float()
    pixels = (drawn - picture).abs().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(_edges(drawn), _edges(picture)))
    blocks = F.avg_pool2d(drawn - picture, 4).abs().mean()
    kl = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).mean()
    return pixels + edges + 0.5 * blocks + KL_WEIGHT * kl, pixels.detach()


def _rate(step: int, done: float) -> float:
    """Learning rate: warm-up, constant for 35 %, then linear."""
    return LEARNING_RATE * min(1, (step + 1) / 200) * min(1, 0.02 + 0.98 * (1 - done) / 0.65)


def train_vae(scenes: Scenes, seconds: float, steps: int | None = None) -> dict:
    """Trains for `seconds` after compiling (or `steps`); returns weights (an average over steps), mean and std."""
    device = scenes.things.device.type
    vae = build_vae().to(device).to(memory_format=torch.channels_last)
    print(f"vae: {count(vae.encoder)} + {count(vae.decoder)} parameters", flush=True)
    draw, loss_of = maybe_compile(render, device), maybe_compile(lambda x: _loss(vae, x), device)
    parameters = list(vae.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, fused=device == "cuda")
    begin, compiled, step = time.time(), None, 0
    while True:
        done = step / steps if steps else (time.time() - (compiled or time.time())) / seconds
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = _rate(step, done)
        index = torch.randint(0, len(scenes.things), (BATCH if not steps else 2,), device=device)
        with torch.no_grad():
            picture = (draw(scenes.things[index], scenes.backgrounds[index]) * 2 - 1).contiguous(
                memory_format=torch.channels_last
            )
        loss, error = loss_of(picture)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        keep = min(0.998, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - keep)
        step += 1
        if step == 3:
            compiled = time.time()
        if step % 500 == 0 or steps:
            print(f"vae {step} {time.time() - begin:.0f}s mean error {error.item():.4f}", flush=True)
    for p, a in zip(parameters, average):
        p.data.copy_(a)
    return _measured(vae, scenes, draw, step)


@torch.no_grad()
def _measured(vae: nn.Module, scenes: Scenes, draw: Callable, steps: int) -> dict:
    """Weights rounded to bf16, and the mean and std of latents over some scenes; prints the PSNR."""
    vae.bfloat16().float()
    batch = BATCH if len(scenes.things) >= 8 * BATCH else 2
    latents, quality = [], []
    for i in range(0, 8 * batch, batch):
        picture = draw(scenes.things[i : i + batch], scenes.backgrounds[i : i + batch]) * 2 - 1
        latents.append(vae.encoder(picture).chunk(2, 1)[0])
        error = (vae.decoder(latents[-1]).clamp(-1, 1) - picture) / 2
        quality.append(-10 * torch.log10(error.pow(2).mean((1, 2, 3))))
    z, psnr = torch.cat(latents), torch.cat(quality)
    print(f"vae: {steps} steps, PSNR mean {psnr.mean():.2f} least {psnr.min():.2f} dB", flush=True)
    weights = {k: v.bfloat16().cpu() for k, v in vae.state_dict().items()}
    return {"weights": weights, "mean": z.mean().item(), "std": z.std().item()}


class Codec:
    """The trained autoencoder with normalised latents."""

    def __init__(self, path: Path, device: str):
        saved = torch.load(path)
        self.vae = build_vae()
        self.vae.load_state_dict({k: v.float() for k, v in saved["weights"].items()})
        self.vae.to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.mean, self.std = saved["mean"], saved["std"]

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, 256, 256] in 0..1 -> packed latents [B, 256, 32] of about unit variance."""
        x = (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            mean = self.vae.encoder(x).chunk(2, 1)[0]
        return pack_latents(((mean.float() - self.mean) / self.std).contiguous())

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Unpacked normalised latents [B, 8, 32, 32] -> pictures as bytes [B, 256, 256, 3]."""
        picture = self.vae.decoder(latents * self.std + self.mean).float().clamp(-1, 1)
        return ((picture + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()


@torch.no_grad()
def encode_scenes(scenes: Scenes, codec: Codec) -> Tensor:
    """Latents of all scenes, bf16, [N, 256, 32], on the scenes' device."""
    start = time.time()
    device = scenes.things.device.type
    draw = maybe_compile(render, device)
    size = len(scenes.things)
    batch = BATCH if size >= BATCH else size
    latents = torch.empty(size, 256, 32, dtype=torch.bfloat16, device=device)
    for i in range(0, size, batch):
        rows = slice(i, i + batch)
        latents[rows] = codec.encode(draw(scenes.things[rows], scenes.backgrounds[rows]))
    print(f"latents: {size} in {time.time() - start:.0f} s, std {latents[:512].float().std():.3f}", flush=True)
    return latents
