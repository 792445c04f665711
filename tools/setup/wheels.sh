# shellcheck shell=bash disable=SC2154
# What comes from PyPI: torch, CUDA's libraries and compiler, CMake and Ninja where the distribution's cannot be installed. Sourced by
# setup.sh.

torch_version=2.11.0
cuda_version=13.0
venv=$root/.venv

torch=""             # torch's folder, once it is known
cuda_home=""         # the CUDA toolkit that compiles the kernels
library_folders=()   # where the program finds shared libraries beside torch's own
wheels=()            # what pip is to install
wheels_megabytes=0   # to download
wheels_unpacked=0

# want MEGABYTES MEGABYTES-UNPACKED SPEC...: versions are pinned, so their sizes are known.
want() {
  wheels_megabytes=$((wheels_megabytes + $1))
  wheels_unpacked=$((wheels_unpacked + $2))
  wheels+=("${@:3}")
}

works() { "$1" --version >/dev/null 2>&1; }

# Where torch lies in our own venv, and where a Python would find one (nothing is imported: that takes seconds).
# shellcheck disable=SC2012
torch_of_venv() { ls -td "$venv"/lib/python3*/site-packages/torch 2>/dev/null | head -n 1 || true; }
torch_of_python() {
  "$1" -c 'import importlib.util as u
s = u.find_spec("torch")
if s and s.submodule_search_locations: print(list(s.submodule_search_locations)[0])' 2>/dev/null || true
}

# A torch folder serves when it is the pinned release, complete, and has the CUDA half where that is asked for.
torch_serves() {
  [[ -n $1 && -e $1/lib/libtorch_cpu.so && -e $1/include/ATen/core/Tensor.h ]] || return 1
  grep -q "^__version__ = '${torch_version%.*}\." "$1/version.py" 2>/dev/null || return 1
  [[ $variant == cpu || -e $1/lib/libtorch_cuda.so ]]
}

find_torch() {
  local candidate python
  candidate=$(torch_of_venv)
  # The mark is written after pip is done: a download that broke off is done again.
  if [[ -e $venv/torch-$torch_version.complete ]] && torch_serves "$candidate"; then
    torch=$candidate
    return
  fi
  for python in python3 /usr/bin/python3; do
    command -v "$python" >/dev/null || continue
    candidate=$(torch_of_python "$python")
    if torch_serves "$candidate"; then
      torch=$candidate
      say "using the torch that is already here: $torch"
      return
    fi
  done
}

# Shared libraries that a library needs and the loader would not find, given the folders that we add. The user's
# LD_LIBRARY_PATH is left out: it may be another one when the program runs.
unresolved() { # library
  LD_LIBRARY_PATH=$(IFS=:; echo "${library_folders[*]}") ldd "$1" 2>/dev/null |
    awk '/not found/ { print $1 }'
}

our_cuda_libraries() { # the folders of our venv's CUDA wheels
  compgen -G "$venv/lib/python3*/site-packages/nvidia/*/lib" || true
}

# CUDA's runtime libraries: those that torch finds by itself, a system CUDA, our own wheels, in this order.
plan_libraries() {
  local half=libtorch_cpu.so
  [[ $variant == cuda ]] && half=libtorch_cuda.so
  mapfile -t library_folders < <(our_cuda_libraries)
  if [[ -n $torch ]]; then
    [[ -z $(unresolved "$torch/lib/$half") ]] && return
    library_folders+=("$(system_cuda)/lib64")
    [[ -z $(unresolved "$torch/lib/$half") ]] && return
    unset 'library_folders[-1]'
  fi
  if [[ $variant == cuda ]]; then
    want 1980 2720 "cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.0.2" \
      nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5
  elif [[ -n $torch ]] || ! system_has_runtime; then
    want 13 40 "nvidia-cuda-runtime==$cuda_version.*" "nvidia-cuda-cupti==$cuda_version.*"
  fi
}

