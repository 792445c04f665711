#!/usr/bin/env bash
# Two programs draw the same bits: slow_same_bits.sh OLD NEW. Twenty pictures of mini on one CPU rank with one thread, every
# setting given; pixels are compared, not files, whose metadata may differ. tests/results/same_bits.json is written.
# Where a change is known to round otherwise, slow_same_bits.sh OLD NEW CHANGED WHY also takes OLD with that change alone:
# then CHANGED and NEW must draw the same bits, and OLD and NEW at most one level of 255 apart.
# A planted difference comes first: another seed must not draw the same pixels.
set -euo pipefail
if [[ $# != 2 && $# != 4 ]]; then
  echo "two programs are needed: slow_same_bits.sh OLD NEW, or OLD NEW CHANGED WHY"
  exit 77
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
OMP_NUM_THREADS=1 PYTHONPATH=$root/tests exec python3 - "$root" "$@" <<'PYTHON'
import datetime
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

from _png import pixels

root, old, new, changed, why = (sys.argv[1:] + [None, None])[:5]
ALL = ["--model_name", "mini", "--device", "cpu", "--num_gpus", "1", "--torch_dtype", "float32", "--attention_backend", "sdpa",
       "--guidance_scale", "0", "--output_format", "png", "--no_resume", "--quiet"]
# prompt; negative prompt and its scale, or none; width, height, steps, tokens, seed
PICTURES = [
    ("a red circle above a blue square", None, 256, 256, 12, 32, 1),
    ("a red circle above a blue square", None, 256, 256, 12, 32, 2),
    ("three small blue stars", None, 256, 256, 12, 32, 3),
    ("a green triangle inside a white circle", None, 128, 128, 12, 32, 4),
    ("a yellow star on a purple background", None, 128, 256, 8, 32, 5),
    ("a black square left of an orange circle", None, 256, 128, 8, 32, 6),
    ("two red squares", None, 192, 320, 6, 32, 7),
    ("four white triangles on a striped background", None, 320, 192, 4, 32, 8),
    ("a blue star below a green circle", None, 512, 512, 2, 32, 9),
    ("a small pink circle", None, 64, 64, 20, 32, 10),
    ("a large orange square", None, 256, 256, 1, 32, 11),
    ("a red circle, a green square and a blue star in a row", None, 256, 256, 30, 32, 12),
    ("a white star", None, 256, 256, 12, 16, 13),
    ("?", None, 256, 256, 12, 32, 14),
    ("ein roter Kreis über einem blauen Quadrat ★", None, 256, 256, 12, 32, 4294967295),
    ("a red circle above a blue square", ("", 2.0), 256, 256, 12, 32, 1),
    ("a red circle above a blue square", ("a blue square", 1.5), 256, 256, 12, 32, 16),
    ("a purple triangle right of a yellow square", ("blurred", 4.0), 128, 192, 8, 32, 17),
    ("a green star on a chequered background", ("a red star", 3.0), 320, 256, 5, 32, 18),
    ("a blue circle inside a white square", ("black", 7.5), 192, 192, 10, 24, 19),
]


def arguments(prompt, negative, width, height, steps, tokens, seed):
    out = ["--prompt", prompt, "--width", width, "--height", height, "--num_inference_steps", steps,
           "--max_sequence_length", tokens, "--seed", seed]
    if negative:
        out += ["--negative_prompt", negative[0], "--true_cfg_scale", negative[1]]
    return ALL + [str(word) for word in out]


def draw(program, words):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "t2i", *words, "--output_dir", folder], check=True, stdout=subprocess.DEVNULL)
        (picture,) = pathlib.Path(folder).glob("*.png")
        return pixels(picture)


def commit(program):
    """Of the checkout that the program lies in."""
    def git(*words):
        return subprocess.run(["git", "-C", str(pathlib.Path(program).parent), *words], capture_output=True, text=True).stdout
    return (git("rev-parse", "--short=10", "HEAD").strip() or "unknown") + (
        " and changes" if git("status", "--short", "--", ":/src") else "")


def sha(data):
    return hashlib.sha256(data).hexdigest()


def largest_difference(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


if largest_difference(draw(old, arguments(*PICTURES[0])), draw(new, arguments(*PICTURES[1]))) == 0:
    sys.exit("FAILED  two seeds drew the same pixels")
print("ok      another seed draws other pixels")
rows, failed, equal_to_changed = [], 0, 0
for picture in PICTURES:
    words = arguments(*picture)
    before, after = draw(old, words), draw(new, words)
    row = {"arguments": sha("\0".join(words).encode())[:16], "old": sha(before), "new": sha(after),
           "largest_difference": largest_difference(before, after), "different": sum(a != b for a, b in zip(before, after))}
    is_right = before == after
    if changed:
        is_right = draw(changed, words) == after
        equal_to_changed += is_right
        is_right = is_right and row["largest_difference"] <= 1
    failed += not is_right
    rows.append(row)
    print("ok     " if is_right else "FAILED ", picture, row["different"], "values differ, by at most", row["largest_difference"],
          flush=True)
result = {"what": "SHA-256 of the pixels of two programs' pictures of mini: one CPU rank, one thread, float32",
          "date": datetime.date.today().isoformat(), "old": commit(old), "new": commit(new),
          "pictures": len(rows), "equal": sum(row["old"] == row["new"] for row in rows)}
if changed:
    result |= {"equal_to_changed": equal_to_changed, "change": why}
lines = ",\n".join("    " + json.dumps(row) for row in rows)
text = json.dumps(result, indent=2)[:-2] + f',\n  "rows": [\n{lines}\n  ]\n}}\n'
pathlib.Path(root, "tests/results/same_bits.json").write_text(text)
sys.exit(failed != 0)
PYTHON
