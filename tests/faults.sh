#!/usr/bin/env bash
# Workers that are killed, stopped, hung or out of memory cost no picture: 20 random faults and some at known places.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
python3 "$here/_faults.py" random 20 "${ATELIER_TEST_SEED:-1}"
python3 "$here/_faults.py" table quick
python3 "$here/_faults.py" ends
