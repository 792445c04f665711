#!/usr/bin/env python3
"""atelier bench --protocol, report and compare: one small protocol on ranks of the CPU, interrupted once and gone on with, and
all that it writes: numbers that say where they come from, pages that need no request, progress, the gate."""
import copy
import csv
import html.parser
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier"))
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
SMALL = ["--model_name", str(ROOT / "tests/goldens/flux_dev/model"), "--device", "cpu", "--height", "32", "--width", "32",
         "--num_inference_steps", "2", "--max_sequence_length", "16", "--prompt", "a fox", "--num_gpus", "2", "--sizes", "32,48",
         "--batches", "1,2", "--num_iterations", "3", "--warmup_calls", "1"]
failed = []


def atelier(*arguments):
    """Exit code and all that was said."""
    done = subprocess.run([ATELIER, *arguments], capture_output=True, text=True, check=False, env=ENV, timeout=900)
    return done.returncode, done.stdout + done.stderr


def expect(name, condition, seen=""):
    """One condition of a check."""
    if not condition:
        failed.append(name)
        print(f"FAILED  {name}\n{str(seen)[-2000:]}")


def unlabelled(value, path="", is_labelled=False):
    """Numbers that are neither asked for nor in an object which says measured, modelled or cited."""
    if isinstance(value, dict):
        is_labelled = is_labelled or value.get("kind") in ("measured", "modelled", "cited")
        for key, inner in value.items():
            yield from unlabelled(inner, f"{path}/{key}", is_labelled or key == "asked")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from unlabelled(inner, f"{path}/{i}", is_labelled)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and not is_labelled:
        yield path


