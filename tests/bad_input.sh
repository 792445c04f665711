#!/usr/bin/env bash
# What a user gets for bad input: one clear line, the right exit code, nothing half-written. The program is $ATELIER.
# Exit 0: all as it should be; 77: there is no program; else what was not.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
atelier=${ATELIER:-$root/build/cpu/src/atelier}
[[ -x $atelier ]] || { echo "no program at $atelier: build first"; exit 77; }
export ATELIER_SHARE=${ATELIER_SHARE:-$root} OMP_NUM_THREADS=1
unset HF_TOKEN HF_ENDPOINT HF_HUB_CACHE HUGGINGFACE_HUB_CACHE
helper=$root/tests/_bad_input.py
work=$(mktemp -d)
export HF_HOME=$work/hf
children=()
# shellcheck disable=SC2317
clean_up() {
  for child in "${children[@]}"; do kill "$child" 2>/dev/null; done
  cd / && rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
failed=0
fast=(--device cpu --height 64 --width 64 --num_inference_steps 1)
mini=(--model_name mini)

complain() {
  echo "FAILED: $1"
  [[ -f log ]] && grep -vE "^(model|draw|layout|device|seed|\[)" log | cut -c1-300 | tail -n 12 | sed "s/^/  | /"
  failed=1
}
draw() { "$atelier" t2i "${mini[@]}" "${fast[@]}" "$@" >log 2>&1; }

# CODE REGEX flags...: that exit code, and exactly one error, which says what the regex says.
expect() {
  local code=$1 regex=$2 status=0
  shift 2
  rm -rf out
  draw --output_dir out "$@" || status=$?
  ((status == code)) || complain "exit $status, not $code: t2i $*"
  [[ $code == 0 ]] || (($(grep -cE '^error' log) == 1)) || complain "not one error line: t2i $*"
  grep -qE -- "$regex" log || complain "no \"$regex\": t2i $*"
  # what is refused leaves no picture behind, and nothing ever leaves temporary files
  [[ $code == 0 || $code == 1 || -z $(find out -name '*.png' 2>/dev/null) ]] || complain "a picture: t2i $*"
  [[ -z $(find . -name '*.tmp' -print -quit) ]] || complain "temporary files: t2i $*"
}

check_models() {
  python3 "$helper" models "$root/models/mini" models || { complain "the damaged models"; return; }
  local name words
  while read -r name words; do
    expect 2 "error.*$words" --model_name "models/$name" --prompt x
  done <<'END'
truncated diffusion_pytorch_model.safetensors.*truncated.*download it again
empty only 0 bytes.*download it again
huge_header header claims 4611686018427387904 bytes.*download it again
no_header header is not that of a safetensors file
overlap "proj_out.weight".*inside another tensor
lying_shape "proj_out.weight": shape .* needs .* bytes, data_offsets give
missing do not fit the model .*1 missing
extra do not fit the model .*1 unknown
misshapen do not fit the model .*1 of another shape
nan do not fit the model .*1 with NaN or infinity
pickle pickle.*never read.*safetensors
no_weights transformer: holds no \*.safetensors
bad_config transformer/config.json is not valid JSON
family KandinskyPipeline; this build has FluxPipeline
no_index no_index.* model_index.json
no_vae no vae/config.json
nf4 4-bit weights of bitsandbytes.*fp8
eight_bit 8-bit integers of bitsandbytes
lora a LoRA.*--lora
gguf stored as Q2_K.*Q4_K
gguf_cut truncated.*download it again
unlike transformer takes states of .*joint_attention_dim.*text_encoder_2
END
  # which tensor it is, and what was needed
  expect 2 '"proj_out.bias" is missing, needs' --model_name models/missing --prompt x
  expect 2 '"proj_out.weight" needs .* found' --model_name models/misshapen --prompt x
  expect 2 '"proj_out.weight" holds NaN' --model_name models/nan --prompt x
  expect 2 'no such file or folder' --model_name ./absent --prompt x
  expect 2 'hf download black-forest-labs/FLUX.1-dev .*--download' --model_name FLUX.1-dev --prompt x
  expect 2 'hf download org/other.*flux' --model_name org/other --prompt x
  expect 2 'single file.*--base_model' --model_name "$root/models/mini/vae/diffusion_pytorch_model.safetensors" --prompt x
}

# Pictures that hold NaN are no results, and no reason for the ranks to part.
check_overflow() {
  local layout
  for layout in data=1 ulysses=2; do
    rm -rf out
    draw --model_name models/overflow --prompt x --num_images_per_prompt 3 --batch_size 1 --strategy "$layout" --output_dir out
    (($? == 1)) || complain "$layout: not exit 1 for pictures of NaN"
    (($(grep -cE '^error .*holds numbers out of range' log) == 3)) || complain "$layout: not three failed pictures"
    if grep -q restart log; then complain "$layout: the ranks were started again"; fi
    [[ -z $(find out -name '*.png') ]] || complain "$layout: a picture of NaN"
  done
}

check_flags() {
  expect 2 'nothing to draw: give --prompt TEXT or --prompts_file' --seed 1
  expect 2 'prompt.*is empty' --prompt ''
  expect 2 'prompt.*is not UTF-8' --prompt $'\xff'
  expect 2 'prompt needs a value' --prompt
  expect 2 '64x100.*multiples of 16: try 64x96' --height 100 --prompt x
  expect 3 'the pictures take .* MiB of memory are free' --height 65536 --width 65536 --prompt x
  expect 2 'max_sequence_length: 513 tokens.*at most 512' --max_sequence_length 513 --prompt x
  expect 2 'unknown flag --hieght; did you mean --height' --hieght 64 --prompt x
  expect 2 '--torch_dtype.*"int7" is unknown; choose float32' --torch_dtype int7 --prompt x
  expect 2 '--device tpu: unknown; choose auto, cpu' --device tpu --prompt x
  expect 2 '--device cuda:99: ' --device cuda:99 --prompt x
  expect 2 'unexpected argument "stray"' --prompt x stray2 --seed 1 stray
  expect 2 'code from model repositories is never run' --trust-remote-code --prompt x
  expect 2 'cannot read nothere.yaml' --config nothere.yaml --prompt x
  printf 'height: 64\nulysses_degre: 2\n' >typo.yaml
  expect 2 'typo.yaml:2: unknown key ulysses_degre; did you mean ulysses_degree' --config typo.yaml --prompt x
  DG_XDIT_RING_DEGREE=two expect 2 'DG_XDIT_RING_DEGREE in the environment: ring_degree must be an integer.*"two"' --prompt x
  expect 0 'note .*--quality .*png' --quality 80 --prompt x
  expect 0 'note .*--revision' --revision main --prompt x
  expect 0 'note .*--output_name_column' --output_name_column id --prompt x
  expect 0 'note .*--prompts_file' --prompts_file absent.txt --prompt x
  expect 0 'note .*--attention_backend' --attention_backend cudnn --prompt x
  expect 0 'note .*--guidance_scale' --guidance_scale 3.5 --prompt x
  expect 0 'note .*--use_parallel_vae' --use_parallel_vae --prompt x
  expect 0 'note .*--enable_tf32' --enable_tf32 --prompt x
  expect 0 'note .*--keep_changed' --keep_changed --no_resume --prompt x
  expect 0 'note .*--master_addr' --master_addr 127.0.0.1 --prompt x
  expect 0 'note .*--enable_vae_tiling decodes no tiles' --device cpu --num_gpus 2 --use_parallel_vae --enable_vae_tiling --prompt x
  expect 0 'decoded by the first rank, in tiles' --device cpu --num_gpus 2 --enable_vae_tiling --prompt x
  expect 0 'note .*--warmup_steps' --warmup_steps 3 --prompt x
}

check_prompt_files() {
  expect 2 'cannot read absent.jsonl' --prompts_file absent.jsonl
  expect 2 'x.parquet is not a prompt file: .jsonl, .json, .txt and .csv' --prompts_file x.parquet
  : >empty.txt
  expect 2 'holds no prompt' --prompts_file empty.txt
  printf '{"prompt": "x"}' >object.json
  expect 2 'must hold an array' --prompts_file object.json
  printf 'text\nx\n' >none.csv
  expect 2 'header line with the column "prompt"' --prompts_file none.csv
  {
    printf '%s\n' '{"prompt": "good"}' 'no json' '{"prompt": ""}' '{"text": "x"}' '{"prompt": "x", "height": 100}'
    printf '%s\n' '{"prompt": "x", "seed": -2}' '{"prompt": "x", "output_path": "../x.png"}' '{"prompt": "two", "index": 90}'
    printf '%s\n' '{"prompt": "x", "index": 90}' '{"prompt": "y", "index": 90, "output_path": "sub/y.png"}'
    printf '{"prompt": "\xff"}\n'
  } >rows.jsonl
  rm -rf out
  local status=0 line
  draw --output_dir out --prompts_file rows.jsonl || status=$?
  ((status == 1)) || complain "bad rows: exit $status, not 1"
  for line in '2: .*not valid JSON' '3: .*empty' '4: .*no prompt' '5: .*multiples of 16' '6: seed must be' \
    '7: .*leaves the output folder' '9: index 90 is already used' '11: .*not UTF-8'; do
    grep -qE "^error rows.jsonl:$line" log || complain "no error for rows.jsonl:$line"
  done
  (($(grep -c '^error' log) == 8)) || complain "not eight bad rows"
  local found
  found=$(cd out && find . -name '*.png' | sort | tr '\n' ' ')
  [[ $found == "./000000.png ./000090.png ./sub/y.png " ]] || complain "pictures of the good rows: $found"
}

# Pictures to begin with: each row fails alone, with its file and line.
check_pictures() {
  mkdir -p in
  draw --prompt x --seed 1 --output_dir made || complain "the picture to begin with"
  cp made/000000.png in/good.png
  head -c 300 in/good.png >in/cut.png
  echo x >in/text.png
  cp in/good.png in/bomb.png
  python3 "$helper" bomb in/bomb.png
  expect 0 '0.6|wrote' --image in/good.png --prompt x
  expect 0 'note .*is 64x64 and becomes 96x64' --image in/good.png --mask in/good.png --width 96 --strength 1 --prompt x
  expect 2 'there is no picture .*in/none.png' --image in/none.png --prompt x
  expect 2 'text.png: this is not a picture' --image in/good.png --mask in/text.png --prompt x
  expect 2 'a mask was given, but no image' --mask in/good.png --prompt x
  expect 2 'strength 0 of 1 steps leaves none' --image in/good.png --strength 0 --prompt x
  expect 2 'strength' --image in/good.png --strength 1.5 --prompt x
  {
    printf '{"prompt": "x", "image": "%s", "strength": 1}\n' in/good.png in/none.png in/cut.png in/bomb.png in in/text.png
    printf '{"prompt": "x", "strength": 1}\n{"prompt": "plain"}\n'
  } >edits.jsonl
  rm -rf out
  local status=0 line
  draw --output_dir out --prompts_file edits.jsonl || status=$?
  ((status == 1)) || complain "bad pictures: exit $status, not 1"
  for line in '2: there is no picture' '3: .*cut.png: ' '4: .*bomb.png: .*40000 x 50000 pixels' '5: .*not a file' \
    '6: .*text.png: ' '7: a strength was given, but no image'; do
    grep -qE "^error edits.jsonl:$line" log || complain "no error for edits.jsonl:$line"
  done
  (($(grep -c '^error' log) == 6)) || complain "not six bad rows"
  [[ -f out/000000.png && -f out/000007.png ]] || complain "the good rows are not drawn"
  # what the file holds decides, not its name
  cp in/good.png in/moved.png
  expect 0 'wrote' --image in/good.png --seed 1 --prompt x
  cp -r out again
  draw --output_dir again --image in/moved.png --seed 1 --prompt x
  grep -q '1 of 1 pictures are there' log || complain "another name draws again"
  draw --prompt y --seed 2 --output_dir made && cp made/000000.png in/moved.png
  draw --output_dir again --image in/moved.png --seed 1 --prompt x
  grep -q '0 of 1 pictures are there.*image_sha256' log || complain "another picture of the same name draws nothing"
  local help
  help=$("$atelier" edit --input x.csv --output_dir out 2>&1) && complain "edit: exit 0"
  grep -q 'families of this build that do: none.*sdxl.*t2i --image' <<<"$help" || complain "edit: $help"
}

check_output() {
  echo x >plain
  expect 2 'plain/x.*--output_dir' --output_dir plain/x --prompt x
  expect 2 '/proc/nothing.*--output_dir' --output_dir /proc/nothing --prompt x
  expect 2 'log file plain' --log_dir plain --prompt x
  mkdir -p taken/000000.png
  expect 1 '000000.png failed.*Is a directory' --output_dir taken --max_retries 0 --prompt x
  expect 2 'cannot write.*/proc/nothing.*--save_dummy' --model_name '' --dummy FLUX.1-schnell --save_dummy /proc/nothing
}

# On a file system of 200 KiB: pictures until it is full, then one line; what is there is whole.
check_full_disk() {
  local space=(unshare -m)
  ((EUID == 0)) || space=(unshare -rm)
  seq 1 100 >many.txt
  mkdir -p small
  if ! "${space[@]}" mount -t tmpfs -o size=200k none small 2>/dev/null; then
    echo "not checked: a full disk, since no small file system can be mounted here"
    return
  fi
  export atelier helper
  "${space[@]}" bash -c 'mount -t tmpfs -o size=200k none small || exit 9
    "$atelier" t2i --model_name mini --device cpu --height 64 --width 64 --num_inference_steps 1 --seed 1 \
      --prompts_file many.txt --output_dir small/out >log 2>&1
    echo "exit $?" >>log
    python3 "$helper" whole small/out/*.png || echo "a torn picture" >>log
    [[ -z $(find small -name "*.tmp") ]] || echo "temporary files" >>log
    "$atelier" t2i --dummy FLUX.1-schnell --save_dummy small/dummy >save.log 2>&1
    echo "exit $?" >>save.log
    [[ ! -e small/dummy ]] || echo "left over: $(find small/dummy | tr "\n" " ")" >>save.log'
  grep -q '^exit 3' log || complain "a full disk: not exit 3"
  grep -qE '^error: cannot write .*small/out.*disk is full; free some space' log || complain "a full disk: no clear line"
  if grep -qE 'torn|temporary' log; then complain "a full disk: something is half-written"; fi
  cp save.log log
  grep -q '^exit 3' log || complain "a dummy folder on a small disk: not exit 3"
  grep -qE '^error: cannot write small/dummy.*(No space left|it needs .* MiB).* free' log || complain "a dummy folder on a small disk: no clear line"
  if grep -q 'left over' log; then complain "a dummy folder on a small disk: half-written"; fi
}

# Waits until the ledger of the folder has that many lines.
wait_for_lines() { # folder lines
  for _ in $(seq 200); do
    [[ -f $1/ledger.jsonl ]] && (($(wc -l <"$1/ledger.jsonl") >= $2)) && return 0
    sleep 0.05
  done
  return 1
}

start() { # folder flags...
  local folder=$1
  shift
  set -m
  "$atelier" t2i "${mini[@]}" "${fast[@]}" --output_dir "$folder" --seed 3 "$@" >log 2>&1 &
  started=$!
  children+=("$started")
  set +m
}

gone() { # process group
  for _ in $(seq 100); do
    pgrep -g "$1" >/dev/null || return 0
    sleep 0.05
  done
  return 1
}

# Full-size dummy weights take long to write: Ctrl-C in between leaves none of them.
check_interrupted_save() {
  set -m
  "$atelier" t2i --dummy FLUX.1-schnell --save_dummy saved >log 2>&1 &
  local saver=$! status=0
  set +m
  children+=("$saver")
  for _ in $(seq 200); do [[ -n $(find saved -name '*.tmp' 2>/dev/null) ]] && break; sleep 0.05; done
  kill -INT "$saver"
  wait "$saver" 2>/dev/null || status=$?
  if grep -q 'the disk has' log; then
    echo "not checked: Ctrl-C while dummy weights are written, since the disk has no room for them"
  else
    ((status == 130)) || complain "Ctrl-C while dummy weights are written: exit $status"
    grep -q '^error: interrupted' log || complain "Ctrl-C while dummy weights are written: no clear line"
  fi
  [[ ! -e saved ]] || complain "Ctrl-C while dummy weights are written: something is left"
}

# Ledger and report know each of the pictures that are there.
recorded() { # folder pictures what
  python3 - "$1" "$2" <<'END' || complain "$3: ledger or report do not know the pictures that are there"
import json, pathlib, sys
folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
done = {r["name"] for r in map(json.loads, (folder / "ledger.jsonl").read_text().splitlines()) if r["status"] == "done"}
there = {p.name for p in folder.glob("*.png")}
sys.exit(not (done == there and len(there) == count == json.loads((folder / "report.json").read_text())["pictures"]["drawn"]))
END
}

# Nobody reads along, or the terminal is closed: what was asked for is drawn.
check_left_alone() {
  seq 1 12 >dozen.txt
  local run=("$atelier" t2i "${mini[@]}" "${fast[@]}" --seed 3 --prompts_file dozen.txt)
  rm -f log
  "${run[@]}" --output_dir piped 2>&1 | head -n 2 >/dev/null
  recorded piped 12 "a broken pipe"
  set -m
  nohup "${run[@]}" --output_dir alone >nohup.log 2>&1 &
  local process=$!
  set +m
  children+=("$process")
  wait_for_lines alone 1 || complain "nohup: the run does not begin"
  kill -HUP "$process"
  wait "$process" 2>/dev/null || complain "nohup: the run ends at a hangup"
  recorded alone 12 "nohup"
}

# A second run in a folder is refused, and disturbs nobody.
check_two_runs() {
  seq 1 12 >dozen.txt
  start shared --prompts_file dozen.txt
  wait_for_lines shared 1 || complain "two runs: the first does not begin"
  local status=0
  "$atelier" t2i "${mini[@]}" "${fast[@]}" --prompt x --output_dir shared >second.log 2>&1 || status=$?
  ((status == 2)) || complain "a second run in the folder: exit $status, not 2"
  grep -q '^error: another run is drawing into shared.*--output_dir' second.log || complain "a second run in the folder: no clear line"
  wait "$started" || complain "two runs: the first is disturbed"
  recorded shared 12 "two runs"
}

# A picture is kept if it is the same that would be drawn, whatever the model's folder is called.
check_identity() {
  cp -rL "$root/models/mini" one
  mkdir -p elsewhere && cp -r one elsewhere/one && ln -s one two
  local run=("$atelier" t2i "${fast[@]}" --seed 1 --prompt x)
  "${run[@]}" --model_name one --output_dir who >log 2>&1 || complain "identity: the first run"
  local spelled
  for spelled in ./one two "$PWD/one" one/; do
    "${run[@]}" --model_name "$spelled" --output_dir who >log 2>&1
    grep -q '1 of 1 pictures are there, 0 to draw' log || complain "identity: drawn again for the spelling $spelled"
  done
  (cd one && "${run[@]}" --model_name . --output_dir ../who) >log 2>&1
  grep -q '1 of 1 pictures are there, 0 to draw' log || complain "identity: drawn again inside of the folder"
  local file words
  while read -r file words; do
    cp -r one/. elsewhere/one/
    python3 -c 'import sys; p = sys.argv[1]; b = bytearray(open(p, "rb").read()); b[-2] ^= 1; open(p, "wb").write(b)' "elsewhere/one/$file"
    "${run[@]}" --model_name elsewhere/one --output_dir who >log 2>&1
    grep -q "0 of 1 pictures are there.*$words" log || complain "identity: kept though $file differs"
    "${run[@]}" --model_name one --output_dir who >log 2>&1
  done <<'END'
transformer/diffusion_pytorch_model.safetensors transformer_hash
vae/diffusion_pytorch_model.safetensors vae_hash
text_encoder_2/model.safetensors text_encoder_2_hash
END
  mkdir foreign && cp who/000000.png foreign/000001.png && echo x >foreign/000000.png
  "${run[@]}" y --model_name one --output_dir foreign >log 2>&1
  (($? == 1)) || complain "identity: a foreign file is no failure"
  grep -qE '^error 000000.png failed: foreign/000000.png is there already.*--keep_changed.*--no_resume' log || complain "identity: no word about a foreign file"
  [[ $(<foreign/000000.png) == x ]] || complain "identity: a foreign file is drawn over"
}

check_interrupts() {
  seq 1 24 >some.txt
  draw --seed 3 --prompts_file some.txt --output_dir whole || complain "the undisturbed run"
  local signal code status
  for signal in INT TERM HUP KILL; do
    code=130
    [[ $signal == KILL ]] && code=137
    start broken --prompts_file some.txt
    wait_for_lines broken 2 || complain "$signal: the run does not begin"
    kill "-$signal" "$started"
    status=0
    wait "$started" 2>/dev/null || status=$?
    ((status == code)) || complain "$signal: exit $status, not $code"
    [[ $signal == KILL ]] || (($(grep -c '^error: interrupted' log) == 1)) || complain "$signal: not one line"
    gone "$started" || complain "$signal: processes are left"
    python3 "$helper" whole broken/*.png || complain "$signal: a torn picture"
    (($(find broken -name '*.png' | wc -l) < 24)) || complain "$signal came too late to check anything"
    [[ $signal == KILL ]] || recorded broken "$(find broken -name '*.png' | wc -l)" "$signal"
    [[ $signal == KILL ]] || rm -rf broken
  done
  # a torn ledger and a torn picture on top of it
  printf '{"name": "000023.png", "sta' >>broken/ledger.jsonl
  truncate -s 100 broken/000000.png
  draw --seed 3 --prompts_file some.txt --output_dir broken || complain "resuming after kill -9"
  grep -q 'half written' log || complain "no word about the torn ledger"
  grep -q '1 file is damaged and drawn again' log || complain "no word about the torn picture"
  [[ -z $(find broken -name '*.tmp') ]] || complain "temporary files after resuming"
  local picture
  for picture in whole/*.png; do
    python3 "$helper" pixels "$picture" "broken/${picture##*/}" || complain "after resuming: ${picture##*/} differs"
  done
  draw --seed 3 --prompts_file some.txt --output_dir broken || complain "nothing left to draw"
  grep -q '24 of 24 pictures are there, 0 to draw' log || complain "a second resume draws again"
}

check_download() {
  python3 "$helper" hub "$root/models/mini" hf_secret requests >port 2>hub.log &
  children+=($!)
  for _ in $(seq 100); do [[ -s port ]] && break; sleep 0.05; done
  local hub=(--model_name org/model --download --prompt x)
  export HF_ENDPOINT=http://127.0.0.1:$(<port)
  HF_TOKEN=hf_wrong expect 2 'org/model.*HF_TOKEN' "${hub[@]}"
  export HF_TOKEN=hf_secret
  expect 0 'model +org/model .download' "${hub[@]}"
  grep -qE 'safetensors bytes=[1-9][0-9]*- ' requests || complain "the cut download was not taken up where it broke"
  # what an interrupted download left is completed
  rm "$(readlink -f hf/hub/models--org--model/snapshots/*/transformer/diffusion_pytorch_model.safetensors)"
  expect 0 'model +org/model' "${hub[@]}"
  if grep -rqs hf_secret log out; then complain "the token is shown"; fi
  unset HF_TOKEN HF_ENDPOINT
}

# What a stranger came upon: endless files, closed and full streams, limits, names of any bytes.
check_odd_ends() {
  local status=0 name=$'o\xff\xfe'
  expect 2 '/dev/zero gives more than 256 MiB' --prompts_file /dev/zero
  ln -sf /dev/zero endless.txt
  ln -sf /dev/urandom noise.jsonl
  expect 2 'endless.txt is a device' --prompts_file endless.txt
  expect 2 'noise.jsonl is a device' --prompts_file noise.jsonl
  timeout 30 "$atelier" t2i "${mini[@]}" "${fast[@]}" --prompts_file - <&- >log 2>&1 || status=$?
  ((status == 2)) || complain "closed input: exit $status"
  status=0
  "$atelier" config show t2i >/dev/full 2>log || status=$?
  ((status == 3)) || complain "output on a full device: exit $status"
  status=0
  (ulimit -f 1; "$atelier" t2i "${mini[@]}" "${fast[@]}" --prompt x --output_dir limited) >log 2>&1 || status=$?
  ((status == 2 || status == 3)) && grep -q 'File too large' log || complain "a limit on files: exit $status"
  rm -rf limited
  mkfifo pipe.jsonl
  timeout -s INT 4 "$atelier" t2i "${mini[@]}" "${fast[@]}" --prompts_file pipe.jsonl --output_dir out >log 2>&1
  grep -q 'pipe.jsonl, a pipe: waits' log || complain "a pipe that nobody writes to: not a word"
  status=0
  "$atelier" plan "${mini[@]}" --device cpu --hardware H100 --num_gpus 1000000 >log 2>&1 || status=$?
  ((status == 2)) && grep -q 'up to 4096' log || complain "a million GPUs: exit $status"
  draw --prompt x --output_dir "$name" || complain "a folder of any bytes"
  [[ -f $name/000000.png && -f $name/report.json ]] || complain "the picture is not in its folder"
  [[ ! -e $'o\xef\xbf\xbd\xef\xbf\xbd' ]] || complain "another folder was made"
  rm -rf "$name"
}

for check in check_models check_overflow check_flags check_prompt_files check_pictures check_output check_full_disk check_interrupted_save check_left_alone check_two_runs check_identity check_interrupts check_download check_odd_ends; do
  before=$SECONDS
  "$check"
  echo "$check: $((SECONDS - before)) s"
done
exit "$failed"
