#!/usr/bin/env bash
# Every family at its published size, random weights, bfloat16, pictures of 1024 px (FLUX.1 of 2048 px too) and Wan's videos
# of 81 frames in 480p, under the layouts of the GPUs that are there (1, 2 or 4): OUT/families_gpus_N.json.
#   tools/bench/families.sh OUT   needs ATELIER (the program, built for CUDA)
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../../build/cuda/src/atelier}
out=$1 scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)

bench() { # MODEL STEPS LAYOUTS flags...
  timeout "${BENCH_LIMIT:-150}" "$atelier" bench --dummy "$1" --device cuda --torch_dtype bfloat16 --num_inference_steps "$2" \
    --strategy "$3" --num_iterations 3 --warmup_calls 2 "${@:4}" --output_dir "$scratch/$1-$*" || echo "$1: exit $?"
}

one="data=1" plain=$one guided=$one unet=$one video=$one fast=$one
if ((gpus >= 2)); then
  plain+=" | ulysses=2 | kv_gather=2 | ulysses=2, collective | ring=2 | tensor=2 | pipefusion=2"
  fast+=" | ulysses=2 | kv_gather=2"
  video+=" | cfg=2 | ulysses=2, parallel_vae"
  guided+=" | cfg=2 | ulysses=2 | pipefusion=2"
  unet+=" | cfg=2 | ulysses=2"
fi
if ((gpus >= 4)); then
  plain+=" | ulysses=4 | ulysses=4, collective | ulysses=2, ring=2 | tensor=4 | pipefusion=4"
  fast+=" | ulysses=4"
  video+=" | cfg=2, ulysses=2, parallel_vae"
  guided+=" | cfg=2, ulysses=2 | cfg=2, pipefusion=2"
  unet+=" | cfg=2, ulysses=2"
fi
bench FLUX.1-schnell 4 "$plain" --max_sequence_length 512
bench FLUX.1-schnell 4 "$fast" --max_sequence_length 512 --tier fast
for model in stable-diffusion-3-medium PixArt-Sigma-XL-2-1024-MS HunyuanDiT-v1.2-Diffusers; do bench "$model" 10 "$guided"; done
bench stable-diffusion-xl-base-1.0 10 "$unet"
bench FLUX.1-schnell 4 "${fast}" --max_sequence_length 512 --height 2048 --width 2048
clip=(--height 480 --width 832 --num_frames 81 --num_iterations 1)
bench Wan2.1-T2V-1.3B-Diffusers 4 "$video" "${clip[@]}"
bench Wan2.1-T2V-14B-Diffusers 2 "$video" "${clip[@]}"
python3 "$here/rows.py" "$scratch"/*/bench.json >"$out/families_gpus_$gpus.json"
