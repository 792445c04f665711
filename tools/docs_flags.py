"""Tables of flags, of settings that are refused or have no effect, and of variables, made from what the program says."""

import functools
import json
import pathlib
import re
import tempfile

from docs_program import ROOT, ask, side_by_side, table, told

COMMANDS = ("t2i", "run", "video", "sdxl")
TITLES = {"model": "Model", "device": "Device", "backend": "Ranks", "input": "Pictures", "engine": "Engine", "output": "Output", "scripts": "Of sdxl alone"}
QUOTED = r"'((?:[^'\\]|\\.)*)'"


@functools.cache
def completion() -> dict:
    """{command: {flag: (names, help, choices)}} of the completion for fish, in the order of --help."""
    out = {}
    for line in told("completion", "fish").splitlines():
        command = re.search(r"__fish_seen_subcommand_from (\w+)'", line)
        if not command:
            continue
        names = re.findall(r" -(?:l|s) (\S+)", re.sub(QUOTED, "''", line))
        help_ = re.search(r" -d " + QUOTED, line)
        choices = re.search(r" -x -a " + QUOTED, line)
        plain = lambda found: re.sub(r"\\(.)", r"\1", found.group(1)) if found else ""
        out.setdefault(command.group(1), {})[names[0]] = (names, plain(help_), plain(choices))
    return out


@functools.cache
def settings(command: str) -> dict:
    """{flag: (section, default)} of a command."""
    shown = json.loads(told("config", "show", command, "--json"))
    return {key: (section, value) for section, part in shown.items() if section != "sources" for key, value in part.items()}


@functools.cache
def variables() -> dict:
    """{flag: variable} of the manual page."""
    page = told("man").replace("\\-", "-")
    found = re.findall(r"\.B (?:--|-)(\w+).*\n.*environment: (\w+)", page)
    return dict(found)


def spelled(value) -> str:
    """A default as one would type it; empty: none."""
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "`" + " ".join(map(str, value)) + "`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def default_of(flag: str, commands: list) -> str:
    """Its default; where commands differ, each with its own."""
    if flag == "num_gpus":  # sdxl shows the GPUs of this machine
        commands = ["t2i"]
    by = {c: spelled(settings(c)[flag][1]) for c in commands if flag in settings(c)}
    usual = by.get("t2i", next(iter(by.values()), ""))
    others = [f"{c}: {v or 'none'}" for c, v in by.items() if v != usual]
    return "; ".join(filter(None, [usual, *others]))


def dashed(name: str) -> str:
    return ("-" if len(name) == 1 else "--") + name


def flags() -> str:
    """Every flag of the drawing commands, by section."""
    names = list(dict.fromkeys(flag for c in ("t2i", "run", "video", "sdxl") for flag in completion()[c]))
    sections = {}
    for flag in names:
        commands = [c for c in COMMANDS if flag in completion()[c]]
        spellings, help_, choices = completion()[commands[0]][flag]
        if not help_:
            continue
        section = next(settings(c)[flag][0] for c in commands if flag in settings(c))
        meaning = help_ + (f". One of: {', '.join(choices.split())}" if choices else "")
        if flag in variables():
            meaning += f". Variable: `{variables()[flag]}`"
        where = "all" if len(commands) == len(COMMANDS) else ", ".join(commands)
        row = [", ".join(f"`{dashed(n)}`" for n in spellings), meaning, default_of(flag, commands), where]
        sections.setdefault(section, []).append(row)
    return "\n\n".join(f"### {TITLES[s]}\n\n" + table(["Flag", "Meaning", "Default", "Commands"], rows) for s, rows in sections.items())


def own() -> str:
    """Flags of the other commands that no drawing command has, in the words of their --help."""
    drawing = {flag for c in COMMANDS for flag in completion()[c]}
    rows = [[command, ", ".join(f"`{dashed(n)}`" for n in names), help_] for command, flags_ in completion().items() if command not in COMMANDS
            for flag, (names, help_, _) in flags_.items() if flag not in drawing and help_]
    return table(["Command", "Flag", "Meaning"], rows)


def known_elsewhere() -> list:
    """(name, takes a value, only in files) of the settings that the source lists as refused or without effect."""
    source = (ROOT / "src/app/compat/unsupported.cpp").read_text()
    groups = source[source.index("kGroups[] = {"):source.index("std::vector<Unsupported> read_table")]
    out = []
    for entry in re.split(r"\{Treated::", groups)[1:]:
        texts = re.findall(r'"((?:[^"\\]|\\.)*)"', entry)
        is_file_only = entry.split(",")[1].strip() == "0"
        # the sentence and the names are neighbours: names never hold a blank beside a lower-case word without a mark
        names = entry[entry.index(texts[0]) + len(texts[0]) + 1:] if len(texts) > 1 else ""
        for word in " ".join(re.findall(r'"((?:[^"\\]|\\.)*)"', names)).split():
            if re.fullmatch(r"[a-z0-9_]+(=\S*|\*)?", word):
                out.append((re.split(r"[=*]", word)[0], word[-1] == "*" or "=" in word, is_file_only))
    return out


def treatment(name: str, takes_value: bool, is_file_only: bool) -> tuple:
    """(what the program does with a setting, "refused" or "no effect", and why), or None where it takes it."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "settings.json"
        file.write_text(json.dumps({name: True}))
        given = ["--config", str(file)] if is_file_only else [f"--{name}", *(["x_1"] if takes_value else [])]
        done = ask("config", "show", "run", *given)
    if done.returncode == 2 and "unknown" not in done.stderr:
        return "refused", done.stderr.split(f"--{name} ", 1)[-1].strip()
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: ") and name in line]
    return ("no effect", re.split(r"settings\.json\S* |" + name + r" (?!in )", notes[0])[-1].strip()) if notes else None


def refused() -> str:
    """Flags of other tools that are refused by name, or taken with one note."""
    known = known_elsewhere()
    answers = side_by_side([lambda k=k: treatment(*k) for k in known])
    groups = {}
    for (name, _, is_file_only), answer in zip(known, answers):
        if answer:
            groups.setdefault(answer, []).append(f"`{name}` in files" if is_file_only else f"`--{name}`")
    rows = [[", ".join(names), kind, why] for (kind, why), names in sorted(groups.items(), key=lambda g: (g[0][0] != "no effect", g[0][1]))]
    return table(["Setting", "Treated", "In the program's words"], rows)


def variable_table() -> str:
    """Variables that set a flag."""
    rows = [[f"`{variable}`", f"`--{flag}`", default_of(flag, ["t2i"])] for flag, variable in variables().items()]
    return table(["Variable", "Is the flag", "Default"], rows)


def idle_variables() -> str:
    """Prefixes of Diffgentor's variables that are known and have no effect here."""
    source = (ROOT / "src/app/compat/environment.cpp").read_text()
    prefixes = re.findall(r'"(DG_[A-Z0-9_]+_)"', source)
    notes = told("config", "show", **{f"{p}X": "1" for p in prefixes})
    line = next(line for line in notes.splitlines() if line.startswith("note: known"))
    return ", ".join(f"`{p}*`" for p in prefixes if f"{p}X" in line)
