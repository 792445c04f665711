#!/usr/bin/env python3
"""What the front end costs, against an engine that draws nothing: 500 requests/s by wrk on a core of its own beside a handler
that does nothing, 10,000 idle connections, slow readers. slow_serve_load.py [RESULT.json]"""
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _serve import BUILD, run_all  # noqa: E402

STUB = BUILD / "src" / "serve-stub"
RATE, CONNECTIONS, SECONDS, RUNS = 500, 10, 8, 5
MOST_OVERHEAD_MS, MOST_BYTES, IDLE = 2.0, 256 << 20, 10000
BODY = json.dumps({"prompt": "a fox", "size": "64x64", "steps": 1, "seed": 3})
# Each connection sends again a fixed time after it sent last, so the rate is that of a clock.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '%s'
function delay() return %d end
function response(status) if status ~= 200 then wrk.thread:stop() end end
"""
results = {}


class Stub:
    def __init__(self, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        cores = sorted(os.sched_getaffinity(0))
        self.cores = ",".join(map(str, cores[:-1] or cores)), str(cores[-1])  # the server's, the client's
        self.process = subprocess.Popen(["taskset", "-c", self.cores[0], STUB, self.folder.name, *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.port, self.nothing = (int(self.process.stdout.readline().rsplit(":", 1)[1]) for _ in range(2))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)
        self.folder.cleanup()

    def bytes(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) << 10

    def ask(self, seconds=10):
        """How long one picture takes, s."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as s:
            s.sendall(f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                      f"Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode())
            text = b""
            while piece := s.recv(65536):
                text += piece
        assert text.startswith(b"HTTP/1.1 200"), text[:200]
        return time.monotonic() - began


def wrk(stub, port, path):
    """(requests/s, p50 ms, p99 ms)"""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (BODY, 1000 * CONNECTIONS // RATE))
        script.flush()
        text = subprocess.run(["taskset", "-c", stub.cores[1], "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", script.name,
                               f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in text and "Socket errors" not in text, text
    number = lambda pattern: re.search(pattern, text)
    ms = lambda match: float(match.group(1)) * {"us": 1e-3, "ms": 1, "s": 1e3}[match.group(2)]
    return (float(number(r"Requests/sec:\s+([\d.]+)").group(1)), ms(number(r"50%\s+([\d.]+)(us|ms|s)")), ms(number(r"99%\s+([\d.]+)(us|ms|s)")))


def test_overhead_at_500_requests_per_second():
    rows = []
    with Stub() as stub:
        wrk(stub, stub.port, "/v1/images/generations")  # not counted
        for _ in range(RUNS):
            nothing = wrk(stub, stub.nothing, "/")
            drawn = wrk(stub, stub.port, "/v1/images/generations")
            rows.append((drawn, nothing, drawn[2] - nothing[2]))
            print(f"        draw {drawn[0]:.0f}/s p50 {drawn[1]:.2f} p99 {drawn[2]:.2f} ms; nothing {nothing[0]:.0f}/s p99 {nothing[2]:.2f} ms")
    overhead = statistics.median(r[2] for r in rows)
    results["requests_per_second"] = statistics.median(r[0][0] for r in rows)
    results["p50_ms"], results["p99_ms"] = (statistics.median(r[0][i] for r in rows) for i in (1, 2))
    results["nothing_p99_ms"] = statistics.median(r[1][2] for r in rows)
    results["overhead_p99_ms"] = overhead
    assert results["requests_per_second"] > 0.8 * RATE, results
    assert overhead < MOST_OVERHEAD_MS, f"{overhead:.2f} ms"


def test_10000_idle_connections():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(IDLE, hard - 200)
    with Stub() as stub:
        before, idle = stub.bytes(), []
        for i in range(count):
            idle.append(socket.create_connection(("127.0.0.1", stub.port)))
            if i % 2:  # half of them have begun a request
                idle[-1].sendall(b"POST /v1/images/generations HTTP/1.1\r\nHost: loc")
        took = sorted(stub.ask() for _ in range(50))
        results["idle_connections"], results["idle_bytes"] = count, stub.bytes()
        results["beside_idle_median_ms"] = took[25] * 1000
        for s in idle:
            s.close()
        assert results["idle_bytes"] <= MOST_BYTES, (before, results["idle_bytes"])
        assert took[45] < 1, took


def test_slow_readers_hold_up_nobody():
    with Stub() as stub:
        slow = []
        for _ in range(100):
            s = socket.create_connection(("127.0.0.1", stub.port))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(20):  # pipelined, and no answer is read
                s.sendall(f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode())
            slow.append(s)
        took = sorted(stub.ask() for _ in range(50))
        results["beside_slow_median_ms"] = took[25] * 1000
        assert took[45] < 1, took
        for s in slow:
            s.close()


def test_a_flood_is_answered_429_or_503_and_ends():
    with Stub("20000") as stub:
        codes, lock = {}, threading.Lock()

        def client():
            for _ in range(20):
                try:
                    with socket.create_connection(("127.0.0.1", stub.port), timeout=30) as s:
                        s.sendall(f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                                  f"Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode())
                        code = s.recv(65536)[9:12].decode()
                except OSError as error:
                    code = type(error).__name__
                with lock:
                    codes[code] = codes.get(code, 0) + 1
        threads = [threading.Thread(target=client) for _ in range(50)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        results["flood"] = codes
        assert set(codes) <= {"200", "429", "503"}, codes
        assert stub.bytes() <= MOST_BYTES


def main():
    if not shutil.which("wrk"):
        print("skipped: no wrk here")
        return 77
    code = run_all([value for name, value in globals().items() if name.startswith("test_")])
    if "overhead_p99_ms" in results:
        results["summary"] = (f"{results['overhead_p99_ms']:.2f} ms p99 over a handler that does nothing, at {results['requests_per_second']:.0f} requests/s; "
                              f"{results.get('idle_connections', 0)} idle connections in {results.get('idle_bytes', 0) >> 20} MiB")
    print(json.dumps(results, indent=1))
    if sys.argv[1:]:
        pathlib.Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
