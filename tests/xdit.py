#!/usr/bin/env python3
"""`python -m xdit.run`: its arguments reach `atelier run` unchanged, and its exit code comes back."""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(folder, program, *arguments):
    environment = os.environ | {'ATELIER': program, 'PYTHONPATH': str(ROOT)}
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


def main():
    for check in (arguments_come_through, what_is_missing_is_named):
        with tempfile.TemporaryDirectory() as name:
            check(pathlib.Path(name))
        print(f'passed: {check.__name__}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
