#!/usr/bin/env bash
# The rooms without libtorch and the weights' readers under the address and undefined-behaviour sanitizers, then a short
# fuzz run of every reader of files from outside: slow_sanitize.sh [SECONDS per fuzz target, 30]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
seconds=${1:-30}
build=$root/build/sanitize
beside=${ATELIER_BUILD_FOLDER:-$root/build/cpu}
mkdir -p "$build"
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

cached() { sed -n "s/^$1:[A-Z]*=//p" "$beside/CMakeCache.txt"; }

if [[ ! -f $beside/CMakeCache.txt ]]; then
  echo "build first: $beside/CMakeCache.txt is missing, run ./test"
  exit 1
fi
cmake -S "$root" -B "$build" -G Ninja -DATELIER_SANITIZE=ON -DATELIER_CUDA=OFF \
  "-DATELIER_TORCH=$(cached ATELIER_TORCH)" "-DATELIER_LIBRARY_FOLDERS=$(cached ATELIER_LIBRARY_FOLDERS)" >"$build/configure.log" ||
  { tail -n 20 "$build/configure.log"; exit 1; }

rooms=(base jobs media report plan kernels text weights)
programs=()
for room in "${rooms[@]}"; do
  # A room whose tests are not written yet has no program.
  if compgen -G "$root/src/$room/*_test.cpp" >/dev/null; then programs+=("${room}_test"); fi
done
cmake --build "$build" --target "${programs[@]}" >"$build/build.log" || { grep -E 'error|FAILED' "$build/build.log" | head -n 20; exit 1; }

cd "$root"
failed=0
for program in "${programs[@]}"; do
  filter='-Slow*:*.Slow*:Gpu*:*.Gpu*'
  options=$ASAN_OPTIONS
  if [[ $program == weights_test ]]; then
    # libtorch keeps memory until the program ends, which is no leak of ours.
    options+=:detect_leaks=0
  fi
  if ASAN_OPTIONS=$options GTEST_FILTER="*$filter" "$build/src/$program" >"$build/$program.log" 2>&1; then
    echo "ok      $program: $(grep -c '^\[       OK' "$build/$program.log") tests"
  else
    grep -E '^\[  FAILED|ERROR: AddressSanitizer|runtime error|^SUMMARY|Failure' -A 6 "$build/$program.log" | head -n 40
    echo "FAILED  $program (all of it: $build/$program.log)"
    failed=1
  fi
done

# Fuzz targets: by libFuzzer where clang has it, otherwise by our own driver.
sources_of() {
  local common="$root/src/base/error.cpp $root/src/base/check.cpp $root/src/base/files.cpp $root/src/base/json.cpp"
  case $1 in
    safetensors) echo "$common $root/src/weights/safetensors_header.cpp $root/src/weights/safetensors.cpp $root/src/weights/quote.cpp" ;;
    json) echo "$common" ;;
    prompts) echo "$common $(ls "$root"/src/jobs/*.cpp | grep -vE '_test\.cpp$|/(queue|ledger|resume)\.cpp$' | tr '\n' ' ')" ;;
  esac
}
link="-lyaml-cpp"
probe=$build/probe.cpp
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$probe"
if clang++ -fsanitize=fuzzer "$probe" -o "$build/probe" >/dev/null 2>&1; then
  compile=(clang++ -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined) driver=""
else
  compile=(g++ -fsanitize=address,undefined -fno-sanitize-recover=undefined) driver=$root/tests/fuzz/driver.cpp
fi

fuzz() { # target
  local target=$1 work=$build/fuzz/$1
  mkdir -p "$work/found"
  # shellcheck disable=SC2046
  "${compile[@]}" -std=c++20 -O1 -g -fno-omit-frame-pointer -I"$root/src" "$root/tests/fuzz/$target.cpp" $driver \
    $(sources_of "$target") $link -o "$work/target" >"$work/compile.log" 2>&1 ||
    { tail -n 20 "$work/compile.log"; echo "FAILED  fuzz $target: it does not compile"; return 1; }
  cd "$work"
  if [[ -z $driver ]]; then
    ./target -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      found "$root/tests/fuzz/seeds/$target" >log 2>&1
  else
    ./target "$seconds" "$root/tests/fuzz/seeds/$target" >log 2>&1
  fi || { tail -n 30 log; echo "FAILED  fuzz $target (inputs: $work)"; return 1; }
  echo "ok      fuzz $target: $(grep -E 'Done' log | tail -n 1)"
}
for target in safetensors json prompts; do
  (fuzz "$target") || failed=1
done
exit "$failed"
