"""Teaches the T5 encoder to bind words to objects before it ever sees a picture.

Without this the encoder mixes no words, the transformer sees a bag of words, and relations fail: which of two
colours belongs to which shape cannot be told, because FLUX gives all text tokens the same position.
"""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from data import Scenes
from nets import T5, Reader, build_t5, position_biases, reader_accuracy, reader_loss
from text import Tokenizers

LEARNING_RATE = 1e-3
BIAS_FACTOR = 10.0  # position biases are few and must become large
WARM_UP = 100
PROBE = ("a red circle above a blue square", "a blue circle above a red square")


def binding(t5: nn.Module, tokenizers: Tokenizers, device: str) -> float:
    """How much T5's output of the words that stay changes when the two colours of PROBE are swapped.

    Relative to the size of those outputs: near 0 means that the encoder mixes no words, about 1 that it binds.
    """
    tokens = torch.from_numpy(tokenizers.t5(list(PROBE))).long().to(device)
    with torch.no_grad():
        first, second = t5(tokens)[0].float()
    length = int((tokens[0] > 0).sum())
    same = (tokens[0] == tokens[1])[:length]
    return ((first - second)[:length][same].norm() / first[:length][same].norm()).item()


def pretrain(scenes: Scenes, tokenizers: Tokenizers, seconds: float, batch: int, steps: int | None = None) -> dict:
    """Trains T5 with a Reader for `seconds` (or `steps`); returns both state dicts. Scenes lie on the device."""
    device = str(scenes.t5.device)
    t5, reader = build_t5().to(device), Reader(T5["d_model"]).to(device)
    parameters = [*t5.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(text_groups(t5, reader), lr=1.0, betas=(0.9, 0.98), weight_decay=0.0)
    start, step, last_report = time.time(), 0, 0.0
    while True:
        done = step / steps if steps else (time.time() - start) / seconds
        if done >= 1:
            break
        for group in optimizer.param_groups:
            rate = LEARNING_RATE * min(1, (step + 1) / WARM_UP)
            group["lr"] = group["factor"] * rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
        tokens, told = _draw(scenes, batch)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=device != "cpu"):
            logits = reader(t5(tokens)[0])
        loss = reader_loss(logits, told)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if done - last_report >= 0.1 or step == 1:
            last_report = done
            _report(step, time.time() - start, loss, reader_accuracy(logits, told), binding(t5, tokenizers, device))
    print(f"text: {step} steps of {batch} in {time.time() - start:.0f} s", flush=True)
    return {"t5": t5.state_dict(), "reader": reader.state_dict()}


def text_groups(t5: nn.Module, reader: nn.Module) -> list[dict]:
    """Parameter groups for Adam; `factor` multiplies the learning rate."""
    biases = position_biases(t5)
    others = [p for p in [*t5.parameters(), *reader.parameters()] if p is not biases]
    return [{"params": others, "factor": 1.0}, {"params": [biases], "factor": BIAS_FACTOR}]


def _draw(scenes: Scenes, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random captions and what they tell."""
    index = torch.randint(0, len(scenes.t5), (batch,), device=scenes.t5.device)
    phrasing = torch.randint(0, scenes.t5.shape[1], (batch,), device=scenes.t5.device)
    return scenes.t5[index, phrasing].long(), scenes.labels[index].long()


def _report(step: int, seconds: float, loss: torch.Tensor, accuracy: torch.Tensor, bound: float) -> None:
    """One line of the log."""
    line = f"text {step} {seconds:.0f}s loss {loss.item():.4f} objects read {accuracy.item():.3f} binding {bound:.3f}"
    print(line, flush=True)
