#!/usr/bin/env python3
"""Runs the SDXL scripts on CPU ranks with the built-in model, or that of $ATELIER_SDXL_MODEL, and checks what they leave.
The program is $ATELIER. Exit 0: all as it should be; 77: there is no program; else what was not."""
import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from _png import pixels

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
MODEL = os.environ.get('ATELIER_SDXL_MODEL', 'mini')
SMALL = ['--model', MODEL, '--device', 'cpu', '--width', '64', '--height', '64', '--steps', '2', '--timeout', '120']
COLUMNS = ['prompt_id', 'seed', 'path', 'prompt', 'width', 'height', 'num_inference_steps', 'guidance_scale']


def start(script, folder, *flags):
    command = [sys.executable, str(ROOT / script), *SMALL, '--output', str(folder / 'images'), *flags]
    return subprocess.Popen(command, env=os.environ | {'ATELIER': ATELIER, 'OMP_NUM_THREADS': '1'}, cwd=folder,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run, code=0):
    text = run.communicate(timeout=300)[0]
    assert run.returncode == code, f'exit {run.returncode}, not {code}:\n{text}'
    return text


def table(folder, name):
    with open(folder / name, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def names(folder):
    return sorted(str(file.relative_to(folder / 'images')) for file in (folder / 'images').glob('*/*.png'))


def children(pid):
    found = []
    for file in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:
            continue
    return sorted(found)


def samples(folder):
    notes = json.loads((folder / 'images/report.json').read_text())['notes']
    line = next(note for note in notes if note.startswith('samples through the denoiser'))
    return [int(number) for number in line.split(':')[1].split()]


def odd_rows_fail_alone(folder):
    (folder / 'prompts.csv').write_bytes(b'\xef\xbb\xbfprompt_id,prompt,seed\r\nfox,"a ""red"" circle, above\r\na square",\r\n'
                                         b',no id,\r\nowl,,\r\n../out,a blue star,\r\nfox,once more,\r\nelk,two,1,2\r\n'
                                         b'bad,\xff,\r\nelk,a green triangle,7\r\n')
    text = finish(start('generate_images.py', folder, '--prompts', 'prompts.csv', '--seeds', '3', '1'), 1)
    for line, word in (4, 'no prompt_id'), (5, 'no prompt'), (6, 'leaves'), (7, 'already used'), (8, 'cells'), (9, 'UTF-8'):
        found = [shown for shown in text.splitlines() if f'prompts.csv:{line}:' in shown]
        assert len(found) == 1 and word in found[0], f'line {line}: {found}\n{text}'
    assert names(folder) == ['elk/7.png', 'fox/1.png', 'fox/3.png'], names(folder)
    rows = table(folder, 'generated.csv')
    assert list(rows[0]) == COLUMNS, rows[0]
    assert [(row['prompt_id'], row['seed']) for row in rows] == [('fox', '3'), ('fox', '1'), ('elk', '7')], rows
    assert rows[0]['prompt'] == 'a "red" circle, above\r\na square', rows[0]
    for row in rows:
        assert (row['width'], row['num_inference_steps'], row['guidance_scale']) == ('64', '2', '7.5'), row
        assert pathlib.Path(row['path']).exists(), row


def prompts(folder, count):
    (folder / 'prompts.csv').write_text('prompt_id,prompt\n' + ''.join(f'p{i},a red circle {i}\n' for i in range(count)))
    return ['--prompts', 'prompts.csv']


def a_killed_worker_leaves_the_others_drawing(folder):
    run = start('generate_images_multi_gpu.py', folder, *prompts(folder, 12), '--max-workers', '4', '--seeds', '0')
    deadline = time.monotonic() + 120
    while not names(folder) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(run.pid)
    assert len(workers) == 4, workers
    for pid in [run.pid, *workers]:
        line = pathlib.Path(f'/proc/{pid}/cmdline').read_bytes().decode()
        assert line.startswith('generate_images_multi_gpu.py'), line
    os.kill(workers[1], signal.SIGKILL)
    killed_at, others = len(names(folder)), set(workers) - {workers[1]}
    drawn_by_others = False
    while run.poll() is None and not drawn_by_others and time.monotonic() < deadline:
        drawn_by_others = len(names(folder)) > killed_at and others <= set(children(run.pid))
    text = finish(run)
    assert drawn_by_others, text
    assert names(folder) == sorted(f'p{i}/0.png' for i in range(12)), names(folder)
    rows = table(folder, 'generated_multi_gpu.csv')
    assert list(rows[0]) == [*COLUMNS, 'gpu_id'] and len(rows) == 12, rows
    before = {name: (folder / 'images' / name).stat().st_mtime_ns for name in names(folder)}
    (folder / 'images/p5/0.png').unlink()
    text = finish(start('generate_images_multi_gpu.py', folder, *prompts(folder, 12), '--seeds', '0'))
    again = [name for name in before if (folder / 'images' / name).stat().st_mtime_ns != before[name]]
    assert again == ['p5/0.png'], again
    assert len(table(folder, 'generated_multi_gpu.csv')) == 12


def ranks_share_batch_and_branches(folder):
    flags = [*prompts(folder, 8), '--seeds', '0']
    for name in 'alone', 'batches':
        (folder / name).mkdir()
        (folder / name / 'prompts.csv').write_bytes((folder / 'prompts.csv').read_bytes())
    finish(start('generate_images.py', folder / 'alone', *flags))
    # 8 pictures x 2 branches x 2 steps: a branch each, and half of every picture
    finish(start('generate_images_dataparallel.py', folder, *flags, '--max-workers', '4'))
    assert samples(folder) == [16, 16, 16, 16], samples(folder)
    # a branch each, and pictures of their own: whichever pair is free takes the next one
    finish(start('generate_images_dataparallel.py', folder / 'batches', *flags, '--max-workers', '4', '--batch-size', '2'))
    first, second, third, fourth = samples(folder / 'batches')
    assert first == second and third == fourth and first + third == 16 and min(first, third) > 0, samples(folder / 'batches')
    for name in names(folder / 'alone'):
        mine = pixels(folder / 'alone/images' / name)
        for other in folder, folder / 'batches':
            assert max(abs(a - b) for a, b in zip(mine, pixels(other / 'images' / name))) <= 1, name
    assert len(table(folder, 'generated_dataparallel.csv')) == 8


def main():
    if not os.path.exists(ATELIER):
        sys.exit(77)
    for test in odd_rows_fail_alone, a_killed_worker_leaves_the_others_drawing, ranks_share_batch_and_branches:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.monotonic()
            test(pathlib.Path(folder))
            print(f'{test.__name__}: {time.monotonic() - begin:.1f} s')


if __name__ == '__main__':
    main()
