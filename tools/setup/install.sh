#!/usr/bin/env bash
# ./atelier install: links the program and the names that other tools' commands have, so that they run from any folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
source "$root/tools/setup/common.sh"

usage() {
  cat <<'END'
usage: ./atelier install --prefix DIR [--scripts FOLDER] [--remove] [--dry_run]

  --prefix DIR      links in DIR/bin, modules for Python in DIR/lib/atelier, and DIR/bin/atelier-env.sh, to be sourced
  --scripts FOLDER  links the scripts into this folder too: python SCRIPT.py looks for them where it is called
  --remove          takes these links away again, and nothing else
  --dry_run         only says what would be done

The links lead to this checkout, which is built by the first command. DIR is a folder such as ~/.local.
END
}

# What is linked: place below the prefix, and what it leads to in the checkout.
links=(
  bin/atelier=atelier
  bin/diffgentor=atelier
  bin/generate_images.py=generate_images.py
  bin/generate_images_multi_gpu.py=generate_images_multi_gpu.py
  bin/generate_images_dataparallel.py=generate_images_dataparallel.py
  bin/test_xdit_usp.py=comfyui/test_xdit_usp.py
  bin/install_xdit_usp.sh=comfyui/install_xdit_usp.sh
  lib/atelier/xdit=xdit
)
prefix="" scripts="" is_removal=no is_dry=no
while (($#)); do
  word=$1 value=""
  shift
  if [[ $word == --*=* ]]; then
    value=${word#*=} word=${word%%=*}
    [[ -n $value ]] || stop "$word needs a folder"
  elif [[ $word == --prefix || $word == --scripts ]]; then
    (($#)) && [[ -n $1 && $1 != --* ]] || stop "$word needs a folder"
    value=$1
    shift
  fi
  case ${word//-/_} in
    __prefix) prefix=$value ;;
    __scripts) scripts=$value ;;
    __remove) is_removal=yes ;;
    __dry_run) is_dry=yes ;;
    __help | _h) usage; exit 0 ;;
    *) stop "install knows no $word" "see ./atelier install --help" ;;
  esac
done
[[ -n $prefix ]] || stop "install needs --prefix DIR, such as --prefix ~/.local"
prefix=$(realpath -ms -- "$prefix")
[[ -z $scripts ]] || scripts=$(realpath -ms -- "$scripts")

places=() # PLACE=TARGET, absolute
for entry in "${links[@]}"; do
  places+=("$prefix/${entry%%=*}=$root/${entry#*=}")
  if [[ -n $scripts && $entry == bin/*[._]*=* ]]; then places+=("$scripts/$(basename "${entry%%=*}")=$root/${entry#*=}"); fi
done
settings=$prefix/bin/atelier-env.sh
mark="# Made by atelier install; to be sourced."

is_ours() { [[ -L $1 && $(readlink -- "$1") == "$2" ]]; }
is_our_file() { [[ -f $settings && $(head -n 1 -- "$settings") == "$mark" ]]; }

# Nothing of somebody else is replaced, and nothing is done by halves: all places are looked at first.
taken=()
for entry in "${places[@]}"; do
  place=${entry%%=*} target=${entry#*=}
  [[ -e $target ]] || stop "$target is missing: the checkout is not whole"
  if [[ -e $place || -L $place ]] && ! is_ours "$place" "$target"; then taken+=("$place"); fi
done
if [[ -e $settings ]] && ! is_our_file; then taken+=("$settings"); fi

if [[ $is_removal == yes ]]; then
  for entry in "${places[@]}"; do
    place=${entry%%=*} target=${entry#*=}
    is_ours "$place" "$target" || continue
    say "remove $place"
    [[ $is_dry == yes ]] || rm -- "$place"
  done
  if is_our_file; then
    say "remove $settings"
    [[ $is_dry == yes ]] || rm -- "$settings"
  fi
  [[ $is_dry == yes ]] || rmdir -- "$prefix/lib/atelier" 2>/dev/null || true
  exit 0
fi

if ((${#taken[@]})); then
  stop "these exist and are not links to this checkout:" "${taken[@]}" "move them away, or choose another --prefix"
fi
for entry in "${places[@]}"; do
  place=${entry%%=*} target=${entry#*=}
  say "link $place -> $target"
  [[ $is_dry == no ]] || continue
  mkdir -p -- "$(dirname "$place")" || stop "cannot make $(dirname "$place")" "choose a --prefix that you may write to"
  is_ours "$place" "$target" || ln -s -- "$target" "$place" || stop "cannot link $place"
done
say "write $settings"
if [[ $is_dry == no ]]; then
  cat >"$settings" <<END
$mark
export PATH=$(printf '%q' "$prefix/bin"):\$PATH
export PYTHONPATH=$(printf '%q' "$prefix/lib/atelier")\${PYTHONPATH:+:\$PYTHONPATH}
END
fi
say "now: source $(printf '%q' "$settings")"