system_cuda() { echo "${CUDA_HOME:-/usr/local/cuda}"; }

system_has_runtime() {
  [[ -e $(system_cuda)/lib64/libcudart.so.13 && -e $(system_cuda)/lib64/libcupti.so.13 ]]
}

# torch 2.11 is built for CUDA 13, so its kernels' neighbours are compiled by nvcc 13 too.
is_nvcc_13() { [[ -x $1 ]] && "$1" --version 2>/dev/null | grep -q 'release 13\.'; }

plan_compiler() {
  local candidate
  for candidate in "${CUDACXX:-}" "$(command -v nvcc || true)" "$(system_cuda)/bin/nvcc"; do
    if [[ -n $candidate ]] && is_nvcc_13 "$candidate"; then
      cuda_home=$(dirname "$(dirname "$(readlink -f "$candidate")")")
      return
    fi
  done
  candidate=$(compgen -G "$venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc" || true)
  if [[ -n $candidate ]] && is_nvcc_13 "$candidate"; then
    cuda_home=$(dirname "$(dirname "$candidate")")
    return
  fi
  want 105 300 "nvidia-cuda-nvcc==$cuda_version.*" "nvidia-cuda-crt==$cuda_version.*" "nvidia-nvvm==$cuda_version.*" \
    "nvidia-cuda-cccl==$cuda_version.*" "nvidia-cuda-runtime==$cuda_version.*"
}

plan_wheels() {
  PATH=$PATH:$venv/bin
  find_torch
  [[ -n $torch ]] || want 530 1180 "torch==$torch_version"
  plan_libraries
  if [[ $variant == cuda ]]; then plan_compiler; fi
  # Where the packages of the distribution cannot be installed, PyPI has these two.
  if ! can_install_packages; then
    works cmake || want 30 80 cmake
    works ninja || want 1 1 ninja
  fi
}

