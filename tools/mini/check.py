"""Scores pictures against the scenes their captions describe, with the independent eye of vision.py.

  python3 check.py captions --n N --out DIR      writes DIR/prompts.jsonl and DIR/specs.json
  python3 check.py score --specs DIR/specs.json --pictures DIR --out scores.json
  python3 check.py truth --n N --out truth.json  scores drawn truth, and the same pictures with shuffled captions
  python3 check.py sheet --specs DIR/specs.json --pictures DIR --out sheet.png [--each K]
Pictures are named {index:06d}.png. A missing picture counts as wrong: none is left out.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import textwrap
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captions import Speaker
from scenes import Scene, Wish, sample
from vision import TEMPLATES, Region, Templates, find_regions
from words import (
    COLOUR_NAMES,
    INVERSE,
    PLACES,
    RELATIONS,
    SHAPES,
    pair_is_held_out,
    triple_is_held_out,
)

LEAST_OVERLAP = 0.63
CLEARLY = 1.2  # "left of" asks for this many times more distance across than down
SET_SEED = 777
NOISE_SEED = 1000
SHUFFLE = 17

ALL_PAIRS = [(c, s) for c in COLOUR_NAMES for s in SHAPES]
NEW_PAIRS = [p for p in ALL_PAIRS if pair_is_held_out(*p)]
SEEN_PAIRS = [p for p in ALL_PAIRS if not pair_is_held_out(*p)]


def is_correct(picture: np.ndarray, scene: Scene, templates: Templates = TEMPLATES) -> bool:
    """Whether the picture shows what the scene's caption says; `templates` are the shapes it may show."""
    inside = scene.relation == "inside"
    regions = [r for r in find_regions(picture, inside, templates) if r.overlap >= LEAST_OVERLAP]
    found = [[r for r in regions if (r.colour, r.shape) == (t.colour, t.shape)] for t in scene.things]
    if scene.kind in ("one", "count"):
        return _count_is_correct(scene, found[0], regions) and _place_is_correct(scene, found[0])
    if scene.kind == "row":
        return all(found) and found[0][0].x < found[1][0].x < found[2][0].x
    if inside:
        wanted = (scene.things[0].colour, scene.things[0].shape)
        alone = find_regions(picture, templates=templates)
        inner = [r for r in alone if r.overlap >= LEAST_OVERLAP and (r.colour, r.shape) == wanted]
        return any(_holds(a, b, "inside") for a in inner for b in found[1])
    relation = scene.relation if scene.kind == "two" else None
    return any(_holds(a, b, relation) for a in found[0] for b in found[1] if a is not b)


def _count_is_correct(scene: Scene, found: list[Region], regions: list[Region]) -> bool:
    """Exactly as many as asked for, and nothing else of that colour."""
    same_colour = [r for r in regions if r.colour == scene.things[0].colour]
    return len(found) == len(scene.things) == len(same_colour)


def _place_is_correct(scene: Scene, found: list[Region]) -> bool:
    """A single object is where the caption puts it."""
    if not scene.place:
        return True
    offsets = (found[0].x - 128) / 128, (found[0].y - 128) / 128
    return all(v * d > 0.15 if d else abs(v) < 0.3 for v, d in zip(offsets, PLACES[scene.place]))


def _holds(a: Region, b: Region, relation: str | None) -> bool:
    """Whether `a` stands in the relation to `b`."""
    dx, dy = b.x - a.x, b.y - a.y
    if relation is None:
        return True
    if relation == "inside":
        (l1, t1, r1, b1), (l2, t2, r2, b2) = a.box, b.box
        return l2 < l1 and t2 < t1 and r2 > r1 and b2 > b1
    amount = {"left of": dx, "right of": -dx, "above": dy, "below": -dy}[relation]
    across = abs(dy) if relation in ("left of", "right of") else abs(dx)
    return amount > CLEARLY * across


