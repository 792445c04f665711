"""Trains the autoencoder on freshly drawn clips, and turns all clips into latents with it.

First on small windows around the object, where most there is to learn happens, then on whole clips. Pixels of the object
and of its outline weigh more: on a background that fills most of a clip, it learned the background only. On a GPU a
whole step, drawing included, is one CUDA graph: launching its thousand small kernels took five times as long.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from autoencoder import Autoencoder
from clips import Clips
from film import render, whole, window
from networks import count, from_tokens, to_tokens
from optimizers import Optimizers, split
from world import FRAMES, SIZE

ADAM_RATE = 2e-3  # norms, biases, the convolutions of pixels
MUON_RATE = 0.03
OBJECT_WEIGHT = 8.0  # of pixels of the object and beside it, against those of the background
DIFFERENT = 0.06  # difference from the background, in -1..1, from which on a pixel is the object's
LATENT_NOISE = 0.08  # added to latents in training, in their stds: the decoder must bear what the denoiser leaves
KL_WEIGHT = 0.2  # a strong pull: with 2e-4 clips came back at 48 dB, but the transformer could not learn such latents
KL_STEPS = 1500  # until the pull is whole
AVERAGE_KEEP = 0.997
FIRST_STEPS = 3  # before a step is captured
REPORT = 250
SAVE = 45  # seconds


@dataclass(frozen=True)
class Lesson:
    """Used up to a share of the time: windows of side x side pixels and some frames, so many in a step."""

    until: float
    side: int
    frames: int
    batch: int


LESSONS = [Lesson(0.45, 32, 9, 64), Lesson(1.01, SIZE, FRAMES, 24)]
TINY_LESSONS = [Lesson(0.5, 16, 5, 2), Lesson(1.01, 32, FRAMES, 1)]


def _differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differences of neighbours in time, down and across."""
    return x[:, 1:] - x[:, :-1], x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def _hues(x: Tensor) -> Tensor:
    """Red against green and blue against yellow: from absolute errors of pixels alone, greys were learned first."""
    red, green, blue = x.unbind(2)
    return torch.stack([red - green, blue - (red + green) / 2], 2)


def _weights(frames: Tensor, ground: Tensor) -> Tensor:
    """Weight of each pixel [B, T, 1, H, W], 1 on average; ground: the background's colour [B, 3] in -1..1."""
    differs = ((frames - ground[:, None, :, None, None]).abs().amax(2) > DIFFERENT).float()
    weight = 1 + (OBJECT_WEIGHT - 1) * F.max_pool2d(differs, 3, 1, 1)
    return (weight / weight.mean())[:, :, None]


def _loss(vae: Autoencoder, frames: Tensor, ground: Tensor, pull: Tensor) -> Tensor:
    """[loss, weighed absolute error, KL]: pixels, hues, differences, and the pull of the latents to N(0, 1)."""
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=frames.is_cuda):
        mean, log_variance = vae.encode(frames)
        mean, log_variance = mean.float(), log_variance.float().clamp(-12, 8)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        spread = mean.detach().std((0, 1, 3, 4)).view(-1, 1, 1)
        drawn = vae.decode(latent + LATENT_NOISE * spread * torch.randn_like(mean)).float()
    weight = _weights(frames, ground)
    error = drawn - frames
    pixels, hues = (weight * error.abs()).mean(), _hues(error)
    edges = sum(d.abs().mean() for d in _differences(weight * error))
    errors = (weight * (hues.abs() + hues.pow(2))).mean() + (weight * error.pow(2)).mean()
    kl = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).mean()
    return torch.stack([pixels + edges + errors + pull * kl, pixels, kl])


def _rate(step: int, done: float) -> float:
    """Share of the rates: warm-up, constant for 40 %, then linear."""
    return min(1, (step + 1) / 100) * min(1, 0.01 + 0.99 * (1 - done) / 0.6)


