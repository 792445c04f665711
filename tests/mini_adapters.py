#!/usr/bin/env python3
"""The adapters that come with the model mini: each does what it says, alone and together, and none is left behind. The program is
$ATELIER. Exit 0: all as it should be; 77: there is no program; else what was not."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _png import pixels  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
STICKER, HOUSE = (f'models/mini-adapters/{name}.safetensors' for name in ('sticker', 'house'))
SIDE, GRID = 256, 24
HEXAGON, CIRCLE, ONE_HOUSE = (f'a {what} on a {ground} background' for what, ground in
                              (('large yellow hexagon', 'blue'), ('red circle', 'dark blue'), ('red house', 'dark blue')))
# (caption, adapters): the third row is the first again, after another adapter.
ROWS = [(HEXAGON, []), (HEXAGON, [STICKER]), (HEXAGON, []), (CIRCLE, [HOUSE]), (ONE_HOUSE, [HOUSE]),
        (ONE_HOUSE, [HOUSE, STICKER]), (ONE_HOUSE, []), (HEXAGON, [STICKER]), (HEXAGON, [STICKER + ':0'])]
problems = []


def check(holds, what):
    if not holds:
        problems.append(what)


def draw(folder):
    """The pictures of all rows, as bytes."""
    prompts = folder / 'prompts.jsonl'
    lines = [json.dumps({'prompt': text, 'index': i, 'seed': 9, 'lora': lora}) for i, (text, lora) in enumerate(ROWS)]
    prompts.write_text('\n'.join(lines) + '\n')
    command = [ATELIER, 't2i', '--model_name', 'mini', '--device', 'cpu', '--num_gpus', '1', '--prompts_file', str(prompts),
               '--output_dir', str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=600)
    return [pixels(folder / f'{i:06d}.png') for i in range(len(ROWS))]


def places(picture, is_wanted):
    """(x, y) of the pixels whose colour is wanted."""
    return {(i % SIDE, i // SIDE) for i in range(SIDE * SIDE) if is_wanted(*picture[3 * i:3 * i + 3])}


def red(picture):
    return places(picture, lambda r, g, b: r > 150 and g < 120 and b < 120)


def paper(picture):
    return len(places(picture, lambda r, g, b: min(r, g, b) >= 200))


def likeness(shape, is_inside):
    """Overlap of pixels, brought into a square, with a shape over -1..1."""
    if len(shape) < 500:
        return 0.0
    left, top = (min(p[i] for p in shape) for i in (0, 1))
    width, height = (max(p[i] for p in shape) - v + 1 for i, v in ((0, left), (1, top)))
    both = either = 0
    for row in range(GRID):
        for column in range(GRID):
            u, v = (column + 0.5) / GRID, (row + 0.5) / GRID
            seen = (left + int(u * width), top + int(v * height)) in shape
            wanted = is_inside(2 * u - 1, 2 * v - 1)
            both, either = both + (seen and wanted), either + (seen or wanted)
    return both / either


def like_house(shape):
    """Eaves at -0.05, walls of two thirds of the width."""
    return likeness(shape, lambda x, y: abs(x) < (y + 1) / 0.95 if y < -0.05 else abs(x) < 0.69)


def like_circle(shape):
    return likeness(shape, lambda x, y: x * x + y * y < 1)


def main():
    if not os.access(ATELIER, os.X_OK):
        print(f'there is no program at {ATELIER}')
        return 77
    with tempfile.TemporaryDirectory() as folder:
        plain, sticker, again, still, house, both, unknown, sticker_again, without = draw(pathlib.Path(folder))
    check(plain == again == without, 'without an adapter, after one, or at strength 0: the same bits')
    check(sticker == sticker_again, 'the adapter again, after others: the same bits')
    check(paper(plain) < 100 < 800 < paper(sticker), f'paper: {paper(plain)} pixels without, {paper(sticker)} with the sticker')
    check(paper(both) > 300, f'paper around the house: {paper(both)} pixels')
    check(like_circle(red(still)) > 0.9, f'a circle stays one beside houses: {like_circle(red(still)):.2f}')
    for name, picture, least in (('house', house, 0.8), ('both', both, 0.7)):
        check(like_house(red(picture)) > least, f'adapter {name}: a house: {like_house(red(picture)):.2f}')
    check(like_house(red(unknown)) < 0.75, f'without an adapter it is no house: {like_house(red(unknown)):.2f}')
    print('\n'.join(problems) or 'both adapters do what they say')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
