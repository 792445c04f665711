"""Times diffusers' FLUX transformer with random weights: eager, and with its blocks compiled.

python3 tools/bench/diffusers_flux.py --out FILE [--steps 4] [--height 1024] [--width 1024] [--runs 5]
torchrun --nproc_per_node N tools/bench/diffusers_flux.py --out FILE --context_parallel ulysses|ring ...
With --fp8 the linears of the blocks multiply e4m3 rows with a scale each (torchao), as --tier fast does here.

Prints and writes milliseconds per step (median, min and max of the runs, after two warm-ups) of the denoising loop
alone, as the engine's own report gives them. bfloat16, FLUX.1-schnell geometry; one GPU, or several by diffusers'
context parallelism, each of them with the same weights and inputs.
"""

import argparse
import json
import os
import statistics
import time

import diffusers
import torch
from diffusers import FluxTransformer2DModel

GEOMETRY = dict(patch_size=1, in_channels=64, num_layers=19, num_single_layers=38, attention_head_dim=128,
                num_attention_heads=24, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=False,
                axes_dims_rope=(16, 56, 56))


def build_model() -> FluxTransformer2DModel:
    """The transformer in bfloat16 on the GPU, its weights drawn there."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(**GEOMETRY)
    model = model.to(torch.bfloat16).to_empty(device="cuda").eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.02)
        if name.endswith(("norm_q.weight", "norm_k.weight")):
            torch.nn.init.ones_(parameter)
    model.pos_embed = type(model.pos_embed)(theta=10000, axes_dim=[16, 56, 56])
    return model


def make_inputs(height: int, width: int, text_tokens: int) -> dict:
    """What the pipeline hands to the transformer, random."""
    rows, cols = height // 16, width // 16
    ids = torch.zeros(rows, cols, 3, device="cuda")
    ids[..., 1] += torch.arange(rows, device="cuda")[:, None]
    ids[..., 2] += torch.arange(cols, device="cuda")[None]
    normal = dict(device="cuda", dtype=torch.bfloat16)
    return dict(hidden_states=torch.randn(1, rows * cols, 64, **normal),
                encoder_hidden_states=torch.randn(1, text_tokens, 4096, **normal),
                pooled_projections=torch.randn(1, 768, **normal), img_ids=ids.view(-1, 3),
                txt_ids=torch.zeros(text_tokens, 3, device="cuda"), return_dict=False)


@torch.inference_mode()
def time_loop(model, inputs: dict, steps: int, runs: int) -> dict:
    """Milliseconds per step of whole denoising loops, two warm-ups before."""
    times = []
    for run in range(runs + 2):
        latents = inputs["hidden_states"].clone()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(steps):
            sigma = torch.tensor([1 - i / steps], device="cuda", dtype=torch.bfloat16)
            velocity = model(**{**inputs, "hidden_states": latents}, timestep=sigma)[0]
            latents = latents - velocity / steps
        torch.cuda.synchronize()
        if run >= 2:
            times.append((time.perf_counter() - start) * 1000 / steps)
    return dict(median_ms_per_step=statistics.median(times), min=min(times), max=max(times), runs=runs)


def quantise(model) -> str:
    """The blocks' linears in e4m3, activations and weights with a scale per row; torchao's version."""
    import torchao
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    for blocks in (model.transformer_blocks, model.single_transformer_blocks):
        # modulations stay as they are: they multiply one row
        quantize_(blocks, config, filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and "norm" not in name)
    return torchao.__version__


def spread(model, kind: str) -> int:
    """Cuts the sequence over the processes that torchrun has started; how many there are."""
    import torch.distributed as dist
    from diffusers import ContextParallelConfig
    gpus, number = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device("cuda", number))
    model.set_attention_backend("_native_cudnn")
    model.enable_parallelism(config=ContextParallelConfig(**{f"{kind}_degree": gpus}))
    return gpus


def main() -> None:
    """Runs both ways and writes the result file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    for flag, value in (("--steps", 4), ("--height", 1024), ("--width", 1024), ("--runs", 5), ("--text", 512)):
        parser.add_argument(flag, type=int, default=value)
    parser.add_argument("--context_parallel", choices=("ulysses", "ring"))
    parser.add_argument("--fp8", action="store_true")
    args = parser.parse_args()
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    model, inputs = build_model(), make_inputs(args.height, args.width, args.text)
    result = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, diffusers=diffusers.__version__,
                  height=args.height, width=args.width, steps=args.steps, text_tokens=args.text)
    if args.fp8:
        result["torchao"] = quantise(model)
    if args.context_parallel:
        result.update(gpus=spread(model, args.context_parallel), context_parallel=args.context_parallel)
    result["eager"] = time_loop(model, inputs, args.steps, args.runs)
    print("diffusers eager", result["eager"], flush=True)
    start = time.perf_counter()
    for blocks in (model.transformer_blocks, model.single_transformer_blocks):
        for block in blocks:
            block.compile(fullgraph=True)
    try:
        result["compiled_blocks"] = time_loop(model, inputs, args.steps, args.runs)
        result["compiled_blocks"]["seconds_with_compiling"] = time.perf_counter() - start
    except Exception as error:  # not every way to spread it can be compiled: that is a result too
        result["compiled_blocks"] = dict(error=str(error)[:500])
    print("diffusers compiled", result["compiled_blocks"], flush=True)
    if int(os.environ.get("RANK", 0)) == 0:
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)
    os._exit(0)  # leaving NCCL in order can take longer than all runs


if __name__ == "__main__":
    main()
