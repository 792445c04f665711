#!/usr/bin/env bash
# FLUX.1 geometry, random weights, under every layout of the GPUs that are there (2 or 4): results/many_gpus.json.
#   tools/bench/many_gpus.sh OUT   needs ATELIER (the program, built for CUDA)
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../../build/cuda/src/atelier}
out=$1 scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)
common=(--device cuda --torch_dtype bfloat16 --max_sequence_length 512)

bench() { # NAME flags...
  timeout "${BENCH_LIMIT:-150}" "$atelier" bench "${common[@]}" "${@:2}" --output_dir "$scratch/$1" || echo "$1: exit $?"
}
square() { echo --height "$1" --width "$1"; }

pairs="ulysses=2 | ring=2 | tensor=2 | pipefusion=2"
pairs_of_memory=" | ulysses=2, shard=2"
quads=" | ulysses=4 | ulysses=2, ring=2 | ring=4 | tensor=4 | pipefusion=4 | ulysses=4, shard=4"
layouts=$pairs$pairs_of_memory
((gpus < 4)) || layouts+=$quads
bench schnell --dummy FLUX.1-schnell $(square 1024) --num_inference_steps 4 --strategy "data=1 | $layouts"
guided="cfg=2"
((gpus < 4)) || guided+=" | cfg=2, ulysses=2"
bench dev --dummy FLUX.1-dev $(square 1024) --num_inference_steps 4 --true_cfg_scale 3 --negative_prompt "" \
  --num_iterations 3 --strategy "$guided"
for size in 2048 4096; do
  bench "vae$size" --dummy FLUX.1-schnell $(square $size) --num_inference_steps 1 --num_iterations 2 --warmup_calls 2 \
    --strategy "ulysses=$gpus | ulysses=$gpus, parallel_vae=false"
done
python3 - "$scratch" "$out/many_gpus.json" <<'P'
import json, pathlib, sys
files = [json.loads(p.read_text()) for p in sorted(pathlib.Path(sys.argv[1]).glob("*/bench.json"))]
json.dump({"atelier": files[0]["atelier"], "runs": [f["arguments"] for f in files],
           "rows": [row for f in files for row in f["rows"]]}, open(sys.argv[2], "w"), indent=1)
P
