#!/usr/bin/env python3
"""Faults under load: workers that are killed, stopped or out of memory, the server itself killed, a disk that is full, connections
that are cut. No acknowledged job is lost, no picture is wrong, nobody waits for ever.
slow_serve_chaos.py [SECONDS, 120] [SEED] [RESULT.json]"""
import base64
import http.client
import json
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _png import difference  # noqa: E402
from _serve import Server, workers_of  # noqa: E402

FLAGS = ("--batch_size", "4", "--data_parallel_degree", "2", "--ulysses_degree", "2", "--num_gpus", "4", "--max_retries", "50",
         "--request_timeout", "3600", "--max_queue", "10000", "--max_per_key", "10000", "--keep_jobs", "100000")
KINDS = 12  # different pictures
CLIENTS, OPEN = 6, 3  # each asks again when fewer than so many of its jobs are open
WEIGHTS = {"kill_worker": 36, "stop_worker": 10, "no_memory": 16, "cut": 20, "full_disk": 8, "kill_server": 10}
FULL_S, SHORT_S = 1.0, 0.7  # how long the disk is full, memory is short


def request(kind):
    size = ("64x64", "48x64", "64x48")[kind % 3]
    return {"prompt": f"picture {kind}", "size": size, "steps": 3 + kind % 4, "seed": kind}


class Chaos:
    def __init__(self, seed, data, has_disk):
        self.random, self.data = random.Random(seed), data
        self.weights = {k: w for k, w in WEIGHTS.items() if k != "full_disk" or has_disk}
        self.acknowledged, self.done, self.lock = {}, threading.Event(), threading.Lock()
        self.counts, self.failed = dict.fromkeys(self.weights, 0), []
        self.server = None

    def start(self):
        self.server = Server(*FLAGS, data=self.data, wait_ready=False)

    def client(self, number):
        """Asks for jobs until it is over; what was acknowledged is remembered."""
        picks, mine = random.Random(number), []
        while not self.done.is_set():
            try:
                mine = [j for j in mine if self.server.ask("GET", f"/v1/jobs/{j}", seconds=30)[1].get("status") in ("queued", "running")]
                if len(mine) >= OPEN:
                    time.sleep(0.1)
                    continue
                kind = picks.randrange(KINDS)
                status, body, _ = self.server.ask("POST", "/v1/images/generations", {**request(kind), "async": True}, seconds=60)
            except (OSError, AttributeError, ValueError, http.client.HTTPException):
                time.sleep(0.1)
                continue
            if status == 202:
                mine.append(body["id"])
                with self.lock:
                    self.acknowledged[body["id"]] = kind
            elif status not in (429, 503):
                self.failed.append(f"{status}: {body}")

    def cut(self):
        """A client that leaves in the middle of its request, and one in the middle of its answer."""
        body = json.dumps({**request(0), "steps": 20})
        for end in (60, None):
            try:
                with socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as s:
                    s.sendall(f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()[:end])
            except OSError:
                pass

    def kill_server(self):
        self.server.process.kill()
        self.server.process.wait()
        self.server.close()
        self.start()

    def full_disk(self):
        ballast = pathlib.Path(self.data) / "ballast"
        with open(ballast, "wb", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size //= 2
            time.sleep(FULL_S)
        ballast.unlink()

    def worker(self, act):
        victims = workers_of(self.server)
        if victims:
            try:
                act(self.random.choice(victims))
            except (ProcessLookupError, PermissionError):
                pass

    def no_memory(self):
        """No further page for one worker, for a while."""
        def act(victim):
            old = resource.prlimit(victim, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
            time.sleep(SHORT_S)
            resource.prlimit(victim, resource.RLIMIT_AS, old)
        self.worker(act)

    def fault(self):
        kind = self.random.choices(list(self.weights), self.weights.values())[0]
        self.counts[kind] += 1
        if kind in ("kill_worker", "stop_worker"):
            self.worker(lambda victim: os.kill(victim, signal.SIGKILL if kind == "kill_worker" else signal.SIGSTOP))
        else:
            getattr(self, kind)()

    def run(self, seconds):
        self.start()
        self.server.wait_ready()
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(CLIENTS)]
        for t in threads:
            t.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.random.uniform(0.05, 0.8))
            self.fault()
            assert self.server.process.poll() is None, self.server.errors()
        self.done.set()
        for t in threads:
            t.join()
        return self.judge(seconds)

    def judge(self, seconds):
        self.server.wait_ready()
        right = {}
        for kind in range(KINDS):
            status, body, _ = self.server.ask("POST", "/v1/images/generations", request(kind), seconds=600)
            assert status == 200, body
            right[kind] = base64.b64decode(body["data"][0]["b64_json"])
        lost, wrong = [], []
        for job, kind in self.acknowledged.items():
            ended = self.server.wait_job(job, 600)
            if ended["status"] != "done":
                lost.append((job, ended["error"]))
            elif not is_same(self.server.ask("GET", f"/v1/jobs/{job}/images/0")[1], right[kind]):
                wrong.append(job)
        assert self.server.end() == 0
        total = sum(self.counts.values())
        return {"summary": f"{total} injections in {seconds} s, {len(self.acknowledged)} acknowledged jobs, {len(lost)} lost, {len(wrong)} wrong",
                "seconds": seconds, "injections": total, "faults": self.counts, "acknowledged": len(self.acknowledged), "lost": lost, "wrong": wrong,
                "answers_that_should_not_be": self.failed[:20]}


def is_same(one, other):
    """Neighbours in a batch change the order of sums, and with it at most the last level."""
    if one == other:
        return True
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / name for name in ("one.png", "other.png")]
        files[0].write_bytes(one)
        files[1].write_bytes(other)
        return difference(*files)[0] <= 1


def small_disk(folder):
    return os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", folder], capture_output=True).returncode == 0


def main():
    seconds = int(sys.argv[1]) if sys.argv[1:] else 120
    seed = int(sys.argv[2]) if sys.argv[2:] else 1
    with tempfile.TemporaryDirectory() as data:
        has_disk = small_disk(data)
        chaos = Chaos(seed, data, has_disk)
        try:
            result = chaos.run(seconds)
        finally:
            chaos.done.set()
            if chaos.server:
                chaos.server.close()
            if has_disk:
                subprocess.run(["umount", "-l", data], check=True)
    print(json.dumps(result, indent=1))
    if sys.argv[3:]:
        pathlib.Path(sys.argv[3]).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["lost"] or result["wrong"] or chaos.failed else 0


if __name__ == "__main__":
    sys.exit(main())
