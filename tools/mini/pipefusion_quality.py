"""What PipeFusion's stale keys cost: pictures of mini under many settings against those of one rank.

  python3 pipefusion_quality.py --atelier PROGRAM --work DIR --out ../../results/pipefusion_quality.json
  python3 pipefusion_quality.py --table ../../results/pipefusion_quality.json     prints the tables of docs/pipefusion.md
Every setting draws the same captions with the same seeds in float32 on the CPU. Two figures each: PSNR against the
picture of one rank, and the share of pictures that the independent checker (check.py) finds right. Pictures stay in
DIR, and the program skips those that are there, so a run that was stopped goes on where it was. Needs numpy and Pillow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from check import NOISE_SEED, SET_SEED, TestSet, is_correct

PATCHES = [2, 4, 8]
WARMUPS = {12: [0, 1, 2, 4], 4: [0, 1, 2]}


@dataclass(frozen=True)
class Setting:
    """One way to draw. No stages: one rank."""

    steps: int
    stages: int = 1
    patches: int = 1
    warmup: int = 1
    is_sync: bool = False

    @property
    def strategy(self) -> str:
        """The argument of --strategy."""
        if self.stages == 1:
            return "data=1"
        sync = ", sync" if self.is_sync else ""
        return f"pipefusion={self.stages}, patches={self.patches}, warmup={self.warmup}{sync}"

    @property
    def folder(self) -> str:
        """Where its pictures go."""
        sync = "_sync" if self.is_sync else ""
        return f"{self.steps}_steps_{self.stages}_stages_{self.patches}_patches_{self.warmup}_warmup{sync}"


def settings() -> list[Setting]:
    """All of the report. Two stages draw what any number of stages draws with as many patches; three settings show it."""
    out = []
    for steps, warmups in WARMUPS.items():
        out.append(Setting(steps))
        out += [Setting(steps, 2, p, w) for w in warmups for p in PATCHES]
    return out + [Setting(12, 4, 4, 1), Setting(12, 8, 8, 1), Setting(12, 4, 4, 1, True), Setting(12, 2, 4, 12)]


def write_prompts(path: Path, items: list) -> None:
    """The prompt file of the program: captions, seeds and names."""
    with open(path, "w") as out:
        for i, (_, _, caption) in enumerate(items):
            row = {"prompt": caption, "index": i, "seed": NOISE_SEED + i, "output_filename": f"{i:06d}.png"}
            out.write(json.dumps(row) + "\n")


def draw(program: Path, setting: Setting, prompts: Path, folder: Path) -> None:
    """Runs the program; throws if it does not draw everything."""
    command = [str(program), "run", "--model", "mini", "--device", "cpu", "--dtype", "float32"]
    command += ["--num_inference_steps", str(setting.steps), "--strategy", setting.strategy]
    command += ["--prompts_file", str(prompts), "--output_dir", str(folder), "--resume", "--quiet"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def load(folder: Path, count: int) -> list[np.ndarray]:
    """The pictures of a folder, [256, 256, 3]."""
    return [np.asarray(Image.open(folder / f"{i:06d}.png").convert("RGB")) for i in range(count)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In decibels; infinite for equal pictures."""
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def row_of(setting: Setting, ours: list, reference: list, scenes: list) -> dict:
    """One line of the report."""
    decibels = sorted(psnr(a, b) for a, b in zip(ours, reference))
    levels = max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(ours, reference))
    right = [is_correct(a, scene) for a, scene in zip(ours, scenes)]
    finite = [d for d in decibels if math.isfinite(d)]
    row = {"steps": setting.steps, "strategy": setting.strategy, "stages": setting.stages}
    row |= {"patches": setting.patches, "warmup": setting.warmup, "sync": setting.is_sync}
    row |= {"identical_pictures": len(decibels) - len(finite), "largest_difference_levels": levels}
    if setting.stages > 1 and len(finite) * 2 > len(decibels):
        middle = float(np.median(decibels))
        row |= {"psnr_median": round(middle, 2), "psnr_min": round(decibels[0], 2)}
        row |= {"psnr_mean": round(float(np.mean(finite)), 2)}
    return row | {"right": round(float(np.mean(right)), 4)}


