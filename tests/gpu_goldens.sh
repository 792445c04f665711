#!/usr/bin/env bash
# The recorded cases of tests/goldens.sh on a GPU: float32 without TF32, and the denoiser in bfloat16.
set -euo pipefail
exec bash "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/goldens.sh" cuda
