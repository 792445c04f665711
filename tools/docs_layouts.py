"""Tables of layouts: which families take which strategy, and which options go with which, both by asking the program."""

import functools
import pathlib
import sys
import tempfile

from docs_program import ROOT, ask, side_by_side, table, told

sys.path.insert(0, str(ROOT / "tests"))
import _png  # noqa: E402  tests read pictures the same way

# A model of each family; its settings are the family's own.
MODELS = {
    "FLUX.1": "FLUX.1-dev", "SD3, SD3.5": "stable-diffusion-3.5-large", "PixArt": "PixArt-Sigma-XL-2-1024-MS", "HunyuanDiT": "HunyuanDiT-v1.2-Diffusers",
    "SDXL": "stable-diffusion-xl-base-1.0", "Wan 1.3B": "Wan2.1-T2V-1.3B-Diffusers", "Wan 14B": "Wan2.1-T2V-14B-Diffusers",
}
SIZES = (2, 4, 8, 16)
AXES = ("data", "cfg", "pipefusion", "ring", "kv_gather", "ulysses", "tensor")


@functools.cache
def listing(model: str, ranks: int) -> tuple:
    """(facts of the model as text, the set of layouts) that the program lists."""
    lines = told("layouts", "--dummy", model, "--num_gpus", str(ranks)).splitlines()
    return lines[0].split(": ", 1)[1], {line.split("  ")[0] for line in lines[1:] if " % idle" in line}


def families() -> str:
    """Numbers of ranks on which each strategy alone is a valid layout."""
    side_by_side([lambda m=m, n=n: listing(m, n) for m in MODELS.values() for n in SIZES])
    rows = []
    for family, model in MODELS.items():
        cells = []
        for axis in AXES:
            sizes = [str(n) for n in SIZES if f"{axis}={n}" in listing(model, n)[1]]
            cells.append(", ".join(sizes) or "no")
        rows.append([family, model, listing(model, 2)[0], *cells])
    return table(["Family", "Asked of", "In its own size", *AXES], rows)


STRATEGIES = {"data=2": "data", "cfg=2": "CFG", "pipefusion=2": "PipeFusion", "pipefusion=2, sync": "stages, sync", "ring=2": "ring", "kv_gather=2": "K/V gather", "ulysses=2": "Ulysses",
              "tensor=2": "tensor"}
OPTIONS = {
    "VAE slicing": ["--enable_vae_slicing"],
    "VAE tiling": ["--enable_vae_tiling"],
    "parallel VAE": ["--use_parallel_vae"],
    "graph mode (`--compile`)": ["--compile"],
    "Flash attention": ["--attention_backend", "flash"],
    "xFormers": ["--attention_backend", "xformers"],
    "SageAttention": ["--attention_backend", "sage"],
    "step cache": ["--cache_type", "first_block_cache", "--cache_threshold", "0.5"],
    "CPU offload (`--offload model`)": ["--offload", "model"],
    "CPU offload (`--offload sequential`)": ["--offload", "sequential"],
    "batch of two": ["--batch_size", "2"],
    "weight shards": ["--fully_shard_degree", "2"],
    "FP8 products (`--tier fast`)": ["--tier", "fast"],
    "FP8 attention (`--attention_dtype`)": ["--attention_dtype", "fp8_e4m3"],
    "the same bits (`--deterministic`)": ["--deterministic"],
    "chunked MLPs": ["--enable_activation_checkpointing"],
    "image to image": ["--image", str(ROOT / "tests/goldens/flux_edits/image.png")],
}
MOST_LEVELS, MOST_SHARE = 1, 1e-3  # an 8-bit value on an edge may be rounded the other way


def drawn(folder: pathlib.Path, option: str, strategy: str):
    """Draws two pictures; the finished process."""
    batch = [] if "--batch_size" in OPTIONS.get(option, []) else ["--batch_size", "2" if strategy == "data=2" else "1"]
    words = ["t2i", "--model_name", "mini", "--prompt", "a red circle", "two blue stars", "--seed", "1", "--height", "64", "--width", "64",
             "--num_inference_steps", "4", "--device", "cpu", "--output_dir", str(folder), *batch, *OPTIONS.get(option, [])]
    return ask(*words, *(["--strategy", strategy] if strategy else []))


def notes_of(text: str, option: str) -> str:
    """What the program says about the option's flag; empty: nothing."""
    flag = OPTIONS[option][0]
    lines = [line for line in text.splitlines() if line.startswith(("note", "warning")) and flag in line]
    return lines[0].split(flag, 1)[1].strip() if lines else ""


@functools.cache
def alone(option: str) -> dict:
    """The files that one rank draws under an option; shards have no meaning there."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = drawn(folder, option if option != "weight shards" else "", "")
        if done.returncode != 0:
            raise RuntimeError(f"{option}, one rank: exit {done.returncode}: {done.stderr}")
        return {file.name: file.read_bytes() for file in folder.glob("*.png")}


def is_same(folder: pathlib.Path, option: str) -> bool:
    """Whether the pictures of a folder are those of one rank, but for roundings of values on an edge."""
    for name, data in alone(option).items():
        one = folder / f"one_{name}"
        one.write_bytes(data)
        levels, share = _png.difference(one, folder / name)
        if levels > MOST_LEVELS or share > MOST_SHARE:
            return False
    return True


def cell(option: str, strategy: str) -> tuple:
    """(outcome, the program's words): same, approximate, refused, or no effect."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = drawn(folder, option, strategy)
        if done.returncode == 2:
            return "refused", done.stderr.split("error: ", 1)[1].strip()
        if done.returncode != 0:
            raise RuntimeError(f"{option}, {strategy}: exit {done.returncode}: {done.stderr}")
        note = notes_of(done.stdout + done.stderr, option)
        if "no effect" in note:
            return "no effect", note
        return ("same" if is_same(folder, option) else "approximate"), note


def compatibility(only=None) -> str:
    """Options against strategies; only: some of the options."""
    options = [o for o in OPTIONS if only is None or o in only]
    pairs = [(o, s) for o in options for s in STRATEGIES]
    cells = dict(zip(pairs, side_by_side([lambda p=p: cell(*p) for p in pairs])))
    rows = []
    for option in options:
        mine = [cells[option, s] for s in STRATEGIES]
        # the first sentence: what follows names layouts that work, which differ
        words = list(dict.fromkeys(w.split(";")[0] for _, w in mine if w))
        rows.append([option, *[outcome for outcome, _ in mine], "; ".join(words)])
    return table(["Option", *STRATEGIES.values(), "In the program's words"], rows)
