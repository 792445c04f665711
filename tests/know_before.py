#!/usr/bin/env python3
"""Know before you run: plan, refusals, doctor, monitor, clean, selftest, tune-batch, completion, the manual page, logs of
DG_DEBUG. Every command is the program itself; GPUs come from a library that stands in for the driver's."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier"))
BUILD = pathlib.Path(os.environ.get("ATELIER_BUILD_FOLDER", str(ROOT / "build/cpu")))
FLUX = ["--dummy", "FLUX.1-schnell", "--max_sequence_length", "512", "--num_inference_steps", "4"]
SMALL = ["--model_name", str(ROOT / "tests/goldens/flux_dev/model"), "--device", "cpu", "--height", "32", "--width", "32",
         "--num_inference_steps", "2", "--max_sequence_length", "16", "--prompt", "a fox"]
failed = []


def atelier(*arguments, env=None, folder=None):
    """Exit code, what was printed, what was complained."""
    done = subprocess.run([ATELIER, *arguments], capture_output=True, text=True, check=False, cwd=folder,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}, timeout=600)
    return done.returncode, done.stdout, done.stderr


def expect(name, condition, seen=""):
    """One condition of a check."""
    if not condition:
        failed.append(name)
        print(f"FAILED  {name}\n{str(seen)[-2000:]}")


def unlabelled(value, is_labelled=False):
    """Numbers that stand in no object which says modelled, measured or cited."""
    if isinstance(value, dict):
        is_labelled = is_labelled or value.get("kind") in ("modelled", "measured", "cited")
        for key, inner in value.items():
            if key not in ("fits", "rank"):
                yield from unlabelled(inner, is_labelled)
    elif isinstance(value, list):
        for inner in value:
            yield from unlabelled(inner, is_labelled)
    elif isinstance(value, (int, float)) and not is_labelled:
        yield value


def plan(*arguments):
    """The JSON of a plan that succeeds."""
    code, out, err = atelier("plan", "--json", *arguments)
    expect(f"plan {' '.join(arguments)}", code == 0, err)
    return json.loads(out) if code == 0 else {"layouts": []}


def check_plan():
    """Layouts are ranked, explained, labelled; sizes and links change the order; what cannot work is refused."""
    made = plan(*FLUX, "--hardware", "H200", "--num_gpus", "4")
    layouts = made["layouts"]
    expect("plan: the fastest layout on NVLink", layouts[0]["layout"].startswith("kv_gather=4"), layouts[0])
    expect("plan: order", all(a["run_s"]["value"] <= b["run_s"]["value"] for a, b in zip(layouts, layouts[1:])))
    expect("plan: a sentence and a command each",
           all(l["why"].endswith(".") and "--strategy" in l["command"] for l in layouts))
    expect("plan: leagues", {l["league"] for l in layouts} == {"lossless", "approximate"})
    expect("plan: no number without its kind", not list(unlabelled(made["layouts"])))
    for layout in layouts:
        parts = ["denoiser_bytes", "encoders_bytes", "vae_bytes", "keys_bytes", "activations_bytes", "decoding_bytes"]
        for rank in layout["ranks"]:
            expect(f"plan: parts of {layout['layout']}", sum(rank[p] for p in parts) - rank["offloaded_bytes"] ==
                   rank["total_bytes"], rank)
    # The command of a plan is a command: it is parsed, and asks for that layout.
    code, out, _ = atelier("plan", *FLUX, "--hardware", "A100", "--num_gpus", "2", "--prompt", "it's a fox", "--top", "1")
    expect("plan: text", code == 0 and "cited: NVIDIA A100" in out and "--prompt 'it'\\''s a fox'" in out, out)
    first = {size: plan(*FLUX, "--hardware", "H200", "--num_gpus", "8", "--height", size, "--width", size)["layouts"][0]
             for size in ("256", "2048")}
    expect("plan: two sizes may choose two layouts", first["256"]["layout"] != first["2048"]["layout"], first)
    nvlink, pcie = (plan(*FLUX, "--hardware", "H100", "--num_gpus", "4", "--links", links, "--strategy", "tensor=4")
                    for links in ("nvlink", "pcie"))
    expect("plan: links", pcie["layouts"][0]["run_s"]["value"] > 1.5 * nvlink["layouts"][0]["run_s"]["value"])
    video = plan("--dummy", "Wan2.1-T2V-1.3B-Diffusers", "--hardware", "H200", "--num_gpus", "2")["layouts"][0]["command"]
    expect("the command of a model of videos draws videos", video.startswith("atelier video "), video)
    shown = plan("--dummy", "Wan2.1-I2V-14B-480P-Diffusers", "--hardware", "H200", "--num_gpus", "2")["layouts"]
    expect("plan: what a model must be shown need not be there yet", shown and shown[0]["fits"], shown)
    one = plan(*FLUX, "--hardware", "H200", "--num_gpus", "5")
    expect("plan: any number of GPUs", one["layouts"] and one["gpus"] == 5)
    for arguments, words in ((["--hardware", "RTX9"], "there are H200, H100, A100"), (["--strategy", "ulysses=25"], "24 heads"),
                             (["--hardware", "T4", "--links", "nvlink"], "pcie and host"),
                             (["--link_gbps", "0", "--hardware", "H200"], "above 0")):
        code, _, err = atelier("plan", *FLUX, "--num_gpus", "25", *arguments)
        expect(f"plan refuses {arguments}", code == 2 and words in err, err)
    code, out, err = atelier("plan", *FLUX, "--hardware", "T4", "--num_gpus", "1")
    _, few, _ = atelier("plan", *FLUX, "--hardware", "T4", "--num_gpus", "8", "--top", "2")
    expect("plan: --top bounds what does not fit too", few.count(" does not fit") == 2 and "more do not fit" in few, few)
    expect("plan: what does not fit ends with 3", code == 3 and "does not fit: rank 0 would hold" in out and
           "denoiser" in err and "--offload" in err, out + err)
    two = plan(*FLUX, "--hardware", "H100", "--num_gpus", "4", "--strategy", "ulysses=4 | pipefusion=4")["layouts"]
    expect("plan: several strategies", [l["layout"] for l in two] == ["ulysses=4", "pipefusion=4"], two)
    # FP8 needs 8.9: it is neither planned for, nor proposed to, GPUs without it.
    for arguments, words in ((["T4", "--tier", "fast"], "the T4 has 7.5: take --tier exact"),
                             (["A100", "--attention_dtype", "fp8_e4m3"], "the A100 has 8.0"),
                             (["H100", "--measure"], "which has no H100")):
        code, _, err = atelier("plan", *FLUX, "--num_gpus", "3", "--hardware", *arguments)
        expect(f"plan refuses {arguments}", code == 2 and words in err, err)
    for hardware, is_offered in (("T4", False), ("L20", True)):
        _, _, err = atelier("plan", *FLUX, "--num_gpus", "3", "--hardware", hardware, "--height", "4096" if is_offered else "1024")
        expect(f"plan: --tier fast for a {hardware}", ("--tier fast" in err) == is_offered or not err, err)
    _, _, err = atelier("plan", *FLUX, "--num_gpus", "2", "--hardware", "V100")
    expect("plan: a GPU that no build is for", "no code for a V100" in err, err)
    # What is proposed to what does not fit, fits.
    for arguments in (["FLUX.1-dev", "--hardware", "T4", "--num_gpus", "1"],
                      ["FLUX.1-dev", "--hardware", "H100", "--num_gpus", "8", "--batch_size", "64", "--height", "4096", "--width", "4096"],
                      ["Wan2.2-T2V-A14B-Diffusers", "--hardware", "T4", "--num_gpus", "1"]):
        code, _, err = atelier("plan", "--dummy", *arguments)
        tries = re.findall(r"atelier (?:t2i|video) (.*?)(?=, or |$)", err, re.M)
        expect(f"plan {arguments}: a command", code == 3 and tries, err)
        for command in tries:
            code, _, err = atelier("plan", *shlex.split(command), *arguments[1:3])
            expect(f"plan {arguments}: {command} fits", code == 0, err)
    code, out, err = atelier("plan", "--dummy", "FLUX.1-dev", "--num_gpus", "32", "--device", "cpu", "--strategy", "data=32")
    expect("plan: what CPU ranks cannot hold ends with 3", code == 3 and "does not fit" in out and "data=32" in err, out + err)
    code, out, err = atelier("plan", "--model_name", "mini", "--num_gpus", "4", "--device", "cpu")
    expect("plan: CPU ranks", code == 0 and "no speed is modelled" in out and "taken when only --num_gpus is given" in out,
           out + err)
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = atelier("plan", *SMALL[:-2], "--num_gpus", "2", "--measure", "--num_iterations", "1", "--warmup_calls", "0",
                                 "--output_dir", folder)
        expect("plan --measure", code == 0 and len(re.findall("^measured  ", out, re.M)) == 3 and "the fastest of them" in out,
               out + err)


def check_gpu_commands():
    """doctor and monitor, with GPUs and without."""
    library = next(BUILD.rglob("libfake_nvml.so"), None)
    if library is None:
        print("skipped: no libfake_nvml.so in", BUILD)
        return
    fake = {"ATELIER_NVML": str(library), "FAKE_NVML": ""}
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = atelier("doctor", "--output_dir", folder, env=fake)
        expect("doctor: a GPU without code is a problem", code == 1 and "PROBLEM 2: Tesla V100" in out, out + err)
        for words in ("GPU0    X      NV2    SYS!", "driver", "580.65.06", "MB/s (measured", "FLUX.1-dev", "fits in 16 GiB",
                      "libtorch", "ComfyUI", "not needed", "xfuser", "HF_TOKEN", "ROCm"):
            expect(f"doctor: {words}", words in out, out)
        expect("doctor leaves nothing behind", not list(pathlib.Path(folder).iterdir()))
    code, out, err = atelier("doctor", env={**fake, "CUDA_VISIBLE_DEVICES": "0,9"})
    expect("doctor: a wrong number", "names 9" in out and "valid numbers are 0 to 2" in out, out + err)
    code, out, err = atelier("monitor", "--count", "2", "--interval", "0.1", "--csv", env=fake)
    lines = out.splitlines()
    expect("monitor: csv", code == 0 and len(lines) == 7 and len({l.count(",") for l in lines}) == 1, out + err)
    code, out, err = atelier("monitor", "--count", "1", env={**fake, "FAKE_NVML": "nocounters"})
    expect("monitor: not readable", code == 0 and "NVLink not readable here" in out, out + err)
    code, out, err = atelier("monitor", env={"ATELIER_NVML": "/nowhere.so"})
    expect("monitor: no driver", code == 1 and "not readable here" in err, out + err)


def check_clean():
    """Nothing goes without --yes, nothing that is not named, never a token."""
    with tempfile.TemporaryDirectory() as home:
        cache = pathlib.Path(home) / ".cache"
        for name in ("huggingface/hub/models--a--b/blob", "huggingface/token", "atelier/x", "torch/y"):
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            (cache / name).write_text("x" * 1000)
        env = {"HOME": home, "XDG_CACHE_HOME": "", "HF_HOME": "", "HF_HUB_CACHE": ""}
        code, out, err = atelier("clean", "--hf", env=env)
        expect("clean: dry", code == 0 and "nothing was removed" in out and "keep    token" in out and
               (cache / "huggingface/hub/models--a--b/blob").exists(), out + err)
        code, out, err = atelier("clean", "--yes", env=env)
        expect("clean: its own", code == 0 and not (cache / "atelier").exists() and (cache / "torch/y").exists() and
               (cache / "huggingface/hub/models--a--b/blob").exists(), out + err)
        code, out, err = atelier("clean", "--hf", "--yes", env=env)
        expect("clean: the token stays", code == 0 and (cache / "huggingface/token").exists() and
               not (cache / "huggingface/hub").exists(), out + err)


def check_shells():
    """Completion and the manual page come from the table of flags."""
    code, out, err = atelier("completion", "bash")
    script = out + "\nCOMP_WORDS=(atelier plan --num_g); COMP_CWORD=2; _atelier; echo \"${COMPREPLY[@]}\"\n" \
                   "COMP_WORDS=(atelier pl); COMP_CWORD=1; _atelier; echo \"${COMPREPLY[@]}\"\n" \
                   "COMP_WORDS=(atelier t2i --tier f); COMP_CWORD=3; _atelier; echo \"${COMPREPLY[@]}\"\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    expect("completion: bash", done.stdout.splitlines() == ["--num_gpus", "plan", "fast fast-strict"], done.stdout + done.stderr)
    # Every flag that a command's --help lists is completed and in the manual page, its own ones too, each with words.
    fish, zsh, page = atelier("completion", "fish")[1], atelier("completion", "zsh")[1], atelier("man")[1].replace("\\-", "-")
    known = re.findall(r"^  (\w+) {2,}", atelier("--help")[1], re.M)
    expect("completion: commands", {"plan", "compare", "clean"} <= set(known), known)
    for command in set(known) - {"serve", "config", "completion", "man"}:
        for words in ([command], [command, "--protocol", "flux"])[:2 if command == "bench" else 1]:
            listed = atelier(*words, "--help")[1]
            flags = re.findall(r"^  (?:-\w,)?(--\w+)", listed, re.M)
            line = re.search(rf"^    {command}\) flags=\"(.*)\" ;;$", out, re.M)
            expect(f"completion: flags of {words}", line and set(flags) <= set(line[1].split()), flags)
            missing = [f for f in flags if f != "--help" and (f + " " not in re.sub(r"[,\n]", " ", page) or
                       f != "--config" and not re.search(rf"from {command}' .*-l {f[2:]}\b", fish)) and f not in zsh]
            expect(f"man, fish, zsh: flags of {words}", not missing, missing)
            bare = re.findall(r"^  (?:-\w,)?(--\w+)[^\n]*?\s*\n(?=  -|\n)", listed, re.M)
            bare = [f for f in bare if re.search(rf"^  {f}[^ ]* *$(?!\n {{10}})", listed, re.M)]
            expect(f"--help: {words} says what its flags do", not bare or command == "edit", bare)
    for shell, words in (("fish", "__fish_seen_subcommand_from t2i"), ("zsh", "bashcompinit")):
        code, out, err = atelier("completion", shell)
        expect(f"completion: {shell}", code == 0 and words in out, err)
    code, _, err = atelier("completion", "tcsh")
    expect("completion: another shell", code == 2 and "bash, zsh or fish" in err, err)
    code, page, err = atelier("man")
    _, listed, _ = atelier("t2i", "--help")
    flags = set(re.findall(r"--[a-z][a-z_0-9]+", listed)) - {"--help", "--config"}
    missing = {f for f in flags if not f.startswith("--no_") and f.replace("-", "\\-") not in page and f != "--a_b"}
    expect("man: every flag of --help", code == 0 and not missing, missing)


def check_runs():
    """Phases add up, DG_DEBUG has a log per rank, tune-batch and selftest draw."""
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = atelier("t2i", *SMALL, "--ulysses_degree", "2", "--output_dir", folder, env={"DG_DEBUG": "true"})
        expect("DG_DEBUG run", code == 0, out + err)
        logs = sorted(pathlib.Path(folder).rglob("rank_*.log"))
        expect("DG_DEBUG: a log per rank", [l.name for l in logs] == ["rank_0.log", "rank_1.log"], logs)
        for log in logs:
            text = log.read_text()
            for words in ("topology axis=ulysses", "ranks=0,1", "collective=all_to_all", "bytes=", "batch run=", "height=32"):
                expect(f"DG_DEBUG: {words} in {log.name}", words in text, text)
            expect("DG_DEBUG: a time on every line", all(re.match(r"\W*\d{2,4}\W\d\d\W\d\d", l) for l in text.splitlines()), text)
        report = json.loads((pathlib.Path(folder) / "report.json").read_text())
        names = [p["name"] for p in report["phases"]]
        for name in ("spawn", "rendezvous", "load", "encode", "denoise", "decode", "write", "end"):
            expect(f"report: phase {name}", name in names, names)
        total = sum(p["seconds"] for p in report["phases"])
        expect("report: phases add up", abs(total - report["seconds"]) < 0.05 * report["seconds"] + 0.02, report["phases"])
        expect("report: transport and versions", "messages: Gloo" in report["kernels"] and "libtorch" in report["versions"],
               report["versions"])
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = atelier("tune-batch", *SMALL, "--most", "3", "--output_dir", folder)
        expect("tune-batch", code == 0 and "largest batch that fits: 3 (larger ones were not tried" in out, out + err)
    code, out, err = atelier("selftest", "--device", "cpu")
    expect("selftest", code == 0 and len(re.findall("^ok  ", out, re.M)) == 6 and "over Gloo" in out, out + err)


for check in (check_plan, check_gpu_commands, check_clean, check_shells, check_runs):
    check()
if failed:
    sys.exit(f"{len(failed)} failed")
print("ok")
