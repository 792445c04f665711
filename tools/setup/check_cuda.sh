#!/usr/bin/env bash
# Compiles the CUDA code for one architecture and links the program against libtorch_cuda, with the CPU build's objects; no GPU and no CUDA wheels needed.
# Exit 77 (skipped) where no nvcc 13 is found. The CPU build must exist: its torch is used.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
build=$root/build/cuda-ci
torch=$(cat "$root/build/cpu/built")

nvcc=""
for candidate in "${CUDACXX:-}" "$(command -v nvcc || true)" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; do
  if [[ -x $candidate ]] && "$candidate" --version | grep -q 'release 13\.'; then
    nvcc=$candidate
    break
  fi
done
if [[ -z $nvcc ]]; then
  echo "no nvcc 13 here, so the CUDA code was not compiled"
  exit 77
fi
if [[ ! -e $torch/lib/libtorch_cuda.so ]]; then
  echo "the torch at $torch has no CUDA half, so the CUDA code was not compiled"
  exit 77
fi

cmake -S "$root" -B "$build" -G Ninja "-DATELIER_TORCH=$torch" "-DCMAKE_CUDA_COMPILER=$nvcc" \
  -DATELIER_CUDA=ON -DATELIER_CUDA_ARCHITECTURES=90 -DATELIER_TESTS=OFF
python3 "$root/tools/setup/cuda_objects.py" "$build" "$root/build/cpu"
