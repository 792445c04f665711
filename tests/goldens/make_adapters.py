#!/usr/bin/env python3
"""Records several adapters at once: what a pipeline draws after load_lora_weights and set_adapters, without merging them.

    python tests/goldens/make_adapters.py CASE [FOLDER]      # without CASE: lists them

FOLDER gets a link to the model and the adapters in adapters/. GOLDENS names a folder with further models. Needs peft beside what make.py
needs. Adapters act on the model in the order in which a run lists them.
"""
import os
import pathlib
import sys

import torch
from make import BOATS, FOX, HERE
from parts import noise_of, open_folder
from recorder import AnotherRun, Recorded, Run

GOLDENS = pathlib.Path(os.environ.get("GOLDENS", HERE))


def write_adapter(folder, file, o, pipeline, part, config, seed):
    """An adapter of random factors; DoRA's lengths are those of the weights, changed by about a fifth."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = open_folder(folder / "model", pipeline)
    module = getattr(pipe, part)
    module.add_adapter(LoraConfig(**config))
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            if "lora_magnitude_vector" in name:
                p.mul_(1 + 0.2 * torch.randn(p.shape, generator=g))
            elif "lora_" in name:
                p.copy_(o.get("size", 0.4) * torch.randn(p.shape, generator=g) * (1.0 / p[0].numel()) ** 0.5)
    type(pipe).save_lora_weights(folder / "adapters", **{f"{part}_lora_layers": get_peft_model_state_dict(module),
                                                         f"{part}_lora_adapter_metadata": module.peft_config["default"].to_dict()},
                                 weight_name=file)


def adapters(folder, o):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        (folder / "model").symlink_to(os.path.relpath(GOLDENS / o["model"] / "model", folder))
    call, pipeline, part = o["call"], o["pipeline"], o["part"]
    for i, (name, config) in enumerate(o["adapters"].items()):
        write_adapter(folder, name + ".safetensors", o, pipeline, part, config, 11 + i)
    recorded, runs = Recorded(), {"base": {"adapter": None, "scale": 0.0}}
    for run, uses in {"base": {}, **o["runs"]}.items():
        pipe = open_folder(folder / "model", pipeline)
        for name in uses:
            pipe.load_lora_weights(folder / "adapters", weight_name=name + ".safetensors", adapter_name=name)
        if uses:
            pipe.set_adapters(list(uses), list(uses.values()))
            runs[run] = {"adapter": [f"adapters/{name}.safetensors" for name in uses], "scale": list(uses.values())}
        noise = noise_of(call, o["latent"], o["spatial"])
        Run(recorded if run == "base" else AnotherRun(recorded, run), pipe, lambda _: False, numbered=True).record(call, noise)
    recorded.write(folder, {"seed_noise": 7, "call": call, "pipeline": pipeline, "runs": runs})


LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
CASES = {
    # of the same layers: linears, and convolutions where an adapter names them; committed
    "sdxl_adapters": dict(
        model="sdxl_small", pipeline="StableDiffusionXLPipeline", part="unet", latent=4, spatial=8,
        adapters=dict(style=dict(r=2, lora_alpha=3, target_modules=[*LAYERS, "proj_in", "conv1"]),
                      shape=dict(r=3, lora_alpha=6, target_modules=[*LAYERS, "conv2"], use_rslora=True),
                      norms=dict(r=2, lora_alpha=4, target_modules=[*LAYERS, "proj_in", "conv1"], use_dora=True),
                      more_norms=dict(r=1, lora_alpha=1, target_modules=["to_q", "to_v", "conv1"], use_dora=True)),
        call=dict(prompt=FOX, negative_prompt="blurry, low quality", height=40, width=24, num_inference_steps=2, guidance_scale=6.0),
        runs=dict(two=dict(style=0.8, shape=0.5), two_turned=dict(shape=0.5, style=0.8), lora_dora=dict(style=0.8, norms=0.6),
                  dora_lora=dict(norms=0.6, style=0.8), doras=dict(norms=1.0, more_norms=0.7),
                  four=dict(style=0.5, more_norms=1.0, shape=-0.4, norms=0.9))),
    "sd3_adapters": dict(
        model="sd3_small", pipeline="StableDiffusion3Pipeline", part="transformer", latent=4, spatial=2,
        adapters=dict(style=dict(r=2, lora_alpha=3, target_modules=["to_q", "to_v", "add_k_proj", "to_out.0", "ff.net.2", "linear"]),
                      norms=dict(r=3, lora_alpha=4, target_modules=["to_q", "to_k", "ff.net.0.proj", "to_add_out"], use_dora=True)),
        call=dict(prompt=[FOX, BOATS], height=16, width=20, num_inference_steps=2, guidance_scale=4.0, max_sequence_length=9),
        runs=dict(both=dict(style=0.8, norms=0.6), turned=dict(norms=0.6, style=0.8))),
}

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("cases: " + ", ".join(CASES))
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    adapters(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else HERE / sys.argv[1]), CASES[sys.argv[1]])
