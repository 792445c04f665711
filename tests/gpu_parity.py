#!/usr/bin/env python3
"""Layouts on real GPUs against recorded values of one device.

In float32 (TF32 off) every layout must be within the golden tolerance; with the denoiser in bfloat16 no farther from the
recorded float32 latents than a quarter more than one GPU in bfloat16 is. As many GPUs as are there are used.

  gpu_parity.py [RESULT.json]
"""
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cuda/src/atelier"))
ONE = "data=1"
TRANSFORMER = {
    2: ["ulysses=2", "kv_gather=2", "ring=2", "tensor=2", "pipefusion=2, sync", "ulysses=2, shard=2", "ring=2, shard=2",
        "ulysses=2, parallel_vae", "ulysses=2, collective", "data=2"],
    4: ["ulysses=4", "ring=4", "tensor=4", "pipefusion=4, sync", "ulysses=2, ring=2", "kv_gather=2, ulysses=2", "ulysses=2, tensor=2", "ring=2, tensor=2",
        "pipefusion=2, sync, ulysses=2", "pipefusion=2, sync, ring=2", "pipefusion=2, sync, tensor=2",
        "ulysses=4, shard=4, parallel_vae", "data=2, ulysses=2"],
}
GUIDED = {2: TRANSFORMER[2] + ["cfg=2"],
          4: TRANSFORMER[4] + ["cfg=2, ulysses=2", "cfg=2, pipefusion=2, sync", "cfg=2, tensor=2"]}
UNET = {2: ["ulysses=2", "ring=2", "cfg=2", "ulysses=2, parallel_vae", "ulysses=2, shard=2"],
        4: ["ulysses=4", "ulysses=2, ring=2", "cfg=2, ulysses=2", "cfg=2, ulysses=2, parallel_vae"]}
CASES = {"flux_dev": TRANSFORMER, "sd3_small": GUIDED, "pixart_small": GUIDED, "hunyuan_small": GUIDED, "sdxl_small": UNET}
ROW = re.compile(r"^(?:\S+\.)?latents\.final\s+\S+\s+(\S+)\s+(\S+)\s")
BF16_SLACK = 1.25


def gpus():
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return found.stdout.splitlines() if found.returncode == 0 else []


def compare(case, layouts, dtype):
    """A row per layout: the program's verdict, and how far the final latents (the farthest of several runs) are from the recorded ones."""
    command = [ATELIER, "verify", str(ROOT / "tests/goldens" / case), "--device", "cuda", "--torch_dtype", dtype, "--strategy", " | ".join(layouts)]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith("layout "):
                rows.append({"case": case, "layout": layouts[len(rows)], "dtype": dtype, "last_line": ""})
            elif rows:
                rows[-1]["last_line"] = line.strip()
                if found := ROW.match(line):
                    for name, error in (("max_error", found[1]), ("mean_error", found[2])):
                        rows[-1][name] = max(rows[-1].get(name, 0), float(error))
    # A program that ends early leaves layouts without a row.
    return rows + [{"case": case, "layout": layout, "dtype": dtype, "last_line": f"not reached, exit {process.returncode}"}
                   for layout in layouts[len(rows):]]


def passed(row, one):
    if "mean_error" not in row or not row["last_line"].endswith(" 0 failed, 0 missing"):
        return False
    return row["dtype"] == "float32" or row["mean_error"] <= BF16_SLACK * one.get("mean_error", 0)


def main():
    devices = gpus()
    if not devices:
        print("there is no NVIDIA GPU")
        return 77
    rows, failed = [], 0
    for case, kinds in CASES.items():
        layouts = [ONE, *(layout for ranks, some in kinds.items() if ranks <= len(devices) for layout in some)]
        for dtype in ("float32", "bfloat16"):
            some = compare(case, layouts, dtype)
            for row in some:
                row["passed"] = passed(row, some[0])
                failed += not row["passed"]
                print(f'{"ok    " if row["passed"] else "FAILED"} {case} {dtype} {row["layout"]}: {row["last_line"]}, '
                      f'latents {row.get("mean_error")}', flush=True)
            rows += some
    if len(sys.argv) > 1:
        result = {"what": "latents.final of layouts on GPUs against the recorded ones: largest and mean error over the recorded rms",
                  "goldens": "tests/goldens", "gpus": devices, "failed": failed, "rows": rows}
        pathlib.Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(rows)} layouts, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
