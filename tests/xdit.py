#!/usr/bin/env python3
"""`python -m xdit.run`: its arguments reach `atelier run` unchanged, its exit code comes back, and xDiT's lines run.
The program is $ATELIER. Exit 0: all as it should be; 77: there is no program; else what was not."""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
# Lines of xDiT's own documentation, for another model and on few CPU ranks.
LINES = ['--model mini', '--model mini --ulysses_degree 2', '--model mini --ulysses_degree 2 --ring_degree 2',
         '--model mini --ulysses_degree 2 --pipefusion_degree 2', '--model mini --pipefusion_degree 2 --prompt "a red circle"']
SMALL = ['--device', 'cpu', '--height', '64', '--width', '64', '--num_inference_steps', '2', '--num_iterations', '1']


def run(folder, program, *arguments):
    environment = os.environ | {'ATELIER': program, 'PYTHONPATH': str(ROOT), 'ATELIER_SHARE': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.run([sys.executable, '-m', 'xdit.run', *arguments], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=300)


def arguments_come_through(folder):
    echo = folder / 'echo'
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    echo.chmod(0o755)
    words = ['--prompt', 'two words', '--seed=1', '', '--', '-x']
    done = run(folder, str(echo), *words)
    assert done.returncode == 7, done
    assert done.stdout.splitlines() == ['run', *words], done.stdout


def what_is_missing_is_named(folder):
    done = run(folder, str(folder / 'nowhere'))
    assert done.returncode == 1 and 'nowhere' in done.stderr, done


def lines_draw(folder):
    for number, line in enumerate(LINES):
        out = folder / str(number)
        out.mkdir()
        words = [word.strip('"') for word in line.replace('a red circle', 'circle').split()]
        done = run(out, ATELIER, *words, *SMALL)
        assert done.returncode == 0, f'{line}: exit {done.returncode}\n{done.stdout}{done.stderr}'
        assert list(out.glob('*.png')), f'{line}: no picture\n{done.stdout}'


def main():
    if not os.access(ATELIER, os.X_OK):
        print(f'no program at {ATELIER}: build first')
        return 77
    for check in (arguments_come_through, what_is_missing_is_named, lines_draw):
        with tempfile.TemporaryDirectory() as name:
            check(pathlib.Path(name))
        print(f'passed: {check.__name__}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
