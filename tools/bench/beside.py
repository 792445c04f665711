"""One result file of both programs' times: beside.py FOLDER... (each with bench.json and diffusers.json) on standard output."""
import json
import pathlib
import sys

from rows import rows_of, text_of

WHAT = ("published sizes with random weights, bfloat16, one GPU, each model by both programs in turn in one run. A step computes both branches of "
        "guidance. picture_s of diffusers: denoising and decoding, with its text encoders freed; of Atelier: encoding too, with all of its parts in "
        "memory. Wan in diffusers was run once, with one warm-up.")


def own(row: dict) -> dict:
    """Of a row of bench, in the names and units of diffusers_families.py."""
    spread = lambda key, factor=1: {k: factor * row[key][k] for k in ("median", "min", "max")}
    short = {"ms_per_step": spread("ms_per_step"), "decode_ms": spread("decode_s", 1e3), "picture_s": spread("picture_s")}
    return short | {"peak_GiB": row["peak_memory"][0]["device_bytes"] / 2**30, "runs": row["runs"], "kernels": row["kernels"]}


def main() -> None:
    """A row for each folder."""
    rows, head = [], {}
    for folder in map(pathlib.Path, sys.argv[1:]):
        peer = json.loads((folder / "diffusers.json").read_text())
        head |= {k: peer[k] for k in ("gpu", "torch", "diffusers", "transformers")}
        for row in rows_of(folder / "bench.json"):
            name = row["model"].split(" ")[0]
            size = {k: row[k] for k in ("width", "height", "frames", "steps") if k in row}
            rows.append({"model": name, **size, "atelier": own(row), "diffusers": peer["families"][name]})
    rows.sort(key=lambda row: row["model"])
    sys.stdout.write(text_of({"what": WHAT, "command": "tools/bench/beside_diffusers.sh", **head}, rounded(rows)))


def rounded(value):
    """Numbers with five digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
