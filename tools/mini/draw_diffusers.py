"""Draws a prompts file with diffusers' FluxPipeline: the reference for the C++ program's pictures.

  python3 draw_diffusers.py --model models/mini --prompts DIR/prompts.jsonl --out DIR/pictures
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import FluxPipeline


def main() -> None:
    """Reads the command line; one picture a row, from the noise of the row's seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first rows")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    pipeline = FluxPipeline.from_pretrained(a.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    call = json.loads((a.model / "model_index.json").read_text())["_atelier"]
    rows = [json.loads(line) for line in a.prompts.read_text().splitlines()]
    start = time.time()
    for row in rows[: a.limit]:
        noise = torch.Generator().manual_seed(row["seed"])
        picture = pipeline(row["prompt"], negative_prompt="", generator=noise, **call).images[0]
        picture.save(a.out / f"{row['index']:06d}.png")
    print(f"{len(rows[: a.limit])} pictures in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
