#!/usr/bin/env python3
"""The documentation is true: commands of its pages run and print what stands there, links lead somewhere, tables are what the
program says, and nothing that the program has is left out. The program is $ATELIER. Exit 0: all as it should be; 77: there is
no program; else what was not. tests/docs.py PAGE... tries these pages only."""
import concurrent.futures
import os
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'tests')]
os.environ.setdefault('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
import _docs  # noqa: E402
import docs  # noqa: E402
import docs_flags  # noqa: E402
import docs_layouts  # noqa: E402
from docs_program import told  # noqa: E402

DOCS = ROOT / 'docs'
OUTSIDE = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'comfyui/XDIT_USP_README.md', 'comfyui/IMPLEMENTATION_SUMMARY.md')
# Of the table of options and strategies, cells that stand for its outcomes; tests/slow_docs.py makes it whole.
CELLS = (('VAE slicing', 'ring=2', 'same'), ('VAE tiling', 'pipefusion=2', 'approximate'), ('SageAttention', 'data=2', 'refused'),
         ('CPU offload (`--offload model`)', 'ulysses=2', 'no effect'), ('weight shards', 'ulysses=2', 'same'))


def pages():
    return sorted(DOCS.rglob('*.md'))


def name_of(path):
    return str(path.relative_to(ROOT))


# ---- commands

def commands(chosen):
    """Every page's commands, two pages at a time, the longest first."""
    trying = [p for p in [*pages(), ROOT / 'README.md'] if not chosen or p.name in chosen or name_of(p) in chosen]
    trying.sort(key=lambda p: -p.read_text().count('```bash run'))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda p: _docs.problems_of(p.read_text(), name_of(p), os.environ['ATELIER']), trying)
        return [problem for some in found for problem in some]


def slips_are_seen():
    """What this test looks for, planted."""
    page = '```bash run\necho one two\nfalse\n```\n```text\none ... three\n```\n```bash refused: 3\nexit 3\n```\n'
    found = _docs.problems_of(page, 'planted', '/bin/true')
    assert len(found) == 2 and 'exit 1, not 0' in found[0] and 'one ... three' in found[1], found
    assert _docs.problems_of('```bash\ntrue\n```\n', 'planted', '/bin/true'), 'a block without a mode is taken'
    for unseen in ('    atelier plan --top 1\n', '```\n./atelier serve\n```\n'):
        assert _docs.problems_of(unseen, 'planted', '/bin/true'), 'a command that is not tried is taken'
    assert broken_links('planted.md', '[a](nowhere.md) [b](docs/README.md#nothing)', ROOT) == ['planted.md: nowhere.md', 'planted.md: docs/README.md#nothing']


# ---- links

def anchors(text):
    """The anchors that GitHub gives a page's headings."""
    plain = re.sub(r'```.*?```', '', text, flags=re.S)
    out = set()
    for heading in re.findall(r'^#+ +(.*)$', plain, re.M):
        words = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).lower()
        out.add(re.sub(r'[^\w\- ]', '', words).replace(' ', '-'))
    return out


def broken_links(name, text, folder):
    """Links of a page that lead to no file or heading."""
    out = []
    for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'```.*?```', '', text, flags=re.S)):
        if re.match(r'[a-z]+:', target):
            continue
        file, _, anchor = target.partition('#')
        path = (folder / file).resolve() if file else folder / pathlib.Path(name).name
        if not path.exists() or (anchor and path.suffix == '.md' and anchor not in anchors(path.read_text())):
            out.append(f'{name}: {target}')
    return out


def links():
    """All links; and every page is in the index."""
    out = []
    for path in [*pages(), *(ROOT / n for n in OUTSIDE)]:
        out += broken_links(name_of(path), path.read_text(), path.parent)
    index = (DOCS / 'README.md').read_text()
    listed = {(DOCS / t.split('#')[0]).resolve() for t in re.findall(r'\]\(([^)\s]+)\)', index) if not t.startswith('http')}
    made = {DOCS / 'README.md', DOCS / 'quality.md'}  # the second is written by the tests
    own = [p for p in pages() if 'examples' not in p.parts and p not in made]
    return out + [f'{name_of(p)} is not in the index docs/README.md' for p in own if p not in listed]


