#!/usr/bin/env python3
"""200 sizes in a row, then mixed sizes, adapters, edits, cancels, clients that leave and refusals for a while: a new size costs
little, neither the server nor its workers grow, and a reference picture never changes.
slow_serve_soak.py [SECONDS, 120] [RESULT.json]; this is the short form of 72 hours, and says so."""
import base64
import json
import pathlib
import random
import re
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _adapter import write_lora  # noqa: E402
from _png import png_of  # noqa: E402
from _serve import Server, workers_of  # noqa: E402

GENERATE = "/v1/images/generations"
SIZES = ("64x64", "48x64", "64x48", "96x64", "128x64")
LORAS = ([], [], ["a"], ["b"], [{"name": "a", "strength": 0.5}])
MOST_GROWTH = 0.05        # of the second half's median over the first's
MOST_NEW_SIZE_S = 0.3     # what a size costs when it comes first
REFERENCE = {"prompt": "a reference", "size": "64x64", "steps": 3, "seed": 11}


def bytes_of(process):
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text()).group(1)) << 10


def drawn(server, body):
    began = time.monotonic()
    status, answer, _ = server.ask("POST", GENERATE, body)
    assert status == 200, (body, answer)
    return answer["data"][0]["b64_json"], time.monotonic() - began


def many_sizes(server, picks):
    """What 200 sizes cost the first time beyond the second, s, sorted."""
    costs = []
    for _ in range(200):
        size = f"{16 * picks.randrange(1, 13)}x{16 * picks.randrange(1, 13)}"
        body = {"prompt": "a", "size": size, "steps": 1, "seed": 1}
        first = drawn(server, body)[1]
        costs.append(first - drawn(server, body)[1])
    return sorted(costs)


def leave(server, body):
    text = json.dumps({**body, "steps": 50})
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        time.sleep(0.05)


def one(server, picks, image):
    choice = picks.random()
    body = {"prompt": f"picture {picks.randrange(50)}", "size": picks.choice(SIZES), "steps": picks.randrange(1, 6), "seed": picks.randrange(9)}
    lora = picks.choice(LORAS)
    if choice < 0.1:
        assert server.ask("POST", GENERATE, {**body, "size": "67x67"})[0] == 400
    elif choice < 0.25:
        job = server.ask("POST", GENERATE, {**body, "lora": lora, "steps": 50, "async": True})[1]["id"]
        time.sleep(picks.uniform(0, 0.1))
        server.ask("POST", f"/v1/jobs/{job}/cancel")
    elif choice < 0.3:
        leave(server, body)
    elif choice < 0.4:
        status, answer, _ = server.ask("POST", "/v1/images/edits", {**body, "image": image, "strength": 0.7})
        assert status == 200, answer
    else:
        drawn(server, {**body, "lora": lora, "n": picks.randrange(1, 4)})


def growth_of(values):
    half = len(values) // 2
    median = lambda part: sorted(part)[len(part) // 2]
    return median(values[half:]) / median(values[:half]) - 1


def p99(values):
    return sorted(values)[int(0.99 * (len(values) - 1))]


def soak(server, seconds, picks):
    image = base64.b64encode(png_of(64, 64, lambda x, y: (x * 4, y * 4, 0))).decode()
    reference, samples, times, requests = drawn(server, REFERENCE)[0], [], [], 0
    worker, begin = workers_of(server)[0], time.monotonic()
    while time.monotonic() < begin + seconds:
        one(server, picks, image)
        requests += 1
        if requests % 10 == 0:
            again, took = drawn(server, REFERENCE)
            assert again == reference, "the reference picture has changed"
            if time.monotonic() - begin > seconds / 4:  # by then everything has been seen once
                times.append(took)
                samples.append((bytes_of(server.process.pid), bytes_of(worker)))
    assert worker == workers_of(server)[0], "the worker was replaced"
    growth = [growth_of([s[i] for s in samples]) for i in (0, 1)]
    half = len(times) // 2
    return {"seconds": seconds, "requests": requests, "server_bytes": samples[-1][0], "worker_bytes": samples[-1][1], "server_growth": growth[0],
            "worker_growth": growth[1], "reference_p99_s": [p99(times[:half]), p99(times[half:])]}


def main():
    seconds = int(sys.argv[1]) if sys.argv[1:] else 120
    picks = random.Random(5)
    with tempfile.TemporaryDirectory() as data:
        shelf = pathlib.Path(data) / "adapters"
        for seed, name in enumerate(("a", "b")):
            write_lora(shelf / f"{name}.safetensors", seed)
        began = time.monotonic()
        with Server("--batch_size", "4", "--keep_jobs", "20", "--lora_dir", str(shelf), data=data) as server:
            start_s = time.monotonic() - began
            sizes = many_sizes(server, picks)
            result = {"start_s": start_s, "new_size_s": {"median": sizes[100], "p99": sizes[198], "most": sizes[-1]}, **soak(server, seconds, picks)}
            end = time.monotonic() + 10  # what is old is forgotten every 64 jobs
            while (files := len(list((server.data / "data" / "pictures").iterdir()))) > 20 + 64 + 8 and time.monotonic() < end:
                time.sleep(0.2)
            result["pictures_kept"] = files
            assert server.end() == 0
    result["summary"] = (f"{result['requests']} requests in {seconds} s, growth of the server {100 * result['server_growth']:.1f} %, of its worker "
                         f"{100 * result['worker_growth']:.1f} %; a new size costs {1000 * sizes[100]:.0f} ms, p99 {1000 * sizes[198]:.0f} ms; start {start_s:.1f} s")
    print(json.dumps(result, indent=1))
    if sys.argv[2:]:
        pathlib.Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")
    assert max(result["server_growth"], result["worker_growth"]) < MOST_GROWTH, result
    assert sizes[198] < MOST_NEW_SIZE_S and files <= 20 + 64 + 8, result
    return 0


if __name__ == "__main__":
    sys.exit(main())
