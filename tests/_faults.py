# Breaks workers of real runs on CPU ranks and checks that nothing is lost, doubled, changed or left behind.
#   _faults.py random COUNT SEED [RESULT.json]   kills at random moments, from outside
#   _faults.py table quick|all [RESULT.json]     faults at known places, from inside (ATELIER_FAULT)
#   _faults.py ends                              failing runs, Ctrl-C: exit codes and what stays
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier"))
MODEL = ROOT / "models/mini"
LAYOUTS = ["data=2", "ulysses=2", "pipefusion=2", "data=2, ulysses=2"]
MARK = f"ATELIER_TEST_MARK={uuid.uuid4()}"


def ours():
    """Process numbers of everything that carries our mark and still runs."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if MARK.encode() not in (folder / "environ").read_bytes():
                continue
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.append(int(folder.name))
    return found


def children(parent):
    found = []
    for pid in ours():
        try:
            if int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(pid)
        except OSError:
            continue
    return sorted(found)


class Run:
    """One run of the program; its lines come with the time at which they came."""

    def __init__(self, folder, layout, pictures, *more, fault=""):
        prompts = folder / "prompts.txt"
        prompts.write_text("".join(f"a red circle, number {i}\n" for i in range(pictures)))
        name, value = MARK.split("=")
        environment = os.environ | {name: value, "ATELIER_FAULT": fault}
        # fmt: off
        command = [ATELIER, "t2i", "--model_name", str(MODEL), "--device", "cpu", "--strategy", layout, "--seed", "1",
                   "--prompts_file", str(prompts), "--output_dir", str(folder / "out"), "--height", "128", "--width", "128",
                   "--num_inference_steps", "4", "--true_cfg_scale", "1", *more]
        # fmt: on
        self.lines = []
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    def is_over(self):
        return self.process.poll() is not None

    def wait(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.show()
            raise AssertionError(f"the run hangs: not over after {seconds} s") from None
        self.reader.join(10)
        return self.process.returncode

    def count(self, text):
        return sum(text in line for _, line in self.lines)

    def first(self, text, since):
        return next((t for t, line in list(self.lines) if t >= since and text in line), None)

    def show(self):
        print("\n".join(line for _, line in self.lines), flush=True)


def records(folder):
    file = folder / "out/ledger.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def pictures_of(folder):
    return {p.name: p.read_bytes() for p in (folder / "out").glob("*.png")}


def check(condition, what, run=None):
    if not condition:
        if run:
            run.show()
        raise AssertionError(what)


def check_nothing_left(folder, run=None):
    end = time.monotonic() + 2
    while ours() and time.monotonic() < end:
        time.sleep(0.05)
    check(not ours(), f"processes are left: {ours()}", run)
    left = [p.name for p in (folder / "out").rglob(".atelier-*")]
    check(not left, f"temporary files are left: {left}", run)


class Place:
    """Folders of the test; reference pictures per layout, drawn once without faults."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="atelier-faults-"))
        self.references = {}
        self.next = 0

    def folder(self):
        self.next += 1
        folder = self.root / str(self.next)
        folder.mkdir()
        return folder

    def reference(self, layout, pictures):
        if (layout, pictures) not in self.references:
            folder = self.folder()
            run = Run(folder, layout, pictures)
            check(run.wait(120) == 0, "an undisturbed run fails", run)
            self.references[layout, pictures] = pictures_of(folder)
            check(len(self.references[layout, pictures]) == pictures, "an undisturbed run draws less", run)
            shutil.rmtree(folder)
        return self.references[layout, pictures]


def compare(folder, reference, run, are_all_recorded=True):
    found = pictures_of(folder)
    check(found.keys() == reference.keys(), f"lost or extra pictures: {sorted(found.keys() ^ reference.keys())}", run)
    other = [name for name in found if found[name] != reference[name]]
    check(not other, f"pictures differ from an undisturbed run's: {other}", run)
    done = [r["name"] for r in records(folder) if r.get("status", "done") == "done" and not r.get("error")]
    check(len(done) == len(set(done)), f"pictures are recorded twice: {done}", run)
    if are_all_recorded:
        check(set(done) == set(reference), f"pictures are not recorded: {sorted(set(reference) - set(done))}", run)


