"""Tables of what was measured, model by model, from results/."""

import json

from docs_program import ROOT, table

# Milliseconds of a step that were aimed at, for one GPU, both branches of guidance.
GOALS = {"stable-diffusion-xl-base-1.0": 31, "stable-diffusion-3-medium": 39, "stable-diffusion-3.5-large": 142, "PixArt-Sigma-XL-2-1024-MS": 29,
         "HunyuanDiT-v1.2-Diffusers": 60, "Wan2.1-T2V-1.3B-Diffusers": 900, "Wan2.1-T2V-14B-Diffusers": 5120}
FILES = ("families_gpus_4.json", "families_gpus_2.json", "fp8_attention.json", "many_gpus.json")


def load(name: str):
    """A result file."""
    return json.loads((ROOT / "results" / name).read_text())


def rows_of(name: str) -> list:
    """The rows of a result file with the file's name, or none."""
    path = ROOT / "results" / name
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    rows = found if isinstance(found, list) else found.get("rows", [])
    return [row | {"file": name} for row in rows if isinstance(row, dict) and "ms_per_step" in row and "model" in row]


def peaks(row: dict) -> str:
    """Most device memory of each rank, GiB."""
    found = row.get("peak_bytes") or [p["device_bytes"] for p in row["peak_memory"]]
    return " / ".join(f"{b / 2**30:.1f}" for b in found)


def line(row: dict, alone: dict) -> list:
    """One row of a table; alone: ms per step of one GPU, by what else is equal."""
    ms, n = row["ms_per_step"], row["ranks"]
    one = alone.get(key(row))
    ratio = f"{one / ms['median']:.2f} ({one / ms['median'] / n:.0%})" if one and n > 1 else ""
    tier = "" if row.get("tier", "exact") == "exact" else f", tier {row['tier']}"
    tier += "" if row.get("attention_dtype", "auto") == "auto" else f", attention {row['attention_dtype']}"
    return [n, row["layout"] + tier, row["steps"], f"{ms['median']:.1f} ({ms['min']:.1f} to {ms['max']:.1f})", ratio,
            f"{row['decode_s']['median'] * 1e3:.0f}", f"{row['picture_s']['median']:.2f}" if "picture_s" in row else "",
            peaks(row), f"`results/{row['file']}`"]


def key(row: dict) -> tuple:
    return row["file"], row["model"], row["width"], row["height"], row.get("tier", "exact"), row.get("attention_dtype"), row.get("branches")


def performance() -> str:
    """A section for each model and size."""
    rows = [row for name in FILES for row in rows_of(name)]
    alone = {key(r): r["ms_per_step"]["median"] for r in rows if r["ranks"] == 1}
    sections = {}
    for row in rows:
        size = f"{row['width']} x {row['height']}" + (f", {row['frames']} frames" if "frames" in row else "")
        sections.setdefault((row["model"].split(" ")[0], size), []).append(row)
    out = []
    for (model, size), own in sorted(sections.items()):
        device = ", ".join(sorted({f"{r['device'].split(' (')[0]}, {r['dtype']}" for r in own}))
        own.sort(key=lambda r: (r["ranks"], r["ms_per_step"]["median"]))
        head = ["GPUs", "Layout", "Steps", "ms per step", "Against one GPU (efficiency)", "Decode, ms", "Whole, s", "Peak GiB per rank", "File"]
        out.append(f"## {model}, {size}\n\n{device}.\n\n" + table(head, [line(r, alone) for r in own]))
    return "\n\n".join(out)


def beside_diffusers() -> str:
    """Every family on one GPU by both programs."""
    found = load("beside_diffusers.json")
    head = ["Model", "Atelier, ms per step", "Aimed at", "diffusers compiled", "eager", "Ratio to compiled", "Decode, ms", "compiled", "Picture or video, s", "compiled",
            "Compiling, s"]
    rows = []
    for row in found["rows"] + load("beside_diffusers_720p.json")["rows"]:
        own, peer, eager = row["atelier"], row["diffusers"]["compiled"], row["diffusers"]["eager"]
        ms, aim = own["ms_per_step"], "" if row["height"] == 720 else GOALS[row["model"]]
        whole = [f"{row['steps'] * part['ms_per_step']['median'] / 1e3 + part['decode_ms']['median'] / 1e3:.2f}" for part in (own, peer)]
        rows.append([row["model"].removesuffix("-Diffusers") + (f", {row['width']} x {row['height']}, {row['frames']} frames" if "frames" in row else ""),
                     f"{ms['median']:.1f} ({ms['min']:.1f} to {ms['max']:.1f})", aim, f"{peer['ms_per_step']['median']:.1f}",
                     f"{eager['ms_per_step']['median']:.1f}", f"{ms['median'] / peer['ms_per_step']['median']:.2f}",
                     f"{own['decode_ms']['median']:.0f}", f"{peer['decode_ms']['median']:.0f}", *whole, f"{peer['seconds_with_compiling']:.0f}"])
    return table(head, rows) + (f"\n\n{found['gpu']}, diffusers {found['diffusers']}, torch {found['torch']}, bfloat16, random weights, 1024 px where no size is "
                                "said; medians of `results/beside_diffusers.json` and, of 720p, `beside_diffusers_720p.json`. Steps compute both branches of guidance. Picture or video: that file's "
                                "number of steps and decoding. Compiling: until all of diffusers' runs were done.")