def measure(a: argparse.Namespace) -> dict:
    """Draws what is missing, and scores everything."""
    scenes, prompts = captions(a)
    drawn: dict[Setting, list[np.ndarray]] = {}
    rows = []
    for setting in settings():
        folder = a.work / setting.folder
        draw(a.atelier, setting, prompts, folder)
        drawn[setting] = load(folder, len(scenes))
        row = row_of(setting, drawn[setting], drawn[Setting(setting.steps)], scenes)
        twin = Setting(setting.steps, 2, setting.patches, setting.warmup)
        if setting.stages > 2 and not setting.is_sync:
            same = [np.array_equal(x, y) for x, y in zip(drawn[setting], drawn[twin])]
            row["identical_to_two_stages"] = sum(same)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return report_of(a, "pipefusion_quality",
                     "pictures of models/mini under PipeFusion against one rank: PSNR, and the checker of tools/mini",
                     "256x256, true CFG 2, 32 text tokens, float32 on the CPU",
                     len(scenes), rows)


def print_tables(report: dict) -> None:
    """Markdown: one table per number of steps, warm-up down, patches across."""
    for steps, warmups in WARMUPS.items():
        rows = [r for r in report["rows"] if r["steps"] == steps]
        alone = next(r for r in rows if r["stages"] == 1)
        print(f"\n{steps} steps; one rank: {100 * alone['right']:.1f} % right\n")
        print("| warm-up steps | " + " | ".join(f"{p} patches" for p in PATCHES) + " |")
        print("|---|" + "---|" * len(PATCHES))
        for w in warmups:
            cells = []
            for p in PATCHES:
                r = next(r for r in rows if (r["stages"], r["patches"], r["warmup"]) == (2, p, w))
                cells.append(f"{r['psnr_median']:.1f} dB ({r['psnr_min']:.1f}), {100 * r['right']:.1f} %")
            print(f"| {w} | " + " | ".join(cells) + " |")


def captions(a: argparse.Namespace) -> tuple[list, Path]:
    """The scenes of the test set, and the file of prompts that it writes for the program."""
    items = TestSet(a.each).items
    a.work.mkdir(parents=True, exist_ok=True)
    prompts = a.work / "prompts.jsonl"
    write_prompts(prompts, items)
    return [scene for _, scene, _ in items], prompts


def report_of(a: argparse.Namespace, tool: str, what: str, picture: str, count: int, rows: list) -> dict:
    """The report of a tool of this folder that draws the test set: what its rows are about, of how many captions, and how to repeat them."""
    version = subprocess.run([str(a.atelier), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "kind": "measured",
        "what": what,
        "command": f"python3 tools/mini/{tool}.py --each {a.each}",
        "program": version.strip(),
        "machine": platform.processor() or platform.machine(),
        "picture": picture,
        "captions": count,
        "seeds": {"captions": SET_SEED, "noise": f"{NOISE_SEED} + index"},
        "rows": rows,
    }


def run(about: str | None, measure: Callable[[argparse.Namespace], dict], print_tables: Callable[[dict], None]) -> None:
    """Reads the command line of a tool that measures quality, and does what it says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atelier", type=Path, help="the program")
    parser.add_argument("--work", type=Path, help="where pictures are kept")
    parser.add_argument("--out", type=Path, help="the report")
    parser.add_argument("--each", type=int, default=5, help="captions a category (there are ten)")
    parser.add_argument("--table", type=Path, help="prints the tables of a report, and draws nothing")
    a = parser.parse_args()
    if a.table:
        return print_tables(json.loads(a.table.read_text()))
    if not (a.atelier and a.work and a.out):
        parser.error("--atelier, --work and --out are needed to measure")
    report = measure(a)
    a.out.write_text(json.dumps(report, indent=1) + "\n")
    print_tables(report)


if __name__ == "__main__":
    run(__doc__, measure, print_tables)
