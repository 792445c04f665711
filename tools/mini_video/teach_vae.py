"""Trains the autoencoder on freshly drawn clips, and turns all clips into latents with it.

The lessons grow: small windows of few frames around the object, where most there is to learn happens, then longer
ones, and whole clips at the end. On a background that fills most of a whole clip, it learned the background only.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from autoencoder import Autoencoder
from clips import Clips
from film import render, whole, window
from networks import count, from_tokens, to_tokens
from optimizers import Optimizers, split
from world import FRAMES, SIZE

ADAM_RATE = 2e-3  # norms, biases, the convolutions of pixels
MUON_RATE = 0.03
# (share of the time up to which it is used, side, frames, batch)
LESSONS = [(0.2, 32, 5, 8), (0.65, 32, 13, 4), (0.9, 48, FRAMES, 2), (1.01, SIZE, FRAMES, 1)]
LATENT_NOISE = 0.08  # added to latents in training: the decoder must bear what the denoiser leaves
KL_WEIGHT = 5e-4
REPORT = 50
SAVE = 300  # seconds


def _differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differences of neighbours in time, down and across."""
    return x[:, 1:] - x[:, :-1], x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def _hues(x: Tensor) -> Tensor:
    """Red against green and blue against yellow: from absolute errors of pixels alone, greys were learned first."""
    red, green, blue = x.unbind(2)
    return torch.stack([red - green, blue - (red + green) / 2], 2)


