#!/usr/bin/env python3
"""Worker processes with NCCL: the pictures of one GPU under every layout, bytes per collective, a killed worker replaced.

  gpu_workers.py [RESULT.json]      as many GPUs as are there are used; 77 with fewer than two
"""
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from _png import difference

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cuda/src/atelier"))
STEPS = 3
EVENT = re.compile(r'rank=(\d+) collective=(\w+) group="(\w+)" bytes=(\d+)')
LAYOUTS = {
    2: ["ulysses=2", "ring=2", "tensor=2", "pipefusion=2, warmup=2", "cfg=2", "ulysses=2, shard=2"],
    4: ["ulysses=4", "ring=4", "ulysses=2, ring=2", "tensor=4", "pipefusion=4, warmup=2", "cfg=2, ulysses=2",
        "ulysses=4, shard=4, parallel_vae"],
}


def draw(folder, layout, *more, fault="", debug=False):
    command = [ATELIER, "t2i", "--model_name", str(ROOT / "models/mini"), "--device", os.environ.get("ATELIER_TEST_DEVICE", "cuda"), "--torch_dtype", "float32",
               "--no_enable_tf32", "--prompt", "a red circle above a blue square", "--seed", "3", "--num_inference_steps",
               str(STEPS), "--true_cfg_scale", "2", "--strategy", layout, "--output_dir", str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180,
                          env=os.environ | {"ATELIER_FAULT": fault, "DG_DEBUG": "true" if debug else "false"})
    return done.returncode, done.stdout + done.stderr


def traffic(log):
    """Bytes and calls of every collective, over all ranks."""
    out = collections.defaultdict(lambda: {"calls": 0, "bytes": 0})
    for _, verb, group, size in EVENT.findall(log):
        out[f"{group} {verb}"]["calls"] += 1
        out[f"{group} {verb}"]["bytes"] += int(size)
    return dict(out)


def gpu_count():
    try:
        return len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines())
    except (FileNotFoundError, subprocess.CalledProcessError):
        return 0


def keep(count, rows):
    """The result so far, in the file that was asked for."""
    if len(sys.argv) < 2:
        return
    result = {"what": f"mini, 256 px, {STEPS} steps, true CFG, float32, worker processes with NCCL: difference from one GPU in "
                      "8-bit levels; calls and bytes sent of every collective, summed over ranks", "gpus": count,
              "failed": sum(not row["passed"] for row in rows), "rows": rows}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")


def main():
    count = gpu_count()
    if count < 2:
        print("fewer than two NVIDIA GPUs are there")
        return 77
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        code, log = draw(scratch / "one", "data=1")
        if code:
            print(log[-2000:])
            return 1
        layouts = [layout for ranks, some in LAYOUTS.items() if ranks <= count for layout in some]
        # Graphs replay what was captured without telling: they are off where collectives are counted.
        runs = [(layout, graphs, "") for layout in layouts for graphs in (False, True)]
        runs.append((f"ulysses={count}", True, "1:step:1:kill"))
        for number, (layout, graphs, fault) in enumerate(runs):
            folder = scratch / str(number)
            code, log = draw(folder, layout, *(() if graphs else ("--no_enable_compile",)), fault=fault, debug=not graphs)
            row = {"layout": layout, "graphs": graphs, "fault": fault, "exit": code}
            if code == 0:
                row["levels"], row["share"] = difference(scratch / "one/000000.png", folder / "000000.png")
                if not graphs:
                    row["traffic"] = traffic(log)
            row["passed"] = code == 0 and row["levels"] <= 1 and row["share"] <= 1e-3
            failed += not row["passed"]
            rows.append(row)
            keep(count, rows)
            print("ok    " if row["passed"] else "FAILED", layout, "graphs" if graphs else "", fault, code, row.get("levels"), row.get("share"), flush=True)
            if not row["passed"]:
                print(log[-1500:])
    print(f"{len(rows)} runs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
