#!/usr/bin/env python3
"""The server while things break: workers that die or run out of memory, a full disk, a clock that is set, clients that leave."""
import base64
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _serve import Server, run_all, workers_of  # noqa: E402

SMALL = {"prompt": "a red circle", "size": "64x64", "steps": 3, "seed": 3}
GENERATE = "/v1/images/generations"
TWO = ("--num_gpus", "2", "--ulysses_degree", "2")
# A library in front of the C library's clock: the time of day is off by the seconds that a file says.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
static long offset(void) {
  const char* name = getenv("CLOCK_OFFSET");
  long seconds = 0;
  FILE* file = name ? fopen(name, "r") : 0;
  if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
  return seconds;
}
int clock_gettime(clockid_t id, struct timespec* out) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int code = real(id, out);
  if (id == CLOCK_REALTIME) out->tv_sec += offset();
  return code;
}
time_t time(time_t* out) { struct timespec now; clock_gettime(CLOCK_REALTIME, &now); if (out) *out = now.tv_sec; return now.tv_sec; }
int gettimeofday(struct timeval* out, void* zone) {
  struct timespec now; clock_gettime(CLOCK_REALTIME, &now); out->tv_sec = now.tv_sec; out->tv_usec = now.tv_nsec / 1000; return 0;
}
"""


def picture(server, **more):
    status, body, _ = server.ask("POST", GENERATE, {**SMALL, **more}, seconds=600)
    assert status == 200, body
    return body["data"][0]["b64_json"]


def wait_until(is_true, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_a_killed_worker_costs_no_answer():
    with tempfile.TemporaryDirectory() as data, Server(*TWO, data=data) as one:
        before, answers = picture(one, steps=40), []
        clients = [threading.Thread(target=lambda: answers.append(picture(one, steps=40))) for _ in range(3)]
        for c in clients:
            c.start()
        for _ in range(2):
            wait_until(lambda: any(g["busy"] for g in one.ask("GET", "/v1/status")[1]["groups"]))
            os.kill(workers_of(one)[-1], signal.SIGKILL)
            time.sleep(0.5)
        for c in clients:
            c.join(600)
        assert answers == [before] * 3, len(answers)


def test_a_stopped_worker_costs_no_answer():
    with tempfile.TemporaryDirectory() as data, Server(*TWO, data=data) as one:
        before, answers = picture(one, steps=40), []
        client = threading.Thread(target=lambda: answers.append(picture(one, steps=40)))
        client.start()
        wait_until(lambda: any(g["busy"] for g in one.ask("GET", "/v1/status")[1]["groups"]))
        os.kill(workers_of(one)[0], signal.SIGSTOP)
        client.join(600)
        assert answers == [before], len(answers)


def test_an_allocation_that_fails_costs_no_answer():
    with tempfile.TemporaryDirectory() as data, Server(data=data) as plain:
        before = picture(plain)
    for fault in ("0:step:1:oom", "0:decode:oom", "0:encode:oom", "0:step:1:throw"):
        with tempfile.TemporaryDirectory() as data, Server(data=data, variables={"ATELIER_FAULT": fault}) as one:
            assert picture(one) == before, fault
            assert picture(one) == before, fault


def test_a_full_disk_loses_nothing():
    if os.geteuid() != 0:
        return print("        left out: a small file system needs root")
    with tempfile.TemporaryDirectory() as data:
        small = pathlib.Path(data) / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)], capture_output=True).returncode:
            return print("        left out: no file system can be mounted here")
        try:
            with Server(data=str(small)) as one:
                before = picture(one)
                jobs = [one.ask("POST", GENERATE, {**SMALL, "steps": 30, "async": True})[1]["id"] for _ in range(3)]
                fill(small / "ballast")
                for job in jobs:
                    assert one.wait_job(job)["status"] == "done"
                refused = one.ask("POST", GENERATE, {**SMALL, "async": True})
                assert refused[0] == 503 and refused[1]["error"]["code"] == "store", refused
                assert one.ask("GET", "/livez")[0] == 200
                one.process.kill()  # what the disk does not hold is drawn again
                one.process.wait()
                (small / "ballast").unlink()
            with Server(data=str(small)) as two:
                long = base64.b64decode(picture(two, steps=30))
                for job in jobs:
                    assert two.wait_job(job)["status"] == "done"
                    assert two.ask("GET", f"/v1/jobs/{job}/images/0")[1] == long
                assert picture(two) == before
                assert two.end() == 0
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file:
        size = 65536
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def test_a_clock_that_jumps():
    with tempfile.TemporaryDirectory() as data:
        folder = pathlib.Path(data)
        (folder / "clock.c").write_text(CLOCK)
        made = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", folder / "clock.so", folder / "clock.c", "-ldl"], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        offset = folder / "offset"
        offset.write_text("0")

        def jump(seconds):
            (folder / "next").write_text(str(seconds))
            (folder / "next").replace(offset)
        with Server("--request_timeout", "60", data=data, variables={"LD_PRELOAD": str(folder / "clock.so"), "CLOCK_OFFSET": str(offset)}) as one:
            before = picture(one)
            for seconds in (86400, -86400, 10 * 365 * 86400, 0):
                job = one.ask("POST", GENERATE, {**SMALL, "steps": 60, "async": True})[1]["id"]
                wait_until(lambda: one.ask("GET", f"/v1/jobs/{job}")[1]["status"] == "running")
                jump(seconds)
                assert one.wait_job(job)["status"] == "done", seconds
                assert picture(one) == before
            created = one.ask("GET", "/v1/jobs?limit=1")[1]["data"][0]["created"]
            assert abs(created - time.time()) < 600
            assert one.end() == 0


def test_a_client_that_leaves_cancels():
    with tempfile.TemporaryDirectory() as data, Server(data=data) as one:
        def leave(**headers):
            body = json.dumps({**SMALL, "steps": 150, "size": "128x128"})
            lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
            with socket.create_connection(("127.0.0.1", one.port), timeout=30) as s:
                s.sendall(f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                wait_until(lambda: any(g["busy"] for g in one.ask("GET", "/v1/status")[1]["groups"]))
            return one.ask("GET", "/v1/jobs?limit=1")[1]["data"][0]["id"]
        began = time.monotonic()
        assert one.wait_job(leave())["status"] == "cancelled"
        assert time.monotonic() - began < 20
        assert one.wait_job(leave(Idempotency_Key="stay"))["status"] == "done"  # who can ask again is waited for


def test_an_accepted_job_waits_out_a_model_that_is_gone():
    """A server that cannot start draws nothing and loses nothing."""
    with tempfile.TemporaryDirectory() as data:
        with Server(data=data) as one:
            job = one.ask("POST", GENERATE, {**SMALL, "steps": 200, "size": "128x128", "async": True})[1]["id"]
            one.process.kill()
            one.process.wait()
        try:
            Server("--height", "67", data=data)
        except AssertionError:
            pass
        with Server(data=data) as two:
            assert two.wait_job(job)["status"] == "done"


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    wanted = sys.argv[1:]
    return run_all([t for t in tests if not wanted or any(w in t.__name__ for w in wanted)])


if __name__ == "__main__":
    sys.exit(main())