# Says what will be fetched, how big it is and how long it takes, before any of it begins.
announce() {
  local packages=$((${#missing_packages[@]} + ${#missing_helpers[@]}))
  if ((packages)) && can_install_packages; then
    say "missing from the system: ${missing_packages[*]} ${missing_helpers[*]}"
  elif ((${#missing_helpers[@]})); then
    say "going on without ${missing_helpers[*]} (they only make builds faster)"
  fi
  if ((${#wheels[@]})); then
    say "to fetch from PyPI into .venv: about $wheels_megabytes MB, $wheels_unpacked MB unpacked (${wheels[*]%%[=[]*})"
    local free needed=$((wheels_megabytes * 2 + wheels_unpacked + 500))
    free=$(df -Pm "$root" | awk 'NR == 2 { print $4 }')
    if ((free < needed)); then
      stop "$root has $free MB free; this set-up needs about $needed MB while it unpacks" \
        "free some space, or clone to a larger disk"
    fi
  fi
}

# Creates .venv, or mends one whose Python has been replaced; packages that are there stay.
make_venv() {
  if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  if logged python3 -m venv "$venv"; then return; fi
  # Debian keeps the pip that a venv starts with in python3-venv; without root, the system's own pip can stand in.
  local packages
  if logged python3 -m venv --without-pip "$venv"; then
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    if logged python3 -m pip install --target "$packages" pip; then return; fi
  fi
  stop_with_log "python3 can make no virtual environment" "ask for: sudo $(apt_command python3-venv)"
}

pip_install() { logged "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@"; }

# Shows megabytes until it is ended: downloads go through TMPDIR, which lies in build/ because /tmp may be small.
watch_pip() { # temporary-folder
  local before now fetched=0
  before=$(megabytes_in "$venv")
  while kill -0 $$ 2>/dev/null; do
    # pip keeps a second copy for a while, and removes both in the end
    now=$(megabytes_in "$1")
    ((now > fetched)) && fetched=$((now < wheels_megabytes ? now : wheels_megabytes))
    progress $((fetched * 100 / wheels_megabytes)) \
      "fetching from PyPI: $fetched of about $wheels_megabytes MB, unpacked $(($(megabytes_in "$venv") - before)) MB"
    sleep 1
  done
}

# Pure dependencies of torch's Python half (sympy, triton, ...) are not wanted; CUDA's meta package needs its own.
fetch_wheels() {
  pip_install --no-deps "${wheels[@]}" || return
  local meta
  meta=$(printf '%s\n' "${wheels[@]}" | grep '^cuda-toolkit' || true)
  if [[ -n $meta ]]; then pip_install "$meta"; fi
}

install_wheels() {
  if ((${#wheels[@]})); then
    make_venv
    export TMPDIR=$root/build/pip.tmp
    rm -rf "$TMPDIR"
    mkdir -p "$TMPDIR"
    watch_pip "$TMPDIR" 9>&- &
    local watcher=$! status=0
    trap 'kill $watcher 2>/dev/null || true' EXIT
    fetch_wheels || status=$?
    kill $watcher 2>/dev/null || true
    wait $watcher 2>/dev/null || true
    trap - EXIT
    clear_progress
    rm -rf "$TMPDIR"
    unset TMPDIR
    if ((status)); then
      stop_with_log "fetching from PyPI failed" \
        "check the network or proxy and run again; without a network, put the wheels in a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER"
    fi
    if [[ " ${wheels[*]} " == *" torch=="* ]]; then
      torch=$(torch_of_venv)
      touch "$venv/torch-$torch_version.complete"
    fi
    say "PyPI packages are in .venv"
  fi
  settle_cuda
}

# FlashAttention-3, which attention over many tokens takes on GPUs of compute capability 9 (src/nn/hopper_attention.h).
hopper_attention="fa3-fwd==0.0.3"
install_hopper_attention() {
  [[ $variant == cuda && $torch == "$venv"/* ]] || return 0
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -q '^9\.' || return 0
  if compgen -G "$venv/lib/python3*/site-packages/fa3_fwd/_C.abi3.so" >/dev/null; then return 0; fi
  pip_install --no-deps "$hopper_attention" || say "going on without $hopper_attention (long sequences take up to a fifth longer)"
}

# Clients that the server is tested with; without them those tests are skipped by name.
clients="openai==3.57.0 schemathesis==4.32.5"
install_clients() {
  builds_server "${targets[*]}" || return 0
  if "$venv/bin/python" -c 'import openai, schemathesis' 2>/dev/null; then return 0; fi
  make_venv
  # shellcheck disable=SC2086
  pip_install $clients || say "going on without $clients (tests with these clients are skipped)"
}

# Wheels carry libcudart.so.13 without the short name that a linker asks for, and lib where nvcc looks in lib64.
settle_cuda() {
  local folder half=libtorch_cpu.so
  [[ $variant == cuda ]] && half=libtorch_cuda.so
  for folder in $(our_cuda_libraries); do
    if [[ -e $folder/libcudart.so.13 ]]; then
      ln -sfn libcudart.so.13 "$folder/libcudart.so"
      ln -sfn lib "${folder%/lib}/lib64"
    fi
    [[ " ${library_folders[*]} " == *" $folder "* ]] || library_folders+=("$folder")
  done
  if [[ -n $(unresolved "$torch/lib/$half") ]]; then library_folders+=("$(system_cuda)/lib64"); fi
  local left
  left=$(unresolved "$torch/lib/$half")
  # The driver's own library is there only on machines with a GPU.
  left=$(grep -v '^libcuda\.so' <<<"$left" || true)
  if [[ -n $left ]]; then
    stop "torch at $torch needs libraries that are not here: ${left//$'\n'/ }" "remove .venv and run again, or install CUDA $cuda_version"
  fi
  if [[ $variant == cuda && -z $cuda_home ]]; then
    cuda_home=$(dirname "$(our_cuda_libraries | grep '/cu13/lib$')")
  fi
}
