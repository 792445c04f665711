#!/usr/bin/env bash
# A real ComfyUI on the CPU with the nodes of comfyui/, workflows posted to its API. The program is $ATELIER.
# The first run installs ComfyUI from PyPI into build/comfyui (2 to 5 GB); COMFYUI_TEST_HOME names another folder.
# Writes tests/results/comfyui.json. Exit 77: no ComfyUI can be had here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export ATELIER=${ATELIER:-$root/build/cpu/src/atelier}
home=${COMFYUI_TEST_HOME:-$root/build/comfyui}
[[ -x $ATELIER ]] || { echo "there is no program at $ATELIER"; exit 77; }
if ! bash "$root/tests/comfyui/start.sh" --home "$home" --install-only >"${TMPDIR:-/tmp}/comfyui-install.log" 2>&1; then
  echo "no ComfyUI can be installed here: $(tail -n 1 "${TMPDIR:-/tmp}/comfyui-install.log")"
  exit 77
fi
work=$(mktemp -d)
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work/nodes" "$work/models/"{checkpoints,diffusion_models,loras,diffusers,vae,text_encoders}
ln -s "$root/comfyui" "$work/nodes/atelier-xdit-usp"
ln -s "$root/tests/comfyui_nodes" "$work/nodes/atelier-test"
"$ATELIER" convert "$root/models/mini-video/transformer" "$work/models/diffusion_models/mini_video.safetensors" --to native
"$ATELIER" convert "$root/models/mini-video/vae" "$work/models/vae/mini_video_vae.safetensors" --to native
ln -s "$root/models/mini-video/text_encoder/model.safetensors" "$work/models/text_encoders/mini_video_umt5.safetensors"
"$home/venv/bin/python" "$root/tests/_comfyui_files.py" "$home/ComfyUI" "$work/models"
port=$("$home/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
started=$(bash "$root/tests/comfyui/start.sh" --home "$home" --port "$port" --base "$work/base" --custom-nodes "$work/nodes" \
  --models "$work/models" --detach -- --preview-method latent2rgb)
pid=$(sed -n 's/^pid //p' <<<"$started")
log=$(sed -n 's/^log //p' <<<"$started")
if ! "$home/venv/bin/python" "$root/tests/_comfyui_cases.py" "http://127.0.0.1:$port" "$pid" "$log" "$root/tests/results/comfyui.json"; then
  tail -n 60 "$log"
  exit 1
fi
