#!/usr/bin/env python3
"""`./atelier install`: every source's command words run from any folder, nothing of others is replaced, and removal leaves
what it found. A small checkout with a program that only tells what it was called with stands in for the real one.
Exit 0: all as it should be; else what was not."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = ('generate_images.py', 'generate_images_multi_gpu.py', 'generate_images_dataparallel.py')
# Tells its own name and arguments, one a line.
PROGRAM = '#!/bin/bash\nprintf "%s\\n" "$(tr "\\0" "\\n" </proc/$$/cmdline | sed -n 2p)" "$@"\nexit 7\n'


def checkout(folder):
    """A checkout in a folder whose name has a blank; its program counts as built."""
    root = folder / 'a checkout'
    for name in ('src', 'cmake', 'build/cpu/src', 'torch/lib', 'tools', 'comfyui'):
        (root / name).mkdir(parents=True)
    for name in ('atelier', *SCRIPTS, 'comfyui/test_xdit_usp.py', 'comfyui/install_xdit_usp.sh'):
        shutil.copy2(ROOT / name, root / name, follow_symlinks=name not in SCRIPTS[1:])
    for name in ('tools/setup', 'xdit'):
        shutil.copytree(ROOT / name, root / name)
    (root / 'CMakeLists.txt').touch()
    (root / 'torch/lib/libtorch_cpu.so').touch()
    program = root / 'build/cpu/src/atelier'
    program.write_text(PROGRAM)
    program.chmod(0o755)
    stamp = root / 'build/cpu/built'
    stamp.write_text(str(root / 'torch'))
    return root


def call(words, where, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith('ATELIER')}
    return subprocess.run(words, cwd=where, capture_output=True, text=True, timeout=60,
                          env={**kept, 'ATELIER_BUILD': 'cpu', 'PYTHONPATH': '', **variables})


def install(root, *words, where=None):
    return call([str(root / 'atelier'), 'install', *words], where or root)


def sourced(prefix, line, where):
    """A line of a shell that has sourced the settings."""
    return call(['bash', '-c', f'source {str(prefix / "bin/atelier-env.sh")!r} && {line}'], where)


def told(done, *words):
    assert done.returncode == 7, done
    lines = done.stdout.splitlines()[1:]
    assert lines == list(words), f'{lines} instead of {list(words)}\n{done.stderr}'


def every_source_runs(folder):
    root, prefix, where = checkout(folder), folder / 'a prefix', folder / 'elsewhere'
    where.mkdir()
    done = install(root, '--prefix', '../a prefix', '--scripts=.', where=where)
    assert done.returncode == 0, done
    told(sourced(prefix, 'atelier plan --top 3', where), 'plan', '--top', '3')
    told(sourced(prefix, 'diffgentor t2i --backend xdit --prompt "two words"', where), 't2i', '--backend', 'xdit', '--prompt', 'two words')
    told(sourced(prefix, f'{sys.executable} -m xdit.run --model m --ring_degree 2', where), 'run', '--model', 'm', '--ring_degree', '2')
    for script, mode in zip(SCRIPTS, ('single', 'multi', 'dataparallel')):
        for line in (script, f'{sys.executable} {script}'):
            done = sourced(prefix, f'{line} --prompts p.csv', where)
            told(done, 'sdxl', '--mode', mode, '--prompts', 'p.csv')
    done = sourced(prefix, 'install_xdit_usp.sh --check-only', where)
    assert 'command not found' not in done.stderr and done.stdout, done
    again = install(root, '--prefix', str(prefix), '--scripts', str(where))
    assert again.returncode == 0, again


def others_stay(folder):
    root, prefix = checkout(folder), folder / 'prefix'
    (prefix / 'bin').mkdir(parents=True)
    theirs = prefix / 'bin/diffgentor'
    theirs.write_text('theirs')
    done = install(root, '--prefix', str(prefix))
    assert done.returncode == 2 and str(theirs) in done.stdout, done
    assert [p.name for p in prefix.rglob('*')] == ['bin', 'diffgentor'], 'something was made beside the refusal'
    theirs.rename(folder / 'away')
    assert install(root, '--prefix', str(prefix), '--dry-run').returncode == 0
    assert not list((prefix / 'bin').iterdir()), 'a dry run has made something'
    assert install(root, '--prefix', str(prefix)).returncode == 0
    (prefix / 'bin/atelier').unlink()
    (prefix / 'bin/atelier').write_text('theirs')
    assert install(root, '--prefix', str(prefix), '--remove').returncode == 0
    assert [p.name for p in (prefix / 'bin').iterdir()] == ['atelier'], 'removal left links, or took what is not ours'


def slips_are_named(folder):
    root = checkout(folder)
    for words, named in (((), '--prefix'), (('--prefix',), '--prefix'), (('--prefix', str(folder / 'p'), '--porfix'), '--porfix'),
                         (('--prefix', '/proc/nowhere'), '/proc/nowhere')):
        done = install(root, *words)
        assert done.returncode == 2 and named in done.stdout, done


def main():
    for check in (every_source_runs, others_stay, slips_are_named):
        with tempfile.TemporaryDirectory() as name:
            check(pathlib.Path(name))
        print(f'passed: {check.__name__}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
