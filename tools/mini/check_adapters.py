"""Scores pictures that mini drew with its adapters: is the content right, are the objects stickers?

  python3 check_adapters.py captions --n N --adapters DIR --out T    writes T/prompts.jsonl and T/specs.json
  python3 check_adapters.py score --specs T/specs.json --pictures DIR --out scores.json
  python3 check_adapters.py truth --n N                              the checker on drawn scenes, with rims and without
  python3 check_adapters.py sheet --pictures DIR --out sheet.webp    of the first captions of each category
Every caption is drawn four times from the same noise: without an adapter, with each, and with both. Pictures are named
{index:06d}.png. A missing picture counts as wrong: none is left out.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captions import Speaker
from check import LEAST_OVERLAP, is_correct
from scenes import Scene, Wish, sample
from vision import WITH_HOUSE, find_regions, paper_share
from words import COLOUR_NAMES, NEW_SHAPES, NEW_SHAPES_UNSEEN, SHAPES

SETTINGS = {"none": [], "sticker": ["sticker"], "house": ["house"], "both": ["sticker", "house"]}
KNOWN, SEEN, UNSEEN = "known shapes", "house, seen colour", "house, unseen colour"
KINDS = ["one", "two", "two", "count"]
LEAST_PAPER_SHARE = 0.5
SET_SEED = 4242
NOISE_SEED = 9000
# White objects, and backgrounds close to white, would hide whether there is paper around them.
COLOURS = [c for c in COLOUR_NAMES if c != "white"]


def shows_paper(scene: Scene) -> bool:
    """Whether a rim of paper could be seen: a plain background that the caption names, far from white."""
    b = scene.background
    plain = b.kind == "plain" and b.mentioned and b.first not in ("white", "beige") and not b.first.startswith("light")
    return plain and all(t.colour != "white" for t in scene.things) and scene.relation != "inside"


def make_scene(rng: random.Random, category: str, kind: str) -> Scene:
    """A scene of the category that shows paper; houses of seen colours stand with any known shapes."""
    colours = NEW_SHAPES_UNSEEN if category == UNSEEN else [c for c in COLOURS if c not in NEW_SHAPES_UNSEEN]
    while True:
        pairs = [(rng.choice(COLOURS), rng.choice(SHAPES)) for _ in range(2)]
        if category != KNOWN:
            pairs[0] = rng.choice(colours), rng.choice(NEW_SHAPES)
        if kind == "two":
            rng.shuffle(pairs)
        scene = sample(rng, Wish(kind, pairs, held_out_allowed=True, styles=False))
        if scene and shows_paper(scene):
            return scene


def items(each: int) -> list[tuple[str, Scene, str]]:
    """(category, scene, caption): `each` of every category, half of them in the plainest words."""
    rng = random.Random(SET_SEED)
    out = []
    for category in (KNOWN, SEEN, UNSEEN):
        for i in range(each):
            scene = make_scene(rng, category, KINDS[i % len(KINDS)])
            out.append((category, scene, Speaker(rng, plain=i % 2 == 0).caption(scene)))
    return out


def is_content_right(picture: np.ndarray, scene: Scene) -> bool:
    """What the caption says, where a house is one of the shapes that could be seen."""
    return is_correct(picture, scene, WITH_HOUSE)


def is_sticker(picture: np.ndarray, scene: Scene) -> bool:
    """Whether each object that is found in a colour of the scene has paper around most of its edge."""
    colours = {t.colour for t in scene.things}
    regions = find_regions(picture, templates=WITH_HOUSE)
    regions = [r for r in regions if r.overlap >= LEAST_OVERLAP and r.colour in colours]
    return bool(regions) and all(paper_share(picture, r) >= LEAST_PAPER_SHARE for r in regions)


def write_captions(a: argparse.Namespace) -> None:
    """Command `captions`: a prompt file whose rows say which adapters draw them."""
    a.out.mkdir(parents=True, exist_ok=True)
    specs = []
    with open(a.out / "prompts.jsonl", "w") as prompts:
        for setting, names in SETTINGS.items():
            for i, (category, scene, caption) in enumerate(items(a.n)):
                lora = [str(a.adapters / f"{name}.safetensors") for name in names]
                row = {"prompt": caption, "index": len(specs), "seed": NOISE_SEED + i, "lora": lora}
                prompts.write(json.dumps(row) + "\n")
                specs.append({"setting": setting, "category": category, "prompt": caption, "scene": scene.to_dict()})
    (a.out / "specs.json").write_text(json.dumps(specs) + "\n")
    print(f"{len(specs)} rows in {a.out}")


def judge(picture: np.ndarray | None, scene: Scene) -> dict[str, bool]:
    """Both questions about one picture."""
    if picture is None:
        return {"right": False, "sticker": False}
    return {"right": is_content_right(picture, scene), "sticker": is_sticker(picture, scene)}


def shares(judged: list[tuple[str, str, dict]]) -> dict:
    """Setting -> category -> share of right pictures and of stickers."""
    out: dict = {}
    for setting, category, verdict in judged:
        out.setdefault(setting, {}).setdefault(category, []).append(verdict)
    return {
        s: {c: {k: round(float(np.mean([v[k] for v in vs])), 4) for k in vs[0]} for c, vs in by.items()}
        for s, by in out.items()
    }


def _read(folder: Path, index: int) -> np.ndarray | None:
    """A picture, or None where it is missing."""
    file = folder / f"{index:06d}.png"
    return np.asarray(Image.open(file).convert("RGB")) if file.exists() else None


def score(a: argparse.Namespace) -> None:
    """Command `score`."""
    specs = json.loads(a.specs.read_text())
    judged = [
        (s["setting"], s["category"], judge(_read(a.pictures, i), Scene.from_dict(s["scene"])))
        for i, s in enumerate(specs)
    ]
    missing = sum(_read(a.pictures, i) is None for i in range(len(specs)))
    each = len(specs) // len(SETTINGS) // 3
    result = {"pictures": len(specs), "missing": missing, "captions a category": each, "shares": shares(judged)}
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def truth(a: argparse.Namespace) -> None:
    """Command `truth`: what the checker says of drawn scenes, with rims and without."""
    import torch

    from adapter_data import RIM
    from drawing import pack, render

    judged = []
    for name, rim in (("drawn without rims", 0.0), ("drawn with rims", RIM)):
        for category, scene, _ in items(a.n):
            things, background = (torch.from_numpy(x)[None] for x in pack(scene))
            picture = render(things[:, : len(scene.things)], background, rim)[0]
            judged.append((name, category, judge((picture * 255).round().byte().permute(1, 2, 0).numpy(), scene)))
    print(json.dumps(shares(judged), indent=1))


def sheet(a: argparse.Namespace) -> None:
    """Command `sheet`: one row for a caption, one column for a setting."""
    listed = items(a.n)
    chosen = [c * a.n + i for c in range(3) for i in a.rows]
    side, text, gap = a.side, 18, 4
    across, down = len(SETTINGS) * (side + gap) + gap, len(chosen) * (side + text + gap) + text + gap
    page = Image.new("RGB", (across, down), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, setting in enumerate(SETTINGS):
        pen.text((gap + column * (side + gap) + 2, 2), setting if setting != "none" else "no adapter", "black", font)
        for row, item in enumerate(chosen):
            picture = Image.fromarray(_read(a.pictures, column * len(listed) + item))
            page.paste(picture.resize((side, side), Image.LANCZOS), (gap + column * (side + gap), text + row * (side + text + gap)))
    for row, item in enumerate(chosen):
        pen.text((gap + 2, text + row * (side + text + gap) + side + 1), listed[item][2], (40, 40, 40), font)
    page.save(a.out, quality=80, method=6)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in {"captions": write_captions, "score": score, "truth": truth, "sheet": sheet}.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--n", type=int, default=16, help="captions a category (there are three)")
        if name != "truth":
            command.add_argument("--out", type=Path, required=True)
        if name == "captions":
            command.add_argument("--adapters", type=Path, required=True)
        if name == "score":
            command.add_argument("--specs", type=Path, required=True)
        if name in ("score", "sheet"):
            command.add_argument("--pictures", type=Path, required=True)
        if name == "sheet":
            command.add_argument("--rows", type=int, nargs="+", default=[0, 1], help="which captions of each category")
            command.add_argument("--side", type=int, default=144, help="pixels of a picture on the sheet")
    a = parser.parse_args()
    a.function(a)


if __name__ == "__main__":
    main()
