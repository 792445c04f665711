"""What eight bits cost: pictures of mini, and predictions of the recorded model, under FP8 products and FP8 attention.

  python3 fp8_quality.py --atelier PROGRAM --work DIR --out ../../results/fp8_quality.json
  python3 fp8_quality.py --table ../../results/fp8_quality.json     prints the tables of docs/layouts.md
Every setting draws the same captions with the same seeds on the CPU, where products and attention are computed in float from
the rounded bytes. Figures: PSNR against the exact picture in float32, the share of pictures that the independent checker
(check.py) finds right, and, of tests/goldens/flux_dev, the mean error of each step's prediction over the recorded rms, beside
bfloat16's own. Pictures stay in DIR, and the program skips those that are there. Needs numpy and Pillow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np

from check import NOISE_SEED, SET_SEED, TestSet, is_correct
from pipefusion_quality import load, psnr, run, write_prompts

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
FP8 = ["--attention_dtype", "fp8_e4m3"]
SETTINGS = {
    "exact, float32": [],
    "exact, bfloat16": ["--dtype", "bfloat16"],
    "FP8 attention": FP8,
    "tier fast": ["--tier", "fast"],
    "tier fast-strict": ["--tier", "fast-strict"],
    "tier fast, FP8 attention": ["--tier", "fast", *FP8],
}
PREDICTION = re.compile(r"^step\d+\.model_out\s+\S+\s+\S+\s+(\S+)\s")


def draw(program: Path, flags: list[str], prompts: Path, folder: Path) -> None:
    """Runs the program; throws if it does not draw everything."""
    dtype = [] if "--dtype" in flags else ["--dtype", "float32"]
    command = [str(program), "run", "--model", "mini", "--device", "cpu", "--num_inference_steps", str(STEPS), *dtype, *flags]
    command += ["--prompts_file", str(prompts), "--output_dir", str(folder), "--resume", "--quiet"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def prediction_errors(program: Path, flags: list[str]) -> list[float]:
    """Of each step of the recorded run, mean over the recorded rms."""
    types = ["--torch_dtype" if flag == "--dtype" else flag for flag in flags]
    command = [str(program), "verify", str(ROOT / "tests/goldens/flux_dev"), "--device", "cpu", *types]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}).stdout
    found = [float(match[1]) for match in map(PREDICTION.match, lines.splitlines()) if match]
    if not found:
        raise RuntimeError(f"no prediction in what verify printed: {lines[-500:]}")
    return found


def measure(a: argparse.Namespace) -> dict:
    """Draws what is missing, and scores everything."""
    items = TestSet(a.each).items
    scenes = [scene for _, scene, _ in items]
    a.work.mkdir(parents=True, exist_ok=True)
    prompts = a.work / "prompts.jsonl"
    write_prompts(prompts, items)
    rows, reference = [], None
    for name, flags in SETTINGS.items():
        folder = a.work / re.sub(r"\W+", "_", name)
        draw(a.atelier, flags, prompts, folder)
        pictures = load(folder, len(items))
        row = {"setting": name, "right": round(float(np.mean([is_correct(p, s) for p, s in zip(pictures, scenes)])), 4)}
        if reference is None:
            reference = pictures
        else:
            decibels = sorted(psnr(p, q) for p, q in zip(pictures, reference))
            row |= {"psnr_median": round(float(np.median(decibels)), 2), "psnr_min": round(decibels[0], 2)}
        rows.append(row | {"prediction_errors": prediction_errors(a.atelier, flags)})
        print(json.dumps(rows[-1]), flush=True)
    version = subprocess.run([str(a.atelier), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "kind": "measured",
        "what": "pictures of models/mini in eight bits against float32, the checker of tools/mini, and predictions of tests/goldens/flux_dev",
        "command": f"python3 tools/mini/fp8_quality.py --each {a.each}",
        "program": version.strip(),
        "machine": platform.processor() or platform.machine(),
        "picture": f"256x256, true CFG 2, 32 text tokens, {STEPS} steps, on the CPU",
        "captions": len(items),
        "seeds": {"captions": SET_SEED, "noise": f"{NOISE_SEED} + index"},
        "rows": rows,
    }


def print_tables(report: dict) -> None:
    """Markdown: one table."""
    print("| Setting | PSNR against float32, median (worst) | Right | Mean error of a step's prediction, first to last |")
    print("|---|---|---|---|")
    for r in report["rows"]:
        likeness = f"{r['psnr_median']:.1f} dB ({r['psnr_min']:.1f})" if "psnr_min" in r else ""
        errors = r["prediction_errors"]
        print(f"| {r['setting']} | {likeness} | {100 * r['right']:.1f} % | {', '.join(f'{e:.1e}' for e in errors)} |")


if __name__ == "__main__":
    run(__doc__, measure, print_tables)
