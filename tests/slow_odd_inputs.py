#!/usr/bin/env python3
"""Odd inputs: no crash, no hang, no sanitizer's report, a documented exit code and words of the program's own.
slow_odd_inputs.py [--program FILE] [--inputs N] [--minutes N] [--seed N] [--only TEXT] [--slower N] [--jobs N] [--all] [--result FILE]
Half are written down, half are drawn: a wrong value at any key of any JSON file, random bytes or a tensor of another shape in
any file. --program may have sanitizers: cmake -DATELIER_SANITIZE=address,undefined
-DCMAKE_CXX_FLAGS=-fno-sanitize-recover=undefined"""
import argparse
import collections
import concurrent.futures
import errno
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _odd_files import (DELETE, JSONS, ROOT, SHAPES, STRANGE, WRONG, files, flip, ggufs, paths, pictures, png, put, reshaped, safetensors, whole)  # noqa: E402

GOLDENS, MINI, STICKER = ROOT / "tests/goldens", ROOT / "models/mini", ROOT / "models/mini-adapters/sticker.safetensors"
SMALL = ["--device", "cpu", "--num_inference_steps", "1", "--height", "32", "--width", "32", "--seed", "1", "--output_dir", "out"]
DRAW, VIDEO = ["t2i", *SMALL, "--prompt", "a red circle"], ["video", *SMALL, "--num_frames", "5", "--prompt", "a red circle"]
MINE, FILE = [*DRAW, "--model_name", "mini"], "diffusion_pytorch_model.safetensors"
FAMILIES = {"mini": (MINI, DRAW), "flux": (GOLDENS / "flux_dev/model", DRAW), "mini-video": (ROOT / "models/mini-video", VIDEO)}
FAMILIES |= {n: (GOLDENS / f"{n}_small/model", DRAW) for n in ("sd3", "sdxl", "pixart", "hunyuan")}
FAMILIES |= {n: (GOLDENS / n / "model", [*VIDEO, *more]) for n, more in (("wan_experts", []), ("wan_first", ["--image", "a.png"]), ("wan_frames", ["--input_images", "a.png", "a.png"]),
                                                                         ("wan_steered", ["--reference_images", "a.png"]))}
TINY = FAMILIES["flux"][0]
Case = collections.namedtuple("Case", "kind name args make env stdin how")
CASES = []
WORDS = ["", " ", "-1", "0", "nan", "-inf", "1e400", "9" * 20, "2147483648", "0x10", "1,5", b"\xff\xfe", "\x1b[31mred", "a\nb", "\u202e\U0001f98a", "-", "x" * 100000, "/", "%s%n", "1 2 3", "true", "[]"]
# What must not be seen: words of libraries, and of a program that has ended otherwise than it wanted.
BAD = re.compile(r"terminate called|what\(\)|INTERNAL ASSERT|Exception raised from|c10::|frame #\d|std::|basic_\w+|_M_|json\.exception|bad_alloc|bad optional|stoi\b|Traceback|runtime error:|Sanitizer|nlohmann|YAML::|CLI::|vector::"
                 r"|SIG(SEGV|ABRT|BUS|FPE|ILL)|[Ss]egmentation|core dumped|signal (4|6|7|8|11)\b|Aborted|cannot use \w+\(|another form than was expected")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")


def case(kind, name, args, make=None, env=None, stdin=b"", how=None):
    CASES.append(Case(kind, str(name)[:90], args, make, env or {}, stdin, how))


def of_model(kind, name, family, changes):
    source, args = FAMILIES[family]
    case(kind, f"{family}: {name}", [*args, "--model_name", "./m"], files(changes, source, "m"))


