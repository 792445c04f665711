#!/usr/bin/env python3
"""atelier video from the command line, on small recorded models: files, metadata, resume, rows, previews, refusals. The program is
$ATELIER. Exit 0: all as it should be; 77: there is no program; else what was not."""
import json
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
GOLDENS = ROOT / 'tests/goldens'
COMMON = '--device cpu --num_inference_steps 2 --seed 5 --num_gpus 1 --max_sequence_length 16'.split()
problems = []


def check(holds, what):
    if not holds:
        problems.append(what)


def run(command, folder, *flags, code=0):
    result = subprocess.run([ATELIER, command, *COMMON, '--output_dir', str(folder), *map(str, flags)], cwd=ROOT,
                            capture_output=True, text=True, timeout=120)
    text = result.stdout + result.stderr
    if result.returncode != code:
        problems.append(f'{command} {" ".join(map(str, flags))}: exit {result.returncode}, not {code}\n{text[-1500:]}')
    return text


def webp_frames(data):
    """Frames and milliseconds of an animated WebP, by its container alone."""
    at, frames, ms = 12, 0, 0
    while at + 8 <= len(data):
        kind, size = data[at:at + 4], struct.unpack('<I', data[at + 4:at + 8])[0]
        if kind == b'ANMF':
            frames += 1
            ms += int.from_bytes(data[at + 20:at + 23], 'little')
        at += 8 + size + size % 2
    return frames, ms


TEXT = ['--model_name', GOLDENS / 'wan_experts/model', '--height', 16, '--width', 48]
FOX = ['--prompt', 'a red fox runs']