def _loss(vae: Autoencoder, frames: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, mean absolute error): pixels, hues, differences, and a little pull of the latents to N(0, 1)."""
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=frames.is_cuda):
        mean, log_variance = vae.encode(frames)
        mean, log_variance = mean.float(), log_variance.float().clamp(-12, 8)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        drawn = vae.decode(latent + LATENT_NOISE * torch.randn_like(mean))
    drawn = drawn.float()
    pixels = (drawn - frames).abs().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(_differences(drawn), _differences(frames)))
    hues = _hues(drawn) - _hues(frames)
    errors = hues.abs().mean() + hues.pow(2).mean() + (drawn - frames).pow(2).mean()
    kl = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).mean()
    return pixels + edges + errors + KL_WEIGHT * kl, pixels.detach()


def _rate(step: int, done: float) -> float:
    """Share of the rates: warm-up, constant for 30 %, then linear."""
    return min(1, (step + 1) / 50) * min(1, 0.02 + 0.98 * (1 - done) / 0.7)


class VaeTrainer:
    """The autoencoder in training; goes on from work/vae-state.pt where that is there."""

    def __init__(self, work: Path, clips: Clips, scale: int):
        """scale: clips in a step for each that LESSONS names (1 is right for a CPU)."""
        self._file, self._clips, self._scale = work / "vae-state.pt", clips, scale
        self._vae = Autoencoder().to(clips.packed.device)
        self.step, self.spent = 0, 0.0
        if self._file.exists():
            saved = torch.load(self._file, map_location=clips.packed.device)
            self._vae.load_state_dict(saved["weights"])
            self.step, self.spent = saved["step"], saved["spent"]
        matrices, rest = split(self._vae, lambda n, p: p.ndim > 3 and min(p.shape[:2]) > 3)
        self._optimizers = Optimizers(self._vae, matrices, [(rest, ADAM_RATE)], MUON_RATE)
        if self._file.exists():
            self._optimizers.average = saved["average"]
        print(f"vae: {count(self._vae)} parameters, from step {self.step}", flush=True)

    def run(self, total: float, steps: int | None = None) -> None:
        """Trains until `total` seconds over all parts are spent (or for `steps`)."""
        first, start, before, saved = self.step, time.time(), self.spent, time.time()
        while (done := (self.step - first) / steps if steps else self.spent / total) < 1:
            _, side, frames, batch = next(lesson for lesson in LESSONS if done < lesson[0])
            index = torch.randint(0, len(self._clips.packed), (batch * self._scale,), device=self._clips.packed.device)
            with torch.no_grad():
                shown = render(*window(self._clips.packed[index], side, frames), side) * 2 - 1
                if side == SIZE:
                    shown = render(*whole(self._clips.packed[index])) * 2 - 1
            loss, error = _loss(self._vae, shown)
            loss.backward()
            self._optimizers.share.fill_(_rate(self.step - first, done))
            self._optimizers.step(min(0.995, (1 + self.step) / (10 + self.step)))
            self.step += 1
            self.spent = before + time.time() - start
            if self.step % REPORT == 0:
                line = f"vae {self.step} {self.spent:.0f}s loss {loss.item():.4f} mean error {error.item():.4f}"
                print(line, flush=True)
            if time.time() - saved > SAVE:
                saved = time.time()
                self.save()

    def save(self) -> None:
        """Writes the state, to go on from."""
        saved = {"weights": self._vae.state_dict(), "average": self._optimizers.average}
        torch.save(saved | {"step": self.step, "spent": self.spent}, self._file)

    @torch.no_grad()
    def measured(self, batches: int = 24, batch: int = 4) -> dict:
        """The average rounded to bf16, and the mean and std of each latent channel; prints the PSNR."""
        vae = Autoencoder().to(self._clips.packed.device)
        for p, a in zip(vae.parameters(), self._optimizers.average):
            p.copy_(a)
        vae.bfloat16().float()
        latents, quality = [], []
        for i in range(0, min(len(self._clips.packed), batches * batch), batch):
            frames = render(*whole(self._clips.packed[i : i + batch])) * 2 - 1
            latents.append(vae.encode(frames)[0])
            error = (vae.decode(latents[-1]).clamp(-1, 1) - frames) / 2
            quality.append(-10 * torch.log10(error.pow(2).mean((2, 3, 4)).clamp(min=1e-7)))
        z, psnr = torch.cat(latents), torch.cat(quality)
        by_frame = [round(v, 1) for v in psnr.mean(0).tolist()]
        print(f"vae: PSNR mean {psnr.mean():.2f} least {psnr.min():.2f} dB, by frame {by_frame}", flush=True)
        mean, std = z.mean((0, 1, 3, 4)), z.std((0, 1, 3, 4))
        print("vae: latent stds", [round(s, 2) for s in std.tolist()], flush=True)
        weights = {k: v.bfloat16().cpu() for k, v in vae.state_dict().items()}
        return {"weights": weights, "mean": mean.tolist(), "std": std.tolist()}


class Codec:
    """The trained autoencoder with normalised latents as the transformer's tokens."""

    def __init__(self, path: Path, device: str):
        saved = torch.load(path)
        self.vae = Autoencoder()
        self.vae.load_state_dict({k: v.float() for k, v in saved["weights"].items()})
        self.vae.to(device).eval().requires_grad_(False)
        self._mean, self._std = (torch.tensor(saved[k], device=device).view(-1, 1, 1) for k in ("mean", "std"))

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, T, 3, H, W] in 0..1 -> tokens."""
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=frames.is_cuda):
            z = self.vae.encode(frames * 2 - 1)[0].float()
        return to_tokens(((z - self._mean) / self._std).transpose(1, 2).contiguous())

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens -> frames as bytes [B, T, H, W, 3]."""
        z = from_tokens(tokens.float()).transpose(1, 2) * self._std + self._mean
        frames = self.vae.decode(z).float().clamp(-1, 1)
        return ((frames + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).cpu()


@torch.no_grad()
def encode_clips(clips: Clips, codec: Codec, batch: int = 64) -> Tensor:
    """Tokens of all clips, bf16, on the clips' device."""
    start, size = time.time(), len(clips.packed)
    batch = min(batch, size)
    packed = [clips.packed[i : i + batch] for i in range(0, size - batch + 1, batch)]
    tokens = torch.cat([codec.encode(render(*whole(p))).bfloat16() for p in packed])
    seconds = time.time() - start
    print(f"latents: {len(tokens)} in {seconds:.0f} s, std {tokens[:512].float().std():.3f}", flush=True)
    return tokens
