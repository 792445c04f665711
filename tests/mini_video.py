#!/usr/bin/env python3
"""mini-video, the built-in model of videos, draws what its captions say with its own defaults. The program is $ATELIER. Motion and
colour are always checked; shapes too, by tools/mini_video/watch.py, where this Python has numpy, scipy and Pillow.
Exit 0: all as it should be; 77: there is no program; else what was not."""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'tools/mini_video')]
import _png  # noqa: E402

SIDE, FRAMES = 64, 17
# Caption, axis (0: x, 1: y), its sign, the channel that leads the object's colour, and what the caption tells.
CLIPS = (
    ('a red circle moves right', 0, 1, 0, dict(colour='red', shape='circle', motion='move right')),
    ('a blue square moves up on a white background', 1, -1, 2, dict(colour='blue', shape='square', motion='move up')),
    ('a green triangle moves left on a black background', 0, -1, 1, dict(colour='green', shape='triangle', motion='move left')),
)
SEED = 1
problems = []


def draw(folder):
    """All clips as folders of PNG files; everything but the place of the files is a default."""
    command = [ATELIER, 'video', '--model_name', 'mini-video', '--device', 'cpu', '--seed', str(SEED), '--output_format', 'frames',
               '--output_dir', str(folder), '--prompt', *(caption for caption, *_ in CLIPS)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    text = result.stdout + result.stderr
    if result.returncode != 0:
        problems.append(f'exit {result.returncode}\n{text[-1500:]}')
    elif f'{SIDE}x{SIDE}, {FRAMES} frames at 8 per second' not in text:
        problems.append('the folder\'s own size, frames and rate are the defaults: ' + text[:400])


def object_of(pixels):
    """Centre (x, y) and mean colour of what differs from the corner's colour."""
    at = range(0, len(pixels), 3)
    found = [i for i in at if sum(abs(pixels[i + c] - pixels[c]) for c in range(3)) > 90]
    if not found:
        return None
    places = [(i // 3 % SIDE, i // 3 // SIDE) for i in found]
    centre = [sum(p[axis] for p in places) / len(places) for axis in (0, 1)]
    return centre, [sum(pixels[i + c] for i in found) / len(found) for c in range(3)]


def moves(caption, frames, axis, sign, leads):
    """The object goes that way, and not the other, in its colour."""
    if len(frames) != FRAMES or any(len(f) != 3 * SIDE * SIDE for f in frames):
        problems.append(f'{caption}: {len(frames)} frames')
        return
    seen = [object_of(frames[i]) for i in (0, FRAMES // 2, FRAMES - 1)]
    if None in seen:
        problems.append(f'{caption}: there is nothing in a frame')
        return
    way = [sign * centre[axis] for centre, _ in seen]
    if not way[0] + 3 < way[1] < way[2] - 3:
        problems.append(f'{caption}: centres {[c for c, _ in seen]}')
    if any(max(range(3), key=colour.__getitem__) != leads for _, colour in seen):
        problems.append(f'{caption}: colours {[c for _, c in seen]}')


def judge(caption, frames, told):
    """What the checker of the model's tool says."""
    import numpy
    import watch
    import world

    clip = world.Clip(**told, speed='', background='', background_told=False, radius=0, x=0, y=0)
    pictures = numpy.stack([numpy.frombuffer(f, numpy.uint8).reshape(SIDE, SIDE, 3) for f in frames])
    wrong = [name for name, holds in watch.judge(pictures, clip).items() if not holds]
    if wrong:
        problems.append(f'{caption}: the checker misses {wrong}')


def main():
    if not pathlib.Path(ATELIER).is_file():
        print(f'{ATELIER} is not there')
        return 77
    try:
        import PIL  # noqa: F401
        import scipy  # noqa: F401
        scored = True
    except ImportError:
        scored = False
    with tempfile.TemporaryDirectory() as folder:
        draw(pathlib.Path(folder))
        for i, (caption, axis, sign, leads, told) in enumerate(CLIPS if not problems else ()):
            frames = [_png.pixels(f) for f in sorted((pathlib.Path(folder) / f'{i:06d}.frames').glob('*.png'))]
            moves(caption, frames, axis, sign, leads)
            if scored and frames:
                judge(caption, frames, told)
    for problem in problems:
        print(problem)
    print(f'{len(CLIPS)} clips' + ('' if scored else '; shapes were not looked at: no scipy and Pillow here'))
    return len(problems) > 0


if __name__ == '__main__':
    sys.exit(main())
