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
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from check import is_correct
from pipefusion_quality import captions, load, psnr, report_of, run

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from docs_measured import eight_bits_table  # noqa: E402

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
    scenes, prompts = captions(a)
    rows, reference = [], None
    for name, flags in SETTINGS.items():
        folder = a.work / re.sub(r"\W+", "_", name)
        draw(a.atelier, flags, prompts, folder)
        pictures = load(folder, len(scenes))
        row = {"setting": name, "right": round(float(np.mean([is_correct(p, s) for p, s in zip(pictures, scenes)])), 4)}
        if reference is None:
            reference = pictures
        else:
            decibels = sorted(psnr(p, q) for p, q in zip(pictures, reference))
            row |= {"psnr_median": round(float(np.median(decibels)), 2), "psnr_min": round(decibels[0], 2)}
        rows.append(row | {"prediction_errors": prediction_errors(a.atelier, flags)})
        print(json.dumps(rows[-1]), flush=True)
    return report_of(a, "fp8_quality",
                     "pictures of models/mini in eight bits against float32, the checker of tools/mini, and predictions of tests/goldens/flux_dev",
                     f"256x256, true CFG 2, 32 text tokens, {STEPS} steps, on the CPU",
                     len(scenes), rows)


def print_tables(report: dict) -> None:
    """The table of docs/layouts.md, as tools/docs.py makes it."""
    print(eight_bits_table(report))


if __name__ == "__main__":
    run(__doc__, measure, print_tables)