def one_video(folder):
    out = folder / 'one'
    text = run('video', out, *TEXT, *FOX, '--num_frames', 9, '--fps', 8, '--preview_every', 1, '--compile')
    check('1 video, 48x16, 9 frames at 8 per second' in text, 'the header names frames and rate: ' + text[:600])
    check('1 video in ' in text, 'the last line counts videos: ' + text[-300:])
    check('--compile has no effect on the CPU' in text, 'a flag without effect is named')
    data = (out / '000000.webp').read_bytes()
    check(webp_frames(data) == (9, 1125), f'frames and time of the file: {webp_frames(data)}')
    check(b'a red fox runs' in data and b'num_frames' in data, 'the file holds its parameters')
    check(webp_frames((out / 'previews/000000.webp').read_bytes())[0] == 3, 'a preview has the latent frames')
    records = [json.loads(line) for line in (out / 'ledger.jsonl').read_text().splitlines()]
    check(len(records) == 1 and records[0]['settings']['num_frames'] == 9, f'the ledger: {records}')
    check('1 of 1 pictures are there' in run('video', out, *TEXT, *FOX, '--num_frames', 9, '--fps', 8), 'it is resumed')
    text = run('video', out, *TEXT, *FOX, '--num_frames', 5, '--fps', 8)
    check('num_frames: 1, 9 -> 5' in text, 'another number of frames is drawn again: ' + text[:800])
    (out / '000000.webp').write_bytes(data[:len(data) // 2])
    check('damaged' in run('video', out, *TEXT, *FOX, '--num_frames', 5, '--fps', 8), 'half a file is drawn again')


def other_formats(folder):
    out = folder / 'formats'
    run('video', out, *TEXT, *FOX, '--num_frames', 5, '--output_format', 'gif')
    data = (out / '000000.gif').read_bytes()
    check(data.count(b'\x21\xf9\x04') == 5 and b'a red fox runs' in data, 'a GIF of five frames with its parameters')
    run('video', out, *TEXT, *FOX, '--num_frames', 5, '--output_format', 'frames')
    names = sorted(p.name for p in (out / '000000.frames').iterdir())
    check(names == [f'{i:04d}.png' for i in range(5)], f'a folder of frames: {names}')
    again = run('video', out, *TEXT, *FOX, '--num_frames', 5, '--output_format', 'frames')
    check('1 of 1 pictures are there' in again, 'a folder of frames is resumed: ' + again[:600])
    (out / '000000.frames/0004.png').unlink()
    check('damaged' in run('video', out, *TEXT, *FOX, '--num_frames', 5, '--output_format', 'frames'),
          'a folder without its last frame is drawn again')
    run('video', out, *TEXT, *FOX, '--num_frames', 1, '--output_format', 'png')
    check((out / '000000.png').is_file(), 'one frame is a picture')
    has_module = (pathlib.Path(ATELIER).parent / 'atelier_ffmpeg.so').is_file()
    text = run('video', out, *TEXT, *FOX, '--num_frames', 5, '--output_format', 'mp4', code=0 if has_module else 2)
    if has_module:
        check(b'ftyp' in (out / '000000.mp4').read_bytes()[:16], 'an MP4')
        check('videos are written as' in (out / 'report.json').read_text(), 'the report names the codec')
    else:
        check('libavcodec' in text and 'Debian' in text, 'an absent module names the packages: ' + text[-500:])


def shown(folder):
    inputs = GOLDENS / 'wan_frames/inputs'
    first, last = inputs / 'image_00.png', inputs / 'last_image_00.png'
    frames = ['--model_name', GOLDENS / 'wan_frames/model', '--height', 32, '--width', 16, '--num_frames', 5, *FOX]
    run('video', folder / 'listed', *frames, '--input_images', first, last)
    run('video', folder / 'named', *frames, '--image', first, '--last_image', last)
    same = [(folder / n / '000000.webp').read_bytes() for n in ('listed', 'named')]
    check(same[0] == same[1], 'both ways to name two pictures draw the same')
    check('image' in run('video', folder / 'x', *frames, code=2), 'a model of first frames names what it lacks')
    check('last_image' in run('video', folder / 'x', *frames, '--image', first, code=2), 'and of last frames')
    check('3 pictures' in run('video', folder / 'x', *frames, '--input_images', first, last, first, code=2), 'not three')
    check('there is no' in run('video', folder / 'x', *frames, '--image', folder / 'none.png', '--last_image', last, code=2),
          'a file that is not there')
    (folder / 'broken.png').write_bytes(first.read_bytes()[:60])
    check('broken.png' in run('video', folder / 'x', *frames, '--image', folder / 'broken.png', '--last_image', last, code=2),
          'a broken picture is named')
    check('is not shown any' in run('video', folder / 'x', *TEXT, *FOX, '--image', first, code=2), 'a model of texts takes none')
    steered = ['--model_name', GOLDENS / 'wan_steered/model', '--height', 32, '--width', 32, *FOX]
    inputs = GOLDENS / 'wan_steered/inputs'
    for kind in ('video', 'mask'):
        (folder / kind).mkdir()
        for i in range(5):
            shutil.copy(inputs / f'{kind}_{i:02d}.png', folder / kind)
    control = ['--control_video', folder / 'video']
    run('video', folder / 'steered', *steered, '--num_frames', 5, *control, '--mask_video', folder / 'mask',
        '--reference', inputs / 'reference_images_00.png')
    check('has 5 frames; 9 are drawn' in run('video', folder / 'x', *steered, '--num_frames', 9, *control, code=2),
          'a control video that is too short')
    (folder / 'mask/mask_04.png').unlink()
    check('has 4 frames' in run('video', folder / 'x', *steered, '--num_frames', 5, *control, '--mask_video', folder / 'mask',
                                code=2), 'a mask of another length')
    check('control_video' in run('video', folder / 'x', *steered, '--num_frames', 5, '--mask_video', folder / 'mask', code=2),
          'a mask without a video')


def rows_and_refusals(folder):
    rows = folder / 'rows.jsonl'
    rows.write_text('\n'.join(map(json.dumps, (
        {'prompt': 'a boat', 'num_frames': 5}, {'prompt': 'a boat', 'num_frames': 6}, {'prompt': 'a fox', 'num_frames': 1}))))
    text = run('video', folder / 'rows', *TEXT, '--prompts_file', rows, '--batch_size', 2, code=1)
    check('rows.jsonl:2' in text and 'take 5 or 9' in text, 'a row of six frames fails alone: ' + text[-800:])
    check((folder / 'rows/000000.webp').is_file() and (folder / 'rows/000002.webp').is_file(), 'the other rows are drawn')
    for command, flags, words in (
            ('t2i', [*TEXT, *FOX], ['draws videos', 'atelier video']),
            ('video', ['--model_name', 'mini', *FOX], ['draws pictures', 'atelier t2i']),
            ('t2i', ['--model_name', 'mini', *FOX, '--num_frames', 5], ['num_frames|frames were asked', 'pictures']),
            ('t2i', ['--model_name', 'mini', *FOX, '--output_format', 'gif'], ['png']),
            ('video', [*TEXT, *FOX, '--num_frames', 8], ['8 frames', 'take 5 or 9']),
            ('video', [*TEXT, *FOX, '--height', 17], ['17']),
            ('video', [*TEXT, *FOX, '--strength', '0.5'], ['strength']),
            ('video', [*TEXT, *FOX, '--num_frames', 5, '--output_format', 'png'], ['one picture'])):
        text = run(command, folder / 'x', *flags, code=2)
        for word in words:
            check(any(w in text for w in word.split('|')), f'{command} {flags[2:]} names "{word}": {text[-400:]}')


def node_dictionary(folder):
    config = folder / 'node.json'
    config.write_text(json.dumps({'num_gpus': 4, 'gpu_memory_fraction': 0.8, 'pipeline_parallel_size': 2,
                                  'tensor_parallel_size': 2, 'use_fp16': True, 'enable_activation_checkpointing': True}))
    flags = [f for f in COMMON if f not in ('--num_gpus', '1')]

    def draw(name, *more):
        result = subprocess.run([ATELIER, 'video', *flags, *map(str, TEXT), *FOX, '--num_frames', '5', *more,
                                 '--output_dir', str(folder / name)], cwd=ROOT, capture_output=True, text=True, timeout=120)
        return result.returncode, result.stdout + result.stderr

    code, text = draw('node', '--config', str(config))
    check(code == 0 and '4 ranks' in text and 'float16' in text, 'the dictionary of the nodes as it stands: ' + text[-1500:])
    check('2 stages (ranks 0-1 blocks 0, ranks 2-3 blocks 1), every step whole: exact' in text,
          'its stages are exact, and who has which blocks is said: ' + text[:1500])
    check('no effect at this size' in text, 'what checkpointing saves is said: ' + text[-1500:])
    draw('one', '--num_inference_steps', '4')
    draw('stages', '--num_inference_steps', '4', '--pipeline_parallel_size', '2')
    draw('patches', '--num_inference_steps', '4', '--pipefusion_degree', '2')
    one, stages, patches = ((folder / n / '000000.webp').read_bytes() for n in ('one', 'stages', 'patches'))
    check(one == stages, 'exact stages draw what one rank draws')
    check(one != patches, 'patches do not')


def samplers(folder):
    for name, form, note in (('euler', 'flow_euler', 'sampler euler is flow_euler here'),
                             ('dpm++', 'dpmpp_2m', 'sampler dpm++ is dpmpp_2m here'),
                             ('uni_pc', 'unipc', 'sampler uni_pc is unipc here'),
                             ('lcm', 'flow_lcm', 'sampler lcm is flow_lcm here')):
        drawn = [(folder / n, run('video', folder / n, *TEXT, *FOX, '--num_frames', 5, '--sampler', n)) for n in (form, name)]
        check((drawn[0][0] / '000000.webp').read_bytes() == (drawn[1][0] / '000000.webp').read_bytes(),
              f'--sampler {name} draws with {form}')
        check(note in drawn[1][1], f'a note about {name}: ' + drawn[1][1][:1200])
    text = run('video', folder / 'x', *TEXT, *FOX, '--num_frames', 5, '--sampler', 'euler_ancestral', code=2)
    check('euler_a is for models that predict noise' in text and 'flow_lcm' in text, 'what has no such form: ' + text[-800:])


def two_files(folder):
    """Of Wan 2.2, as ComfyUI has them: the folder has configurations alone."""
    golden, rest = GOLDENS / 'wan_experts/model', folder / 'rest'
    shutil.copytree(golden, rest)
    files = []
    for part, noise in (('transformer', 'high'), ('transformer_2', 'low')):
        files.append(folder / f'wan2.2_t2v_{noise}_noise_14B.safetensors')
        subprocess.run([ATELIER, 'convert', golden / part, files[-1], '--to', 'native'], cwd=ROOT, capture_output=True, check=True)
        (rest / part / 'diffusion_pytorch_model.safetensors').unlink()
    size = ['--height', 16, '--width', 48, '--num_frames', 5, *FOX]
    run('video', folder / 'whole', *TEXT, *FOX, '--num_frames', 5, '--output_format', 'frames')
    named = ['--model', files[0], '--transformer_2', files[1], '--base_model', rest]
    text = run('video', folder / 'files', *named, *size, '--output_format', 'frames')
    whole, parts = (_png.pixels(folder / n / '000000.frames/0004.png') for n in ('whole', 'files'))
    check(whole == parts, 'two files draw what a folder draws')
    check('high_noise_14B.safetensors + wan2.2' in text, 'the header names both: ' + text[:600])
    plan = [ATELIER, 'plan', *named[:1], *map(str, named[1:]), '--num_gpus', '2', '--hardware', 'A100', '--height', '16', '--width', '48']
    result = subprocess.run(list(map(str, plan)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    check(result.returncode == 0, 'plan takes them too: ' + result.stdout + result.stderr)
    copy = folder / 'copy.safetensors'
    shutil.copy(files[0], copy)
    wide = folder / 'wide.safetensors'
    subprocess.run([ATELIER, 'convert', GOLDENS / 'wan_frames/model/transformer', wide, '--to', 'native'], cwd=ROOT, capture_output=True, check=True)
    for first, second, words in ((files[1], files[0], 'the other way round'), (files[0], files[0], 'are both of high noise'),
                                 (copy, copy, 'hold the same weights'), (files[0], copy, 'hold the same weights'),
                                 (files[0], wide, 'not the two experts of one model'), (files[0], folder / 'none', 'is no file')):
        text = run('video', folder / 'x', '--model', first, '--transformer_2', second, '--base_model', rest, *size, code=2)
        check(words in text, f'{first.name} with {second.name}: ' + text[-600:])
    text = run('video', folder / 'x', '--model', files[0], '--base_model', rest, *size, code=2)
    check('name the file of transformer_2 too' in text, 'one of two files says how the other is named: ' + text[-600:])
    text = run('video', folder / 'x', *TEXT, '--transformer_2', files[1], *FOX, code=2)
    check('--transformer_2 is for two single files' in text, 'a folder takes no second file: ' + text[-600:])


def control_lora(path, channels):
    """One that makes the first layer take as many channels more, in native names."""
    tensors = {'diffusion_model.patch_embedding.lora_A.weight': (2, 2 * channels, 1, 2, 2), 'diffusion_model.patch_embedding.lora_B.weight': (18, 2, 1, 1, 1)}
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + struct.pack(f'<{at // 4}f', *[0.01] * (at // 4)))


def controls(folder):
    """Contradictions are told before anything is loaded; frames that do not count are told."""
    control_lora(folder / 'control.safetensors', 4)
    steered = GOLDENS / 'wan_steered'
    for count in (5, 9):
        (folder / f'video{count}').mkdir()
        for i in range(count):
            shutil.copy(steered / f'inputs/video_{i % 5:02d}.png', folder / f'video{count}/{i:02d}.png')
    video, lora = ['--control_video', folder / 'video5'], ['--lora', folder / 'control.safetensors']
    frames = [*FOX, '--num_frames', 5]
    vace = ['--model_name', steered / 'model', '--height', 32, '--width', 32, *frames]
    run('video', folder / 'both', *TEXT, *frames, *lora, *video)
    for flags, words in (([*TEXT, *frames, *lora], 'is a control LoRA, which follows a control video'),
                         ([*TEXT, *frames, *video], 'only under a control LoRA'),
                         ([*TEXT, *frames, *lora, *video, '--conditioning_scale', 0.5], 'has no control blocks'),
                         ([*vace, *video, '--conditioning_scale', '1,1,1,1,1,1,1'], 'conditioning_scale has 7 numbers')):
        text = run('video', folder / 'x', *flags, code=2)
        check(words in text and 'layout ' not in text, f'{words}, before it loads: ' + text[-800:])
    text = run('video', folder / 'long', *vace, '--control_video', folder / 'video9')
    check('video9 has more frames than are drawn: its first 5 are used' in text, 'a longer control video: ' + text[:1500])
    (folder / 'empty.mp4').write_bytes(b'')
    (folder / 'noise.mp4').write_bytes(bytes(range(7, 250)) * 9)
    for name, words in (('empty.mp4', 'it is empty, so no video'), ('noise.mp4', 'it is no video and no picture')):
        text = run('video', folder / 'x', *vace, '--control_video', folder / name, code=2)
        check(words in text and 'libavcodec-dev' not in text, f'{name}: ' + text[-600:])


def flags_of_videos(folder):
    """A model of pictures does not take a rate in silence."""
    text = run('t2i', folder / 'picture', '--model_name', 'mini', '--height', 32, '--width', 32, '--prompt', 'x', '--fps', 8)
    check('--fps has no effect: this model draws pictures' in text, 'a rate of a picture: ' + text[:800])


def main():
    if not pathlib.Path(ATELIER).exists():
        print(f'{ATELIER} is not built')
        return 77
    with tempfile.TemporaryDirectory() as name:
        for test in (one_video, other_formats, shown, rows_and_refusals, node_dictionary, samplers, two_files, controls, flags_of_videos):
            folder = pathlib.Path(name) / test.__name__
            folder.mkdir()
            test(folder)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
