#!/usr/bin/env python3
"""Records calls of pipelines under step caches, with the models of other cases.

    python tests/goldens/make_cached.py CASE [FOLDER]      # without CASE: lists them

First block: diffusers' own FirstBlockCache. TeaCache: its rule (Liu et al., arXiv 2411.19108), written out below around diffusers'
model. Both have a state per branch of guidance. Prints each step's change, so that a threshold can be chosen that no change is near.
"""
import os
import pathlib
import sys

import numpy as np
import torch
from make import BOATS, FOX, HERE
from parts import open_folder
from recorder import Recorded

FLUX = [4.98651651e+02, -2.83781631e+02, 5.58554382e+01, -3.82021401e+00, 2.64230861e-01]
CASES = {
    "flux_cached": dict(
        model="flux_two_branches", family="flux", pipeline="FluxPipeline", noise=(1, 4, 8, 14),
        call=dict(prompt=FOX, prompt_2=BOATS, negative_prompt="blurry, low quality", negative_prompt_2="extra fingers", true_cfg_scale=2.5,
                  guidance_scale=2.0, height=16, width=28, num_inference_steps=8, max_sequence_length=12),
        runs={"": dict(cache_type="first_block_cache", cache_threshold=0.65), "tea": dict(cache_type="teacache", cache_threshold=1.9)}),
    # two denoisers, each with a state of its own
    "wan_cached": dict(
        model="wan_experts", family="wan", pipeline="WanPipeline", noise=(1, 4, 2, 6, 6), about=dict(flow_shift=5.0),
        call=dict(prompt=FOX, negative_prompt="blurry", height=48, width=48, num_frames=5, num_inference_steps=10, guidance_scale=4.0,
                  guidance_scale_2=2.5, max_sequence_length=20),
        runs={"": dict(cache_type="first_block_cache", cache_threshold=0.4)})}
NEAR = 0.01  # of the threshold: no change may be so near


class Branch:
    """What TeaCache keeps of one branch."""

    before = residual = None
    accumulated = 0.0
    step = 0


class TeaCache:
    """Instead of a FLUX transformer's forward call."""

    def __init__(self, transformer, threshold, steps, told):
        self.model, self.threshold, self.steps, self.told = transformer, threshold, steps, told
        self.original, transformer.forward = transformer.forward, self
        self.branches, self.calls = (Branch(), Branch()), 0

    def is_computed(self, branch, modulated):
        first, last = branch.step == 0, branch.step == self.steps - 1
        branch.step += 1
        if first or last:
            branch.accumulated = 0.0
            return True
        change = ((modulated - branch.before).abs().mean() / branch.before.abs().mean()).item()
        branch.accumulated += np.polyval(FLUX, change)
        self.told(branch.accumulated)
        if branch.accumulated < self.threshold:
            return False
        branch.accumulated = 0.0
        return True

    def __call__(self, hidden_states, timestep, guidance, pooled_projections, **others):
        branch = self.branches[self.calls % 2]
        self.calls += 1
        x = self.model.x_embedder(hidden_states)
        condition = self.model.time_text_embed(timestep * 1000, guidance * 1000, pooled_projections)
        modulated = self.model.transformer_blocks[0].norm1(x, emb=condition)[0]
        computed = self.is_computed(branch, modulated)
        branch.before = modulated
        if not computed:
            return (self.model.proj_out(self.model.norm_out(x + branch.residual, condition)),)
        ends = []
        hook = self.model.norm_out.register_forward_pre_hook(lambda _, args: ends.append(args[0]))
        out = self.original(hidden_states=hidden_states, timestep=timestep, guidance=guidance,
                            pooled_projections=pooled_projections, **others)
        hook.remove()
        branch.residual = ends[0] - x
        return out


