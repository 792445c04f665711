#!/usr/bin/env python3
"""Checks that the rooms of src/ keep to themselves: who includes whom, who may see torch, which
words stay out of where, and that no two headers define types of one name.

The table of rooms is src/CMakeLists.txt. Prints one line per violation and exits 1 if there is any."""
import argparse
import fnmatch
import pathlib
import re
import sys

from cpp_text import line_of, match_brace, without

SUFFIXES = {'.h', '.cpp', '.cu', '.cuh'}

# A model must read as mathematics: these whole words, in code or comment, would be parallelism leaking into it.
PARALLEL_WORDS = re.compile(r'\b(rank|world|ulysses|ring|stage|patch|exchange|gather|reduce|mesh|comm)s?\b', re.I)

# No strategy and no engine part may know a model by name.
MODEL_NAMES = {'flux', 'sd3', 'hunyuan', 'pixart', 'sdxl', 'wan'}
WORD = re.compile(r'[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*')
IDENTIFIER = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')

# Where model names are allowed outside src/models/, and why.
NAMES_ALLOWED = {
    'src/hub/hub_names.cpp': 'short names of models on the hub',
    'src/bench/cited.cpp': 'figures that documents give of models',
    'src/bench/page_many.cpp': 'names the guide whose figures it cites',
    'src/bench/protocol.h': 'the protocol that carries a model\'s name',
    'src/app/cli/bench_command.cpp': 'help of that protocol',
    'src/app/cli/cli.cpp': 'the command of the scripts that carry a model\'s name',
    'src/app/cli/doctor_command.cpp': 'an example of a gated model',
    'src/app/cli/t2i_command.cpp': 'help of the scripts\' command',
    'src/app/compat/environment.cpp': 'other programs\' variables',
    'src/app/compat/unsupported.cpp': 'other programs\' flags',
    'src/app/doctor/machine.cpp': 'the model whose needs doctor reckons',
    'src/app/run/family_rows.cpp': 'the families that a report can be about, by the names in its results',
    'src/app/run/memory_table.cpp': 'names the guide whose figures it cites',
    'src/app/settings/command_text.cpp': 'the word of the scripts\' command',
    'src/app/settings/settings.cpp': 'examples in help texts',
    '*_test.cpp': 'tests use real models as data',
    '*/testing.h': 'helpers of tests too',
}

# All that a room may include of another one that it links.
INCLUDES_LIMITED = {
    ('models', 'weights'): ('weights/names.h', 'weights/store.h'),  # tables of checkpoint names, and who is read by them
}

FORBIDDEN_HEADERS = {'torch/torch.h', 'torch/extension.h', 'torch/all.h', 'ATen/ATen.h'}
TORCH = re.compile(r'^(ATen|c10|caffe2|torch)/')
DISTRIBUTED = re.compile(r'^(torch/csrc/distributed/|nccl\.h|nccl|gloo/)')
DEFINITION = re.compile(r'\b(?:struct|class|union|enum(?: class| struct)?)\s+(?:\w+::)*(\w+)(?:\s+final)?\s*(?::(?!:)[^;{}]*)?\{')
BODY = re.compile(r'\)\s*(?:const|noexcept|override|final|mutable|\s)*(?:->\s*[\w:<>,&* ]+)?\{')
ANONYMOUS = re.compile(r'\bnamespace\s*\{')
ALIAS = re.compile(r'\busing\s+([A-Z]\w*)\s*=([^;]*);')
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def read_rooms(cmake):
    """{room: (rooms it links, libraries it links)} from the atelier_room(...) calls."""
    text = re.sub(r'#.*', '', cmake.read_text())
    rooms = {}
    for call in re.finditer(r'\batelier_room\s*\(([^)]*)\)', text):
        name, *rest = call.group(1).split()
        lists, current = {'ROOMS': [], 'LIBRARIES': []}, None
        for word in rest:
            if word in lists:
                current = word
            elif current:
                lists[current].append(word)
        rooms[name] = (lists['ROOMS'], lists['LIBRARIES'])
    return rooms


def reachable(rooms, room, seen=()):
    found = set()
    for other in rooms.get(room, ([], []))[0]:
        if other in seen:
            raise ValueError(f'src/CMakeLists.txt: rooms {" -> ".join([*seen, room, other])} link in a circle')
        found |= {other} | reachable(rooms, other, (*seen, room))
    return found


def check_table(rooms, source):
    problems = []
    for room, (links, _) in rooms.items():
        problems += [f'src/CMakeLists.txt: room {room} links {other}, which is no room' for other in links
                     if other not in rooms]
        try:
            reachable(rooms, room)
        except ValueError as error:
            problems.append(str(error))
    extra = set(rooms.get('models', ([], []))[0]) - {'base', 'nn', 'weights'}
    problems += [f'src/CMakeLists.txt: models may link only base, nn and weights, not {other}' for other in sorted(extra)]
    for folder in sorted(path.name for path in source.iterdir() if path.is_dir()):
        if folder not in rooms:
            problems.append(f'src/{folder}/: no atelier_room({folder} ...) in src/CMakeLists.txt')
    return sorted(set(problems))