def of_commands(program):
    commands = "t2i run video sdxl edit verify convert config bench report compare plan layouts tune_batch doctor selftest monitor clean completion man".split()
    odd = (["--no_such"], ["--=1"], [b"--\xff=1"], ["\x1b[2J"], ["--prompt"], ["x", "y", "z"], ["--config", "none.yaml"], [""])
    for i, command in enumerate(commands):
        for words in odd[i % 4::4]:
            case("command", f"{command} {words}", [command, *words])
    for words in ("", "--", "T2I", "help x y", "x" * 100000, "completion tcsh", "config show bench", "t2i " + "x " * 20000, "t2i --config /dev/zero", "convert a b", "verify /dev/zero", "doctor --output_dir /dev/full", "monitor --count 1 --interval nan", "selftest --timeout nan", "report --family none",
                  "tune_batch --model_name mini --most -1", "edit --input /dev/zero --model_name mini", "bench --protocol none", "convert . .", "compare /dev/zero /dev/zero"):
        case("command", words, words.split(" "))
    for words in ("--num_gpus 4097", "--height 1000000", "--height 33", "--num_inference_steps 1000000000", "--seed -2", "--strategy =,=|,", "--strategy cfg=99999999999", "--sigmas nan,inf", "--timesteps 1e300", "--attn_layer_num_for_pp -1 9", "--clip_skip 1000", "--max_sequence_length 100000000", "--true_cfg_scale -1e38",
                  "--optimize ,,x", "--lora :::", "--lora x:nan", "--node_rank 7", "--sigmas " + ",".join(["0.5"] * 50000), "--width 100000"):
        case("flag", words, [*MINE, *words.split(" ")])
    for prompt in ("", "a" * 120000, "\u0301" * 3000, "\U0001f600" * 2000, "<|startoftext|>" * 99, "</s><pad><extra_id_0>", b"\xff\xc0\xaf", "\u202e\x07\x1b]0;x\x07", b"\xed\xa0\x80", "\u0130\u1e9e\ufb01" * 50):
        for family in ("mini", "sd3", "hunyuan"):
            case("prompt", f"{prompt[:12]!r} of {len(prompt)} for {family}", ["t2i", *SMALL, "--model_name", str(FAMILIES[family][0]), "--prompt", prompt])
    values = iter(WORDS * 1000)
    for command, base in (("t2i", MINE), ("video", [*VIDEO, "--model_name", "mini-video"]), ("plan", ["plan", "--num_gpus", "4", "--model_name", "mini"]), ("t2i", ["config", "show", "t2i"])):
        for flag in re.findall(r"^  (?:-\w,)?(--\w+)", subprocess.run([program, command, "--help"], capture_output=True, text=True, errors="replace").stdout, re.M):
            if flag not in ("--help", "--config", "--download", "--span_nodes", "--save_dummy", "--dummy", "--model_name"):
                value = next(values)
                case("change", f"{base[0]} {flag} {value!r}", [*base, flag, value])


def of_prompts():
    head, long = b"prompt_id,prompt\n", b"x" * 10_000_000
    tables = {"csv": (head, b"\xef\xbb\xbf" + head + b"a,b\n", "prompt\nx\n".encode("utf-16"), b"prompt\na\0b\n", b'prompt\n"never closed', b"prompt,seed\na\nb,1,2,3\n,,,\n", b"prompt,prompt\na,b\n", b",,\na,b,c\n", b"prompt\ra\rb", b"prompt\nna\xefve\n", b"prompt\n" + long, b"prompt" + b",c" * 50000 + b"\nx\n",
                      b"prompt,seed,height\na,nan,-1\nb,1.5,x,\n", head + b"../../x,a\n/etc/x,a\n,a\na/b/../../..,a\n" + b"n" * 300 + b",a\nc\x1b[2J,a\n.,a\n", head + b"a,b\na,c\nA,c\n", b"prompt,image\nx,/dev/zero\n"),
              "jsonl": (b'{"prompt": "a', b"[1]\n", b'{"seed": 1}\n', b'{"prompt": "a", "prompt": 3}\n', b'{"prompt":' + b"[" * 100000, b'{"prompt":"a\\u0000b"}\n', b"".join(b'{"prompt":"a","%s":%s}\n' % (k, v) for k in (b"seed", b"height", b"lora", b"image", b"sigmas", b"index") for v in (b"null", b"[]", b"{}", b"1e308", b'""', b"[null]"))),
              "json": (*JSONS.values(), b'["a", "b", 3, null]', b'{"prompts": 3}'), "txt": (b"\n\n \n", b"a\0b\n", bytes(range(256)), long), "parquet": (b"PAR1" + bytes(40) + b"PAR1",)}
    for suffix, table in tables.items():
        for raw in table:
            column = [n for n in ("prompt_id", "index") if n.encode() in raw[:60]]
            case("prompts", f"{suffix}: {raw[:40]!r}", ["t2i", *SMALL, "--model_name", "mini", "--limit", "40", "--prompts_file", f"p.{suffix}", *(["--output_name_column", *column] if column else [])], files({f"p.{suffix}": raw}))
    for name, how in STRANGE.items():
        for kind, flag, file in (("prompts", "--prompts_file", "p.jsonl"), ("adapter", "--lora", "l.safetensors"), ("picture", "--image", "a.png")):
            if (kind, name) == ("prompts", "pipe"):
                continue  # prompts may come through one: it waits, and says for what
            case(kind, f"is {name}", [*(MINE if kind != "prompts" else [*MINE[:-4], *MINE[-2:]]), flag, file], files({file: how}))
    for name, raw in (("closed", None), ("empty", b""), ("binary", bytes(range(256)) * 99), ("large", b"x\n" * 10**6)):
        case("stdin", name, ["t2i", *SMALL, "--model_name", "mini", "--prompts_file", "-", "--limit", "3"], stdin=raw)


