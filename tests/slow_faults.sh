#!/usr/bin/env bash
# 200 random faults, and every kind of fault at every place; the results are tests/results/faults*.json.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
python3 "$here/_faults.py" random 200 "${ATELIER_TEST_SEED:-2}" "$here/results/faults_random.json"
python3 "$here/_faults.py" table all "$here/results/faults_table.json"
