#!/usr/bin/env bash
# Draws under every layout of tests/parity/matrix.json, ranks as threads, and compares with one rank.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../build/cpu/src/atelier}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ATELIER_SHARE=${ATELIER_SHARE:-$here/..}

rows=$("$atelier" verify --matrix="$here/parity/matrix.json") || { grep -v '^ok ' <<<"$rows"; exit 1; }
tail -n 1 <<<"$rows"
grep -qE '^[1-9][0-9]* layouts compared, 0 failed$' <<<"$rows"