def of_files():
    for i, (what, damage) in enumerate(safetensors().items()):
        of_model("weights", what, "flux", {f"transformer/{FILE}": damage})
        case("adapter", what, [*MINE, "--lora", "l.safetensors"], files({"l.safetensors": damage(STICKER.read_bytes())}))
        if i % 3 == 0:
            of_model("weights", f"text_encoder_3: {what}", "sd3", {"text_encoder_3/model.safetensors": damage})
            case("verify", f"recorded: {what}", ["verify", "g"], files({"golden.safetensors": damage}, GOLDENS / "flux_dev", "g"))
            case("convert", what, ["convert", "w/" + FILE, "y.safetensors", "--to", "native"], files({FILE: damage}, GOLDENS / "wan_experts/model/transformer", "w"))
    for what, damage in ggufs().items():
        case("gguf", what, [*DRAW, "--model_name", "x.gguf", "--base_model", str(TINY)], files({"x.gguf": damage((TINY / "transformer" / FILE).read_bytes())}))
    for i, (what, how) in enumerate([*STRANGE.items(), *JSONS.items()]):
        for file in ("model_index.json", "transformer/config.json", "tokenizer/vocab.json", "scheduler/scheduler_config.json", "tokenizer_2/tokenizer_config.json", "tokenizer/merges.txt", "tokenizer_2/spiece.model"):
            of_model("files", f"{file} is {what}", ("flux", "mini", "sd3")[i % 3], {file: how})
    for entry in (None, [], {}, {"a": 3}, {"a": "../../x"}, {"a": "/etc/passwd"}, {"a": ""}, {"a": "config.json"}, {"a": "a\u0000b"}, {"a": "/dev/zero"}):
        of_model("index", entry, "flux", {f"transformer/{FILE}": None, f"transformer/{FILE}.index.json": json.dumps({"weight_map": entry}).encode()})
    rename = whole(lambda h: {n.replace("transformer", "base_model.model", 1): e for n, e in h.items() if n != "__metadata__"})
    patterns = ["(.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*)xyz", "((a|b|.)+)+z", "(x?){100000}", "(" * 499 + ")" * 499, "(?=.*(?=.*(?=.*(?=.*(?=.*z)))))", "(?:.*){60}z", "\\", "["]
    for words in [*JSONS.values(), *(json.dumps({"alpha_pattern": {p: 1}}).encode() for p in patterns), *(json.dumps({"r": 4, k: v}).encode() for k in ("r", "lora_alpha", "alpha_pattern", "use_dora") for v in WRONG[:7])]:
        case("adapter", f"folder of {words[:50]!r}", [*MINE, "--lora", "f"], files({"f/adapter_config.json": words, "f/adapter_model.safetensors": rename(STICKER.read_bytes())}))
    for what, raw in pictures().items():
        for name, args in (("picture", [*MINE, "--image", "a.png"]), ("mask", [*MINE, "--image", "b.png", "--mask", "a.png"]), ("control", [*VIDEO, "--model_name", str(FAMILIES["wan_steered"][0]), "--control_video", "a.png"])):
            case("picture", f"{name}: {what}", args, files({"a.png": raw, "b.png": png()}))
    for name in ("", ".", "/", "mini/", "dummy:x", "x.gguf", "x.ckpt", "\x1b[31m", b"\xff", "a" * 5000, "/dev/zero", "-"):
        case("model name", repr(name), [*DRAW, "--model_name", name])
    for what, raw in JSONS.items():
        case("verify", f"call: {what}", ["verify", "g"], files({"golden.json": raw}, GOLDENS / "flux_dev", "g"))
        for args in ("verify --matrix=a.json", f"compare a.json {ROOT}/results/families_gpus_2.json", "report --family flux --from a.json", "report --from b"):
            case("report", f"{args[:18]} {what}", args.split(), files({"a.json": raw, "b/bench.json": raw}))
        case("configuration", what, [*MINE, "--config", "c.json"], files({"c.json": raw}))


