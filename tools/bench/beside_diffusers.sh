#!/usr/bin/env bash
# Families on one GPU beside diffusers, each model here and there in turn: OUT/beside_diffusers.json. About 11 minutes for all.
#   tools/bench/beside_diffusers.sh OUT [MODEL[@WIDTHxHEIGHT]...]   the size is that of a model of videos; needs ATELIER (the program, built for CUDA) and a Python with diffusers
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../../build/cuda/src/atelier}
out=$1 models=("${@:2}") scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
((${#models[@]})) || models=(stable-diffusion-xl-base-1.0 stable-diffusion-3-medium stable-diffusion-3.5-large
  PixArt-Sigma-XL-2-1024-MS HunyuanDiT-v1.2-Diffusers Wan2.1-T2V-1.3B-Diffusers Wan2.1-T2V-14B-Diffusers)
for each in "${models[@]}"; do
  model=${each%@*} video=832x480
  if [[ $each == *@* ]]; then video=${each#*@}; fi
  size=(--num_inference_steps 10 --num_iterations 5 --warmup_calls 2)
  case $model in
    Wan*) size=(--num_inference_steps 2 --num_iterations 2 --warmup_calls 1 --width "${video%x*}" --height "${video#*x}" --num_frames 81) ;;
  esac
  "$atelier" bench --dummy "$model" --device cuda --torch_dtype bfloat16 --strategy data=1 "${size[@]}" --output_dir "$scratch/$each"
  "${PYTHON:-python3}" "$here/diffusers_families.py" --out "$scratch/$each/diffusers.json" --only "$model" --video_size "$video"
done
python3 "$here/beside.py" "$scratch"/*/ >"$out/beside_diffusers.json"
