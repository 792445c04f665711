#!/usr/bin/env bash
# Every table of the documentation is what the program says and draws, those that take minutes too.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
export ATELIER=${ATELIER:-$root/build/cpu/src/atelier}
[[ -x $ATELIER ]] || { echo "no program at $ATELIER: build first"; exit 77; }
exec python3 "$root/tools/docs.py" --check