def of_surroundings():
    for where in ("", "/dev/full", "/dev/null/x", "/proc/x", "a" * 300, "a/" * 2100, b"\xff\xfe", "\x1b[31m", "a\nb", "loop", "file/x", "dangling", "out/../out"):
        case("output", repr(where), [*MINE, "--output_dir", where], files({"loop": STRANGE["loop"], "dangling": STRANGE["dangling"], "file": b""}))
    for what, how in STRANGE.items():
        for name in ("000000.png", "ledger.jsonl", "report.json", "logs"):
            case("left behind", f"{name} is {what}", MINE, files({f"out/{name}": how}))
    for raw in [*JSONS.values(), *(json.dumps({"name": "000000.png", "status": "done", k: v}).encode() + b"\n" for k in ("name", "status", "sha256", "settings", "seed") for v in WRONG[:8])]:
        case("left behind", f"ledger: {raw[:60]!r}", MINE, files({"out/ledger.jsonl": raw, "out/000000.png": png()}))
    for how in ("stdout full", "stdout closed", "all closed", "no folder", "few files", "small files", "small stack"):
        for args in (["help"], MINE, ["config", "show", "t2i"]):
            case("process", f"{how}: {args[0]}", args, how=how)
    for name in "DG_XDIT_ULYSSES_DEGREE DG_DEBUG RANK WORLD_SIZE SLURM_PROCID SLURM_JOB_NODELIST CUDA_VISIBLE_DEVICES OMP_NUM_THREADS ATELIER_SHARE HF_HOME HF_TOKEN_PATH HOME TMPDIR ATELIER_TITLE LC_ALL ATELIER_NVML ATELIER_FA3 MASTER_PORT ATELIER_WORKER PATH TZ".split():
        for value in ("", "-1", "9" * 20, b"\xff\x1b[31m", "/dev/zero", "x" * 50000):
            case("environment", f"{name}={value[:20]!r}", MINE, env={name: value})
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9))
    for raw in (bomb, b"a: &a [*a]\n", b"\ta: 1", b"[" * 100000, b"height: !!python/object:os.system x", b"height: *x", b"? [a]\n: b\n", b"height: 64\nheight: 32\n", bytes(range(256)), b'"\\e[31m": 1\n', b"height: {a: 1}\n", b"- a"):
        case("configuration", f"yaml: {raw[:40]!r}", [*MINE, "--config", "c.yaml"], files({"c.yaml": raw}))
    for key in ("height", "prompt", "lora", "strategy", "seed", "sigmas", "resume", "model_name", "output_dir"):
        for value in WRONG[:9]:
            case("configuration", f"{key}: {value!r}", [*DRAW[:-2], "--config", "c.json"], files({"c.json": json.dumps({"model_name": "mini", "prompt": "x", key: value}).encode()}))
    for made in ({"refs/main": b"x"}, {"refs/main": b"../../../../../etc"}, {"refs/main": bytes(range(256))}, {"refs/main": b"1", "snapshots/1/model_index.json": b"{}"}):
        case("hub", made, [*DRAW, "--model_name", "a/b"], files(made, under="hub/models--a--b"), env={"HF_HOME": "."})


