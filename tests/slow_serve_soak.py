#!/usr/bin/env python3
"""Mixed sizes, cancels and refusals for a while: neither the server nor its workers grow. slow_serve_soak.py [SECONDS, 120]
[RESULT.json]; this is the short form of 72 hours, and says so."""
import json
import pathlib
import random
import re
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _serve import Server  # noqa: E402

SIZES = ("64x64", "48x64", "64x48", "96x64", "128x64")
MOST_GROWTH = 0.05  # of the second half's median over the first's


def bytes_of(process):
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text()).group(1)) << 10


def worker_of(server):
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{server.process.pid}\n" in status.read_text():
                return int(status.parent.name)
        except OSError:
            continue
    raise AssertionError("there is no worker")


def one(server, picks):
    choice = picks.random()
    body = {"prompt": f"picture {picks.randrange(50)}", "size": picks.choice(SIZES), "steps": picks.randrange(1, 6), "seed": picks.randrange(9)}
    if choice < 0.1:
        assert server.ask("POST", "/v1/images/generations", {**body, "size": "67x67"})[0] == 400
    elif choice < 0.3:
        job = server.ask("POST", "/v1/images/generations", {**body, "steps": 50, "async": True})[1]["id"]
        time.sleep(picks.uniform(0, 0.1))
        server.ask("POST", f"/v1/jobs/{job}/cancel")
    else:
        assert server.ask("POST", "/v1/images/generations", {**body, "n": picks.randrange(1, 4)})[0] == 200


def main():
    seconds = int(sys.argv[1]) if sys.argv[1:] else 120
    picks, samples, requests = random.Random(5), [], 0
    with tempfile.TemporaryDirectory() as data, Server("--batch_size", "4", "--keep_jobs", "20", data=data) as server:
        worker = worker_of(server)
        end, begin = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < end:
            one(server, picks)
            requests += 1
            if time.monotonic() - begin > seconds / 4:  # by then everything has been seen once
                samples.append((bytes_of(server.process.pid), bytes_of(worker)))
        assert worker == worker_of(server), "the worker was replaced"
        files = len(list((server.data / "data" / "pictures").iterdir()))
    half = len(samples) // 2
    median = lambda values: sorted(values)[len(values) // 2]
    growth = [median([s[i] for s in samples[half:]]) / median([s[i] for s in samples[:half]]) - 1 for i in (0, 1)]
    result = {"seconds": seconds, "requests": requests, "server_bytes": samples[-1][0], "worker_bytes": samples[-1][1],
              "server_growth": growth[0], "worker_growth": growth[1], "pictures_kept": files}
    print(json.dumps(result, indent=1))
    if sys.argv[2:]:
        pathlib.Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")
    assert max(growth) < MOST_GROWTH, result
    assert files <= 20 + 64 + 8, files
    return 0


if __name__ == "__main__":
    sys.exit(main())
