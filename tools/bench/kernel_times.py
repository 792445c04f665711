#!/usr/bin/env python3
"""Where a step's time goes: what tools/bench/kernel_times.cpp wrote, by kind of work.

  kernel_times.py NAME=STEPS:FILE... >results/kernel_times.json     STEPS: denoising steps that the process ran, warm-up included

Milliseconds per step of each kind, and the kernels that take the most. Kernels of encoders and of decoding are in it too."""
import json
import re
import sys

KINDS = [("attention", r"sdpa|flash|fmha"), ("barriers", r"\bmeet\("), ("messages", r"^nccl"), ("convolutions", r"fprop|implicit_gemm|conv"),
         ("products", r"^nvjet|gemm|cublasLt|splitK"), ("placement with norm, rope and stores", r"\bheads<"), ("stores back", r"cuda::.*\bcopy<"),
         ("random weights", r"distribution_elementwise|normal_and_transform"), ("copies and fills", r"^copy$|^fill$"), ("the rest", r"")]
MOST = 12  # kernels of a run that are listed


def rows_of(path):
    with open(path) as f:
        for line in f:
            microseconds, calls, name = line.rstrip("\n").split("\t", 2)
            yield float(microseconds), int(calls), name


def run_of(name, path, steps):
    kinds, listed = {kind: 0.0 for kind, _ in KINDS}, []
    for microseconds, calls, kernel in rows_of(path):
        kind = next(kind for kind, pattern in KINDS if re.search(pattern, kernel))
        kinds[kind] += microseconds / 1e3 / steps
        if kind != "random weights" and len(listed) < MOST:
            listed.append({"kernel": kernel[:120], "kind": kind, "calls_per_step": round(calls / steps, 2), "us": round(microseconds / calls, 2)})
    return {"run": name, "steps": steps, "ms_per_step": {kind: round(ms, 3) for kind, ms in kinds.items() if ms >= 0.001}, "kernels": listed}


def main():
    runs = []
    for argument in sys.argv[1:]:
        name, where = argument.rsplit("=", 1)
        steps, path = where.split(":", 1)
        runs.append(run_of(name, path, int(steps)))
    json.dump({"what": "kernel times per denoising step by kind, CUPTI, one process a GPU", "runs": runs}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