def of_changes(dice, count):
    """A wrong value at any key of any JSON file, random bytes in any file, a tensor of another shape."""
    found = [("golden.json", GOLDENS / "flux_dev/golden.json", "golden.json")]
    for family, (source, _) in FAMILIES.items():
        found += [(family, file, str(file.relative_to(source))) for here, _, names in os.walk(source, followlinks=True) for file in (pathlib.Path(here, n) for n in names)]
    for i in range(count):
        family, file, name = dice.choice(found)
        places = list(paths(json.loads(file.read_bytes()))) if file.suffix == ".json" and file.stat().st_size < 20000 else []
        if places and dice.random() < 0.8:
            path, value = dice.choice(places), dice.choice(WRONG)
            what, change = f"{name} {path} = {'left out' if value is DELETE else repr(value)}", lambda raw, path=path, value=value: put(raw, path, value)
        elif file.suffix == ".safetensors" and dice.random() < 0.5:
            which, how = dice.randrange(150), dice.choice(list(SHAPES))
            what, change = f"{name} tensor {which} {how}", reshaped(which, how)
        else:
            what, change = f"{name} damaged, {i}", lambda raw, i=i: flip(raw, random.Random(i))
        source, args = FAMILIES.get(family, (None, None))
        if not source:
            case("change", f"verify: {what}", ["verify", "g"], files({name: change}, GOLDENS / "flux_dev", "g"))
        elif name.split("/")[0] in ("transformer", "unet") and dice.random() < 0.4:
            case("change", f"{family}, a single file: {what}", [*args, "--model_name", f"m/{name.split('/')[0]}/{FILE}", "--base_model", "m"], files({name: change}, source, "m"))
        else:
            of_model("change", what, family, {name: change})


def limits(how, ceiling):
    def before():
        if ceiling:
            resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, what, most in (("few files", resource.RLIMIT_NOFILE, 24), ("small files", resource.RLIMIT_FSIZE, 100), ("small stack", resource.RLIMIT_STACK, 1 << 20)):
            if how == name:
                resource.setrlimit(what, (most, most))
        for handle in {"stdout closed": (1,), "all closed": (0, 1, 2), "stdin closed": (0,)}.get(how, ()):
            os.close(handle)
        if how == "no folder":
            os.mkdir("gone")
            os.chdir("gone")
            os.rmdir(os.getcwd())
    return before


def run(program, test, folder, longest, ceiling=12 << 30):
    """(exit code, or None where it took too long; what it said; a sanitizer's reports)"""
    home, reports = folder / "home", folder / "sanitizer"
    home.mkdir(exist_ok=True)
    # libtorch is not instrumented: vectors and strings that it fills are not marked as ours are, and its tables stand twice.
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ATELIER_SHARE": str(ROOT), "LC_ALL": "C.UTF-8", "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}",
           "ASAN_OPTIONS": f"detect_leaks=0:detect_container_overflow=0:detect_odr_violation=0:allocator_may_return_null=1:hard_rss_limit_mb=8000:log_path={reports}"}
    with open("/dev/full" if test.how == "stdout full" else folder / "said", "wb") as out, open(folder / "errors", "wb") as errors:
        process = subprocess.Popen([program, *test.args], cwd=folder, env={**env, **test.env}, stdin=subprocess.PIPE if test.stdin else subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True,
                                   preexec_fn=limits("stdin closed" if test.stdin is None else test.how, ceiling))
        try:
            process.communicate(test.stdin or None, timeout=longest)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code = None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    return code, b"".join((folder / name).read_bytes() for name in ("said", "errors") if (folder / name).exists()), "\n".join(p.read_text(errors="replace") for p in folder.glob("sanitizer.*"))


def judge(code, said, reports, test):
    """What is wrong with an answer, or ''."""
    words = said.decode("utf-8", errors="replace")
    if code is None:
        return "took too long"
    if reports:
        return "a sanitizer's report: " + next((line for line in reports.splitlines() if "ERROR" in line or "runtime error" in line), reports[:200])
    if code not in (0, 1, 2, 3, 130):
        return f"ended with {code}"
    if seen := BAD.search(words):
        return f"says {seen.group()!r}"
    if CONTROL.search(words) or "\ufffd" in words and b"\xef\xbf\xbd" not in said:
        return "control characters, or bytes that are no UTF-8"
    if sum(len(line) for line in words.splitlines() if "error" in line) > 20000:
        return "a complaint of more than 20000 letters"
    if code and test.how not in ("all closed", "stdout full") and not re.search(r"\berror|\bfail|usage|cannot|not ", words, re.I):
        return "fails without a word"
    return ""


