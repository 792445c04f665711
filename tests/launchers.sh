#!/usr/bin/env bash
# The same pictures under torchrun, mpirun, srun's environment, --span_nodes, over network namespaces and without a
# common disk as when the program starts its own ranks. Launchers that are not installed are left out.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
atelier=${ATELIER:-$root/build/cpu/src/atelier}
torchrun=${TORCHRUN:-$(command -v torchrun || echo "$root/.venv/bin/torchrun")}
[[ -e $root/models/mini ]] || { echo "models/mini is not there"; exit 77; }

work=$(mktemp -d)
spaces=()
end() {
  for space in "${spaces[@]}"; do ip netns delete "$space" 2>/dev/null || true; done
  rm -rf "$work"
}
trap end EXIT
fail() {
  echo "FAILED: $1"
  for log in "$work"/*.log; do echo "== $log"; tail -n 30 "$log"; done
  exit 1
}
printf 'a red circle\na blue square\n' >"$work/prompts.txt"
command=("$atelier" t2i --model_name "$root/models/mini" --device cpu --prompts_file "$work/prompts.txt" --seed 1
  --height 128 --width 128 --num_inference_steps 2 --true_cfg_scale 1)
layout=(--strategy ulysses=2)

# Products of matrices add up in another order with another number of threads; the last bit of a value may follow.
export OMP_NUM_THREADS=1

same_pictures() { # name
  for picture in 000000.png 000001.png; do
    cmp "$work/own/$picture" "$work/$1/$picture" || fail "$1: $picture differs or is missing"
  done
  ! pgrep -f "$work/$1" >/dev/null || fail "$1: processes are left"
  echo "passed: $1"
}

"${command[@]}" "${layout[@]}" --output_dir "$work/own" >"$work/own.log" 2>&1 || fail "a run of its own"

# What torchrun gives its processes: its own needs all of torch's Python half, which the program does without.
torchrun_rank() { # rank, port, then the command
  env RANK="$1" WORLD_SIZE=2 LOCAL_RANK="$1" LOCAL_WORLD_SIZE=2 GROUP_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT="$2" \
    TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=0 TORCHELASTIC_MAX_RESTARTS=0 "${@:3}"
}
torchrun_pair() { # name, port, then variables and the command
  torchrun_rank 1 "$2" "${@:3}" --output_dir "$work/$1" >"$work/$1_1.log" 2>&1 &
  local follower=$!
  torchrun_rank 0 "$2" "${@:3}" --output_dir "$work/$1" >"$work/$1_0.log" 2>&1 || fail "$1, rank 0"
  wait $follower || fail "$1, rank 1"
  same_pictures "$1"
}
torchrun_pair torchrun_environment 28400 "${command[@]}" "${layout[@]}"
torchrun_pair torchrun_environment_kill 28420 env ATELIER_FAULT=1:step:1:kill "${command[@]}" "${layout[@]}"

# One process of two: within seconds it says who is waited for, where, and which variables say so.
lonely() { # rank, words
  local log=$work/lonely_$1.log
  torchrun_rank "$1" 28440 "${command[@]}" "${layout[@]}" --output_dir "$work/lonely" >"$log" 2>&1 &
  local process=$!
  for _ in $(seq 50); do
    grep -q "waiting for" "$log" && break
    sleep 0.1
  done
  # the shell around it keeps its children
  pkill -P $process 2>/dev/null || kill $process 2>/dev/null || true
  local told=$SECONDS
  wait $process 2>/dev/null || true
  ((SECONDS - told <= 5)) || fail "rank $1 alone goes on for $((SECONDS - told)) s after SIGTERM"
  grep "waiting for" "$log" | grep -q "$2.*127.0.0.1.*28441.*RANK=$1 WORLD_SIZE=2" || fail "rank $1 alone says nothing within 5 s"
  echo "passed: rank $1 alone says who is waited for"
}
lonely 0 "rank 1 of 2"
lonely 1 "rank 0"

if "$torchrun" --help >/dev/null 2>&1; then
  "$torchrun" --no-python --nproc_per_node 2 "${command[@]}" "${layout[@]}" --output_dir "$work/torchrun" \
    >"$work/torchrun.log" 2>&1 || fail "torchrun"
  same_pictures torchrun
  ATELIER_FAULT=1:step:1:kill "$torchrun" --no-python --nproc_per_node 2 "${command[@]}" "${layout[@]}" \
    --output_dir "$work/torchrun_kill" >"$work/torchrun_kill.log" 2>&1 || fail "torchrun with a killed worker"
  same_pictures torchrun_kill
else
  echo "left out: torchrun itself does not run here; its environment was tried above"
fi

if command -v mpirun >/dev/null; then
  mpi=(mpirun --oversubscribe)
  ((EUID)) || mpi+=(--allow-run-as-root)
  "${mpi[@]}" -n 2 "${command[@]}" "${layout[@]}" --output_dir "$work/mpirun" >"$work/mpirun.log" 2>&1 || fail "mpirun"
  same_pictures mpirun
  code=0
  "${mpi[@]}" -n 3 "${command[@]}" "${layout[@]}" --output_dir "$work/mismatch" >"$work/mismatch.log" 2>&1 || code=$?
  ((code != 0)) && grep -q "3 are asked for" "$work/mismatch.log" || fail "three processes for two ranks: exit code $code"
  echo "passed: three processes for two ranks are refused"
else
  echo "left out: mpirun is not installed"
fi

srun_rank() { # rank, then the command
  env SLURM_PROCID="$1" SLURM_LOCALID="$1" SLURM_NTASKS=2 SLURM_JOB_ID=$$ SLURM_NNODES=1 \
    SLURM_JOB_NODELIST=localhost "${@:2}"
}
srun_rank 1 "${command[@]}" "${layout[@]}" --output_dir "$work/srun" >"$work/srun_1.log" 2>&1 &
follower=$!
srun_rank 0 "${command[@]}" "${layout[@]}" --output_dir "$work/srun" >"$work/srun_0.log" 2>&1 || fail "srun, rank 0"
wait $follower || fail "srun, rank 1"
[[ ! -s $work/srun_1.log ]] || fail "srun: rank 1 prints"
same_pictures srun

# A process that is lost for good: the other ends soon, and what was not drawn is a failure.
lost_process() {
  local run=("${command[@]}" "${layout[@]}" --num_inference_steps 200 --output_dir "$work/lost") leader follower code=0
  srun_rank 0 "${run[@]}" >"$work/lost_0.log" 2>&1 &
  leader=$!
  srun_rank 1 "${run[@]}" >"$work/lost_1.log" 2>&1 &
  follower=$!
  sleep 3
  pkill -9 -P "$follower"  # it is the shell around the process
  local start=$EPOCHREALTIME
  wait "$leader" || code=$?
  local took=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
  ((code == 1)) || fail "a lost process: exit code $code"
  ((took < 4000)) || fail "a lost process: the leader ended after $took ms"
  python3 -c "import json, sys; sys.exit(json.load(open('$work/lost/report.json'))['pictures']['failed'] != 2)" ||
    fail "a lost process: not two failed pictures in report.json"
  sleep 0.3
  ! pgrep -f "$work/lost" >/dev/null || fail "a lost process: processes are left"
  echo "passed: a lost process ends the run after $took ms"
}
lost_process

span() { # name, address, command before the second node, then before the first
  local name=$1 address=$2 second=$3 first=$4
  local node=("${command[@]}" --span_nodes --num_nodes 2 --num_gpus 2 "${layout[@]}" --master_addr "$address"
    --master_port $((20000 + $$ % 10000)) --output_dir "$work/$name")
  $second "${node[@]}" --node_rank 1 >"$work/${name}_1.log" 2>&1 &
  local other=$!
  $first "${node[@]}" --node_rank 0 >"$work/${name}_0.log" 2>&1 || fail "$name, node 0"
  wait $other || fail "$name, node 1"
  same_pictures "$name"
}
span loopback 127.0.0.1 "" ""

# Two hosts as far as the output folder is concerned: the second node has a file system of its own there. Every picture
# lies with the node that drew it, and the first one's record has them all.
apart() { # name, prompts, layout
  local folder=$work/$1 other=$work/$1.other
  mkdir "$folder" "$other"
  local node=("${command[@]}" --prompts_file "$2" --span_nodes --num_nodes 2 --num_gpus 2 --strategy "$3"
    --master_addr 127.0.0.1 --master_port $((20000 + $$ % 10000)) --output_dir "$folder")
  unshare --mount bash -c 'mount -t tmpfs tmpfs "$1" || exit 1
    code=0; "${@:3}" || code=$?; cp -a "$1/." "$2"; exit $code' _ "$folder" "$other" "${node[@]}" --node_rank 1 \
    >"$work/$1_1.log" 2>&1 &
  local process=$!
  "${node[@]}" --node_rank 0 >"$work/$1_0.log" 2>&1 || fail "$1, node 0"
  wait $process || fail "$1, node 1"
  python3 - "$folder" "$other" "$work/own_$1" >"$work/$1.log" 2>&1 <<'END' || fail "$1: pictures and record disagree"
import hashlib, json, sys
from pathlib import Path
first, other, own = map(Path, sys.argv[1:])
lines = [json.loads(line) for line in (first / "ledger.jsonl").read_text().splitlines()]
drawn = json.loads((first / "report.json").read_text())["pictures"]["drawn"]
expected = sorted(p.name for p in own.glob("*.png"))
assert sorted(line["name"] for line in lines) == expected, lines
assert drawn == len(expected), drawn
for line in lines:
    places = [folder / line["name"] for folder in (first, other) if (folder / line["name"]).exists()]
    assert len(places) == 1, places
    picture = places[0].read_bytes()
    assert len(picture) == line["bytes"] and hashlib.sha256(picture).hexdigest() == line["sha256"], places
    assert picture == (own / line["name"]).read_bytes(), places
on_each = [len(list(folder.glob("*.png"))) for folder in (first, other)]
assert sum(on_each) == len(expected) and not (other / "ledger.jsonl").exists(), on_each
print(*on_each)
END
  ! pgrep -f "$folder" >/dev/null || fail "$1: processes are left"
  echo "passed: $1, pictures on each node: $(<"$work/$1.log")"
}
mkdir "$work/probe"
if unshare --mount mount -t tmpfs tmpfs "$work/probe" 2>/dev/null; then
  for i in $(seq 12); do echo "a red circle, number $i"; done >"$work/many.txt"
  for one in "no_common_disk prompts ulysses=2" "no_common_disk_data many data=2"; do
    read -r name prompts strategy <<<"$one"
    "${command[@]}" --prompts_file "$work/$prompts.txt" --strategy "$strategy" --output_dir "$work/own_$name" \
      >"$work/own_$name.log" 2>&1 || fail "$name: a run of its own"
    apart "$name" "$work/$prompts.txt" "$strategy"
  done
  [[ $(<"$work/no_common_disk_data.log") != *" 0" ]] || fail "no_common_disk_data: the second node drew nothing"
else
  echo "left out: mount namespaces need root and unshare"
fi

# Two hosts as far as the network is concerned.
a=atelier-a-$$ b=atelier-b-$$
if ip netns add "$a" 2>/dev/null; then
  spaces=("$a" "$b")
  ip netns add "$b"
  ip link add "va$$" netns "$a" type veth peer name "vb$$" netns "$b"
  ip -n "$a" address add 10.77.0.1/24 dev "va$$"
  ip -n "$b" address add 10.77.0.2/24 dev "vb$$"
  for space in "$a" "$b"; do ip -n "$space" link set lo up; done
  ip -n "$a" link set "va$$" up
  ip -n "$b" link set "vb$$" up
  span namespaces 10.77.0.1 "ip netns exec $b" "ip netns exec $a"
else
  echo "left out: network namespaces need root and ip"
fi
