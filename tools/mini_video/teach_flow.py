"""Trains transformer and text encoder together by flow matching on latents, in parts that can be resumed.

What is kept between parts is small: the weights in fp32 and their running average in bf16. Momenta start anew, with
a short warm-up. On a GPU a whole step is one CUDA graph: the network is so small that launching its kernels one by one
takes longer than running them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor

from clips import Clips
from networks import GRID, PATCH, PIPELINE_TEXT, build_denoiser, count, reader_loss, text_bias
from optimizers import Optimizers, split
from pieces import TEXT_LENGTH, Tokenizer
from teach_text import draw_captions

ADAM_RATE = 1.5e-3  # embeddings, modulations, norms, input and output
TEXT_RATE = 4e-4
MUON_RATE = 0.01  # matrices inside the transformer's blocks
READER_WEIGHT = 0.1
EMPTY_CAPTIONS = 0.1
SHORT_TEXTS = 0.25  # share of captions padded to TEXT_LENGTH .. PIPELINE_TEXT instead of PIPELINE_TEXT
CONSTANT_SHARE = 0.35  # of the time with a constant rate, then linear to 1 %
AVERAGE_KEEP = 0.998
FIRST_STEPS = 4  # of the rehearsal, before the step is captured
REPORT = 500


@dataclass
class Plan:
    """How long to train: `total` seconds over all parts, at most `part` seconds now, and not past the time `end`;
    `last`: the rate falls to its end within this part. `steps` only for dry runs."""

    total: float
    part: float
    end: float = float("inf")
    last: bool = False
    batch: int = 256
    steps: int | None = None

    def begun(self, spent: float) -> "Plan":
        """The plan as the clock starts."""
        part = min(self.part, self.end - time.time())
        return replace(self, part=part, total=spent + part if self.last else self.total)


def write_flow(work: Path, weights: dict[str, Tensor], average: list[Tensor], step: int, spent: float) -> None:
    """flow.pt, to go on from, and model.pt: the average (bf16, in the order of the weights), for drawing and export."""
    torch.save({"weights": weights, "average": average, "step": step, "spent": spent}, work / "flow.pt")
    kept = {k: a for k, a in zip(weights, average) if not k.startswith("reader.")}
    torch.save(kept, work / "model.pt")


class FlowTrainer:
    """Holds the networks, their average and the optimizers."""

    def __init__(self, work: Path, clips: Clips, tokenizer: Tokenizer, graphed: bool):
        """graphed: capture a step as a CUDA graph."""
        self._work, self._clips, self._graphed = work, clips, graphed
        self._device = clips.tokens.device.type
        shape = (len(clips.tokens), GRID[0] * GRID[1] * GRID[2], PATCH)
        self._latents = torch.zeros(shape, dtype=torch.bfloat16, device=self._device)
        self._net = build_denoiser().to(self._device)
        self.step, self.spent = 0, 0.0
        average = self._load()
        inner, others = split(self._net, lambda n, p: p.ndim == 2 and n.startswith("dit.blocks."))
        text = {id(p) for m in ("text", "reader") for p in self._net[m].parameters()}
        groups = [
            ([p for p in others if id(p) not in text], ADAM_RATE),
            ([p for p in others if id(p) in text], TEXT_RATE),
        ]
        self._optimizers = Optimizers(self._net, inner, groups, MUON_RATE)
        self._optimizers.average = average or self._optimizers.average
        self._empty = torch.from_numpy(tokenizer.encode([""])).long().to(self._device)
        self._sums = torch.zeros(3, device=self._device)
        print("flow parameters:", {name: count(m) for name, m in self._net.items()}, flush=True)

    def _load(self) -> list[Tensor] | None:
        """Resumes from flow.pt and returns its average, or starts with the taught text encoder."""
        file = self._work / "flow.pt"
        if file.exists():
            saved = torch.load(file, map_location=self._device)
            self._net.load_state_dict(saved["weights"])
            self.step, self.spent = saved["step"], saved["spent"]
            print(f"flow: resumed at step {self.step} after {self.spent:.0f} s", flush=True)
            return [a.float() for a in saved["average"]]
        for name, weights in torch.load(self._work / "text.pt", map_location=self._device).items():
            self._net[name].load_state_dict(weights)
        return None

    def save(self) -> None:
        """Writes flow.pt and model.pt."""
        weights = {k: p.detach().cpu() for k, p in self._net.named_parameters()}
        average = [a.bfloat16().cpu() for a in self._optimizers.average]
        write_flow(self._work, weights, average, self.step, self.spent)

    def rehearse(self, batch: int) -> None:
        """Compiles the step and captures it as a graph, which needs no latents; weights are left as they were."""
        begin, kept = time.time(), self._optimizers.state()
        if self._device == "cuda":
            for module in [*self._net["dit"].blocks, self._net["text"]]:
                module.compile(dynamic=False)
        stream = torch.cuda.Stream() if self._graphed else None
        if self._graphed:
            stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(FIRST_STEPS):
                self._train_step(batch)
        self._step: Callable[[], None] = lambda: self._train_step(batch)
        if self._graphed:
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._train_step(batch)
            self._step = graph.replay
        self._optimizers.restore(kept)
        self._sums.zero_()
        print(f"flow: compiled in {time.time() - begin:.0f} s", flush=True)

    def run(self, plan: Plan, latents: Tensor) -> None:
        """Trains, after a rehearsal, until the part or the whole plan is over."""
        self._latents.copy_(latents)
        started, first, before = time.time(), self.step, self.spent
        plan = plan.begun(before)
        print(f"flow: {plan.part:.0f} s to go", flush=True)
        while True:
            elapsed = time.time() - started
            self.spent = before + elapsed
            done = (self.step - first) / plan.steps if plan.steps else self.spent / plan.total
            if done >= 1 or elapsed >= plan.part:
                break
            share = min(1.0, (self.step - first + 1) / 100)
            self._optimizers.share.fill_(share * min(1.0, max(0.01, (1 - done) / (1 - CONSTANT_SHARE))))
            self._step()
            self.step += 1
            if (self.step - first) % REPORT == 0 or plan.steps:
                self._report(1 if plan.steps else REPORT, elapsed)
            if self.step % 20 == 0 and self._device == "cuda":
                torch.cuda.synchronize()
        rate = (self.step - first) * plan.batch / max(1e-6, self.spent - before)
        print(f"flow: step {self.step}, {self.spent:.0f} s of training, {rate:.0f} clips/s", flush=True)

    def _report(self, steps: int, seconds: float) -> None:
        """One line of the log, of means over the last steps."""
        loss, reader, accuracy = (self._sums / steps).tolist()
        line = f"flow {self.step} {seconds:.0f}s loss {loss:.4f} reader {reader:.4f} captions read {accuracy:.3f}"
        print(line, flush=True)
        self._sums.zero_()

    def _lengths(self, batch: int) -> Tensor:
        """How many tokens each caption counts as padded to."""
        short = torch.rand(batch, 1, device=self._device) < SHORT_TEXTS
        some = torch.randint(TEXT_LENGTH, PIPELINE_TEXT, (batch, 1), device=self._device)
        return torch.where(short, some, PIPELINE_TEXT).float()

    def _sigmas(self, batch: int) -> Tensor:
        """Noise levels: mostly around 0.65 (a logistic-normal), some uniform."""
        middle = torch.sigmoid(1.1 * torch.randn(batch, device=self._device) + 0.6)
        uniform = torch.rand(batch, device=self._device)
        return torch.where(torch.rand(batch, device=self._device) < 0.15, uniform, middle)

    def _train_step(self, batch: int) -> None:
        """One update; adds flow loss, reader loss, and the share of captions read rightly to the sums.

        Nothing here may wait for the GPU or depend on numbers in it: it is captured as a graph.
        """
        index, tokens, told = draw_captions(self._clips, batch)
        latents = self._latents[index].float()
        emptied = torch.rand(batch, 1, device=self._device) < EMPTY_CAPTIONS
        shown = torch.where(emptied, self._empty, tokens)
        noise, sigma = torch.randn_like(latents), self._sigmas(batch)
        level = sigma.view(-1, 1, 1)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            states = self._net["text"](shown)
            noisy = (1 - level) * latents + level * noise
            bias = text_bias(shown, self._lengths(batch))
            velocity = self._net["dit"](noisy, 1000 * sigma, states, bias)
            logits = self._net["reader"](states.float(), shown)
        flow = (velocity.float() - (noise - latents)).pow(2).mean()
        reader, accuracy = reader_loss(logits, torch.where(emptied, -100, told))
        (flow + READER_WEIGHT * reader).backward()
        self._optimizers.step(AVERAGE_KEEP)
        self._sums += torch.stack([flow.detach(), reader.detach(), accuracy])
