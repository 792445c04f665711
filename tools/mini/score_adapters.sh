#!/usr/bin/env bash
# Scores mini with its adapters as the program draws it: 48 captions, each without an adapter, with each one, and with both.
#   tools/mini/score_adapters.sh RESULT.json [SHEET.webp]      about 4 minutes on a CPU; a second call goes on where the first stopped
# Needs Python with requirements.txt; the program is $ATELIER, else ./atelier.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
result=$(realpath "$1") sheet=${2:+$(realpath "$2")} work=${SCORE_FOLDER:-$root/build/adapter_score}
check() { "${PYTHON:-python3}" "$root/tools/mini/check_adapters.py" "$@"; }

cd "$root"
mkdir -p "$work"
check captions --adapters models/mini-adapters --out "$work"
"${ATELIER:-$root/atelier}" t2i --model_name mini --prompts_file "$work/prompts.jsonl" --output_dir "$work/pictures"
check score --specs "$work/specs.json" --pictures "$work/pictures" --out "$result"
[[ -z $sheet ]] || check sheet --pictures "$work/pictures" --out "$sheet"
