#!/usr/bin/env bash
# Installs what is missing and builds the named targets: setup.sh cpu|cuda TARGET...
# Everything it makes lies in .venv/ and build/ of the checkout; the full log is build/setup.log.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
variant=$1
shift
targets=("$@")
build=$root/build/$variant
log=$root/build/setup.log

source "$root/tools/setup/common.sh"
source "$root/tools/setup/system.sh"
source "$root/tools/setup/wheels.sh"
source "$root/tools/setup/build.sh"

case $variant in
  cpu | cuda) ;;
  *) stop "ATELIER_BUILD is '$variant': it must be cpu or cuda" ;;
esac
if [[ $(uname -s) != Linux ]]; then
  stop "Atelier builds on Linux only; this is $(uname -s)"
fi
trap 'clear_progress; say "interrupted; the next run goes on from here"; exit 130' INT TERM
mkdir -p "$build" || stop "cannot write to $root/build: run from a checkout that you own"

# One set-up at a time; a second one waits and then finds the work done.
exec 9>"$root/build/setup.lock"
if ! flock -n 9; then
  say "waiting for another set-up in this folder to finish"
  flock 9
fi
: >"$log"

missing_of_system "${targets[*]}"
plan_wheels
announce
install_system
install_wheels
install_hopper_attention
install_clients
refuse_what_is_still_missing
configure
build_targets "${targets[@]}"
