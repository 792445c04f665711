"""Trains a small LoRA for mini on a CPU: a style (`sticker`) or a new shape (`house`).

  python3 train_adapter.py house --work W --out ../../models/mini-adapters/house.safetensors
The pictures are drawn scenes; mini's encoder turns them into latents once, and only the factors of the LoRA learn. What is
made stays in W, so that a training that was stopped goes on where it was; every step has a seed of its own.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from adapter_data import Lesson, lesson
from lora import Lora, Target
from nets import position_ids
from text import TEXT_LENGTH, Tokenizers

WARM_UP = 10  # steps
REPORT_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """How an adapter is made. `noise`: middle of the logistic-normal from which noise levels come."""

    note: str
    targets: list[Target]
    scenes: int
    steps: int
    batch: int
    rate: float
    noise: float
    empty: float  # share of emptied captions


RECIPES = {
    "sticker": Recipe(
        "Draws every object as a sticker, with a rim of white paper; no word is needed.",
        [Target("transformer", ("single_transformer_blocks.", "proj_out."), 3)],
        scenes=256,
        steps=400,
        batch=8,
        rate=5e-3,
        noise=0.0,
        empty=0.1,
    ),
    "house": Recipe(
        "Teaches the word house: a roof on walls.",
        [
            Target("transformer", (".attn.", ".ff.", ".ff_context.", ".proj_mlp.", ".proj_out."), 3),
            Target("text_encoder_2", (".SelfAttention.", ".DenseReluDense."), 4),
        ],
        scenes=480,
        steps=480,
        batch=8,
        rate=3e-3,
        noise=0.5,
        empty=0.05,
    ),
}


class AdapterTrainer:
    """mini's networks, frozen, with the factors that learn."""

    def __init__(self, model: Path, recipe: Recipe, seed: int):
        self._recipe, self._seed, self._random = recipe, seed, random.Random()
        self._tokenizers = Tokenizers(model)
        self._dit = FluxTransformer2DModel.from_pretrained(model, subfolder="transformer", torch_dtype=torch.float32)
        self._t5 = T5EncoderModel.from_pretrained(model, subfolder="text_encoder_2", torch_dtype=torch.float32)
        self._clip = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", torch_dtype=torch.float32)
        for network in (self._dit, self._t5, self._clip):
            network.eval().requires_grad_(False)
        self._ids = position_ids(TEXT_LENGTH, "cpu")
        self.lora = Lora({"transformer": self._dit, "text_encoder_2": self._t5}, recipe.targets, seed)
        self._adam = torch.optim.AdamW(self.lora.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)

    def velocity(self, tokens: Tensor, sigma: Tensor, captions: list[str]) -> Tensor:
        """What the transformer predicts for noisy tokens [B, 256, 32] at noise levels [B]."""
        t5 = torch.from_numpy(self._tokenizers.t5(captions)).long()
        clip = torch.from_numpy(self._tokenizers.clip(captions)).long()
        return self._dit(
            hidden_states=tokens,
            timestep=sigma,
            pooled_projections=self._clip(clip).pooler_output,
            encoder_hidden_states=self._t5(t5)[0],
            txt_ids=self._ids[0],
            img_ids=self._ids[1],
            return_dict=False,
        )[0]

    def loss(self, shown: Lesson) -> Tensor:
        """Flow matching on a random batch."""
        count = self._recipe.batch
        chosen = [self._random.randrange(len(shown.captions)) for _ in range(count)]
        captions = [self._random.choice(shown.captions[i]) for i in chosen]
        captions = ["" if self._random.random() < self._recipe.empty else c for c in captions]
        latents = shown.latents[chosen]
        # One noise level of each part of the range: a small batch then sees the whole of it.
        ranks = (torch.randperm(count) + torch.rand(count)) / count
        sigma = torch.sigmoid(torch.special.ndtri(ranks.clamp(1e-3, 1 - 1e-3)) * 1.2 + self._recipe.noise)
        noise, level = torch.randn_like(latents), sigma.view(-1, 1, 1)
        predicted = self.velocity((1 - level) * latents + level * noise, sigma, captions)
        return (predicted - (noise - latents)).pow(2).mean()

    def run(self, shown: Lesson, steps: int, state: Path) -> None:
        """Trains up to `steps`; the rate rises at first and falls to zero over the second half."""
        first = self._resume(state)
        start, total = time.time(), 0.0
        for step in range(first, steps):
            torch.manual_seed(self._seed * 1_000_003 + step)
            self._random.seed(self._seed * 1_000_003 + step)
            share = min(1.0, (step + 1) / WARM_UP, 2 * (steps - step) / steps)
            self._adam.param_groups[0]["lr"] = self._recipe.rate * share
            loss = self.loss(shown)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.lora.parameters(), 1.0)
            self._adam.step()
            self._adam.zero_grad()
            total += loss.item()
            if (step + 1) % REPORT_EVERY == 0:
                line = f"step {step + 1} {time.time() - start:.0f}s, {time.process_time():.0f}s of CPU"
                print(f"{line}, loss {total / REPORT_EVERY:.4f}", flush=True)
                total = 0.0
                self._keep(state, step + 1)

    def _keep(self, state: Path, step: int) -> None:
        """Writes what a later call needs to go on."""
        written = state.with_suffix(".new")
        factors = {name: p.detach() for name, p in self.lora.factors.items()}
        torch.save({"step": step, "factors": factors, "adam": self._adam.state_dict()}, written)
        written.rename(state)

    @torch.no_grad()
    def _resume(self, state: Path) -> int:
        """Reads it back; the number of steps that are done."""
        if not state.exists():
            return 0
        kept = torch.load(state)
        for name, p in self.lora.factors.items():
            p.copy_(kept["factors"][name])
        self._adam.load_state_dict(kept["adam"])
        print(f"resumed at step {kept['step']}", flush=True)
        return kept["step"]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parents[2] / "models" / "mini")
    parser.add_argument("--work", type=Path, required=True, help="where latents and the state are kept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--steps", type=int)
    a = parser.parse_args()
    recipe = RECIPES[a.name]
    start = time.time()
    shown = lesson(a.name, a.model, a.scenes or recipe.scenes, a.seed, a.work)
    print(f"{len(shown.captions)} scenes, {time.time() - start:.0f} s", flush=True)
    trainer = AdapterTrainer(a.model, recipe, a.seed)
    print(f"{sum(p.numel() for p in trainer.lora.parameters())} numbers", flush=True)
    trainer.run(shown, a.steps or recipe.steps, a.work / f"{a.name}-state-{a.seed}.pt")
    trainer.lora.save(a.out, recipe.note)
    size = a.out.stat().st_size
    print(f"{a.out}: {size} bytes, {time.time() - start:.0f} s in all, {time.process_time():.0f} s of CPU")


if __name__ == "__main__":
    main()