class TestSet:
    """Captions by category. Categories named `new` hold only combinations that training never shows."""

    def __init__(self, each: int, seed: int = SET_SEED):
        self._rng = random.Random(seed)
        self._each = each
        self.items: list[tuple[str, Scene, str]] = []
        one, count, inside = self._one, self._count, self._inside
        self._add("one, seen pair", lambda: one(SEEN_PAIRS))
        self._add("one, new pair", lambda: one(NEW_PAIRS))
        self._add("two, seen", lambda: self._two(SEEN_PAIRS, new_triple=False))
        self._add("two, new triple", lambda: self._two(SEEN_PAIRS, new_triple=True))
        self._add("two, new pair", lambda: self._two(NEW_PAIRS, new_triple=False))
        self._add("inside", inside)
        self._add("count, seen pair", lambda: count(SEEN_PAIRS))
        self._add("count, new pair", lambda: count(NEW_PAIRS))
        self._add("patterned background", self._patterned)
        self._add("three in a row", lambda: self._plain(Wish("row", held_out_allowed=True, styles=False)))

    def _add(self, category: str, make: Callable[[], Scene | None]) -> None:
        for _ in range(self._each):
            scene = None
            while scene is None:
                scene = make()
            speaker = Speaker(self._rng, plain=self._rng.random() < 0.5)
            self.items.append((category, scene, speaker.caption(scene)))

    def _plain(self, wish: Wish) -> Scene | None:
        scene = sample(self._rng, wish)
        return scene if scene and scene.background.kind == "plain" else None

    def _wish(self, kind: str, pairs: list) -> Wish:
        return Wish(kind, pairs, held_out_allowed=True, styles=False)

    def _one(self, pairs: list) -> Scene | None:
        return self._plain(self._wish("one", [self._rng.choice(pairs)]))

    def _count(self, pairs: list) -> Scene | None:
        return self._plain(self._wish("count", [self._rng.choice(pairs)]))

    def _two(self, first: list, new_triple: bool) -> Scene | None:
        """Two objects, one of them from `first`, with a relation that is new for one of them, or for none."""
        relation = self._rng.choice(RELATIONS[:4])
        a, b = self._rng.choice(first), self._rng.choice(SEEN_PAIRS)
        if self._rng.random() < 0.5:
            a, b = b, a
        is_new = triple_is_held_out(*a, relation) or triple_is_held_out(*b, INVERSE[relation])
        if is_new != new_triple:
            return None
        wish = self._wish("two", [a, b])
        wish.relation = relation
        return self._plain(wish)

    def _inside(self) -> Scene | None:
        wish = self._wish("two", [self._rng.choice(SEEN_PAIRS), self._rng.choice(SEEN_PAIRS)])
        wish.relation = "inside"
        return self._plain(wish)

    def _patterned(self) -> Scene | None:
        kind = self._rng.choice(["one", "two"])
        scene = sample(self._rng, Wish(kind, held_out_allowed=True, styles=False))
        return scene if scene.background.kind in ("stripes", "checker", "dots") else None


def _verdict(job: tuple[np.ndarray | Path, Scene]) -> bool:
    """is_correct for one picture or picture file; runs in a process of its own."""
    picture, scene = job
    if isinstance(picture, Path):
        if not picture.exists():
            return False
        picture = np.asarray(Image.open(picture).convert("RGB"))
    return is_correct(picture, scene)


def _shares(categories: list[str], jobs: list, processes: int) -> dict[str, float]:
    """Share of right pictures by category, and over all."""
    with ProcessPoolExecutor(processes) as pool:
        verdicts = list(pool.map(_verdict, jobs, chunksize=8))
    by_category = collections.defaultdict(list)
    for category, verdict in zip(categories, verdicts):
        by_category[category].append(verdict)
    shares = {c: round(float(np.mean(v)), 4) for c, v in by_category.items()}
    return shares | {"all": round(float(np.mean(verdicts)), 4)}


def evaluate(draw: Callable[[list[str]], np.ndarray], each: int, processes: int) -> dict[str, float]:
    """Shares of right pictures for a function that draws captions."""
    items = TestSet(each).items
    pictures = draw([caption for _, _, caption in items])
    return _shares([c for c, _, _ in items], [(p, s) for p, (_, s, _) in zip(pictures, items)], processes)


