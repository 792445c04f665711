#!/usr/bin/env python3
"""Checks sizes, repetition and names: length of files and functions, the share of lines that are written twice, tests that would
never be run.

Exceptions stand in tools/style_exceptions.txt, one per line: PATH[:FUNCTION] LIMIT REASON. One that is no longer needed is a
violation too. Prints one line per violation and exits 1 if there is any."""
import argparse
import ast
import collections
import pathlib
import re
import sys

from cpp_text import line_of, match_brace, without

COMMENT_COLUMNS = 110
FILE_LINES, MODEL_LINES, FUNCTION_LINES = 400, 350, 60
WINDOW, REPEATED_SHARE = 8, 0.05
CPP = {'.h', '.cpp', '.cu', '.cuh'}

# The head of a brace that opens something whose inside is looked into, not measured.
CONTAINER = re.compile(r'\b(namespace|class|struct|union|enum|extern)\b')
CONTROL = re.compile(r'^\s*(if|else|for|while|do|switch|try|catch)\b')
LAMBDA = re.compile(r'\[[^\[\]]*\]\s*(\([^)]*\))?[^;{}]*$')


def blank_parentheses(head):
    """The head of a brace with every (...) group emptied, innermost first."""
    while True:
        shorter = re.sub(r'\([^()]*\)', '@', head)
        if shorter == head:
            return head
        head = shorter


def function_name(head):
    """The name of the function that this text before a brace opens, or None if it opens something else."""
    test = re.match(r'\s*TEST(?:_[FP])?\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)\s*$', head)
    if test:
        return '.'.join(test.groups())
    flat = blank_parentheses(re.sub(r'__launch_bounds__\s*\([^()]*\)|\balignas\s*\([^()]*\)', '', head))
    flat = re.sub(r'^(\s*template\s*<[^{}]*?>)+(?=\s)', '', flat) if flat.lstrip().startswith('template') else flat
    if '@' not in flat or CONTROL.match(flat):
        return None
    before, after = flat.split('@', 1)
    assigned = re.search(r'(?<![=!<>])=(?!=)', before) and not re.search(r'operator\S*\s*$', before)
    if assigned:
        name = re.search(r'(\w+)\s*=', before)
        return name.group(1) if name and LAMBDA.search(head) else None
    if CONTAINER.search(before) and not re.search(r'\w\s*$', before):
        return None
    if ':' in after and re.search(r'[\w>]\s*$', after) and not re.search(r'\b(const|noexcept|override|final|try)\s*$', after):
        return None if '->' not in after.split(':')[0] else last_name(before)
    return last_name(before)


def last_name(before):
    name = re.search(r'((?:[\w~]+(?:<[^<>]*>)?::)*(?:operator\s*\S+|~?\w+))\s*$', before)
    return name.group(1) if name else None


def is_member_initialiser(head):
    """True for the brace of `: member_{value}` in front of a constructor's body."""
    flat = blank_parentheses(head)
    return bool(re.search(r'@[^@:]*(?<!:):(?!:)(?:.*[,@}\s])?\s*[\w:<>]+\s*$', flat, re.S))


def cpp_functions(text):
    """(name, first line, number of lines) of every outermost function."""
    code = without(text, literals=True)
    code = re.sub(r'^[ \t]*#(?:\\\n|[^\n])*', lambda m: re.sub(r'[^\n]', ' ', m.group()), code, flags=re.M)
    found, head_start, position = [], 0, 0
    mark = re.compile(r'[{};]')
    while match := mark.search(code, position):
        at, position = match.start(), match.end()
        if match.group() != '{':
            if match.group() == '}' or code.count('(', head_start, at) == code.count(')', head_start, at):
                head_start = position
            continue
        head = code[head_start:at]
        if head.count('(') > head.count(')') or is_member_initialiser(head):
            position = match_brace(code, at) + 1  # braces within an argument list or an initialiser
            code = code[:at] + re.sub(r'[^\n]', ' ', code[at:position]) + code[position:]
            code = code[:at] + '@' + code[at + 1:]
            continue
        name = function_name(head)
        if name:
            end = match_brace(code, at)
            first = line_of(code, head_start + len(head) - len(head.lstrip()))
            found.append((name, first, line_of(code, end) - first + 1))
            position = end + 1
        elif re.search(r'=\s*$|\breturn\s*$', head):
            position = match_brace(code, at) + 1
            continue
        head_start = position
    return found


