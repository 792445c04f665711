#!/usr/bin/env bash
# Scores mini as the program draws it: 30 captions of each of ten categories, fixed seeds, none left out.
#   tools/mini/score.sh RESULT.json [SHEET.png]      about 5 minutes on a CPU; a second call goes on where the first stopped
# Needs Python with requirements.txt; the program is $ATELIER, else ./atelier.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
result=$1 sheet=${2:-} work=${SCORE_FOLDER:-$root/build/mini_score}
check() { "${PYTHON:-python3}" "$root/tools/mini/check.py" "$@"; }

mkdir -p "$work"
check captions --n 30 --out "$work"
"${ATELIER:-$root/atelier}" t2i --model_name mini --prompts_file "$work/prompts.jsonl" --output_dir "$work/pictures"
check score --specs "$work/specs.json" --pictures "$work/pictures" --out "$result"
[[ -z $sheet ]] || check sheet --specs "$work/specs.json" --pictures "$work/pictures" --out "$sheet"
