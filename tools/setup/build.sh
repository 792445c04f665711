# shellcheck shell=bash disable=SC2154
# Configures by CMake and builds by Ninja with a short progress line; sourced by setup.sh.

configure() {
  local options=(
    "-DATELIER_TORCH=$torch"
    "-DATELIER_LIBRARY_FOLDERS=$(IFS=';'; echo "${library_folders[*]}")"
    "-DATELIER_CUDA=$([[ $variant == cuda ]] && echo ON || echo OFF)"
  )
  if [[ $variant == cuda ]]; then
    options+=("-DCMAKE_CUDA_COMPILER=$cuda_home/bin/nvcc" "-DCUDAToolkit_ROOT=$cuda_home")
    if [[ -n ${ATELIER_CUDA_ARCHITECTURES:-} ]]; then
      options+=("-DATELIER_CUDA_ARCHITECTURES=$ATELIER_CUDA_ARCHITECTURES")
    fi
  fi
  # Once it is configured it stays: otherwise each call would undo the other's.
  if builds_server "${targets[*]}" || grep -qsx -- -DATELIER_SERVER=ON "$build/configured"; then
    options+=(-DATELIER_SERVER=ON)
  fi
  local wanted
  wanted=$(printf '%s\n' "$root" "${options[@]}")
  # The libraries of a module that is asked for may have come since.
  local is_new_module=no
  [[ " ${targets[*]} " == *" atelier_ffmpeg "* && ! -e $build/src/atelier_ffmpeg.so ]] && is_new_module=yes
  [[ $is_new_module == no && -f $build/build.ninja && $(cat "$build/configured" 2>/dev/null) == "$wanted" ]] && return
  say "configuring build/$variant"
  rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"
  if ! logged cmake -S "$root" -B "$build" -G Ninja "${options[@]}"; then
    stop_with_log "CMake could not configure build/$variant" \
      "install what it names above; if it makes no sense to you, remove build/ and .venv/ and run again"
  fi
  echo "$wanted" >"$build/configured"
}

# Reads Ninja's lines "[done/total seconds] what" and turns them into progress.
follow_ninja() {
  local line steps total seconds left
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\ +([0-9]+) ]] || continue
    steps=${BASH_REMATCH[1]} total=${BASH_REMATCH[2]} seconds=${BASH_REMATCH[3]}
    # A step or two is over before a line about it is read.
    ((total < 4)) && continue
    left=""
    if ((seconds > 5 && steps < total)); then left=", about $(((seconds * (total - steps) / steps + 59) / 60)) min left"; fi
    progress $((steps * 100 / total)) "building $steps of $total$left"
  done
  clear_progress
}

build_targets() {
  local started=$SECONDS newest=$build/built.new jobs
  jobs=$(parallel_jobs)
  # Dated before the build: a source saved while it runs is newer, and is built next time.
  printf '%s' "$torch" >"$newest"
  if [[ ! -f $build/built ]]; then
    say "building build/$variant with $jobs compilers at once; this is done once and takes about $(expected_minutes "$jobs") min (log: build/setup.log)"
  fi
  export NINJA_STATUS='[%f/%t %e] '
  if ! cmake --build "$build" --parallel "$jobs" --target "$@" 2>&1 9>&- | follow_ninja; then
    stop_with_log "the build failed" "after a fix, run the same command again: it goes on where it stopped"
  fi
  if [[ -x $build/src/atelier ]]; then
    if [[ -f $build/built ]]; then :; else say "built in $((SECONDS - started)) s"; fi
    if builds_server "$*"; then cp -p "$newest" "$build/built-serve"; fi
    mv "$newest" "$build/built"
  else
    rm -f "$newest"
  fi
}

# Core-minutes of a clean build, measured, over the compilers that run at once.
expected_minutes() {
  local core_minutes=12
  [[ $variant == cuda ]] && core_minutes=30
  echo $(((core_minutes + $1 - 1) / $1))
}
