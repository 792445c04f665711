#!/usr/bin/env python3
"""What the planner predicts beside what was measured, for every row of results/: results/plan_predictions.json, and the
tables of docs/plan.md between their markers.

  python3 tools/plan/predictions.py [--atelier PROGRAM]           writes both
  python3 tools/plan/predictions.py --check [--atelier PROGRAM]   exits 1 if either differs from what it would write
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools/bench"))
from rows import text_of  # noqa: E402

RESULT, PAGE = ROOT / "results" / "plan_predictions.json", ROOT / "docs" / "plan.md"
GIB = 2**30


# Branches of a step and tokens of text, as the rows were measured.
ASKED = {"FLUX.1-schnell": (1, 512), "stable-diffusion-3-medium": (2, 256), "HunyuanDiT-v1.2-Diffusers": (2, 256),
         "PixArt-Sigma-XL-2-1024-MS": (2, 300), "stable-diffusion-xl-base-1.0": (2, 77)}


def measured_rows():
    """(set, model, layout, side, steps, branches, text tokens, ms, peak bytes, weight bytes, flags) of every row."""
    # These are older than stores and FlashAttention-3.
    for row in json.loads((ROOT / "results/many_gpus.json").read_text())["rows"]:
        layout = row["layout"] + (", collective" if "ulysses" in row["layout"] else "")
        yield ("held out", row["model"].split(" (")[0], layout, row["height"], row["steps"], row["branches"], row["text_tokens"],
               row["ms_per_step"]["median"], row["peak_bytes"], row["weight_bytes"], ["--attention_backend", "cudnn"])
    for name in ("families_gpus_2.json", "families_gpus_4.json"):
        for row in json.loads((ROOT / "results" / name).read_text())["rows"]:
            model = row["model"].split(" (")[0]
            if model not in ASKED or row["tier"] != "exact" or "attention_dtype" in row:
                continue
            is_older = name == "families_gpus_2.json"
            # Stores were fitted on the last of these.
            is_fitted = is_older and (row["ranks"] == 1 or (model, row["layout"], row["height"]) == ("FLUX.1-schnell", "ulysses=2", 1024))
            # The older file's keys and values went by messages.
            layout = row["layout"] + (", collective" if is_older and "kv_gather" in row["layout"] else "")
            yield ("fitted on" if is_fitted else "held out", model, layout, row["height"], row["steps"], *ASKED[model],
                   row["ms_per_step"]["median"], [p["device_bytes"] for p in row["peak_memory"]], row["weight_bytes"], [])


def predict(atelier, model, layout, side, steps, branches, text, flags):
    """The row of `atelier plan` for one layout on H200s."""
    if "parallel_vae" not in layout:
        layout += ", parallel_vae=false"  # results/ is older than the default
    command = [atelier, "plan", "--json", "--hardware", "H200", "--links", "nvlink", "--dummy", model, "--height", str(side),
               "--width", str(side), "--num_inference_steps", str(steps), "--max_sequence_length", str(text), "--strategy",
               layout, "--torch_dtype", "bfloat16", *flags]
    if model == "FLUX.1-dev" and branches == 2:
        command += ["--true_cfg_scale", "3", "--negative_prompt", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)["layouts"][0]


def table(atelier):
    """One entry per measured row."""
    rows = []
    for kind, model, layout, side, steps, branches, text, ms, peaks, weights, flags in measured_rows():
        p = predict(atelier, model, layout, side, steps, branches, text, flags)
        predicted = p["ms_per_step"]["all"]["value"]
        rows.append({
            "set": kind, "model": model, "layout": layout, "pixels": side, "steps": steps,
            "measured_ms": round(ms, 2), "modelled_ms": round(predicted, 2), "error": round(predicted / ms - 1, 4),
            "measured_peak_bytes": peaks, "modelled_peak_bytes": [r["total_bytes"] for r in p["ranks"]],
            "measured_weight_bytes": weights, "modelled_weight_bytes": [r["weight_bytes"] for r in p["ranks"]]})
    return rows


def times(rows, kind):
    """A markdown table of one set."""
    lines = ["| model, size, steps | layout | measured, ms per step | modelled | error |", "|---|---|---|---|---|"]
    for r in rows:
        if r["set"] == kind:
            lines.append(f"| {r['model']}, {r['pixels']} px, {r['steps']} | {r['layout']} | {r['measured_ms']:.1f} | "
                         f"{r['modelled_ms']:.1f} | {100 * r['error']:+.1f} % |")
    return "\n".join(lines)


def memory(rows):
    """Peaks of the first and the last rank."""
    lines = ["| model, size | layout | weights of rank 0 | modelled | peak of the last rank | modelled | peak of rank 0 | modelled |",
             "|---|---|---|---|---|---|---|---|"]
    gib = lambda n: f"{n / GIB:.2f}"
    for r in rows:
        last = len(r["measured_peak_bytes"]) - 1
        name = f"| {r['model']}, {r['pixels']} px | {r['layout']} | {gib(r['measured_weight_bytes'][0])} | {gib(r['modelled_weight_bytes'][0])} "
        other = f"| {gib(r['measured_peak_bytes'][last])} | {gib(r['modelled_peak_bytes'][last])} " if last else "| | "
        lines.append(name + other + f"| {gib(r['measured_peak_bytes'][0])} | {gib(r['modelled_peak_bytes'][0])} |")
    return "\n".join(lines)


def page(rows, text):
    """docs/plan.md with its tables made anew."""
    worst = max(rows, key=lambda r: abs(r["error"]) if r["set"] == "held out" else 0)
    parts = {"held out": times(rows, "held out") + f"\n\nWorst: {worst['layout']} at {worst['pixels']} px, "
                                                   f"{100 * worst['error']:+.1f} %.",
             "fitted": times(rows, "fitted on"), "memory": memory(rows)}
    for name, made in parts.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        if not mark.search(text):
            sys.exit(f"docs/plan.md has no place for {name}")
        text = mark.sub(lambda m, made=made: m.group(1) + made + "\n" + m.group(2), text)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atelier", default=os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier")))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    rows = table(arguments.atelier)
    what = ("atelier plan for H200s with NVLink beside results/many_gpus.json, families_gpus_2.json and families_gpus_4.json; all modelled numbers "
            "are modelled, all measured ones measured")
    result = text_of({"what": what}, rows)
    text = page(rows, PAGE.read_text())
    if arguments.check:
        stale = [p.name for p, want in ((RESULT, result), (PAGE, text)) if not p.exists() or p.read_text() != want]
        if stale:
            sys.exit(f"{', '.join(stale)}: run tools/plan/predictions.py")
        return
    RESULT.write_text(result)
    PAGE.write_text(text)


main()