def listen(transformer, told):
    """Tells every change that diffusers' first block compares."""
    hook = first_block(transformer)._diffusers_hook.hooks["fbc_leader_block_hook"]
    decide = hook._should_compute_remaining_blocks

    def listening(residual):
        before = hook.state_manager.get_state().head_block_residual
        if before is not None:
            told(((residual - before).abs().mean() / before.abs().mean()).item())
        return decide(residual)

    hook._should_compute_remaining_blocks = listening


def first_block(transformer):
    return (transformer.transformer_blocks if hasattr(transformer, "transformer_blocks") else transformer.blocks)[0]


def last_block(transformer):
    return (transformer.single_transformer_blocks[-1].attn if hasattr(transformer, "single_transformer_blocks")
            else transformer.blocks[-1].attn1)


def run(add, o, rule):
    """One call; the steps in which each branch computed its last block."""
    from diffusers.hooks import FirstBlockCacheConfig

    pipe = open_folder(HERE / o["model"] / "model", o["pipeline"])
    changes, ran, state, steps = [], [], {"step": 0, "calls": 0}, o["call"]["num_inference_steps"]

    def recorded(transformer):
        if rule["cache_type"] == "teacache":
            TeaCache(transformer, rule["cache_threshold"], steps, changes.append)
        else:
            transformer.enable_cache(FirstBlockCacheConfig(threshold=rule["cache_threshold"]))
            listen(transformer, changes.append)
        last_block(transformer).register_forward_hook(lambda *_: ran.append((state["step"], state["calls"])))
        forward = transformer.forward

        def call(*args, **kwargs):
            out = forward(*args, **kwargs)
            add(f"step{state['step']}.model_out" + (".1" if state["calls"] else ""), out[0])
            state["calls"] += 1
            return out

        transformer.forward = call

    for name in ("transformer", "transformer_2"):
        if getattr(pipe, name, None) is not None:
            recorded(getattr(pipe, name))
    step = pipe.scheduler.step

    def recorded_step(model_output, timestep, sample, **kwargs):
        out = step(model_output, timestep, sample, **kwargs)
        add(f"step{state['step']}.latents", out[0])
        state.update(step=state["step"] + 1, calls=0, last=out[0])
        return out

    pipe.scheduler.step = recorded_step
    noise = torch.randn(o["noise"], generator=torch.Generator().manual_seed(7))
    packs = hasattr(pipe, "_pack_latents")
    latents = pipe._pack_latents(noise, *noise.shape) if packs else noise
    pipe(**o["call"], latents=latents.clone(), output_type="latent")
    last = state["last"]
    add("noise", noise)
    add("latents.final", pipe._unpack_latents(last, o["call"]["height"], o["call"]["width"], pipe.vae_scale_factor) if packs else last)
    add("timesteps", pipe.scheduler.timesteps)
    each = [[s for s, branch in ran if branch == b] for b in (0, 1)]
    print(rule, "changes", " ".join(f"{c:.4f}" for c in changes), "computed", each)
    if min(abs(c / rule["cache_threshold"] - 1) for c in changes) < NEAR:
        sys.exit("a change is near the threshold")
    if each[0] == each[1] or any(len(s) in (1, steps) for s in each):
        sys.exit("nothing is decided, or the same in both branches")
    return each


def main(folder, o):
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.is_symlink():
        model.symlink_to(os.path.relpath(HERE / o["model"] / "model", folder))
    r, computed = Recorded(), {}
    for name, rule in o["runs"].items():
        prefix = name + "." if name else ""
        computed[name or "first_block"] = run(
            lambda what, value: r.add(what if what == "noise" else prefix + what, value), o, rule)
    described = {f"{name}_run": rule for name, rule in o["runs"].items() if name}
    r.write(folder, {"seed_noise": 7, "call": {**o["call"], **o["runs"][""]}, **described, "computed_steps_by_branch": computed,
                     "family": o["family"], "pipeline": o["pipeline"], **o.get("about", {})})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("cases: " + ", ".join(CASES))
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    main(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / sys.argv[1], CASES[sys.argv[1]])
