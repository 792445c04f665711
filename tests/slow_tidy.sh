#!/usr/bin/env bash
# clang-tidy over src/, with the checks of .clang-tidy and the warnings of the build (-Wconversion among them) as errors.
# CLANG_TIDY names the program (tried with 18 and 23; 14 takes some of C++20 for errors). About 50 minutes of two cores; a unit found clean is not
# looked at again until it, a header of ours or .clang-tidy changes. The result is written to tests/results/tidy.json.
# A planted fault comes first: where it is not found, nothing else here would mean anything.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
tidy=${CLANG_TIDY:-clang-tidy}
if ! command -v "$tidy" >/dev/null; then
  echo "no clang-tidy here: install it, or name one in CLANG_TIDY"
  exit 77
fi
build=${ATELIER_BUILD_FOLDER:-$root/build/cpu}
torch=${ATELIER_TORCH:-$(grep -m 1 -oP '(?<=^ATELIER_TORCH:PATH=).*' "$build/CMakeCache.txt")}
server=OFF
if grep -q '^ATELIER_SERVER:BOOL=ON' "$build/CMakeCache.txt" 2>/dev/null; then server=ON; fi
build+=-tidy

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
printf 'int narrow(long long value) {\n  int out = value;\n  return out;\n}\n' >"$planted/planted.cpp"
if "$tidy" --quiet --config-file="$root/.clang-tidy" "$planted/planted.cpp" -- -std=c++20 -Wconversion >"$planted/log" 2>&1; then
  echo "FAILED  a planted conversion was not found"
  exit 1
fi
echo "ok      a planted conversion is found"

# No precompiled header: GCC's is nothing that clang reads.
cmake -S "$root" -B "$build" -G Ninja "-DATELIER_TORCH=$torch" -DATELIER_PRECOMPILE=OFF "-DATELIER_SERVER=$server" >/dev/null
python3 - "$tidy" "$root" "$build" <<'PYTHON'
import concurrent.futures
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys

tidy, root, build = sys.argv[1:]
commands = {unit["file"]: unit["command"] for unit in json.load(open(f"{build}/compile_commands.json"))}
version = re.search(r"version (\S+)", subprocess.run([tidy, "--version"], capture_output=True, text=True).stdout)[1]
known_file = f"{build}/clean_units.json"
known = json.load(open(known_file)) if os.path.exists(known_file) else {}


def checks_of(unit):
    """Not the static analyzer's for tests: every EXPECT_ branches, and it runs into its limits."""
    return "-clang-analyzer-*" if "_test" in unit else ""


units = sorted(commands, key=lambda unit: ("_test" in unit, unit))


# OpenMP's header comes with the compiler, and names what frees its memory, which clang has no words for.
own_headers = subprocess.run(["c++", "-print-file-name=include"], capture_output=True, text=True, check=True).stdout.strip()
OPENMP = ["--extra-arg=-idirafter", f"--extra-arg={own_headers}", "--extra-arg=-D__malloc__(...)=__malloc__"]


def state(unit, files):
    """Of all that a unit's findings come from."""
    out = hashlib.sha256(f"{version} {commands[unit]} {checks_of(unit)}".encode())
    for file in [f"{root}/.clang-tidy", *files]:
        try:
            out.update(open(file, "rb").read())
        except FileNotFoundError:
            return None
    return out.hexdigest()


INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)


def files_of(unit):
    """The unit's own files: itself, and what it includes that is no part of a library."""
    found, todo = set(), [unit]
    while todo:
        file = todo.pop()
        if file not in found and os.path.exists(file):
            found.add(file)
            todo += [os.path.join(root, "src", name) for name in INCLUDE.findall(open(file, errors="replace").read())]
    return sorted(found)


def findings(unit):
    clean = known.get(unit)
    if clean and clean["state"] == state(unit, clean["files"]):
        return []
    files = files_of(unit)
    before = state(unit, files)
    run = subprocess.run([tidy, "--quiet", "-p", build, f"--config-file={root}/.clang-tidy", f"--checks={checks_of(unit)}",
                          f"--header-filter={root}/src/.*", *OPENMP, unit], capture_output=True, text=True)
    found = re.findall(r"^(?:/\S+):\d+:\d+: (?:warning|error): .*", run.stdout, re.M)
    # a unit that is not understood at all says so elsewhere
    found = found or ([f"{unit}: {run.stderr.strip()[-300:]}"] if run.returncode else [])
    if not found and before == state(unit, files):
        known[unit] = {"files": files, "state": before}
    return found


# A header is seen by many units, and told of once.
told = set()
with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    for found in pool.map(findings, units):
        with open(known_file, "w") as file:
            json.dump(dict(known), file)
        for line in found:
            if line not in told:
                print(line.replace(root + "/", ""), flush=True)
                told.add(line)


def git(*words):
    return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout.strip()


result = {
    "what": "clang-tidy over src/ with the checks of .clang-tidy; a planted conversion was found first",
    "clang_tidy": version,
    "date": datetime.date.today().isoformat(),
    "commit": git("rev-parse", "--short=10", "HEAD") + (" and changes" if git("status", "--short", "src", ".clang-tidy") else ""),
    "units": len(commands),
    "units_analyzed": sum("_test" not in unit for unit in units),
    "files": len([name for name in git("ls-files", "src").split() if name.endswith(".cpp")]),
    "findings": len(told),
}
with open(f"{root}/tests/results/tidy.json", "w") as file:
    file.write(json.dumps(result, indent=2) + "\n")
print(f"{'FAILED' if told else 'ok    '}  {len(commands)} units, {len(told)} findings")
sys.exit(bool(told))
PYTHON
