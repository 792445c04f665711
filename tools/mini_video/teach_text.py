"""Teaches the text encoder to tell what a caption says before it ever sees a clip."""

from __future__ import annotations

import math
import time

import torch

from clips import Clips
from networks import Reader, TextEncoder, reader_loss

LEARNING_RATE = 2e-3
WARM_UP = 50


def draw_captions(clips: Clips, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of random clips, tokens of one of their captions, and what it tells."""
    device = clips.tokens.device
    index = torch.randint(0, len(clips.tokens), (batch,), device=device)
    phrasing = torch.randint(0, clips.tokens.shape[1], (batch,), device=device)
    return index, clips.tokens[index, phrasing].long(), clips.labels[index].long()


def teach_text(clips: Clips, seconds: float, batch: int, steps: int | None = None) -> dict:
    """Trains the encoder with a Reader for `seconds` (or `steps`); returns both state dicts."""
    device = clips.tokens.device
    encoder, reader = TextEncoder().to(device), Reader().to(device)
    parameters = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0)
    start, step, reported = time.time(), 0, 0.0
    while (done := step / steps if steps else (time.time() - start) / seconds) < 1:
        rate = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
        optimizer.param_groups[0]["lr"] = rate
        _, tokens, told = draw_captions(clips, batch)
        loss, accuracy = reader_loss(reader(encoder(tokens), tokens), told)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if done - reported >= 0.2 or step == 1:
            reported = done
            seen = time.time() - start
            print(f"text {step} {seen:.0f}s loss {loss.item():.4f} captions read {accuracy.item():.3f}", flush=True)
    print(f"text: {step} steps of {batch}, captions read {accuracy.item():.3f}", flush=True)
    return {"text": encoder.state_dict(), "reader": reader.state_dict()}
