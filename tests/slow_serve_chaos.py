#!/usr/bin/env python3
"""Faults under load: workers that are killed or stopped, the server itself killed, connections that are cut. No acknowledged job
is lost, no picture is wrong, nobody waits for ever. slow_serve_chaos.py [FAULTS, 60] [SEED] [RESULT.json]"""
import base64
import json
import os
import pathlib
import random
import signal
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _serve import Server  # noqa: E402

FLAGS = ("--batch_size", "4", "--data_parallel_degree", "2", "--ulysses_degree", "2", "--num_gpus", "4", "--max_retries", "50",
         "--request_timeout", "600", "--max_queue", "10000", "--max_per_key", "10000")
KINDS = 12  # different pictures


def request(kind):
    size = ("64x64", "48x64", "64x48")[kind % 3]
    return {"prompt": f"picture {kind}", "size": size, "steps": 3 + kind % 4, "seed": kind}


def workers_of(server):
    out = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{server.process.pid}\n" in status.read_text():
                out.append(int(status.parent.name))
        except OSError:
            continue
    return out


class Chaos:
    def __init__(self, faults, seed, data):
        self.random, self.faults, self.data = random.Random(seed), faults, data
        self.acknowledged, self.done, self.lock = {}, threading.Event(), threading.Lock()
        self.counts = {"kill_worker": 0, "stop_worker": 0, "kill_server": 0, "cut": 0}
        self.port = 0
        self.server = None

    def start(self):
        self.server = Server(*FLAGS, data=self.data)

    def client(self, number):
        """Asks for jobs until it is over; what was acknowledged is remembered."""
        picks = random.Random(number)
        while not self.done.is_set():
            kind = picks.randrange(KINDS)
            try:
                status, body, _ = self.server.ask("POST", "/v1/images/generations", {**request(kind), "async": True}, seconds=30)
            except (OSError, AttributeError, ValueError):
                time.sleep(0.2)
                continue
            if status == 202:
                with self.lock:
                    self.acknowledged[body["id"]] = kind
            time.sleep(picks.uniform(0.05, 0.6))

    def cut(self):
        """A client that leaves in the middle of its request, and one in the middle of its answer."""
        body = json.dumps({**request(0), "steps": 20})
        for end in (60, None):
            try:
                with socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as s:
                    s.sendall(f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()[:end])
            except OSError:
                pass

    def fault(self):
        kind = self.random.choices(("kill_worker", "stop_worker", "cut", "kill_server"), (50, 15, 25, 10))[0]
        self.counts[kind] += 1
        if kind == "cut":
            return self.cut()
        if kind == "kill_server":
            self.server.process.kill()
            self.server.process.wait()
            self.server.close()
            return self.start()
        victims = workers_of(self.server)
        if not victims:
            return None
        victim = self.random.choice(victims)
        try:
            os.kill(victim, signal.SIGKILL if kind == "kill_worker" else signal.SIGSTOP)
        except ProcessLookupError:
            pass

    def run(self):
        self.start()
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        for _ in range(self.faults):
            time.sleep(self.random.uniform(0.2, 1.5))
            self.fault()
        self.done.set()
        for t in threads:
            t.join()
        return self.judge()

    def judge(self):
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
                continue
            if self.server.ask("GET", f"/v1/jobs/{job}/images/0")[1] != right[kind]:
                wrong.append(job)
        self.server.end()
        return {"faults": self.counts, "acknowledged": len(self.acknowledged), "lost": lost, "wrong": wrong}


def main():
    faults = int(sys.argv[1]) if sys.argv[1:] else 60
    seed = int(sys.argv[2]) if sys.argv[2:] else 1
    with tempfile.TemporaryDirectory() as data:
        chaos = Chaos(faults, seed, data)
        try:
            result = chaos.run()
        finally:
            chaos.done.set()
            if chaos.server:
                chaos.server.close()
    print(json.dumps(result, indent=1))
    if sys.argv[3:]:
        pathlib.Path(sys.argv[3]).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["lost"] or result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
