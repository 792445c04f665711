#!/usr/bin/env bash
# The readers of files from outside (safetensors, GGUF, names of number formats, JSON, prompt files, configurations, forms and bodies of HTTP requests)
# under the address and undefined-behaviour sanitizers: their tests, then a short fuzz run each: slow_sanitize.sh [SECONDS per target, 10]
# A target with a planted bug comes first: where that is not found, nothing else here would mean anything.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
seconds=${1:-10}
build=${ATELIER_BUILD_FOLDER:-$root/build/cpu}/sanitize
mkdir -p "$build"
cd "$build"
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

flags=(-DSPDLOG_COMPILED_LIB -DSPDLOG_SHARED_LIB -DSPDLOG_FMT_EXTERNAL -DFMT_SHARED -std=c++20 -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined "-I$root/src")
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >probe.cpp
if clang++ -fsanitize=fuzzer,address,undefined probe.cpp -o probe >/dev/null 2>&1; then
  compiler=(clang++) reach=(-fsanitize=fuzzer-no-link) engine=(-fsanitize=fuzzer)
else
  # libFuzzer is clang's: our own driver changes the seeds at random instead, without looking at coverage
  compiler=(g++) reach=() engine=("$root/tests/fuzz/driver.cpp")
fi
launcher=()
if command -v ccache >/dev/null; then launcher=(ccache); fi

# Of rooms that stand on no other library but small ones, all.
whole=()
for room in base request; do
  for file in "$root/src/$room"/*.cpp; do
    name=${file#"$root/src/"}
    [[ $name == *_test.cpp ]] || whole+=("${name%.cpp}")
  done
done
libraries=(-lyaml-cpp -lspdlog -lfmt -lcrypto)
readers=("${whole[@]}" weights/{tensor_file,safetensors_header,safetensors_writer,gguf,decode,reduced}
  app/settings/config http/{form,message} server/{router,api_error,api_fields,api_field_list,json_values,json_body})
tests=(weights/safetensors_test request/prompts_test app/settings/config_test http/form_test server/router_test server/api_fields_test)
objects() { printf '%s.o ' "${@//\//_}"; }

compile() { # FILE OBJECT
  "${launcher[@]}" "${compiler[@]}" "${flags[@]}" "${reach[@]}" -c "$1" -o "$2" >"$2.log" 2>&1 ||
    { tail -n 20 "$2.log"; echo "FAILED  $1 does not compile"; return 1; }
}
export -f compile
running=()
failed=0
# Two at a time: one compiler takes half a GiB.
for name in "${readers[@]}" "${tests[@]}"; do
  compile "$root/src/$name.cpp" "$(objects "$name" | tr -d ' ')" &
  running+=($!)
  if ((${#running[@]} == 2)); then
    wait "${running[0]}" || failed=1
    running=("${running[1]}")
  fi
done
for job in "${running[@]}"; do wait "$job" || failed=1; done
((failed == 0)) || exit 1
echo "compiled after $SECONDS s by ${compiler[0]}"

# shellcheck disable=SC2046
"${compiler[@]}" "${flags[@]}" $(objects "${readers[@]}" "${tests[@]}") -lgmock_main -lgmock -lgtest "${libraries[@]}" -o tests
if ./tests --gtest_brief=1 --gtest_filter='-*Slow*' >tests.log 2>&1; then
  echo "ok      tests: $(grep -E '^\[  PASSED' tests.log)"
else
  grep -E '^\[  FAILED|ERROR: AddressSanitizer|runtime error|^SUMMARY|Failure' -A 6 tests.log | head -n 40
  echo "FAILED  tests (all of it: $build/tests.log)"
  failed=1
fi

fuzz() { # TARGET SECONDS: its exit code; what it said is in TARGET/log
  local target=$1 folder=$build/$1
  rm -rf "$folder"
  mkdir -p "$folder/found"
  # shellcheck disable=SC2046
  "${compiler[@]}" "${flags[@]}" "${reach[@]}" "$root/tests/fuzz/$target.cpp" "${engine[@]}" $(objects "${readers[@]}") \
    "${libraries[@]}" -o "$folder/target" >"$folder/log" 2>&1 || return 2
  cd "$folder"
  if [[ ${engine[0]} == -fsanitize=fuzzer ]]; then
    ./target -seed=1 -max_total_time="$2" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      found "$root/tests/fuzz/seeds/$target" >log 2>&1
  else
    ./target "$2" "$root/tests/fuzz/seeds/$target" >log 2>&1
  fi
}

for kind in planted planted_overflow; do
  if (fuzz "$kind" 20); then
    echo "FAILED  the bug in tests/fuzz/$kind.cpp was not found: nothing here can be trusted"
    failed=1
  elif grep -qE 'heap-buffer-overflow|signed integer overflow' "$kind/log"; then
    echo "ok      $kind: found as $(grep -oE 'heap-buffer-overflow|signed integer overflow' "$kind/log" | head -n 1)"
  else
    tail -n 20 "$kind/log"
    echo "FAILED  fuzz $kind ended otherwise than by its bug"
    failed=1
  fi
done
for target in safetensors gguf reduced json prompts form draft; do
  if (fuzz "$target" "$seconds"); then
    echo "ok      fuzz $target: $(grep -E '^Done' "$target/log" | tail -n 1)"
  else
    grep -E 'ERROR|runtime error|SUMMARY|^ +#[0-9]+ .*(atelier|LLVMFuzzerTestOneInput|require)' "$target/log" | head -n 20 || tail -n 20 "$target/log"
    echo "FAILED  fuzz $target (inputs and log: $build/$target)"
    failed=1
  fi
done
echo "took $SECONDS s"
exit "$failed"
