#!/usr/bin/env bash
# FLUX.1-schnell geometry on one GPU, beside diffusers in the same run: results/one_gpu*.json.
#   tools/bench/one_gpu.sh OUT   needs ATELIER (the program, built for CUDA), 40 GB of disk in SCRATCH and a Python with diffusers and torchao
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../../build/cuda/src/atelier}
out=$1
scratch=$(mktemp -d -p "${SCRATCH:-/tmp}")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
flux=(--dummy FLUX.1-schnell --device cuda --torch_dtype bfloat16 --height 1024 --width 1024 --num_inference_steps 4
  --max_sequence_length 512)

bench() { # NAME flags...
  "$atelier" bench "${@:2}" --output_dir "$scratch/bench"
  cp "$scratch/bench/bench.json" "$out/$1.json"
}

bench exact "${flux[@]}" --strategy data=1
bench fast "${flux[@]}" --strategy data=1 --tier fast
bench fast_fp8_attention "${flux[@]}" --strategy data=1 --tier fast --attention_dtype fp8_e4m3
python3 "$here/rows.py" "$out"/{exact,fast,fast_fp8_attention}.json >"$out/one_gpu.json"
bench one_gpu_2048 "${flux[@]}" --height 2048 --width 2048
"${PYTHON:-python3}" "$here/diffusers_flux.py" --out "$out/one_gpu_diffusers.json"
"${PYTHON:-python3}" "$here/diffusers_flux.py" --fp8 --out "$out/one_gpu_diffusers_fp8.json"
"${PYTHON:-python3}" "$here/diffusers_parts.py" --out "$out/one_gpu_diffusers_parts.json"

# Loading from files that lie in the page cache, because they have just been written.
"$atelier" t2i --dummy FLUX.1-schnell --save_dummy "$scratch/flux"
bench one_gpu_load --model_name "$scratch/flux" "${flux[@]:2}" --num_iterations 1 --warmup_calls 1