def python_functions(text):
    return [(node.name, node.lineno, node.end_lineno - node.lineno + 1) for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def meaningful_lines(text):
    """(line number, text without comments and white space) of the lines that say something of their own."""
    for number, line in enumerate(without(text).splitlines(), 1):
        squeezed = re.sub(r'\s+', '', line)
        if re.search(r'\w', squeezed) and not squeezed.startswith('#include'):
            yield number, squeezed


def repeated(texts):
    """{file: lines covered by a window that occurs elsewhere}, the number of meaningful lines, the largest repeats."""
    windows, total = collections.defaultdict(list), 0
    for name, text in texts.items():
        lines = list(meaningful_lines(text))
        total += len(lines)
        for i in range(len(lines) - WINDOW + 1):
            key = tuple(line for _, line in lines[i:i + WINDOW])
            windows[key].append((name, [number for number, _ in lines[i:i + WINDOW]]))
    covered, pairs = collections.defaultdict(set), collections.Counter()
    for places in windows.values():
        if len(places) < 2:
            continue
        for name, numbers in places:
            covered[name].update(numbers)
        pairs[tuple(sorted({name for name, _ in places}))] += 1
    return covered, total, pairs.most_common(5)


def read_exceptions(path):
    exceptions, problems = {}, []
    if not path.exists():
        return exceptions, problems
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        parts = line.split(None, 2)
        if len(parts) < 3 or not parts[1].isdigit():
            problems.append(f'{path.name}:{number}: write PATH[:FUNCTION] LIMIT REASON')
            continue
        exceptions[parts[0]] = int(parts[1])
    return exceptions, problems


def check_sizes(name, text, exceptions, used):
    lines = text.count('\n')
    is_test = name.endswith(('_test.cpp', '_test.py'))
    limit = MODEL_LINES if name.startswith('src/models/') and not is_test else FILE_LINES
    sizes = [(name, f'{name}: {lines} lines', lines, limit)]
    functions = python_functions(text) if name.endswith('.py') else cpp_functions(text)
    for function, first, length in functions:
        sizes.append((f'{name}:{function}', f'{name}:{first}: {function} has {length} lines', length, FUNCTION_LINES))
    problems = []
    for key, words, size, allowed in sizes:
        if size <= allowed:
            continue
        if size <= exceptions.get(key, 0):
            used.add(key)
        else:
            problems.append(f'{words}, more than {exceptions.get(key, allowed)}')
    return problems


def check_widths(name, text):
    """clang-format leaves comments as they are, so their width is checked here."""
    return [f'{name}:{i}: a comment of {len(line)} columns, more than {COMMENT_COLUMNS}'
            for i, line in enumerate(text.split('\n'), 1) if len(line) > COMMENT_COLUMNS and line.lstrip().startswith('// ')]


def check_test_names(name, text):
    """./test runs names that begin with Gpu on GPUs only, and those are in files that only CUDA builds have."""
    if re.search(r'(cuda|nccl)[a-z_]*\.cpp$', name):
        return []
    return [f'{name}:{line_of(text, m.start())}: a name that begins with Gpu is never run without a GPU: call it otherwise'
            for m in re.finditer(r'^TEST(?:_[FP])?\((?:\s*Gpu|\s*\w+\s*,\s*Gpu)', text, re.M)]


def collect(root):
    files = [path for path in (root / 'src').rglob('*') if path.suffix in CPP]
    files += (root / 'tools').rglob('*.py')
    return {path.relative_to(root).as_posix(): path.read_text(errors='replace') for path in sorted(files)}


def check(root):
    exceptions, problems = read_exceptions(root / 'tools' / 'style_exceptions.txt')
    texts, used = collect(root), set()
    for name, text in texts.items():
        problems += check_sizes(name, text, exceptions, used) + check_test_names(name, text) + check_widths(name, text)
    problems += [f'style_exceptions.txt: {key} is within the limits: remove it' for key in exceptions if key not in used]
    source = {name: text for name, text in texts.items() if name.startswith('src/')}
    covered, total, largest = repeated(source)
    count = sum(len(lines) for lines in covered.values())
    share = count / max(total, 1)
    if share >= REPEATED_SHARE:
        problems.append(f'src/: {100 * share:.1f} % of the lines lie in repeated windows of {WINDOW}, the limit is '
                        f'{100 * REPEATED_SHARE:.0f} %')
        problems += [f'  {times} windows in {", ".join(names)}' for names, times in largest]
    return problems, f'{len(texts)} files, {count} of {total} lines of src/ repeated ({100 * share:.1f} %)'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument('--list', action='store_true', help='print every function with its length and stop')
    arguments = parser.parse_args()
    if arguments.list:
        for name, text in collect(arguments.root).items():
            for function, first, length in [] if name.endswith('.py') else cpp_functions(text):
                print(f'{length:4} {name}:{first} {function}')
        return 0
    problems, summary = check(arguments.root)
    for problem in problems:
        print(problem)
    print(f'style: {summary}, {len(problems)} violations')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