def check_include(rooms, room, name, bracket, header):
    """What is wrong with this include of file `name`, or None."""
    if header in FORBIDDEN_HEADERS:
        return f'<{header}> is forbidden: take <ATen/core/Tensor.h> or <ATen/ops/...>'
    if DISTRIBUTED.match(header) and not fnmatch.fnmatch(name, 'src/comm/*.cpp'):
        return f'<{header}>: c10d, NCCL and Gloo headers belong in src/comm/*.cpp only'
    if TORCH.match(header):
        if name.endswith(('.cu', '.cuh')):
            return f'<{header}>: CUDA files see raw pointers, sizes and a stream, no torch'
        visible = {room} | reachable(rooms, room)
        if not any('torch_cpu' in rooms[other][1] for other in visible if other in rooms):
            return f'<{header}>: room {room} is free of torch'
    if bracket != '"':
        return None
    target = header.split('/')[0]
    if '/' not in header or target not in rooms:
        return f'"{header}" does not start with a room: write project-root paths'
    if target not in {room, 'base', *rooms[room][0]}:
        return f'"{header}": room {room} may include only {", ".join(sorted({room, "base", *rooms[room][0]}))}'
    limited = INCLUDES_LIMITED.get((room, target))
    if limited and header not in limited and not name.endswith('_test.cpp'):
        return f'"{header}": room {room} may include only {", ".join(limited)} of {target}'
    return None


def check_includes(rooms, room, name, text):
    if room not in rooms:
        return []
    code = without(text)
    found = []
    for include in INCLUDE.finditer(code):
        problem = check_include(rooms, room, name, *include.groups())
        if problem:
            found.append(f'{name}:{line_of(code, include.start(2))}: {problem}')
    return found


def check_model_words(room, name, text):
    if room != 'models':
        return []
    return [f'{name}:{line_of(text, match.start())}: the word "{match.group()}" has no place in a model definition'
            for match in PARALLEL_WORDS.finditer(text)]


def model_name_in(identifier):
    for word in WORD.findall(identifier):
        if word.lower() in MODEL_NAMES:
            return word
    return None


def check_model_names(room, name, text):
    if room == 'models':
        return []
    found = model_names(name, text)
    if name in NAMES_ALLOWED and not found:
        return [f'{name}: names no model any more: take it from the list in tools/rooms.py']
    return [] if any(fnmatch.fnmatch(name, pattern) for pattern in NAMES_ALLOWED) else found


def model_names(name, text):
    found = []
    if model_name_in(pathlib.PurePath(name).stem):
        found.append(f'{name}: a file outside src/models/ is named after a model')
    code = without(text)
    for identifier in IDENTIFIER.finditer(code):
        word = model_name_in(identifier.group())
        if word:
            found.append(f'{name}:{line_of(code, identifier.start())}: "{identifier.group()}" names the model "{word}"; '
                         'only src/models/ and the list in tools/rooms.py may')
    return found


def shared(name, code):
    """The code of a file that others may mean by its names: all of a header; of a source, what is in no anonymous namespace
    and in no function."""
    if name.endswith(('.h', '.cuh')):
        return code
    inner = [(match.start(), match_brace(code, match.end() - 1) + 1) for match in ANONYMOUS.finditer(code)]
    inner += [(first, match_brace(code, last - 1) + 1) for first, last in (match.span() for match in BODY.finditer(code))]
    for first, last in inner:
        code = code[:first] + re.sub(r'[^\n]', ' ', code[first:last]) + code[last:]
    return code


def check_type_names(files):
    """Types and aliases with one name for two things, at any depth of the files {name: text}: a reader finds the wrong one."""
    places = {}
    for name, text in files.items():
        code = shared(name, without(text, literals=True))
        for match in DEFINITION.finditer(code):
            places.setdefault(match.group(1), {})[f'{name}:{line_of(code, match.start(1))}'] = None
        for match in ALIAS.finditer(code):  # of one thing, however far its name is spelled out
            meaning = ''.join(match.group(2).split()).split('::')[-1]
            places.setdefault(match.group(1), {})[f'{name}:{line_of(code, match.start(1))}'] = meaning
    return [f'{list(found)[-1]}: the type {type_name} is defined at {", ".join(list(found)[:-1])} too'
            for type_name, found in sorted(places.items())
            if len(found) > 1 and (None in found.values() or len(set(found.values())) > 1)]


def check(root):
    source = root / 'src'
    rooms = read_rooms(source / 'CMakeLists.txt')
    problems = check_table(rooms, source)
    if any('in a circle' in problem for problem in problems):
        return problems, 0
    files = sorted(path for path in source.rglob('*') if path.suffix in SUFFIXES and path.parent != source)
    problems += check_type_names({path.relative_to(root).as_posix(): path.read_text(errors='replace') for path in files})
    for path in files:
        name = path.relative_to(root).as_posix()
        room = name.split('/')[1]
        text = path.read_text(errors='replace')
        for checker in (lambda *a: check_includes(rooms, *a), check_model_words, check_model_names):
            problems += checker(room, name, text)
    return problems, len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    problems, count = check(parser.parse_args().root)
    for problem in problems:
        print(problem)
    print(f'rooms: {count} files, {len(problems)} violations')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
