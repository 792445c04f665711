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
STEPS, MOST_STEPS = 6, 8
# One at a time, in two shapes that alternate, with other numbers of steps: what was recorded for a shape is found again.
PROMPTS = [{"prompt": "a red circle above a blue square"}, {"prompt": "three green stars"},
           {"prompt": "a small yellow triangle", "height": 192}, {"prompt": "a large blue circle"},
           {"prompt": "two red stars", "height": 192, "num_inference_steps": STEPS - 1},
           {"prompt": "a green square", "num_inference_steps": MOST_STEPS}]
EVENT = re.compile(r'rank=(\d+) collective=(\w+) group="([^"]+)" bytes=(\d+)')
LAYOUTS = {
    2: ["ulysses=2", "kv_gather=2", "ring=2", "tensor=2", f"pipefusion=2, warmup={MOST_STEPS}", "cfg=2", "ulysses=2, shard=2",
        "ulysses=2, collective"],
    4: ["ulysses=4", "ring=4", "ulysses=2, ring=2", "kv_gather=2, ulysses=2", "tensor=4", f"pipefusion=4, warmup={MOST_STEPS}", "cfg=2, ulysses=2",
        "ulysses=4, shard=4, parallel_vae", "ulysses=4, collective"],
}
# Not the picture of one GPU, but with graphs the same as without.
STALE = {2: ["pipefusion=2, warmup=0", "pipefusion=2, warmup=1"], 4: ["pipefusion=4, warmup=1", "pipefusion=2, ulysses=2, warmup=1"]}


def draw(folder, layout, *more, fault="", debug=False):
    """Draws PROMPTS; returns the exit code and what was said."""
    prompts = folder.with_suffix(".jsonl")
    prompts.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    command = [ATELIER, "t2i", "--model_name", str(ROOT / "models/mini"),
               "--device", os.environ.get("ATELIER_TEST_DEVICE", "cuda"), "--torch_dtype", "float32", "--no_enable_tf32",
               "--prompts_file", str(prompts), "--batch_size", "1", "--seed", "3", "--num_inference_steps", str(STEPS),
               "--true_cfg_scale", "2", "--strategy", layout, "--output_dir", str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180,
                          env=os.environ | {"ATELIER_FAULT": fault, "DG_DEBUG": "true" if debug else "false"})
    return done.returncode, done.stdout + done.stderr


def farthest(one, other):
    """The largest difference in levels and the largest share of values that differ, over all pictures of two folders."""
    each = [difference(one / f"{i:06d}.png", other / f"{i:06d}.png") for i in range(len(PROMPTS))]
    return max(levels for levels, _ in each), max(share for _, share in each)


def traffic(folder):
    """Bytes and calls of every collective, over the logs of all ranks."""
    out = collections.defaultdict(lambda: {"calls": 0, "bytes": 0})
    for log in sorted((folder / "logs").glob("rank_*.log")):
        for _, verb, group, size in EVENT.findall(log.read_text()):
            out[f"{group} {verb}"]["calls"] += 1
            out[f"{group} {verb}"]["bytes"] += int(size)
    return dict(out)


def heads_went(layout, found):
    """Whether Ulysses' heads, or keys and values gathered without it, went as the layout says: by stores, or by messages. True for layouts without."""
    if "ulysses" not in layout and "kv_gather" not in layout:
        return True
    by_stores, by_messages = (any(name.endswith(verb) for name in found) for verb in (" stores", " all_to_all"))
    # What gathers keys and values gathers the tokens at the end as well.
    return by_stores != ("collective" in layout) and by_messages == ("ulysses" in layout and "collective" in layout)


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
                      f"8-bit levels, the farthest of {len(PROMPTS)} pictures drawn one at a time in two shapes; as_eager: pictures with "
                      "graphs are those without, bit for bit; calls and bytes sent of every collective, summed over ranks", "gpus": count,
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
        exact = [layout for ranks, some in LAYOUTS.items() if ranks <= count for layout in some]
        stale = [layout for ranks, some in STALE.items() if ranks <= count for layout in some]
        # Graphs replay what was captured without telling: they are off where collectives are counted.
        runs = [(layout, graphs, "") for layout in exact + stale for graphs in (False, True)]
        runs.append((f"ulysses={count}", True, "1:step:1:kill"))
        eager = {}
        for number, (layout, graphs, fault) in enumerate(runs):
            folder = scratch / str(number)
            code, log = draw(folder, layout, *(() if graphs else ("--no_enable_compile",)), fault=fault, debug=not graphs)
            row = {"layout": layout, "graphs": graphs, "fault": fault, "exit": code}
            row["passed"] = code == 0
            if code == 0 and layout in exact:
                row["levels"], row["share"] = farthest(scratch / "one", folder)
                row["passed"] = row["levels"] <= 1 and row["share"] <= 1e-3
            if code == 0 and not graphs:
                row["traffic"] = traffic(folder)
                row["passed"] &= bool(row["traffic"]) and heads_went(layout, row["traffic"])
                eager[layout] = folder
            # Messages and stores into the other's memory carry the same bits.
            if code == 0 and not graphs and (stores := layout.removesuffix(", collective")) != layout:
                row["as_stores"] = stores in eager and farthest(eager[stores], folder)[0] == 0
                row["passed"] &= row["as_stores"]
            if code == 0 and graphs and layout in eager:
                row["as_eager"] = farthest(eager[layout], folder)[0] == 0
                row["passed"] &= row["as_eager"]
            failed += not row["passed"]
            rows.append(row)
            keep(count, rows)
            print("ok    " if row["passed"] else "FAILED", layout, "graphs" if graphs else "", fault, code, row.get("levels"),
                  row.get("share"), row.get("as_eager", ""), flush=True)
            if not row["passed"]:
                print(log[-1500:])
    print(f"{len(rows)} runs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