def test_planted(folder):
    """Programs that do wrong are found out, and one that does not passes."""
    wrong = ("kill -SEGV $$", "kill -ABRT $$", "exit 7", "terminate called", "[json.exception.type_error.302]", "sleep 30", "\\033[2J", "\\377", "died of signal 11", "echo 'ERROR: AddressSanitizer' >sanitizer.1", "%030000d")
    for i, script in enumerate((*wrong, "x is not y: take z", "")):
        place = folder / f"planted {i}"
        place.mkdir()
        is_command = re.match("kill|exit|sleep|echo|$", script)
        (place / "program").write_text(f"#!/bin/sh\n{script}\nexit 2\n" if is_command else f"#!/bin/sh\nprintf 'error: {script}'\nexit 2\n")
        (place / "program").chmod(0o755)
        test = Case("", "", [], None, {}, b"", None)
        found = judge(*run(place / "program", test, place, 2, 0), test)
        assert bool(found) == (i != len(wrong)), f"planted {script}: {found!r}"
    print(f"ok      test_planted: {len(wrong) + 1} programs that do wrong are found out", flush=True)


def chosen(program, given):
    dice = random.Random(given.seed)
    of_commands(program)
    of_prompts()
    of_files()
    of_surroundings()
    of_changes(dice, given.inputs // 2)
    written, drawn = ([c for c in CASES if (c.kind == "change") == is_drawn and given.only in f"{c.kind}: {c.name}"] for is_drawn in (False, True))
    dice.shuffle(written)
    dice.shuffle(drawn)
    mixed = [c for i in range(max(len(written), len(drawn))) for c in written[i:i + 1] + drawn[i:i + 1]]
    return mixed[:given.inputs]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier")))
    for flag, kind, usual in (("--inputs", int, 800), ("--seed", int, 1), ("--minutes", float, 25), ("--slower", float, 1), ("--jobs", int, 1), ("--only", str, ""), ("--result", str, "")):
        parser.add_argument(flag, type=kind, default=usual)
    parser.add_argument("--all", action="store_true", help="print every answer")
    given = parser.parse_args()
    program = os.path.realpath(given.program)
    is_sanitized = b"__asan_init" in subprocess.run(["nm", "-D", program], capture_output=True).stdout
    counts, began = collections.defaultdict(collections.Counter), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="odd", ignore_cleanup_errors=True) as work:
        test_planted(pathlib.Path(work))
        def tried(place):
            if time.monotonic() - began > 60 * given.minutes:
                return None
            i, test = place
            folder = pathlib.Path(work, str(i))
            folder.mkdir()
            (test.make or files({}))(folder)
            try:
                answer = run(program, test, folder, 60 * given.slower, 0 if is_sanitized else 12 << 30)
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                return None  # no shell could give this argument either
            shutil.rmtree(folder, ignore_errors=True)
            return test, answer

        cases = enumerate(chosen(program, given))
        for test, (code, said, reports) in filter(None, concurrent.futures.ThreadPoolExecutor(given.jobs).map(tried, cases)):
            wrong = judge(code, said, reports, test)
            counts[test.kind]["failed" if wrong else str(code)] += 1
            if wrong or given.all:
                words = [line for line in said.decode(errors="replace").splitlines() if not re.match(r"(model|draw|layout|device|seed) {2,}", line)]
                print(f"{'FAILED ' if wrong else code}  {test.kind}: {test.name}: {wrong}\n        {' | '.join(words)[-700:]!r} {reports[-3000:]}", flush=True)
    total = sum(counts.values(), collections.Counter())
    print(f"{sum(total.values())} inputs in {time.monotonic() - began:.0f} s; exit codes {dict(sorted(total.items()))}")
    if given.result:
        file, key = pathlib.Path(given.result), "with sanitizers" if is_sanitized else "program"
        known = json.loads(file.read_text()) if file.exists() else {}
        known[key] = {"inputs": sum(total.values()), "seed": given.seed, "outcomes": {k: dict(sorted(v.items())) for k, v in sorted(counts.items())}}
        file.write_text(json.dumps(known, indent=1) + "\n")
    return 1 if total["failed"] or not total else 0


if __name__ == "__main__":
    sys.exit(main())
