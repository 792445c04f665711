#!/usr/bin/env bash
# Thread ranks under the thread sanitizer: what they share (communicators, recorders, queues, logs) without a race. Our own code
# is instrumented, libtorch and OpenMP's runtime are not: tests/tsan_suppressions.txt says what that asks for.
# A planted race comes first: where it is not found, nothing else here would mean anything.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=${ATELIER_BUILD_FOLDER:-$root/build/cpu}-tsan
torch=${ATELIER_TORCH:-$(grep -m 1 -oP '(?<=^ATELIER_TORCH:PATH=).*' "${ATELIER_BUILD_FOLDER:-$root/build/cpu}/CMakeCache.txt")}
export OMP_NUM_THREADS=1 TSAN_OPTIONS="suppressions=$root/tests/tsan_suppressions.txt:halt_on_error=0:exitcode=66:second_deadlock_stack=1"
# Address space randomisation beyond what the sanitizer's shadow memory allows makes it refuse to start.
calm=()
if command -v setarch >/dev/null; then calm=(setarch -R); fi

cat >"${TMPDIR:-/tmp}/planted_race_$$.cpp" <<'P'
#include <thread>
int shared = 0;
int main() {
  std::thread other([] { ++shared; });
  ++shared;
  other.join();
}
P
trap 'rm -f "${TMPDIR:-/tmp}/planted_race_$$"*' EXIT
c++ -std=c++20 -O1 -g1 -fsanitize=thread "${TMPDIR:-/tmp}/planted_race_$$.cpp" -o "${TMPDIR:-/tmp}/planted_race_$$"
status=0
"${calm[@]}" "${TMPDIR:-/tmp}/planted_race_$$" >/dev/null 2>&1 || status=$?
((status == 66)) || { echo "FAILED  a planted race was not found (exit $status)"; exit 1; }
echo "ok      a planted race is found"

cmake -S "$root" -B "$build" -G Ninja "-DATELIER_TORCH=$torch" -DATELIER_SANITIZE=thread >/dev/null
programs=(comm_test parallel_test pipeline_test verify_test cluster_test)
ninja -C "$build" "${programs[@]}" >"$build/log" 2>&1 || { tail -n 30 "$build/log"; exit 1; }

# Tests that fork behind threads, or whose subject is a process that dies, are those of processes, not of threads.
failed=0
run() { # PROGRAM FILTER
  local status=0
  (cd "$root" && timeout 1500 "${calm[@]}" "$build/src/$1" --gtest_brief=1 --gtest_filter="$2") >"$build/$1.log" 2>&1 || status=$?
  local races
  races=$(grep -c '^WARNING: ThreadSanitizer' "$build/$1.log" || true)
  if ((status == 0 && races == 0)); then
    echo "ok      $1 $2: $(grep -oE '^\[  PASSED  \] [0-9]+ tests?' "$build/$1.log")"
  else
    failed=1
    grep -A 25 '^WARNING: ThreadSanitizer' "$build/$1.log" | head -n 80 || true
    grep -E '^\[  FAILED' "$build/$1.log" | head -n 20 || true
    echo "FAILED  $1 $2 (exit $status, $races reports; all of it: $build/$1.log)"
  fi
}
run comm_test '-*Slow*:*Gloo*:*Nccl*:*Fork*:*Process*'
run parallel_test '-*Slow*'
run pipeline_test '-*Slow*'
run verify_test 'Variants.TwoBranchesPassUnderLayouts:Verify.PassesUnderOddLayouts:Matrix.FailsWhereLatentsDifferOrALayoutIsImpossible'
run cluster_test '*WorkerPool*:*Channel*:*OutputWriter*:-*Slow*'
echo "took $SECONDS s"
exit "$failed"