# ---- tables

def block_of(page, name):
    return re.search(rf'<!-- {name} -->\n(.*?)<!-- end -->', (DOCS / page).read_text(), re.S).group(1)


def tables():
    """Tables that are quickly made are made anew; of the others, some cells."""
    out = []
    for page, name in (('flags.md', 'flags'), ('environment.md', 'variables'), ('environment.md', 'idle'), ('performance.md', 'performance')):
        if docs.PAGES[page][name]() + '\n' != block_of(page, name):
            out.append(f'docs/{page}: the table {name} is not what the program says: run tools/docs.py {name}')
    listed = block_of('flags.md', 'refused')
    known = docs_flags.known_elsewhere()
    out += [f'docs/flags.md: {n} is not in the table refused: run tools/docs.py refused' for n, _, _ in known if f'{n}`' not in listed]
    for row in listed.splitlines()[2:]:
        name = re.search(r'`-*(\w+)`', row).group(1)
        answer = docs_flags.treatment(*next(k for k in known if k[0] == name))
        if answer is None or f'| {answer[0]} | {answer[1]} |' not in row:
            out.append(f'docs/flags.md: {name} is treated otherwise: {answer}')
    for option, strategy, outcome in CELLS:
        row = next(line for line in block_of('layouts.md', 'compatibility').splitlines() if line.startswith(f'| {option} |'))
        written = [c.strip() for c in row.split(' | ')][1 + list(docs_layouts.STRATEGIES).index(strategy)]
        found = docs_layouts.cell(option, strategy)[0]
        if not outcome == written == found:
            out.append(f'docs/layouts.md: {option} with {strategy}: written {written}, drawn {found}')
    for family in ('FLUX.1', 'SDXL'):
        row = next(line for line in block_of('layouts.md', 'families').splitlines() if line.startswith(f'| {family} |'))
        facts, listed_ = docs_layouts.listing(docs_layouts.MODELS[family], 4)
        cells = [c.strip(' |') for c in row.split(' | ')]
        for axis, cell in zip(docs_layouts.AXES, cells[3:]):
            if (f'{axis}=4' in listed_) != ('4' in cell.split(', ')):
                out.append(f'docs/layouts.md: {family}, {axis}=4: written "{cell}"')
        if facts != cells[2]:
            out.append(f'docs/layouts.md: {family}: {facts}')
    return out


# ---- nothing is left out

def whole():
    """Every command of the program, and every variable that the sources read, is written of."""
    everything = '\n'.join(p.read_text() for p in pages())
    out = []
    for command in re.findall(r'^  (\w+) ', told('--help'), re.M):
        if not re.search(rf'atelier {command.replace("_", "[-_]")}\b|`{command}`', everything):
            out.append(f'no page tells of atelier {command}')
    page = (DOCS / 'environment.md').read_text()
    read = set()
    for path in (ROOT / 'src').rglob('*.cpp'):
        if not path.name.endswith('_test.cpp') and 'testing' not in path.name:
            read |= set(re.findall(r'"((?:ATELIER|HF|HUGGINGFACE|DG|OMPI|PMIX|SLURM|MASTER|TORCH|TORCHELASTIC|XDG|CUDA|NCCL|COMFYUI)_[A-Z0-9_]*[A-Z0-9])"', path.read_text()))
    patterns = [p[:-1] for p in re.findall(r'`([A-Z0-9_]+\*)`', page)]
    named = set(re.findall(r'`([A-Z][A-Z0-9_]+)`', page))
    return out + [f'docs/environment.md does not name {n}' for n in sorted(read - named) if not any(n.startswith(p) for p in patterns)]


def main():
    if not os.access(os.environ['ATELIER'], os.X_OK):
        print(f'no program at {os.environ["ATELIER"]}: build first')
        return 77
    slips_are_seen()
    chosen = sys.argv[1:]
    failed = False
    for check in ([lambda: commands(chosen)] if chosen else [links, whole, tables, lambda: commands([])]):
        began = time.monotonic()
        problems = check()
        name = 'commands' if check.__name__ == '<lambda>' else check.__name__
        print('\n'.join([f'FAILED: {p}' for p in problems] or [f'passed: {name} ({time.monotonic() - began:.0f} s)']), flush=True)
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
