#!/usr/bin/env python3
"""Compiles what a CUDA build has of its own and links programs: cuda_objects.py CUDA_BUILD CPU_BUILD [PROGRAM...]

Sources without a word of ATELIER_CUDA compile to what the CPU build has already, so their objects are taken from there. That
takes minutes where the whole tree takes half an hour. Without names the program is src/atelier. Exit 1 where a header asks for ATELIER_CUDA: then nothing of this holds.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys

ASKS = re.compile(r'^\s*#\s*(if|elif).*\bATELIER_CUDA\b', re.M)
SOURCES = ('.cpp', '.cu')


def commands_of(build):
    """Of every output of a build folder: its first input and its command, split in words."""
    listed = subprocess.run(['ninja', '-C', build, '-t', 'compdb'], check=True, capture_output=True, text=True).stdout
    return {entry['output']: (entry['file'], entry['command']) for entry in json.loads(listed)}


def asks_for_cuda(path):
    """Whether a file compiles to something else in a CUDA build."""
    return bool(ASKS.search(pathlib.Path(path).read_text(errors='replace')))


def objects_of(archive, commands):
    """The objects that an archive is made of."""
    return [word for word in shlex.split(commands[archive][1]) if word.endswith('.o')]


def link_command(program, cuda, cpu_build, own):
    """The command that links a program, with objects in place of archives; and the objects of the CUDA build in it."""
    words, wanted, seen = [], [], set()

    def place(item):
        if item in seen:
            return
        seen.add(item)
        if item in own:
            wanted.append(item)
        words.append(item if item in own else str(cpu_build / item))

    # "ninja -t compdb" has the rule's other commands before and behind the link: ":" and "&&".
    line = cuda[program][1].replace('&& :', '').removeprefix(': && ')
    for word in shlex.split(line):
        if word.startswith('src/') and word.endswith('.a'):
            for item in objects_of(word, cuda):
                place(item)
        elif word.endswith('.o'):
            place(word)
        else:
            words.append(word)
    return words, wanted


def main():
    cuda_build, cpu_build = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    headers = [path for suffix in ('*.h', '*.cuh') for path in (root / 'src').rglob(suffix) if asks_for_cuda(path)]
    if headers:
        print('these headers ask for ATELIER_CUDA, which their includers then do too:', *headers)
        return 1
    cuda, cpu = commands_of(cuda_build), commands_of(cpu_build)
    own = {output for output, (source, _) in cuda.items()
           if output.endswith('.o') and source.endswith(SOURCES) and (output not in cpu or asks_for_cuda(source))}
    for program in sys.argv[3:] or ['src/atelier']:
        words, wanted = link_command(program, cuda, cpu_build, own)
        print(f'{program}: {len(wanted)} objects of the CUDA build, {sum(w.endswith(".o") for w in words) - len(wanted)} of the CPU build')
        subprocess.run(['ninja', '-C', cuda_build, *wanted], check=True)
        if code := subprocess.run(words, cwd=cuda_build, check=False).returncode:
            return code
    return 0


if __name__ == '__main__':
    sys.exit(main())
