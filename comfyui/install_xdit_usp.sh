#!/usr/bin/env bash
# Puts these nodes into a ComfyUI and checks that the engine is there.
#   install_xdit_usp.sh [--check-only] [--comfyui DIR] [--python EXE] [--portable DIR] [--copy]
#     --check-only    looks at everything and changes nothing
#     --comfyui DIR   the folder with ComfyUI's main.py (default: the one above custom_nodes, if this lies there)
#     --python EXE    ComfyUI's Python (default: DIR/venv or DIR/.venv, else python3)
#     --portable DIR  the folder of a portable build: its python_embeded and its ComfyUI
#     --copy          copies the nodes; default is a link, so that updates of this folder count
# Exit 0: all is there; 1: something is missing, and the lines say what to do. May be run again at any time.
set -uo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
check_only=no copy=no comfyui="" python="" portable=""
while (($#)); do
  case $1 in
    --check-only) check_only=yes; shift ;;
    --copy) copy=yes; shift ;;
    --comfyui) comfyui=${2:?--comfyui needs a folder}; shift 2 ;;
    --python) python=${2:?--python needs a program}; shift 2 ;;
    --portable) portable=${2:?--portable needs a folder}; shift 2 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "unknown: $1; see --help" >&2; exit 2 ;;
  esac
done

problems=0
good() { echo "ok       $*"; }
bad() { echo "MISSING  $*"; problems=$((problems + 1)); }
note() { echo "note     $*"; }

find_comfyui() {
  if [[ -n $portable ]]; then
    comfyui=${comfyui:-$portable/ComfyUI}
    for exe in "$portable/python_embeded/python" "$portable/python_embeded/python.exe"; do
      [[ -z $python && -x $exe ]] && python=$exe
    done
    [[ -n $python ]] || bad "a Python in $portable/python_embeded"
  fi
  if [[ -z $comfyui && $(basename "$(dirname "$here")") == custom_nodes ]]; then comfyui=$(dirname "$(dirname "$here")"); fi
  if [[ -z $comfyui ]]; then
    note "no ComfyUI was named (--comfyui DIR): only the engine and Python are looked at"
  elif [[ -e $comfyui/main.py && -d $comfyui/comfy ]]; then
    comfyui=$(cd "$comfyui" && pwd -P)
    good "ComfyUI $(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$comfyui/comfyui_version.py" 2>/dev/null) in $comfyui"
  else
    bad "$comfyui has no main.py and no comfy/: name ComfyUI's own folder with --comfyui"
    comfyui=""
  fi
  for exe in "${comfyui:-/nonexistent}/venv/bin/python" "${comfyui:-/nonexistent}/.venv/bin/python" "$(command -v python3 || true)"; do
    [[ -z $python && -x $exe ]] && python=$exe
  done
}

check_system() {
  if [[ $(uname -s) == Linux ]]; then good "Linux"; else bad "Linux: the engine runs there only; the nodes load elsewhere and say so"; fi
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    good "GPUs: $(nvidia-smi -L | wc -l)"
  else
    note "no NVIDIA GPU answers (nvidia-smi): set the config node's device to cpu to try the nodes with processes"
  fi
}

check_python() {
  if [[ -z $python ]]; then
    bad "a Python: name ComfyUI's with --python"
    return
  fi
  local missing
  missing=$("$python" -s -c '
import importlib.util
print(" ".join(n for n in ("torch", "numpy", "PIL", "safetensors") if importlib.util.find_spec(n) is None))' 2>/dev/null) ||
    { bad "$python cannot be run"; return; }
  if [[ -z $missing ]]; then
    good "Python packages of ComfyUI in $python"
  else
    bad "Python packages $missing in $python; ComfyUI's own requirements hold them: \"$python\" -s -m pip install -r requirements.txt, in ComfyUI's folder"
  fi
}

# Nodes that are copied, or will be, do not find the build beside this folder.
are_copied() {
  local target=${comfyui:-/nonexistent}/custom_nodes/atelier-xdit-usp
  [[ $here != "${comfyui:-/nonexistent}"/custom_nodes/* ]] || return
  [[ $copy == yes || ($check_only == yes && -d $target && ! -L $target) ]]
}

check_engine() {
  local program=${ATELIER:-$(command -v atelier || true)}
  for built in "$here"/../build/{cuda,cpu}/src/atelier; do
    [[ -z $program && -x $built ]] && ! are_copied && program=$built
  done
  if [[ -z $program || ! -x $program ]]; then
    bad "the engine: a program named atelier on PATH, or its path in the variable ATELIER; build it with ./atelier doctor in its folder"
  elif "$program" --version >/dev/null 2>&1; then
    good "$("$program" --version) at $program"
  else
    bad "$program does not run: $("$program" --version 2>&1 | tail -n 1)"
  fi
}

place_nodes() {
  [[ -n $comfyui ]] || return
  local target=$comfyui/custom_nodes/atelier-xdit-usp
  local is_here=no
  [[ $(readlink -f "$target" 2>/dev/null) == "$here" ]] && is_here=yes
  if [[ $here == "$comfyui"/custom_nodes/* || ($is_here == yes && ($copy == no || ! -L $target)) ]]; then
    good "the nodes are in $comfyui/custom_nodes"
  elif [[ -e $target && ! -e $target/nodes_xdit_usp_loader.py ]]; then
    bad "$target is something else: move it away"
  elif [[ $check_only == yes && ! -e $target ]]; then
    bad "the nodes are not in $comfyui/custom_nodes: run this without --check-only"
  elif [[ $check_only == yes ]]; then
    good "the nodes are in $target"
  else
    mkdir -p "$comfyui/custom_nodes" || { bad "cannot write to $comfyui/custom_nodes"; return; }
    rm -rf "$target"
    if [[ $copy == yes ]]; then
      cp -R "$here" "$target"
    else
      ln -s "$here" "$target"
    fi
    if [[ -e $target/nodes_xdit_usp_loader.py ]]; then good "the nodes are in $target"; else bad "cannot write $target"; fi
  fi
}

find_comfyui
check_system
check_python
check_engine
place_nodes
if ((problems)); then
  echo "$problems to be mended; then run this again"
  exit 1
fi
echo "all is there; restart ComfyUI, then look for XDit in the node search"
