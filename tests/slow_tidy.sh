#!/usr/bin/env bash
# clang-tidy over src/, with the checks of .clang-tidy and the warnings of the build (-Wconversion among them) as errors.
# CLANG_TIDY names the program (tried with 14 and 23). About 30 minutes of two cores.
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
import json
import os
import re
import subprocess
import sys

tidy, root, build = sys.argv[1:]
units = sorted({unit["file"] for unit in json.load(open(f"{build}/compile_commands.json"))})


def findings(unit):
    run = subprocess.run([tidy, "--quiet", "-p", build, f"--config-file={root}/.clang-tidy",
                          f"--header-filter={root}/src/.*", unit], capture_output=True, text=True)
    found = re.findall(r"^(?:/\S+):\d+:\d+: (?:warning|error): .*", run.stdout, re.M)
    # a unit that is not understood at all says so elsewhere
    return found or ([f"{unit}: {run.stderr.strip()[-300:]}"] if run.returncode else [])


# A header is seen by many units, and told of once.
told = set()
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for found in pool.map(findings, units):
        for line in found:
            if line not in told:
                print(line.replace(root + "/", ""), flush=True)
                told.add(line)
print(f"{'FAILED' if told else 'ok    '}  {len(units)} units, {len(told)} findings")
sys.exit(bool(told))
PYTHON