def aims() -> str:
    """What was aimed at for FLUX.1-schnell on one GPU, and what came."""
    exact, fast, both = load("one_gpu.json")["rows"]
    peer = load("one_gpu_diffusers.json")["compiled_blocks"]["median_ms_per_step"]
    eight = load("one_gpu_diffusers_fp8.json")["compiled_blocks"]["median_ms_per_step"]
    long = load("one_gpu_opened.json")["after"]["28 steps"]
    large = next(r for r in load("fp8_attention.json")["rows"] if r["width"] == 2048 and "attention_dtype" not in r)
    ms = lambda row, key: 1e3 * row[key]["median"]
    step = lambda row: row["ms_per_step"]["median"]
    rows = [("exact step of 4, ms", 115, step(exact), "one_gpu"), ("against diffusers compiled", 0.87, step(exact) / peer, "one_gpu_diffusers"),
            ("exact step of 28, ms", 118, step(long), "one_gpu_opened"), ("`--tier fast`, ms", 82, step(fast), "one_gpu"),
            ("with `--attention_dtype fp8_e4m3`, ms", 76, step(both), "one_gpu"),
            ("the former against diffusers with torchao's FP8, compiled", "", step(fast) / eight, "one_gpu_diffusers_fp8"),
            ("decoding 1024 px, ms", 25, ms(exact, "decode_s"), "one_gpu"), ("decoding 2048 px, ms", 120, ms(large, "decode_s"), "fp8_attention"),
            ("encoding, ms", 10, ms(exact, "encode_s"), "one_gpu"), ("picture, model resident, ms", 500, ms(exact, "picture_s"), "one_gpu"),
            ("the same, `--tier fast`, ms", 360, ms(fast, "picture_s"), "one_gpu"),
            ("start to exit with the first PNG, s", 3.5, load("one_gpu_load.json")["first_picture_s"]["whole"], "one_gpu_load")]
    number = lambda v: f"{v:.2f}" if v < 1 else f"{v:.1f}"
    return table(["FLUX.1-schnell, 1024 px, one H200", "Aimed at", "Measured", "", "File"],
                 [[what, aim, number(got), "" if aim == "" or got <= aim else f"missed by {got / aim - 1:.0%}", f"`results/{file}.json`"]
                  for what, aim, got, file in rows])


def kernels() -> str:
    """Milliseconds per step by kind of kernel, a column for each run."""
    runs = load("kernel_times.json")["runs"]
    kinds = list(dict.fromkeys(kind for run in runs for kind in run["ms_per_step"] if kind != "random weights"))
    head = ["Kernels, ms per step", *(run["run"] for run in runs)]
    return table(head, [[kind, *(f"{run['ms_per_step'][kind]:.1f}" if kind in run["ms_per_step"] else "" for run in runs)] for kind in kinds])


def attention() -> str:
    """Microseconds of the two attention kernels for every shape that was measured."""
    found = load("attention.json")
    head = ["Batch, queries x keys, heads x width", "cuDNN, us", "FlashAttention-3, us", "Ratio", "TFLOP/s of the faster"]
    rows = []
    for r in found["rows"]:
        flop = 4 * r["batch"] * r["queries"] * r["keys"] * r["heads"] * r["width"]
        rows.append([f"{r['batch']}, {r['queries']} x {r['keys']}, {r['heads']} x {r['width']}", f"{r['cudnn_us']:.0f}", f"{r['flash3_us']:.0f}",
                     f"{r['flash3_us'] / r['cudnn_us']:.2f}", f"{flop / min(r['cudnn_us'], r['flash3_us']) / 1e6:.0f}"])
    return table(head, rows) + f"\n\n{found['device']}, torch {found['torch']}, cuDNN {found['cudnn']}: {found['what']}"


def eight_bits() -> str:
    """What FP8 products and attention cost in likeness."""
    return eight_bits_table(load("fp8_quality.json"))


def eight_bits_table(report: dict) -> str:
    """Of a report of tools/mini/fp8_quality.py."""
    rows = []
    for r in report["rows"]:
        likeness = f"{r['psnr_median']:.1f} ({r['psnr_min']:.1f})" if "psnr_min" in r else ""
        rows.append([r["setting"], likeness, f"{r['right']:.1%}", ", ".join(f"{e:.1e}" for e in r["prediction_errors"])])
    return table(["Setting", "PSNR against float32, dB, median (worst)", "Checker finds right", "Mean error of each step's prediction"], rows)
