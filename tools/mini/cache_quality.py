"""What step caches cost: pictures of mini under several thresholds against those without a cache.

  python3 cache_quality.py --atelier PROGRAM --work DIR --out ../../results/cache_quality.json
  python3 cache_quality.py --table ../../results/cache_quality.json     prints the tables of docs/caches.md
Every setting draws the same captions with the same seeds in float32 on the CPU. Three figures each: the share of evaluations
that reused what blocks had added before, PSNR against the picture without a cache, and the share of pictures that the
independent checker (check.py) finds right. Times are not measured. Pictures stay in DIR, and the program skips those that are
there. Needs numpy and Pillow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from check import is_correct
from pipefusion_quality import captions, load, psnr, report_of, run

THRESHOLDS = {"first_block_cache": [0.05, 0.1, 0.2], "teacache": [0.25, 0.6]}
STEPS = [12, 28]


@dataclass(frozen=True)
class Setting:
    """One way to draw. No cache: every step is computed."""

    steps: int
    cache: str = ""
    threshold: float = 0

    @property
    def flags(self) -> list[str]:
        """Of the program."""
        cache = ["--cache_type", self.cache, "--cache_threshold", str(self.threshold)] if self.cache else []
        return ["--num_inference_steps", str(self.steps), *cache]

    @property
    def folder(self) -> str:
        """Where its pictures go."""
        return f"{self.steps}_steps_{self.cache or 'off'}_{self.threshold}"


def settings() -> list[Setting]:
    """All of the report; of each number of steps the one without a cache is first."""
    out = []
    for steps in STEPS:
        out.append(Setting(steps))
        out += [Setting(steps, cache, t) for cache, all_of in THRESHOLDS.items() for t in all_of]
    return out


def draw(program: Path, setting: Setting, prompts: Path, folder: Path) -> dict:
    """Runs the program and gives what it counted; throws if it does not draw everything."""
    command = [str(program), "run", "--model", "mini", "--device", "cpu", "--dtype", "float32", *setting.flags]
    command += ["--prompts_file", str(prompts), "--output_dir", str(folder), "--resume", "--quiet"]
    counted = folder / "counted.json"
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    cache = json.loads((folder / "report.json").read_text())["step_cache"]
    if cache:  # a run that finds all pictures there counts nothing
        counted.write_text(json.dumps(cache))
    return json.loads(counted.read_text()) if counted.exists() else {}


def row_of(setting: Setting, counts: dict, ours: list, reference: list, scenes: list) -> dict:
    """One line of the report."""
    decibels = sorted(psnr(a, b) for a, b in zip(ours, reference))
    right = [is_correct(a, scene) for a, scene in zip(ours, scenes)]
    row = {"steps": setting.steps, "cache": setting.cache or "off", "threshold": setting.threshold}
    if counts:
        row["reused"] = round(counts["reused"] / (counts["reused"] + counts["computed"]), 4)
    row["identical_pictures"] = sum(math.isinf(d) for d in decibels)
    if row["identical_pictures"] < len(decibels):
        middle = float(np.median(decibels))
        row |= {"psnr_median": round(middle, 2) if math.isfinite(middle) else None, "psnr_min": round(decibels[0], 2)}
        row["under_25_dB"] = sum(d < 25 for d in decibels)
    return row | {"right": round(float(np.mean(right)), 4)}


def measure(a: argparse.Namespace) -> dict:
    """Draws what is missing, and scores everything."""
    scenes, prompts = captions(a)
    rows, references = [], {}
    for setting in settings():
        folder = a.work / setting.folder
        counts = draw(a.atelier, setting, prompts, folder)
        pictures = load(folder, len(scenes))
        reference = references.setdefault(setting.steps, pictures)
        rows.append(row_of(setting, counts, pictures, reference, scenes))
        print(json.dumps(rows[-1]), flush=True)
    return report_of(a, "cache_quality",
                     "pictures of models/mini under step caches against those without: PSNR, and the checker of tools/mini",
                     "256x256, true CFG 2, 32 text tokens, float32 on the CPU",
                     len(scenes), rows)


def print_tables(report: dict) -> None:
    """Markdown: one table per number of steps."""
    for steps in STEPS:
        rows = [r for r in report["rows"] if r["steps"] == steps]
        print(f"\n{steps} steps; without a cache: {100 * rows[0]['right']:.1f} % right\n")
        print("| Cache | Threshold | Evaluations reused | PSNR, median (worst) | Pictures under 25 dB | Right |")
        print("|---|---|---|---|---|---|")
        for r in rows[1:]:
            likeness = "the same bits"
            if "psnr_min" in r:
                middle = "the same bits" if r["psnr_median"] is None else f"{r['psnr_median']:.1f} dB"
                likeness = f"{middle} ({r['psnr_min']:.1f})"
            reused = f"{100 * r['reused']:.1f} %"
            print(f"| {r['cache']} | {r['threshold']} | {reused} | {likeness} | {r.get('under_25_dB', 0)} | {100 * r['right']:.1f} % |")


if __name__ == "__main__":
    run(__doc__, measure, print_tables)
