# shellcheck shell=bash disable=SC2154
# Messages, progress and the log of the set-up; sourced by setup.sh.

say() { printf 'atelier set-up: %s\n' "$*"; }

# stop MESSAGE...: one line per argument, then exit 2.
stop() {
  clear_progress
  say "$1"
  shift
  if (($#)); then printf '  %s\n' "$@"; fi
  exit 2
}

# stop_with_log WHAT ADVICE: the first failed step of a build, or else the end of the log; then what failed and what to do.
stop_with_log() {
  clear_progress
  printf '  | %s\n' "from $log:"
  if grep -q '^FAILED' "$log"; then
    sed -n '/^FAILED/,$p' "$log" | grep -vE '^\[[0-9]+/[0-9]+ ' | head -n 30
  else
    tail -n 30 "$log"
  fi | cut -c1-300 | sed 's/^/  | /'
  stop "$1" "$2"
}

# A line that replaces itself on a terminal; elsewhere one line for each new tenth.
progress_tenth=-1
progress() { # percent text
  if [[ -t 1 ]]; then
    printf '\r\033[Katelier set-up: %s' "$2"
  elif (($1 / 10 != progress_tenth)); then
    say "$2"
    progress_tenth=$(($1 / 10))
  fi
}
clear_progress() {
  if [[ -t 1 ]]; then printf '\r\033[K'; fi
  progress_tenth=-1
}

# logged COMMAND...: runs it with its output in the log.
logged() {
  printf '\n$ %s\n' "$*" >>"$log"
  "$@" >>"$log" 2>&1 9>&-
}

megabytes_in() { du -sm "$@" 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }'; }

# Compiles run at once: one per core, but no more than memory carries (a libtorch file takes 1.5 GB at its worst).
parallel_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
  ((memory < 1)) && memory=1
  echo $((cores < memory ? cores : memory))
}
