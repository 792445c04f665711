#!/usr/bin/env bash
# Compares the program with recorded values: the cases in tests/goldens and, where that folder is found, further ones of
# $ATELIER_GOLDENS or ../shared/goldens. A first argument is the device: goldens.sh cuda.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
atelier=${ATELIER:-$here/../build/cpu/src/atelier}
more=${ATELIER_GOLDENS:-$here/../../shared/goldens}
device=${1:-cpu}
failed=0 absent=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Prints the last line of the comparison, or the rows that are wrong.
check() { # folder options...
  local folder=$1 status=0
  shift
  "$atelier" verify "$folder" --device "$device" "$@" >"$scratch/log" 2>&1 || status=$?
  if ((status == 0)) && tail -n 1 "$scratch/log" | grep -qE '^[1-9][0-9]* compared, 0 failed, 0 missing$'; then
    echo "ok      ${folder##*/} $*: $(tail -n 1 "$scratch/log")"
    return
  fi
  failed=1
  grep -vE ' ok( |$)' "$scratch/log" | tail -n 20 || true
  echo "FAILED  ${folder##*/} $* (exit $status)"
}

# The same for a case that may not be there.
check_more() { # case options...
  if [[ -f $more/$1/golden.json ]]; then
    check "$more/$1" "${@:2}"
  else
    absent+=("$1")
  fi
}

# Layouts of two ranks: on the CPU always, else where two devices are.
pair=yes
if [[ $device == cuda && $(nvidia-smi -L 2>/dev/null | wc -l) -lt 2 ]]; then pair=; fi

check "$here/goldens/flux_dev"
check "$here/goldens/flux_dev" --torch_dtype bfloat16
check "$here/goldens/schedulers"
for case in flux_two_branches vae_sizes scheduler_formulas encoder_forms pixart_small flux_edits sdxl_adapters wan_vae_small; do check "$here/goldens/$case"; done
for case in flux_cached wan_cached; do
  check "$here/goldens/$case"
  if [[ $pair ]]; then check "$here/goldens/$case" --strategy "ulysses=2"; fi
done
for case in sd3_small hunyuan_small sdxl_small; do
  check "$here/goldens/$case"
  check "$here/goldens/$case" --torch_dtype bfloat16
done
check_more flux_schnell
check_more flux_schnell --torch_dtype bfloat16
check_more vae_kl
check_more text_encoders
check_more tokenizers
check_more pixart_sigma
check_more pixart_sigma --torch_dtype bfloat16
for case in sd3_medium sd35_medium hunyuan_dit hunyuan_dit_v12 sdxl flux_lora sdxl_lora; do check_more "$case"; done

# A comparison that cannot fail says nothing: another guidance must show, and end with 1.
cp -r "$here/goldens/flux_dev" "$scratch/changed"
sed -i 's/"guidance_scale": 3.5/"guidance_scale": 3.6/' "$scratch/changed/golden.json"
status=0
"$atelier" verify "$scratch/changed" --device "$device" >"$scratch/log" 2>&1 || status=$?
if ((status != 1)) || ! grep -q 'step0.model_out.* FAILED' "$scratch/log"; then
  echo "FAILED  a changed case: exit $status instead of 1"
  failed=1
fi

# A formula that cannot be computed is a folder that cannot be used: 2, with the symbol.
cp -r "$here/goldens/scheduler_formulas" "$scratch/formula"
sed -i 's/"model_function": ".*"/"model_function": "0.1 * x_in + erf(t)"/' "$scratch/formula/golden.json"
status=0
"$atelier" verify "$scratch/formula" --device "$device" >"$scratch/log" 2>&1 || status=$?
if ((status != 2)) || ! grep -q 'at erf:' "$scratch/log"; then
  echo "FAILED  a formula with erf: exit $status instead of 2"
  failed=1
fi

if [[ -z $pair ]]; then echo "not there: a second GPU for layouts of two"; fi
if ((${#absent[@]})); then
  mapfile -t absent < <(printf '%s\n' "${absent[@]}" | sort -u)
  echo "not there (looked in $more): ${absent[*]}"
fi
exit "$failed"