class VaeTrainer:
    """The autoencoder in training; goes on from work/vae-state.pt where that is there."""

    def __init__(self, work: Path, clips: Clips, lessons: list[Lesson], graphed: bool):
        """graphed: capture a step as a CUDA graph."""
        self._file, self._clips, self._lessons, self._graphed = work / "vae-state.pt", clips, lessons, graphed
        self._vae = Autoencoder().to(clips.packed.device)
        self.step, self.spent = 0, 0.0
        saved = torch.load(self._file, map_location=clips.packed.device) if self._file.exists() else None
        if saved:
            self._vae.load_state_dict(saved["weights"])
            self.step, self.spent = saved["step"], saved["spent"]
        matrices, rest = split(self._vae, lambda n, p: p.ndim > 3 and min(p.shape[:2]) > 3)
        self._optimizers = Optimizers(self._vae, matrices, [(rest, ADAM_RATE)], MUON_RATE)
        self._optimizers.average = saved["average"] if saved else self._optimizers.average
        self._sums = torch.zeros(3, device=clips.packed.device)
        self._pull = torch.zeros((), device=clips.packed.device)
        print(f"vae: {count(self._vae)} parameters, from step {self.step}", flush=True)

    def _train_step(self, lesson: Lesson) -> None:
        """One update; adds what _loss tells to the sums. Captured as a graph, so nothing may wait for the GPU."""
        packed = self._clips.packed
        head, where = chosen = whole(packed[torch.randint(0, len(packed), (lesson.batch,), device=packed.device)])
        with torch.no_grad():
            if lesson.side < SIZE:
                chosen = window(head, where, lesson.side, lesson.frames)
            frames = render(*chosen, lesson.side) * 2 - 1
        told = _loss(self._vae, frames, head[:, 5:8] * 2 - 1, self._pull)
        told[0].backward()
        self._optimizers.step(AVERAGE_KEEP)
        self._sums += told.detach()

    def _prepared(self, lesson: Lesson) -> Callable[[], None]:
        """The step of a lesson, as a graph where wanted; weights are left as they were."""
        if not self._graphed:
            return lambda: self._train_step(lesson)
        begin, kept, stream = time.time(), self._optimizers.state(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(FIRST_STEPS):
                self._train_step(lesson)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._train_step(lesson)
        self._optimizers.restore(kept)
        self._sums.zero_()
        print(f"vae: {lesson} captured in {time.time() - begin:.1f} s", flush=True)
        return graph.replay

    def run(self, total: float, steps: int | None = None) -> None:
        """Trains until `total` seconds over all parts are spent (or for `steps`)."""
        begun = 0 if steps else self.spent / total
        prepared = {lesson: self._prepared(lesson) for lesson in self._lessons if lesson.until > begun}
        first, before, start = self.step, self.spent, time.time()
        saved = reported = start
        while (done := (self.step - first) / steps if steps else self.spent / total) < 1:
            self._optimizers.share.fill_(_rate(self.step - first, done))
            self._pull.fill_(KL_WEIGHT * min(1, (self.step - first) / KL_STEPS))
            prepared[next(lesson for lesson in self._lessons if done < lesson.until)]()
            self.step += 1
            if self.step % 20 == 0 and self._graphed:
                torch.cuda.synchronize()
            now = time.time()
            self.spent = before + now - start
            if self.step % REPORT == 0:
                self._report(1000 * (now - reported) / REPORT)
                reported = now
            if now - saved > SAVE:
                saved = now
                self.save()

    def _report(self, each: float) -> None:
        """One line of the log, of means over the last steps; each: milliseconds of a step."""
        loss, error, kl = (self._sums / REPORT).tolist()
        self._sums.zero_()
        line = f"vae {self.step} {self.spent:.0f}s loss {loss:.4f} weighed error {error:.4f} KL {kl:.3f}"
        print(f"{line} {each:.1f} ms a step", flush=True)

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
        # One scale for all channels: each by its own would make much of those that say little.
        return {"weights": weights, "mean": mean.tolist(), "std": [float(std.pow(2).mean().sqrt())] * len(mean)}


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