def break_once(run, kind, chance):
    """One fault from outside; what happened, or nothing if there was no worker to break."""
    workers = children(run.process.pid)
    if not workers or run.is_over():
        return None
    at = time.monotonic()
    if kind == "supervisor":
        run.process.kill()
        run.process.wait()
        while ours() and time.monotonic() - at < 10:
            time.sleep(0.01)
        return {"kind": kind, "noticed_s": round(time.monotonic() - at, 3)}
    victim = chance.choice(workers)
    try:
        os.kill(victim, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
    except ProcessLookupError:
        return None
    # the next one comes when this one is noticed, or when the run is over without
    while not run.is_over() and time.monotonic() - at < 30:
        noticed = run.first("started again", at)
        if noticed:
            return {"kind": kind, "noticed_s": round(noticed - at, 3)}
        time.sleep(0.02)
    check(run.is_over(), f"{kind} of {victim} was not noticed", run)
    return {"kind": kind, "noticed_s": None}


def random_faults(count, seed, result):
    chance = random.Random(seed)
    place, done, runs, begin = Place(), [], 0, time.monotonic()
    while len(done) < count:
        layout = LAYOUTS[runs % len(LAYOUTS)]
        runs += 1
        pictures = 12
        reference = place.reference(layout, pictures)
        folder = place.folder()
        arguments = ("--max_retries", "50")
        run, was_killed = Run(folder, layout, pictures, *arguments), False
        for _ in range(5):
            if len(done) >= count:
                break
            time.sleep(chance.uniform(0.05, 1.5))
            # one of each rare kind in twenty
            kind = {7: "stop", 13: "supervisor"}.get(len(done) % 20, "kill")
            event = break_once(run, kind, chance)
            if not event:
                break
            done.append(event | {"layout": layout})
            if kind == "supervisor":
                check(event["noticed_s"] < 2, f"workers outlive their supervisor by {event['noticed_s']} s")
                run, was_killed = Run(folder, layout, pictures, *arguments), True
        code = run.wait(180)
        check(code == 0, f"exit code {code}", run)
        compare(folder, reference, run, are_all_recorded=not was_killed)
        check_nothing_left(folder, run)
        shutil.rmtree(folder)
    times = sorted(e["noticed_s"] for e in done if e["kind"] == "kill" and e["noticed_s"] is not None)
    check(times and times[-1] < 2, f"a death was noticed after {times[-1]} s")
    summary = {
        "what": "random faults from outside on CPU ranks: kill -9 or SIGSTOP of a worker, kill -9 of the supervisor",
        "model": "mini, 128x128, 4 steps, float32", "seed": seed, "injections": len(done), "runs": runs,
        "lost": 0, "duplicated": 0, "different": 0, "left_behind": 0,
        "kinds": {k: sum(e["kind"] == k for e in done) for k in ("kill", "stop", "supervisor")},
        "kill_noticed_s": {"median": times[len(times) // 2], "max": times[-1]},
        "stop_noticed_s": [e["noticed_s"] for e in done if e["kind"] == "stop"],
        "seconds": round(time.monotonic() - begin, 1),
    }
    finish(place, summary, result)


QUICK = ["1:load:kill", "0:encode:throw", "1:step:2:oom", "0:decode:kill", "0:write:1:kill"]


def table(which, result):
    cases = QUICK
    if which == "all":
        places = ["load", "encode", "step:0", "step:1", "step:2", "step:3", "decode", "write"]
        cases = [f"{rank}:{at}:{how}" for at in places for rank in (0, 1) for how in ("kill", "throw", "oom", "hang")
                 if at != "write" or rank == 0]
    place, rows, begin = Place(), [], time.monotonic()
    for i, fault in enumerate(cases):
        layout = LAYOUTS[1 + i % 2]  # both ranks draw the same picture
        reference = place.reference(layout, 3)
        folder = place.folder()
        run = Run(folder, layout, 3, "--max_retries", "3", "--timeout", "4", "--start_timeout", "15", fault=fault)
        code = run.wait(120)
        # a model that does not fit is no accident: loading is not tried again
        expected = 3 if "load:oom" in fault else 0
        check(code == expected, f"{fault}: exit code {code} instead of {expected}", run)
        if expected == 0:
            compare(folder, reference, run)
            has_effect = run.count("started again") == 1 or "write:throw" in fault or "write:oom" in fault
            check(has_effect, f"{fault}: the workers were started again {run.count('started again')} times", run)
        check_nothing_left(folder, run)
        rows.append({"fault": fault, "layout": layout, "exit": code})
        shutil.rmtree(folder)
    finish(place, {"what": "faults at known places on CPU ranks", "cases": rows, "seconds": round(time.monotonic() - begin, 1)}, result)


def ends():
    place = Place()
    # a picture that always breaks its worker is reported, the exit code says so
    folder = place.folder()
    run = Run(folder, "ulysses=2", 1, "--max_retries", "1", fault="1:step:1:throw:always")
    check(run.wait(120) == 1, "a failed picture must give exit code 1", run)
    check(run.count("failed after 2 tries") == 1 and run.count("injected") >= 1, "the failure is not told", run)
    check(len(records(folder)) == 1, "the failure is not recorded", run)
    check_nothing_left(folder, run)
    # of ranks that wait for each other in every step the one that hangs is named, and no other
    folder = place.folder()
    run = Run(folder, "ulysses=3", 1, "--timeout", "3", fault="2:step:1:hang")
    check(run.wait(120) == 0, "a run with a hang must end well", run)
    late = [line for _, line in run.lines if "is late" in line]
    check(late and all("rank 2" in line and not re.search("rank [01]", line) for line in late), f"the wrong rank is blamed: {late}", run)
    check_nothing_left(folder, run)
    # Ctrl-C, to the whole group as terminals send it
    folder = place.folder()
    run = Run(folder, "data=2", 200)
    while not pictures_of(folder) and not run.is_over():
        time.sleep(0.05)
    at = time.monotonic()
    for pid in ours():
        os.kill(pid, signal.SIGINT)
    check(run.wait(30) == 130, f"Ctrl-C must give exit code 130, not {run.process.returncode}", run)
    check(time.monotonic() - at < 2, f"Ctrl-C took {time.monotonic() - at:.1f} s", run)
    check_nothing_left(folder, run)
    kept = pictures_of(folder)
    check(kept and set(kept) == {r["name"] for r in records(folder)}, "finished pictures are not all recorded", run)
    finish(place, {"what": "failure, hang and Ctrl-C"}, "")


def finish(place, summary, result):
    shutil.rmtree(place.root)
    print(json.dumps({k: v for k, v in summary.items() if k != "cases"}))
    if result:
        pathlib.Path(result).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(result).write_text(json.dumps(summary, indent=1) + "\n")


def main():
    if not MODEL.exists():
        print("models/mini is not there")
        sys.exit(77)
    mode, *rest = sys.argv[1:]
    if mode == "random":
        random_faults(int(rest[0]), int(rest[1]), rest[2] if len(rest) > 2 else "")
    elif mode == "table":
        table(rest[0], rest[1] if len(rest) > 1 else "")
    else:
        ends()


main()
