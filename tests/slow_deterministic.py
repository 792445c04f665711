#!/usr/bin/env python3
"""--deterministic: equal PNG hashes over layouts and batches, real processes of 1 to 8 CPU ranks. The program is $ATELIER.
Writes tests/results/deterministic.json. Without the flag some hashes must be others, or this shows nothing."""
import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from _png import pixels

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier"))
RESULT = ROOT / "tests/results/deterministic.json"
ENVIRONMENT = os.environ | {"ATELIER_SHARE": str(ROOT), "OMP_NUM_THREADS": "1"}
PROMPTS = ["a red circle above a blue square", "three small blue stars", "a green triangle inside a white circle", "a black square"]
GUIDED = ["--negative_prompt", "blurred", "--true_cfg_scale", "3"]
GOLDENS = ROOT / "tests/goldens"
STEPS = ["--num_inference_steps", "2", "--negative_prompt", "rain"]
SMALL, SMALLER = [*STEPS, "--height", "112", "--width", "80"], [*STEPS, "--height", "28", "--width", "20"]
VIDEO = [*STEPS, "--height", "48", "--width", "32", "--num_frames", "5", "--output_format", "frames"]
# model; its words; layouts and sizes of batches
RUNS = [
    ("mini", ["--height", "160", "--width", "96", "--num_inference_steps", "4", *GUIDED],
     [("data=1", 1), ("data=1", 3), ("data=1", 4), ("data=2", 2), ("cfg=2", 1), ("ulysses=2", 2), ("kv_gather=2, parallel_vae", 1), ("ulysses=3", 1),
      ("kv_gather=3", 4), ("cfg=2, ulysses=2", 1), ("ulysses=2, shard=2", 1), ("kv_gather=2, ulysses=2, parallel_vae", 2), ("ulysses=5", 1),
      ("cfg=2, kv_gather=3", 1), ("data=3, ulysses=2", 3), ("kv_gather=7, parallel_vae", 1), ("ulysses=8", 1), ("data=2, cfg=2, ulysses=2, parallel_vae", 4)]),
    (GOLDENS / "sdxl_small/model", SMALL, [("data=1", 1), ("data=1", 4), ("ulysses=2", 1), ("ulysses=3, parallel_vae", 2), ("cfg=2, kv_gather=2, parallel_vae", 1)]),
    (GOLDENS / "sd3_small/model", SMALLER, [("data=1", 1), ("data=1", 4), ("ulysses=3", 1), ("cfg=2, kv_gather=2, parallel_vae", 2)]),
    (GOLDENS / "pixart_small/model", SMALLER, [("data=1", 1), ("data=1", 4), ("ulysses=4", 1), ("cfg=2, kv_gather=2, parallel_vae", 2)]),
    (GOLDENS / "hunyuan_small/model", SMALL, [("data=1", 1), ("data=1", 4), ("ulysses=2", 1), ("cfg=2, kv_gather=2, parallel_vae", 2)]),
    (GOLDENS / "wan_experts/model", VIDEO, [("data=1", 1), ("data=1", 4), ("ulysses=3", 1), ("cfg=2, kv_gather=2, parallel_vae", 2)]),
]


def draw(model, words, layout, batch, *more):
    """SHA-256 of the files, of their pixels, s, the run's report."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        subprocess.run([ATELIER, "video" if words is VIDEO else "t2i", "--model_name", str(model), "--device", "cpu", "--prompt", *PROMPTS, "--seed", "7", "--strategy", layout,
                        "--batch_size", str(batch), "--output_dir", folder, "--quiet", *words, *more], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begin
        files = sorted(pathlib.Path(folder).rglob("*.png"))  # of a video its frames
        assert len(files) % len(PROMPTS) == 0 < len(files), files
        report = json.loads((pathlib.Path(folder) / "report.json").read_text())
        return [sha(f.read_bytes()) for f in files], [sha(bytes(pixels(f))) for f in files], seconds, report


def sha(data):
    return hashlib.sha256(data).hexdigest()[:16]


def test_equal_hashes():
    rows, failed = [], 0
    for model, words, layouts in RUNS:
        first = None
        for layout, batch in layouts:
            files, pictures, seconds, _ = draw(model, words, layout, batch, "--deterministic")
            first = first or (files, pictures)
            is_equal = (files, pictures) == first
            failed += not is_equal
            rows.append({"model": model if model == "mini" else model.parent.name, "layout": layout, "batch": batch, "equal": is_equal,
                         "files": sha("".join(files).encode()), "pixels": sha("".join(pictures).encode()), "seconds": round(seconds, 2)})
            print("ok     " if is_equal else "FAILED ", rows[-1], flush=True)
    return rows, failed


def test_others_without_it():
    model, words, layouts = RUNS[0]
    hashes = {tuple(draw(model, words, layout, batch)[1]) for layout, batch in (*layouts[:12], ("ring=3", 1), ("tensor=3", 1))}
    print("ok     " if len(hashes) > 1 else "FAILED ", len(hashes), "sets of pixels without the flag")
    return len(hashes)


def cost():
    """Time of a step with the flag over that without, mini at 256 px: the least of eight in turn, for other programs only add to it."""
    words = ["--height", "256", "--width", "256", "--num_inference_steps", "8"]
    step = lambda *flag: draw("mini", words, "data=1", 1, *flag)[3]["ms_per_step"]["min"]
    times = [(step(), step("--deterministic")) for _ in range(8)]
    plain, ordered = (min(kind) for kind in zip(*times))
    return {"step_ms": round(plain, 2), "deterministic_step_ms": round(ordered, 2), "ratio": round(ordered / plain, 2)}


def main():
    if not os.access(ATELIER, os.X_OK):
        print(f"no program at {ATELIER}: build first")
        return 77
    rows, failed = test_equal_hashes()
    others = test_others_without_it()
    failed += others < 2
    equal = sum(row["equal"] for row in rows)
    result = {"what": "SHA-256 of the PNG files and of the pixels of four pictures or videos by layout and batch under --deterministic: CPU ranks, one thread each",
              "date": datetime.date.today().isoformat(), "summary": f"{equal} of {len(rows)} runs of 1 to 8 ranks drew the bits of one rank",
              "pixels_without_the_flag": others, "cost": cost()}
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    RESULT.write_text(json.dumps(result, indent=2)[:-2] + f',\n  "rows": [\n{lines}\n  ]\n}}\n')
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
