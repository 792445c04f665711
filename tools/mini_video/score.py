"""Test captions of seen and unseen combinations, and the shares of clips that show what was asked for.

  python3 score.py captions --n 10 --out T                      T/prompts.jsonl and T/specs.json
  python3 score.py score --specs T/specs.json --clips DIR --out scores.json
  python3 score.py truth --n 30 --out truth.json                the checker on drawn truth and on other captions
  python3 score.py sheet --specs T/specs.json --clips DIR --out sheet.png
Clips are animated WebP or GIF files, 000000.webp and so on, or folders of PNG files, 000000.frames and so on.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageSequence

from phrases import Narrator
from watch import judge
from world import Clip, pair_is_held_out, sample, triple_is_held_out

SET_SEED, NOISE_SEED = 77, 5000
SHUFFLE = 7
KINDS = {
    "move": lambda c: c.kind == "move" and not c.speed,
    "speed": lambda c: c.kind == "move" and c.speed != "",
    "bounce": lambda c: c.kind == "bounce",
    "appear": lambda c: c.kind in ("appear", "disappear"),
    "still": lambda c: c.kind == "still",
}


def _novelty(clip: Clip) -> str:
    """What of the combination training has never shown."""
    if pair_is_held_out(clip.colour, clip.shape):
        return "new pair"
    return "new triple" if triple_is_held_out(clip.colour, clip.shape, clip.motion) else "seen"


def categories() -> list[tuple[str, str]]:
    """(kind, novelty) of the test set."""
    return [(kind, novelty) for kind in KINDS for novelty in ("seen", "new pair", "new triple")]


def test_set(each: int, seed: int = SET_SEED) -> list[tuple[str, Clip, str]]:
    """(category, clip, caption), `each` of a category; half of the captions in the plainest words."""
    rng, items = random.Random(seed), []
    for kind, novelty in categories():
        found = 0
        while found < each:
            clip = sample(rng)
            if not KINDS[kind](clip) or _novelty(clip) != novelty:
                continue
            narrator = Narrator(rng, plain=rng.random() < 0.5)
            items.append((f"{kind}, {novelty}", clip, narrator.caption(clip)))
            found += 1
    return items


def load(path: Path) -> np.ndarray | None:
    """The frames of DIR/000000.frames (a folder) or of DIR/000000.webp or .gif: [T, H, W, 3]."""
    if (folder := path.with_suffix(".frames")).is_dir():
        frames = [Image.open(f).convert("RGB") for f in sorted(folder.glob("*.png"))]
        return np.stack([np.asarray(f) for f in frames])
    for end in (".webp", ".gif"):
        if (file := path.with_suffix(end)).exists():
            with Image.open(file) as clip:
                return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(clip)])
    return None


def _verdict(job: tuple[np.ndarray | Path, Clip]) -> dict[str, bool]:
    """judge() of one clip or file; runs in a process of its own."""
    frames, clip = job
    frames = load(frames) if isinstance(frames, Path) else frames
    return judge(frames, clip) if frames is not None else {"there": False}


def shares(names: list[str], jobs: list, processes: int) -> dict[str, dict]:
    """Share of right clips by category, by novelty and over all; and of right colours, shapes, motions."""
    with ProcessPoolExecutor(processes) as pool:
        verdicts = list(pool.map(_verdict, jobs, chunksize=4))
    right: collections.defaultdict = collections.defaultdict(list)
    parts: collections.defaultdict = collections.defaultdict(list)
    for name, verdict in zip(names, verdicts):
        for group in (name, name.split(", ")[1], "all"):
            right[group].append(all(verdict.values()))
        for part, is_right in verdict.items():
            parts[part].append(is_right)
    rounded = [{k: round(float(np.mean(v)), 4) for k, v in table.items()} for table in (right, parts)]
    return {"right": rounded[0], "parts": rounded[1]}


def evaluate(draw: Callable[[list[str]], np.ndarray], each: int, processes: int) -> dict[str, dict]:
    """Shares of right clips for a function that draws captions."""
    items = test_set(each)
    clips = draw([caption for _, _, caption in items])
    return shares([c for c, _, _ in items], [(f, c) for f, (_, c, _) in zip(clips, items)], processes)


def write_captions(a: argparse.Namespace) -> None:
    """Command `captions`."""
    a.out.mkdir(parents=True, exist_ok=True)
    items = test_set(a.n)
    rows = [{"prompt": p, "index": i, "seed": NOISE_SEED + i} for i, (_, _, p) in enumerate(items)]
    (a.out / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    specs = [{"category": c, "prompt": p, "clip": s.to_dict()} for c, s, p in items]
    (a.out / "specs.json").write_text(json.dumps(specs) + "\n")
    print(f"{len(items)} captions in {a.out}")


def _specs(a: argparse.Namespace) -> list[tuple[str, Path, Clip, str]]:
    """(category, file, clip, caption) of a written test set."""
    specs = json.loads(a.specs.read_text())
    return [(s["category"], a.clips / f"{i:06d}", Clip(**s["clip"]), s["prompt"]) for i, s in enumerate(specs)]


def score_clips(a: argparse.Namespace) -> None:
    """Command `score`."""
    specs = _specs(a)
    result = {"clips": len(specs)} | shares([c for c, *_ in specs], [(f, s) for _, f, s, _ in specs], a.processes)
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def score_truth(a: argparse.Namespace) -> None:
    """Command `truth`: what the checker says of perfect clips, and of clips with other captions."""
    import torch

    from film import pack, render, whole

    items = test_set(a.n)
    clips = [(render(*whole(torch.from_numpy(pack(c))[None]))[0] * 255).round().byte() for _, c, _ in items]
    clips = [frames.permute(0, 2, 3, 1).numpy() for frames in clips]
    names, asked = [c for c, _, _ in items], [c for _, c, _ in items]
    shuffled = [asked[i - i % a.n + (i % a.n + SHUFFLE) % a.n] for i in range(len(asked))]
    result = {
        "drawn truth": shares(names, list(zip(clips, asked)), a.processes),
        "captions shuffled within their category": shares(names, list(zip(clips, shuffled)), a.processes),
    }
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def strip_sheet(rows: list[tuple[str, np.ndarray]], each: int = 2, side: int = 96) -> Image.Image:
    """One row of frames a clip, every `each`-th, with its caption above."""
    columns = -(-len(rows[0][1]) // each)
    sheet = Image.new("RGB", (columns * (side + 2) + 2, len(rows) * (side + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for r, (caption, frames) in enumerate(rows):
        pen.text((4, r * (side + 16) + 2), caption, fill=(30, 30, 30))
        for k, frame in enumerate(frames[::each]):
            small = Image.fromarray(frame).resize((side, side), Image.LANCZOS)
            sheet.paste(small, (2 + k * (side + 2), r * (side + 16) + 15))
    return sheet


def write_sheet(a: argparse.Namespace) -> None:
    """Command `sheet`: the first clips of each category; captions of wrong ones are marked."""
    rows, seen = [], collections.Counter()
    for category, file, clip, caption in _specs(a):
        seen[category] += 1
        if seen[category] > a.each or (frames := load(file)) is None:
            continue
        wrong = [k for k, v in judge(frames, clip).items() if not v]
        rows.append((f"{caption}   [{category}]" + (f"   WRONG: {wrong}" if wrong else ""), frames))
    strip_sheet(rows).save(a.out, optimize=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = {"captions": write_captions, "score": score_clips, "truth": score_truth, "sheet": write_sheet}
    for name, function in table.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--processes", type=int, default=2)
        command.add_argument("--n", type=int, default=10, help="captions a category (there are fifteen)")
        command.add_argument("--each", type=int, default=1, help="clips a category on the sheet")
        if name in ("score", "sheet"):
            command.add_argument("--specs", type=Path, required=True)
            command.add_argument("--clips", type=Path, required=True)
    a = parser.parse_args()
    a.function(a)


if __name__ == "__main__":
    main()
