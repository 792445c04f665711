#!/usr/bin/env python3
"""How much the first frame of a video resembles the picture that it begins with: PSNR in dB over all values of 8 bits.

first_frame.py          draws and compares with tests/results/first_frame.json; 77: there is no program
first_frame.py --write  writes that file; with diffusers installed, also what diffusers draws from the same seed ("reference")

Of the recorded cases wan_i2v and wan22_ti2v, whose weights are random, beside the frames that were recorded from other noise
("recorded"); and of mini-video, whose index is told that its first latent frame is given (expand_timesteps), as Wan 2.2 5B is
conditioned. $ATELIER is the program, the cases lie in $ATELIER_GOLDENS or ../shared/goldens."""
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import _png

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
GOLDENS = pathlib.Path(os.environ.get('ATELIER_GOLDENS', ROOT.parent / 'shared/goldens'))
RESULT = ROOT / 'tests/results/first_frame.json'
CASES = {'wan_i2v': 'video', 'wan22_ti2v': 'i2v.video'}
NEAR = 0.1  # dB: 8-bit frames of other processors


def psnr(a, b):
    """Of two lists of bytes."""
    assert len(a) == len(b), f'{len(a)} and {len(b)} values'
    error = sum((x - y) ** 2 for x, y in zip(a, b)) / len(a)
    return round(10 * math.log10(255 ** 2 / error), 2) if error else math.inf


def size_of(png):
    return struct.unpack('>II', png.read_bytes()[16:24])


def lanczos(line, size):
    """Of bytes, to so many: Lanczos' window of three places, wider where the line shrinks (as Pillow has it, which the reference calls)."""
    scale = len(line) / size
    wide = max(scale, 1.0)
    out = []
    for i in range(size):
        centre = (i + 0.5) * scale
        places = range(max(0, round(centre - 3 * wide)), min(len(line), round(centre + 3 * wide)))
        x = [math.pi * (at - centre + 0.5) / wide for at in places]
        weights = [1.0 if v == 0 else 3 * math.sin(v) * math.sin(v / 3) / v ** 2 if abs(v) < 3 * math.pi else 0.0 for v in x]
        value = sum(w * line[at] for w, at in zip(weights, places)) / sum(weights)
        out.append(min(255, max(0, round(value))))
    return out


def resized(pixels, width, height, to_width, to_height):
    """All bytes of a picture in another size, row by row; each of three channels along rows, then along columns."""
    out = [0] * (3 * to_width * to_height)
    for channel in range(3):
        rows = [lanczos(pixels[3 * width * y + channel:3 * width * (y + 1):3], to_width) for y in range(height)]
        for x in range(to_width):
            out[3 * x + channel::3 * to_width] = lanczos([row[x] for row in rows], to_height)
    return out


def recorded_frame(file, name):
    """Bytes of the first frame, row by row, of a float tensor [1, frames, 3, H, W] from 0 to 1."""
    with open(file, 'rb') as data:
        size = struct.unpack('<Q', data.read(8))[0]
        entry = json.loads(data.read(size))[name]
        _, _, _, height, width = entry['shape']
        data.seek(8 + size + entry['data_offsets'][0])
        values = struct.unpack(f'<{3 * height * width}f', data.read(12 * height * width))
    plane = height * width
    return [round(255 * min(1, max(0, values[channel * plane + i]))) for i in range(plane) for channel in range(3)]


def drawn_frame(folder, *flags):
    command = [ATELIER, 'video', '--device', 'cpu', '--num_gpus', '1', '--output_format', 'frames', '--output_dir', folder, *flags]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return _png.pixels(folder / '000000.frames/0000.png')


def reference_frame(model, image, call, seed):
    """The same by diffusers with the same seed; None where diffusers is not installed."""
    try:
        import diffusers
        import torch
        from PIL import Image
    except ImportError:
        return None
    index = json.loads((model / 'model_index.json').read_text())
    parts = {}
    if index['_class_name'] == 'WanPipeline':  # the folder of a model that may be shown a picture or not
        plain = diffusers.WanPipeline.from_pretrained(model)
        parts = {name: part for name, part in plain.components.items() if name not in ('transformer_2',)}
        parts |= {'image_encoder': None, 'image_processor': None, 'expand_timesteps': True}
    pipe = diffusers.WanImageToVideoPipeline(**parts) if parts else diffusers.WanImageToVideoPipeline.from_pretrained(model)
    frames = pipe(image=Image.open(image), generator=torch.Generator('cpu').manual_seed(seed), output_type='np', **call).frames[0]
    return [round(255 * float(value)) for value in frames[0].reshape(-1)]


def measured(model, image, call, seed, folder):
    flags = [word for key, value in call.items() for word in (f'--{key}', value)]
    drawn = drawn_frame(folder, '--model_name', model, '--image', image, '--seed', seed, *flags)
    want = resized(_png.pixels(image), *size_of(image), call['width'], call['height'])
    row = {'psnr_db': psnr(drawn, want)}
    reference = reference_frame(model, image, call, seed) if '--write' in sys.argv else None
    return row | ({'reference_psnr_db': psnr(reference, want)} if reference else {}), want


def of_case(case, folder):
    golden = json.loads((GOLDENS / case / 'golden.json').read_text())
    call = {key: value for key, value in golden['call'].items() if key != 'image'}
    row, want = measured(GOLDENS / case / 'model', GOLDENS / case / 'inputs/first.png', call, golden['noise_seed'], folder)
    return row | {'recorded_psnr_db': psnr(recorded_frame(GOLDENS / case / 'golden.safetensors', CASES[case]), want)}


def of_mini(folder):
    model, image = folder / 'model', folder / 'first.png'
    shutil.copytree(ROOT / 'models/mini-video', model)
    index = json.loads((model / 'model_index.json').read_text())
    (model / 'model_index.json').write_text(json.dumps({**index, 'expand_timesteps': True}))
    image.write_bytes(_png.png_of(64, 64, lambda x, y: (220, 40, 40) if (x - 24) ** 2 + (y - 32) ** 2 < 100 else (240, 240, 240)))
    own = index['_atelier']
    call = {'prompt': 'a red circle moves right on white', 'negative_prompt': '', 'height': 64, 'width': 64, 'num_frames': 17,
            'num_inference_steps': 24, 'guidance_scale': own['guidance_scale'], 'max_sequence_length': own['max_sequence_length']}
    return measured(model, image, call, 7, folder)[0]


def main():
    if not pathlib.Path(ATELIER).exists():
        print(f'{ATELIER} is not built')
        return 77
    made = {}
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            if (GOLDENS / case / 'golden.json').is_file():
                made[case] = of_case(case, pathlib.Path(name) / case)
        made['mini-video'] = of_mini(pathlib.Path(name))
    print(json.dumps(made, indent=1))
    if sys.argv[1:] == ['--write']:
        RESULT.write_text(json.dumps(made, indent=1) + '\n')
        return 0
    kept = json.loads(RESULT.read_text())
    problems = [f'{case} {key}: {value}, kept is {kept[case][key]}' for case, row in made.items() for key, value in row.items()
                if abs(value - kept[case][key]) > NEAR]
    print('\n'.join(problems))
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
