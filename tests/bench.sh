#!/usr/bin/env bash
# atelier bench: rows in the run report's schema, from worker processes, with every flag honoured or refused by name.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../build/cpu/src/atelier}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
model=$here/goldens/flux_dev/model
small=(--model_name "$model" --device cpu --height 32 --width 32 --num_inference_steps 2 --max_sequence_length 16)
failed=0
fail() { echo "FAILED  $*"; failed=1; }

bench() { # NAME flags...
  "$atelier" bench "${small[@]}" --output_dir "$scratch/$1" "${@:2}" >"$scratch/$1.out" 2>"$scratch/$1.err"
}
check() { # NAME python... : `rows` are the rows of bench.json, `out` what was printed
  python3 - "$scratch" "$@" <<'P' || fail "$1: ${*:2}"
import json, pathlib, sys
folder, name, *tests = sys.argv[1:]
rows = json.loads((pathlib.Path(folder) / name / "bench.json").read_text())["rows"]
out = (pathlib.Path(folder) / f"{name}.out").read_text() + (pathlib.Path(folder) / f"{name}.err").read_text()
pictures = lambda row: sorted(p.name for p in (pathlib.Path(folder) / name / row["layout"]).iterdir() if p.suffix != ".json")
different = lambda row: len({(pathlib.Path(folder) / name / row["layout"] / p).read_bytes() for p in pictures(row)})
bad = [t for t in tests if not eval(t)]
sys.exit("not so: " + "; ".join(bad) + "\n" + out[-2000:] if bad else 0)
P
}

# Two layouts, two counted rounds after one that is not: medians of even counts lie between.
bench two --strategy "data=1 | ulysses=2" --num_iterations 2 --warmup_calls 1 || fail "two: exit $?"
check two 'len(rows) == 2' '[r["layout"] for r in rows] == ["data=1", "ulysses=2"]' '[r["ranks"] for r in rows] == [1, 2]' \
  'all(r["schema"].startswith("atelier-run-") for r in rows)' 'all(r["ms_per_step"]["count"] == 4 for r in rows)' \
  'all(r["picture_s"]["count"] == 2 for r in rows)' 'all(r["pictures"]["drawn"] == 2 for r in rows)' \
  'all(abs(r["picture_s"]["median"] - r["picture_s"]["mean"]) < 1.1e-3 for r in rows)' \
  'len(rows[1]["peak_memory"]) == 2' 'any("ulysses" in k for k in rows[1]["kernels"])' \
  'all(r["pictures_per_second"] > 0 for r in rows)' '"pictures per second" in out'

# Prompts of a file, in batches.
printf '{"prompt": "a fox"}\n{"prompt": "a boat"}\n{"prompt": "rain"}\n{"prompt": "fog"}\n' >"$scratch/four.jsonl"
bench file --prompts_file "$scratch/four.jsonl" --batch_size 4 --num_iterations 1 --warmup_calls 0 || fail "file: exit $?"
check file 'rows[0]["batch"] == 4' 'rows[0]["pictures"]["drawn"] == 4' 'len(pictures(rows[0])) == 4' 'different(rows[0]) == 4'

# A step cache is counted where a model has learned something, and not timed where it has not.
bench cached --cache_type first_block_cache --cache_threshold 99 --num_iterations 2 --warmup_calls 1 || fail "cached: exit $?"
check cached 'rows[0]["step_cache"] == {"computed": 2, "reused": 2}'
if bench random --model_name dummy:FLUX.1-schnell --cache_type first_block_cache; then fail "a step cache of random weights was timed"; fi
grep -q 'cache_type first_block_cache with random weights' "$scratch/random.err" || fail "random: $(tail -n 1 "$scratch/random.err")"

# A batch is filled, groups draw different pictures, and the format is the one that was asked for.
bench groups --strategy "data=2" --batch_size 4 --num_iterations 1 --warmup_calls 1 --output_format jpg || fail "groups: exit $?"
check groups 'rows[0]["batch"] == 2' 'len(pictures(rows[0])) == 4' 'different(rows[0]) == 4' \
  'all(p.endswith(".jpg") for p in pictures(rows[0]))'

# Without degrees the layout comes by rule; what is odd is said.
DG_XDIT_TYPO=1 bench rule --num_gpus 2 --num_iterations 1 --warmup_calls 0 --attention_backend math --log_dir "$scratch/logs" ||
  fail "rule: exit $?"
check rule 'rows[0]["layout"] == "ulysses=2"' '"DG_XDIT_TYPO" in out' '"layout chosen by rule" in out' \
  '"attention: math" in rows[0]["kernels"]'
[[ -n $(find "$scratch/logs" -type f) ]] || fail "--log_dir: no log"
bench stages --strategy "pipefusion=2, sync" --attn_layer_num_for_pp 1 4 --num_iterations 1 --warmup_calls 0 || fail "stages: exit $?"
check stages '"5 blocks over 2 stages (1/4)" in out' '"a picture gets no faster" in out'

# What has no use here is refused by name; what cannot be drawn is a problem of its row.
for flag in --resume --keep_changed --span_nodes; do
  status=0
  bench refused "$flag" || status=$?
  ((status == 2)) && grep -q -- "$flag has no use in bench" "$scratch/refused.err" || fail "$flag: exit $status"
done
status=0
bench problem --strategy "ulysses=5 | data=1" --num_iterations 1 --warmup_calls 0 || status=$?
((status == 1)) || fail "problem: exit $status"
check problem '"4 heads" in rows[0]["problem"]' '"problem" not in rows[1]'
status=0
ATELIER_FAULT=0:step:1:hang bench late --timeout 1 --max_retries 0 --num_iterations 1 --warmup_calls 0 || status=$?
((status == 1)) || fail "a hang with --timeout 1: exit $status"

((failed)) || echo "ok"
exit "$failed"
