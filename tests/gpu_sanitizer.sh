#!/usr/bin/env bash
# compute-sanitizer over every kernel of this program: memory errors, then races. gpu_sanitizer.sh [FOLDER for the logs]
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
build=${ATELIER_BUILD_FOLDER:-$here/../build/cuda}
logs=${1:-$(mktemp -d)}
sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [[ ! -x $sanitizer ]]; then
  echo "there is no compute-sanitizer"
  exit 77
fi
failed=0
for tool in memcheck racecheck; do
  "$sanitizer" --tool "$tool" --error-exitcode 9 "$build/src/kernels_test" --gtest_filter='*Cuda*-*Bandwidth*:*Speed*:*Time*' \
    >"$logs/$tool.log" 2>&1 || failed=1
  echo "$tool: $(grep -E 'tests? from .* ran' "$logs/$tool.log" | sed 's/^\[=*\] //'); $(tail -n 1 "$logs/$tool.log" | sed 's/^=* //')"
done
exit $failed
