#!/usr/bin/env bash
# Thread ranks under the thread sanitizer: what they share (communicators, recorders, queues, logs) without a race. Our own code
# is instrumented, libtorch and OpenMP's runtime are not: tests/tsan_suppressions.txt says what that asks for.
# A planted race comes first: where it is not found, nothing else here would mean anything.
# The result is written to tests/results/tsan.json. The server's rooms take part where the server is built.
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

server=OFF
if grep -q '^ATELIER_SERVER:BOOL=ON' "${ATELIER_BUILD_FOLDER:-$root/build/cpu}/CMakeCache.txt"; then server=ON; fi
cmake -S "$root" -B "$build" -G Ninja "-DATELIER_TORCH=$torch" -DATELIER_SANITIZE=thread "-DATELIER_SERVER=$server" >/dev/null
programs=(base_test jobs_test comm_test parallel_test pipeline_test verify_test cluster_test)
if [[ $server == ON ]]; then programs+=(http_test server_test); fi
ninja -C "$build" "${programs[@]}" >"$build/log" 2>&1 || { tail -n 30 "$build/log"; exit 1; }

# Tests that fork behind threads, or whose subject is a process that dies, are those of processes, not of threads.
failed=0 rows=()
run() { # PROGRAM FILTER
  local status=0 races tests
  (cd "$root" && timeout 1500 "${calm[@]}" "$build/src/$1" --gtest_brief=1 --gtest_filter="$2") >"$build/$1.log" 2>&1 || status=$?
  races=$(grep -c '^WARNING: ThreadSanitizer' "$build/$1.log" || true)
  tests=$(grep -oP '^\[  PASSED  \] \K[0-9]+' "$build/$1.log" || true)
  rows+=("    {\"program\": \"$1\", \"filter\": \"$2\", \"passed\": ${tests:-0}, \"races\": $races}")
  if ((status == 0 && races == 0 && ${tests:-0} > 0)); then
    echo "ok      $1 $2: $tests tests"
  else
    failed=1
    grep -A 25 '^WARNING: ThreadSanitizer' "$build/$1.log" | head -n 80 || true
    grep -E '^\[  FAILED' "$build/$1.log" | head -n 20 || true
    echo "FAILED  $1 $2 (exit $status, $races reports; all of it: $build/$1.log)"
  fi
}
run base_test '-*Slow*'
run jobs_test '-*Slow*:*Fork*:*Process*'
run comm_test '-*Slow*:*Gloo*:*Nccl*:*Fork*:*Process*:*PeerMonitor*'
run parallel_test '-*Slow*'
run pipeline_test '-*Slow*'
run verify_test 'Variants.TwoBranchesPassUnderLayouts:Verify.PassesUnderOddLayouts:Matrix.FailsWhereLatentsDifferOrALayoutIsImpossible'
run cluster_test '*WorkerPool*:*Channel*:*OutputWriter*:-*Slow*'
if [[ $server == ON ]]; then
  run http_test '-*Slow*'
  run server_test '-*Slow*:*Fork*:*Process*'
fi
{
  printf '{\n  "what": "thread sanitizer over our own code; a planted race was found first",\n'
  printf '  "compiler": "%s",\n  "programs": [\n' "$(c++ --version | head -n 1)"
  for ((i = 0; i < ${#rows[@]}; ++i)); do printf '%s%s\n' "${rows[i]}" "$([[ $((i + 1)) -lt ${#rows[@]} ]] && echo ,)"; done
  printf '  ]\n}\n'
} >"$root/tests/results/tsan.json"
echo "took $SECONDS s"
exit "$failed"