def write_captions(a: argparse.Namespace) -> None:
    """Command `captions`."""
    a.out.mkdir(parents=True, exist_ok=True)
    items = TestSet(a.n).items
    with open(a.out / "prompts.jsonl", "w") as prompts:
        for i, (_, _, caption) in enumerate(items):
            prompts.write(json.dumps({"prompt": caption, "index": i, "seed": NOISE_SEED + i}) + "\n")
    specs = [{"category": c, "prompt": p, "scene": s.to_dict()} for c, s, p in items]
    (a.out / "specs.json").write_text(json.dumps(specs) + "\n")
    print(f"{len(items)} captions in {a.out}")


def _picture_file(a: argparse.Namespace, index: int) -> Path:
    return a.pictures / f"{index:06d}.png"


def score_pictures(a: argparse.Namespace) -> None:
    """Command `score`."""
    specs = json.loads(a.specs.read_text())
    categories = [s["category"] for s in specs]
    jobs = [(_picture_file(a, i), Scene.from_dict(s["scene"])) for i, s in enumerate(specs)]
    missing = sum(not picture.exists() for picture, _ in jobs)
    counts = dict(collections.Counter(categories))
    shares = _shares(categories, jobs, a.processes)
    result = {"pictures": len(jobs), "missing": missing, "counts": counts, "shares": shares}
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def score_truth(a: argparse.Namespace) -> None:
    """Command `truth`: what the checker says of perfect pictures, and of pictures with other captions."""
    import torch

    from drawing import pack, render

    torch.set_num_threads(a.processes)
    items = TestSet(a.n).items
    packed = [pack(scene) for _, scene, _ in items]
    pictures = []
    for i in range(0, len(packed), 16):
        things, backgrounds = (torch.from_numpy(np.stack(x)) for x in zip(*packed[i : i + 16]))
        pictures += list((render(things, backgrounds) * 255).round().byte().permute(0, 2, 3, 1).numpy())
    categories = [c for c, _, _ in items]
    scenes = [s for _, s, _ in items]
    shuffled = [scenes[i - i % a.n + (i % a.n + SHUFFLE) % a.n] for i in range(len(scenes))]
    result = {
        "drawn truth": _shares(categories, list(zip(pictures, scenes)), a.processes),
        "captions shuffled within their category": _shares(categories, list(zip(pictures, shuffled)), a.processes),
    }
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def write_sheet(a: argparse.Namespace) -> None:
    """Command `sheet`: the first K pictures of each category with their captions; a red bar marks wrong ones."""
    specs = json.loads(a.specs.read_text())
    seen: collections.Counter = collections.Counter()
    chosen = []
    for i, spec in enumerate(specs):
        seen[spec["category"]] += 1
        if seen[spec["category"]] <= a.each:
            chosen.append((i, spec))
    side, text, columns = 256, 44, a.columns
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * (side + 8) + 8, rows * (side + text + 8) + 8), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for k, (i, spec) in enumerate(chosen):
        x, y = 8 + k % columns * (side + 8), 8 + k // columns * (side + text + 8)
        if _picture_file(a, i).exists():
            sheet.paste(Image.open(_picture_file(a, i)).convert("RGB").resize((side, side)), (x, y))
        if a.marks and not _verdict((_picture_file(a, i), Scene.from_dict(spec["scene"]))):
            pen.rectangle((x, y + side, x + side, y + side + 4), fill=(220, 40, 40))
        lines = "\n".join(textwrap.wrap(spec["prompt"], 36)[:2])
        pen.multiline_text((x + 2, y + side + 6), lines, fill=(30, 30, 30), font=font, spacing=2)
    sheet.save(a.out, optimize=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = {"captions": write_captions, "score": score_pictures, "truth": score_truth, "sheet": write_sheet}
    for name, function in table.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--processes", type=int, default=2)
        if name in ("captions", "truth"):
            command.add_argument("--n", type=int, default=100, help="captions a category (there are ten)")
        else:
            command.add_argument("--specs", type=Path, required=True)
            command.add_argument("--pictures", type=Path, required=True)
        if name == "sheet":
            command.add_argument("--each", type=int, default=3, help="pictures a category")
            command.add_argument("--columns", type=int, default=6)
            command.add_argument("--marks", action="store_true", help="mark what the checker finds wrong")
    a = parser.parse_args()
    a.function(a)


if __name__ == "__main__":
    main()
