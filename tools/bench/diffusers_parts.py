"""Times what stands around FLUX's denoiser in diffusers and transformers: the decoder and the two text encoders.

python3 tools/bench/diffusers_parts.py --out FILE [--sizes 1024 2048] [--text 512] [--runs 5]

Each part eager and compiled (reduce-overhead: with CUDA graphs), random weights, bfloat16, one GPU; milliseconds by the
wall clock, device waited for: median, min and max of the runs after three warm-ups. The decoder lies channels last where
it is compiled, which is slower eagerly.
"""

import argparse
import json
import statistics
import time

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

DECODER = dict(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
               up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
               latent_channels=16, norm_num_groups=32, use_quant_conv=False, use_post_quant_conv=False)
T5 = dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=32128,
          feed_forward_proj="gated-gelu")
CLIP = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)


def on_gpu(build):
    """A model in bfloat16 whose weights are drawn on the GPU."""
    with torch.device("cuda"):
        return build().to(torch.bfloat16).eval().requires_grad_(False)


@torch.inference_mode()
def time_calls(call, runs: int, warmups: int = 3) -> dict:
    """Milliseconds of single calls by the wall clock, the device waited for."""
    times = []
    for run in range(runs + warmups):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if run >= warmups:
            times.append((time.perf_counter() - start) * 1000)
    return dict(median=statistics.median(times), min=min(times), max=max(times), runs=runs)


def time_decoder(size: int, runs: int) -> dict:
    """The decoder of one picture of size x size pixels."""
    vae = on_gpu(lambda: AutoencoderKL(**DECODER))
    latents = torch.randn(1, 16, size // 8, size // 8, device="cuda", dtype=torch.bfloat16)
    eager = time_calls(lambda: vae.decode(latents, return_dict=False), runs)
    latents = latents.contiguous(memory_format=torch.channels_last)
    vae = vae.to(memory_format=torch.channels_last)
    decoder = torch.compile(vae.decoder, mode="reduce-overhead", fullgraph=True)  # nothing else is in decode()
    return dict(eager=eager, compiled=time_calls(lambda: decoder(latents), runs))


def time_encoders(tokens: int, runs: int) -> dict:
    """T5-XXL's encoder over so many tokens, CLIP's over its 77, one after the other."""
    t5, clip = on_gpu(lambda: T5EncoderModel(T5Config(**T5))), on_gpu(lambda: CLIPTextModel(CLIPTextConfig(**CLIP)))
    long = torch.randint(0, 32000, (1, tokens), device="cuda")
    short = torch.randint(0, 40000, (1, 77), device="cuda")

    def both(encode_long, encode_short):
        return lambda: (encode_long(input_ids=long), encode_short(input_ids=short))

    eager = time_calls(both(t5, clip), runs)
    compiled = both(torch.compile(t5, mode="reduce-overhead"), torch.compile(clip, mode="reduce-overhead"))
    return dict(eager=eager, compiled=time_calls(compiled, runs))


def main() -> None:
    """Times the parts and writes the result file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    for flag, value in (("--runs", 5), ("--text", 512)):
        parser.add_argument(flag, type=int, default=value)
    args = parser.parse_args()
    result = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, diffusers=diffusers.__version__,
                  transformers=transformers.__version__, text_tokens=args.text)
    result["encode"] = time_encoders(args.text, args.runs)
    print("encode", result["encode"], flush=True)
    for size in args.sizes:
        torch.compiler.reset()
        torch.cuda.empty_cache()
        result[f"decode_{size}"] = time_decoder(size, args.runs)
        print("decode", size, result[f"decode_{size}"], flush=True)
    with open(args.out, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
