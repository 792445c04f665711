"""Pages of the documentation as commands: blocks of a shell that say how they are to be tried, and what is then printed.

    ```bash run             every line is run; exit code 0
    ```bash refused: 2      the same, with this exit code
    ```bash parse           drawing commands are only read and settled (`config show`): they need GPUs or weights
    ```bash skip: reason    not tried
A block ```text behind one holds lines that must be among what was printed; ... stands for anything."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'^```(\w*)(?: +([^\n]*))?\n(.*?)^```$', re.M | re.S)
SECONDS = 240
# Where DOCS_MODE is parse, what a command would draw is only read.
STARTER = '''#!/bin/bash
if [[ $1 == install ]]; then exec "{root}/atelier" "$@"; fi
if [[ $DOCS_MODE == parse ]]; then
  case $1 in
    t2i | run | video | sdxl) exec "{program}" config show "$@" ;;
  esac
fi
exec "{program}" "$@"
'''
SCRIPTS = ('generate_images.py', 'generate_images_multi_gpu.py', 'generate_images_dataparallel.py')


class Block(NamedTuple):
    line: int  # of the page, from 1
    mode: str  # run, refused, parse or skip
    code: int  # the exit code that is expected
    text: str
    says: tuple  # lines of what must be printed


def blocks(page):
    """The shell's blocks of a page's text. Raises ValueError for one without a mode, or for words without a block."""
    out = []
    for match in BLOCK.finditer(page):
        language, mode, text = match.group(1), match.group(2) or '', match.group(3)
        line = page[:match.start()].count('\n') + 1
        if language == 'text' and out:
            out[-1] = out[-1]._replace(says=(*out[-1].says, *text.splitlines()))
        if language != 'bash':
            continue
        word, _, rest = mode.partition(':')
        if word not in ('run', 'refused', 'parse', 'skip') or (word in ('refused', 'skip')) != bool(rest.strip()):
            raise ValueError(f'line {line}: ```bash needs one of run, refused: CODE, parse, skip: REASON, not "{mode}"')
        out.append(Block(line, word, int(rest) if word == 'refused' else 0, text, ()))
    return out


def untried(page):
    """Lines of commands that no test tries: in blocks without a language, or in indented ones."""
    rest = re.sub(r'^```bash.*?^```$', lambda m: '\n' * m[0].count('\n'), page, flags=re.M | re.S)
    is_command = re.compile(r'(?: {4})?(?:\./)?(?:atelier|diffgentor|generate_images\w*\.py) +[a-z\-]')
    out, is_block = [], False
    for number, line in enumerate(rest.splitlines(), 1):
        if line.startswith('```'):
            is_block = not is_block
        elif is_command.match(line) and (is_block or line.startswith('    ')):
            out.append(f'line {number}: {line.strip()}')
    return out


def settle(folder, program):
    """A folder in which commands find what a checkout has: the program, scripts, and files to read."""
    for name in ('tests', 'comfyui', 'docs', 'tools', 'models', 'results'):
        (folder / name).symlink_to(ROOT / name)
    bin_ = folder / '.bin'
    bin_.mkdir()
    starter = bin_ / 'atelier'
    starter.write_text(STARTER.format(program=program, root=ROOT))
    starter.chmod(0o755)
    (bin_ / 'diffgentor').symlink_to('atelier')
    for name in SCRIPTS:
        (bin_ / name).symlink_to(ROOT / name)
    for name in ('python', 'python3'):
        (bin_ / name).symlink_to(sys.executable)
    (folder / 'atelier').symlink_to('.bin/atelier')
    for name in SCRIPTS:  # python SCRIPT.py looks where it is called
        (folder / name).symlink_to(ROOT / name)


def environment(folder, mode):
    """Of a fresh machine with this folder as its home; nothing of the caller's GPUs, launchers and tokens."""
    foreign = ('DG_', 'HF_', 'RANK', 'WORLD_SIZE', 'LOCAL_', 'MASTER_', 'SLURM_', 'OMPI_', 'PMIX_', 'NCCL_', 'XDG_', 'ATELIER')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    bin_ = folder / '.bin'
    return kept | {'PATH': f'{bin_}:{os.environ["PATH"]}', 'HOME': str(folder / '.home'), 'ATELIER': str(bin_ / 'atelier'), 'PYTHONPATH': str(ROOT),
                   'ATELIER_SHARE': str(ROOT), 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1', 'DOCS_MODE': mode}


def missing(says, printed):
    """The lines that were to be printed and were not."""
    have = [' '.join(line.split()) for line in printed.splitlines()]
    pattern = lambda line: '.*'.join(re.escape(' '.join(part.split())) for part in line.split('...')).replace(r'.*', '.*')
    found = lambda line: any(re.search(re.sub(r'\\ ?\.\*', '.*', pattern(line)), text) for text in have)
    return [line for line in says if line.strip() and not found(line)]


def problems_of(page, name, program):
    """What is wrong with a page: a list of sentences."""
    try:
        all_ = blocks(page)
    except ValueError as error:
        return [f'{name}: {error}']
    out = [f'{name}: {command}: stands in no ```bash block, so nobody tries it' for command in untried(page)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (folder / '.home').mkdir()
        settle(folder, program)
        for block in all_:
            if block.mode == 'skip':
                continue
            try:
                done = subprocess.run(['bash', '-e', '-o', 'pipefail', '-c', block.text], cwd=folder, env=environment(folder, block.mode),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                out.append(f'{name}:{block.line}: not done after {SECONDS} s')
                continue
            if done.returncode != block.code:
                out.append(f'{name}:{block.line}: exit {done.returncode}, not {block.code}:\n{done.stdout[-1500:]}')
            out += [f'{name}:{block.line}: not printed: {line}\n{done.stdout[-1500:]}' for line in missing(block.says, done.stdout)]
    return out
