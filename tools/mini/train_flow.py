"""Trains transformer, T5 and CLIP together by flow matching on latents, in parts that can be resumed.

What is kept between parts is small: the weights in fp32 and their running average in bf16. Momenta start anew, with
a short warm-up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data import Scenes
from muon import Muon
from nets import build_denoiser, count, position_biases, position_ids, reader_accuracy, reader_loss
from text import IGNORE, TEXT_LENGTH, Tokenizers
from train_text import BIAS_FACTOR, binding

ADAM_RATE = 1.5e-3  # embeddings, modulations, norms, input and output
TEXT_RATE = 5e-4  # both text encoders
MUON_RATE = 0.012  # matrices inside the transformer's blocks
READER_WEIGHT = 0.1
EMPTY_CAPTIONS = 0.1
CONSTANT_SHARE = 0.5  # of the time with a constant rate, then linear to 1 %
AVERAGE_KEEP = 0.9985
LEAST_BINDING = 0.1  # below it relations cannot be learned: stop instead of wasting the machine
STATE_FILES = 3  # the state is cut so that each file stays under 16 MiB


@dataclass
class Plan:
    """How long to train: `total` seconds over all parts, at most `part` seconds now; `steps` only for dry runs."""

    total: float
    part: float
    batch: int = 512
    steps: int | None = None


class FlowTrainer:
    """Holds the networks, their average and the optimizers."""

    def __init__(self, work: Path, scenes: Scenes, latents: Tensor, tokenizers: Tokenizers):
        self._work, self._scenes, self._latents, self._tokenizers = work, scenes, latents, tokenizers
        self._device = latents.device.type
        self._net = build_denoiser().to(self._device)
        self.step, self._spent = 0, 0.0
        self._average: list[Tensor] = []
        self._load()
        self._make_optimizers()
        self._empty = [torch.from_numpy(f([""])).long().to(self._device) for f in (tokenizers.t5, self._clip_tokens)]
        self._ids = position_ids(TEXT_LENGTH, self._device)
        print("flow parameters:", {name: count(m) for name, m in self._net.items()}, flush=True)

    def _clip_tokens(self, lines: list[str]):
        return self._tokenizers.clip(lines, self._scenes.clip.shape[-1])

    def _load(self) -> None:
        """Resumes from the state files, or starts with the pre-trained text encoder."""
        files = [self._work / f"flow-{i}.pt" for i in range(STATE_FILES)]
        if all(f.exists() for f in files):
            parts = [torch.load(f, map_location=self._device) for f in files]
            for part in parts[:-1]:
                self._net.load_state_dict(part, strict=False)
            last = parts[-1]
            self._average = [a.float() for a in last["average"]]
            self.step, self._spent = last["step"], last["spent"]
            print(f"flow: resumed at step {self.step} after {self._spent:.0f} s", flush=True)
            return
        pretrained = torch.load(self._work / "text.pt", map_location=self._device)
        for name, weights in pretrained.items():
            self._net[name].load_state_dict(weights)
        self._average = [p.detach().clone() for p in self._net.parameters()]

    def save(self) -> None:
        """Writes the state files, and mini.pt: the average in bf16, for drawing and export."""
        self._work.mkdir(parents=True, exist_ok=True)
        weights = {k: p.detach().cpu() for k, p in self._net.named_parameters()}
        names = list(weights)
        half = sum(p.numel() for p in weights.values()) / (STATE_FILES - 1)
        parts: list[dict] = [{} for _ in range(STATE_FILES - 1)]
        seen = 0
        for name in names:
            parts[min(int(seen / half), STATE_FILES - 2)][name] = weights[name]
            seen += weights[name].numel()
        for i, part in enumerate(parts):
            torch.save(part, self._work / f"flow-{i}.pt")
        average = [a.bfloat16().cpu() for a in self._average]
        last = {"average": average, "step": self.step, "spent": self._spent}
        torch.save(last, self._work / f"flow-{STATE_FILES - 1}.pt")
        kept = {k: a for k, a in zip(names, average) if not k.startswith("reader.")}
        torch.save(kept, self._work / "mini.pt")

    def _make_optimizers(self) -> None:
        """Muon for the matrices of the blocks, Adam for the rest."""
        dit = self._net["dit"]
        inner = [p for n, p in dit.named_parameters() if p.ndim == 2 and "transformer_blocks" in n and "norm" not in n]
        biases = position_biases(self._net["t5"])
        text = [p for m in ("t5", "clip", "reader") for p in self._net[m].parameters() if p is not biases]
        taken = {id(p) for p in [*inner, biases, *text]}
        rest = [p for p in self._net.parameters() if id(p) not in taken]
        groups = [
            {"params": rest, "peak": ADAM_RATE},
            {"params": text, "peak": TEXT_RATE},
            {"params": [biases], "peak": TEXT_RATE * BIAS_FACTOR},
        ]
        self._muon = Muon(inner)
        fused = self._device == "cuda"
        self._adam = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99), weight_decay=0.0, fused=fused)
        self._parameters = list(self._net.parameters())

    def compile(self) -> None:
        """Compiles each block, and evaluates the rotary tables once."""
        dit = self._net["dit"]
        for block in [*dit.transformer_blocks, *dit.single_transformer_blocks]:
            block.compile(dynamic=False)
        tables = tuple(t.detach() for t in dit.pos_embed(torch.cat(self._ids)))
        dit.pos_embed.forward = lambda ids: tables

    def run(self, plan: Plan) -> None:
        """Trains until the part or the whole plan is over. The clock starts after compiling."""
        begin, started, first, reported = time.time(), None, self.step, self.step
        spent_before = self._spent
        sums = torch.zeros(3, device=self._device)
        while True:
            elapsed = time.time() - started if started else 0.0
            self._spent = spent_before + elapsed
            done = (self.step - first) / plan.steps if plan.steps else self._spent / plan.total
            if done >= 1 or elapsed >= plan.part:
                break
            sums += self._train_step(plan.batch, done, self.step - first)
            self.step += 1
            if self.step - first == 4:
                started = time.time()
            if self.step % 250 == 0 or plan.steps:
                self._report(sums / (self.step - reported), time.time() - begin)
                sums.zero_()
                reported = self.step
            if self.step % 10 == 0 and self._device == "cuda":
                torch.cuda.synchronize()
        pictures = (self.step - first) * plan.batch / max(1e-6, self._spent - spent_before)
        print(f"flow: step {self.step}, {self._spent:.0f} s of training, {pictures:.0f} pictures/s", flush=True)

    def _report(self, means: Tensor, seconds: float) -> None:
        """One line of the log; stops the run if the text encoder no longer binds."""
        loss, reader, accuracy = means.tolist()
        bound = binding(self._net["t5"], self._tokenizers, self._device)
        line = f"flow {self.step} {seconds:.0f}s loss {loss:.4f} reader {reader:.4f} read {accuracy:.3f}"
        print(f"{line} binding {bound:.3f}", flush=True)
        if bound < LEAST_BINDING:
            raise SystemExit("flow: the text encoder binds no words; relations cannot be learned")

    def _draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Random latents with T5 tokens, CLIP tokens and labels; some captions are emptied."""
        s = self._scenes
        index = torch.randint(0, len(self._latents), (batch,), device=self._device)
        phrasing = torch.randint(0, s.t5.shape[1], (batch,), device=self._device)
        t5, clip = s.t5[index, phrasing].long(), s.clip[index, phrasing].long()
        emptied = torch.rand(batch, 1, device=self._device) < EMPTY_CAPTIONS
        t5, clip = torch.where(emptied, self._empty[0], t5), torch.where(emptied, self._empty[1], clip)
        told = s.labels[index].long().masked_fill(emptied, IGNORE)
        return self._latents[index].float(), t5, clip, told

    def _sigmas(self, batch: int) -> Tensor:
        """Noise levels: mostly around 0.57 (a logistic-normal), some uniform."""
        middle = torch.sigmoid(torch.randn(batch, device=self._device) + 0.3)
        uniform = torch.rand(batch, device=self._device)
        return torch.where(torch.rand(batch, device=self._device) < 0.12, uniform, middle)

    def _train_step(self, batch: int, done: float, since_start: int) -> Tensor:
        """One update; returns flow loss, reader loss, and the share of captions read rightly."""
        latents, t5, clip, told = self._draw(batch)
        noise, sigma = torch.randn_like(latents), self._sigmas(batch)
        level = sigma.view(-1, 1, 1)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            text = self._net["t5"](t5)[0]
            velocity = self._net["dit"](
                hidden_states=(1 - level) * latents + level * noise,
                timestep=sigma,
                pooled_projections=self._net["clip"](clip).pooler_output,
                encoder_hidden_states=text,
                txt_ids=self._ids[0],
                img_ids=self._ids[1],
                return_dict=False,
            )[0]
            logits = self._net["reader"](text)
        flow = (velocity.float() - (noise - latents)).pow(2).mean()
        reader = reader_loss(logits, told)
        (flow + READER_WEIGHT * reader).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._update(min(1.0, (since_start + 1) / 200) * min(1.0, max(0.01, (1 - done) / (1 - CONSTANT_SHARE))))
        return torch.stack([flow.detach(), reader.detach(), reader_accuracy(logits, told)])

    def _update(self, share: float) -> None:
        """Steps both optimizers at `share` of their peak rates, and the average."""
        for group in self._adam.param_groups:
            group["lr"] = group["peak"] * share
        self._muon.step(MUON_RATE * share)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        keep = min(AVERAGE_KEEP, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - keep)
