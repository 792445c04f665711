#!/usr/bin/env bash
# Scores mini-video as the program draws it: clips of fifteen categories, fixed seeds, none left out.
#   tools/mini_video/score.sh RESULT.json [SHEET.png]      EACH=20 clips a category; a second call goes on where the first stopped
# Needs Python with requirements.txt (not torch); the program is $ATELIER, else ./atelier. FLAGS are given to it as they are.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
result=$1 sheet=${2:-} work=${SCORE_FOLDER:-$root/build/mini_video_score}
score() { "${PYTHON:-python3}" "$root/tools/mini_video/score.py" "$@"; }

mkdir -p "$work"
score captions --n "${EACH:-20}" --out "$work"
# shellcheck disable=SC2086
"${ATELIER:-$root/atelier}" video --model_name mini-video --device cpu --prompts_file "$work/prompts.jsonl" --output_dir "$work/clips" \
  --output_format frames ${FLAGS:-}
score score --specs "$work/specs.json" --clips "$work/clips" --out "$result"
[[ -z $sheet ]] || score sheet --specs "$work/specs.json" --clips "$work/clips" --out "$sheet"