class Page(html.parser.HTMLParser):
    """Cells with digits but no class, and whatever a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.bare, self.fetched, self.charts, self.cell = [], [], 0, None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.charts += tag == "svg"
        self.cell = attrs.get("class", "") if tag == "td" else None
        for key in ("src", "href", "data", "srcset", "action"):
            value = attrs.get(key) or ""
            if value and not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag in ("script", "link", "iframe", "object"):
            self.fetched.append(tag)

    def handle_data(self, data):
        if self.cell == "" and re.search(r"\d", data):
            self.bare.append(data)


def check_page(file, charts):
    """One self-contained page."""
    text = file.read_text()
    page = Page()
    page.feed(text)
    expect(f"{file.name}: cells without a source", not page.bare, page.bare)
    expect(f"{file.name}: requests", not page.fetched and "://" not in text and "@import" not in text and "url(" not in text,
           page.fetched)
    expect(f"{file.name}: charts", page.charts >= charts, page.charts)


def check_charts(folder, least):
    """Every chart is a file of well-formed XML in both themes."""
    files = sorted((folder / "charts").glob("*.svg"))
    expect("at least five charts", len(files) >= least, files)
    for file in files:
        expect(f"{file.name}: svg", ET.fromstring(file.read_text()).tag.endswith("svg"))
        expect(f"{file.name}: themes", "prefers-color-scheme:dark" in file.read_text())


def check_interrupted(folder):
    """What was measured before Ctrl-C is there, and progress says what is next."""
    with subprocess.Popen([ATELIER, "bench", "--protocol", "flux", *SMALL, "--output_dir", str(folder)], env=ENV,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        end = time.monotonic() + 300
        while time.monotonic() < end and run.poll() is None:
            if (folder / "bench.json").exists() and len(json.loads((folder / "bench.json").read_text())["rows"]) >= 2:
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        out = run.communicate(timeout=120)[0]
    expect("interrupted: exit code", run.returncode == 130, out)
    rows = json.loads((folder / "bench.json").read_text())["rows"]
    expect("interrupted: rows", 2 <= len(rows) < 12, len(rows))
    progress = (folder / "progress.md").read_text()
    expect("interrupted: progress", "interrupted; the same command goes on" in progress and "Measure " in progress, progress)
    expect("interrupted: not all done", "- [ ] Benchmarking completed" in progress, progress)
    return rows


def check_result(folder, before):
    """The whole protocol, gone on with."""
    code, out = atelier("bench", "--protocol", "flux", *SMALL, "--output_dir", str(folder))
    expect("protocol: exit code", code == 0, out)
    if code:
        return
    result = json.loads((folder / "bench.json").read_text())
    rows = {row["id"]: row for row in result["rows"]}
    expect("went on: the rows from before are kept", [row["measured"]["ms_per_step"] for row in before if "measured" in row] ==
           [rows[row["id"]]["measured"]["ms_per_step"] for row in before if "measured" in row])
    expect("numbers without a source", not list(unlabelled(result)), list(unlabelled(result)))
    expect("all sections", all(result[key] for key in ("rows", "traffic", "quality", "cited", "checks", "bound")), result.keys())
    expect("more ranks than there are", rows["ulysses_4-32x32-b1"]["status"] == "not measured here" and
           "measured" not in rows["ulysses_4-32x32-b1"], rows["ulysses_4-32x32-b1"])
    one = rows["data_1-32x32-b1"]["measured"]
    expect("runs", one["picture_s"]["count"] == 3 and one["store_s"]["count"] == 3 and one["ms_per_step"]["count"] == 6, one)
    expect("steps and picture", one["denoise_s"]["median"] < one["picture_s"]["median"] and one["pictures_per_second"] > 0, one)
    quality = {q["id"]: q for q in result["quality"]}
    for name in ("ulysses_2-32x32-b1", "ring_2-32x32-b1", "tensor_2-32x32-b1"):
        expect(f"quality of {name}", quality[name]["verdict"] == "same" and quality[name]["most_levels"] <= 1, quality.get(name))
    stale = quality["pipefusion_2-32x32-b1"]
    expect("quality of stale keys", stale["league"] == "approximate" and stale["most_levels"] > 1, stale)
    expect("heat map", (folder / "heat" / "pipefusion_2-32x32-b1.webp").stat().st_size > 100)
    traffic = {t["asked"]["layout"]: {v["verb"]: v for v in t["collectives"]} for t in result["traffic"]}
    expect("bytes of an exchange", traffic["ulysses=2"]["all_to_all"]["bytes"] > 0 and "send_recv" in traffic["ring=2"], traffic)
    expect("time under way", all(0 < t["share"] < 1 for t in result["traffic"]), result["traffic"])
    verdicts = {c["what"]: c["verdict"] for c in result["checks"]}
    expect("seven criteria", len(verdicts) == 7 and verdicts["Parallel inference functional"] == "pass" and
           verdicts["Linear scaling achieved"] == "not measurable", verdicts)
    check_page(folder / "report.html", 5)
    check_charts(folder, 5)
    table = list(csv.DictReader((folder / "report.csv").open()))
    expect("csv", all(row["source"] or not re.search(r"\d", row["value"]) for row in table) and len(table) > 100, len(table))
    expect("markdown", "**" in (folder / "report.md").read_text() and "(charts/speedup.svg)" in (folder / "report.md").read_text())
    progress = (folder / "progress.md").read_text()
    drawn = sum(row["status"] == "measured" for row in result["rows"])
    expect("progress: what is not measured is not done", f"of {len(result['rows'])} measurements {drawn} are done." in progress, progress)
    expect("progress", "## Overall Progress: 85%" in progress and "- [ ] Multi-GPU detection verified (no GPU" in progress and
           progress.count("- [x]") == 6, progress)


def check_too_large(scratch):
    """What does not fit in any layout ends with 3, and is not told as done."""
    free = int(re.search(r"MemAvailable: *(\d+)", open("/proc/meminfo", encoding="ascii").read())[1]) >> 20
    if free > 60:  # GiB: there it would fit
        return
    code, out = atelier("bench", "--protocol", "throughput", "--dummy", "FLUX.1-dev", "--device", "cpu", "--output_dir", str(scratch / "large"))
    expect("nothing fits", code == 3 and "nothing of the protocol fits" in out and "denoiser" in out, out)
    progress = (scratch / "large/progress.md").read_text()
    expect("nothing is done", "- [ ] Benchmarking completed" in progress and re.search(r"measurements 0 are done, \d+ failed", progress), progress)


def check_again(folder, scratch):
    """Nothing is measured twice; another run is refused; a page is made anew without drawing."""
    begin = time.monotonic()
    code, out = atelier("bench", "--protocol", "flux", *SMALL, "--output_dir", str(folder))
    expect("a finished run", code == 0 and time.monotonic() - begin < 20, out)
    code, out = atelier("bench", "--protocol", "flux", *SMALL, "--num_inference_steps", "3", "--output_dir", str(folder))
    expect("another run in its folder", code == 2 and "--no_resume" in out, out)
    code, out = atelier("report", "--from", str(folder), "--output_dir", str(scratch / "again"))
    expect("report --from", code == 0 and (scratch / "again/report.html").read_text() == (folder / "report.html").read_text(), out)


def check_compare(folder, scratch):
    """Exit codes of the gate."""
    other = scratch / "other.json"
    other.write_text(json.dumps({"rows": [{"ms_per_step": {"median": "x"}, "model": 1}]}))
    code, out = atelier("compare", str(folder), str(other))
    expect("compare names the file that it cannot read", code == 2 and "other.json" in out, out)
    code, out = atelier("compare", str(folder), str(folder))
    expect("compare with itself", code == 0 and " 0 worse, 0 gone" in out and "traced" not in out, out)
    result = json.loads((folder / "bench.json").read_text())
    slow = copy.deepcopy(result)
    for row in slow["rows"]:
        if row["id"] == "data_1-32x32-b1":
            for key in ("count", "first", "median", "p90", "p99", "min", "max"):
                row["measured"]["ms_per_step"][key] *= 1 if key == "count" else 50
    (scratch / "slow.json").write_text(json.dumps(slow))
    code, out = atelier("compare", str(folder), str(scratch / "slow.json"))
    expect("compare with a slower one", code == 1 and "WORSE" in out and "data_1-32x32-b1" in out, out)
    code, out = atelier("compare", str(scratch / "slow.json"), str(folder), "--json")
    expect("compare with a faster one", code == 0 and not list(unlabelled(json.loads(out))), out)
    slow["machine"]["device"] = "NVIDIA H200"
    (scratch / "other.json").write_text(json.dumps(slow))
    code, out = atelier("compare", str(folder), str(scratch / "other.json"))
    expect("compare with another device", code == 2 and "same device" in out, out)
    results = ROOT / "results"
    code, out = atelier("compare", str(results / "families_gpus_2.json"), str(results / "families_gpus_2.json"))
    expect("compare files of results/", code == 0, out)


def check_family(scratch):
    """Source hardware is modelled and says so; both lists of the report are there; ours is measured."""
    code, out = atelier("report", "--family", "hunyuan_dit", "--output_dir", str(scratch / "family"))
    expect("report --family", code == 0, out)
    if code:
        return
    check_page(scratch / "family/hunyuan_dit.html", 5)
    text = (scratch / "family/hunyuan_dit.md").read_text()
    for title in ("8xA100 (NVLink)", "8xL40 (PCIe)", "8xL20 (PCIe)", "8xV100 (NVLink)", "4xT4 (PCIe)", "NVIDIA H200"):
        expect(f"family: {title}", f"## {title}" in text, text[:500])
    expect("family: both lists", "reported ranking, first list" in text and "reported ranking, second list" in text)
    expect("family: measured rows", "families_gpus_2.json" in text)
    code, out = atelier("report", "--family", "other", "--output_dir", str(scratch / "family"))
    expect("report of an unknown family", code == 2 and "hunyuan_dit" in out, out)


def check_throughput(scratch):
    """GPUs that are not here are modelled where somebody says which; what has no use is refused."""
    folder = scratch / "throughput"
    code, out = atelier("bench", "--protocol", "throughput", *SMALL, "--hardware", "H200", "--output_dir", str(folder))
    expect("throughput: exit code", code == 0, out)
    if code == 0:
        rows = {row["id"]: row for row in json.loads((folder / "bench.json").read_text())["rows"]}
        eight = rows["data_8-32x32-b8"]
        expect("throughput: modelled", eight["status"] == "not measured here" and eight["modelled"]["kind"] == "modelled" and
               eight["modelled"]["hardware"] == "H200", eight)
        expect("throughput: modes", {row["asked"]["mode"] for row in rows.values()} == {"single", "multi", "dataparallel", ""}, rows)
        check_page(folder / "report.html", 2)
    for flags in (["--strategy", "ulysses=2"], ["--profile"], ["--batch_size", "2"]):
        code, out = atelier("bench", "--protocol", "flux", *SMALL, *flags, "--output_dir", str(scratch / "refused"))
        expect(f"refused: {flags}", code == 2 and "has no use in" in out, out)
    code, out = atelier("bench", "--protocol", "other", *SMALL, "--output_dir", str(scratch / "refused"))
    expect("refused: an unknown protocol", code == 2 and "there are flux and throughput" in out, out)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "flux"
        before = check_interrupted(folder)
        check_result(folder, before)
        if not failed:
            check_again(folder, scratch)
            check_compare(folder, scratch)
        check_family(scratch)
        check_throughput(scratch)
    print("ok" if not failed else f"{len(failed)} failed")
    return 1 if failed else 0


sys.exit(main())
