#!/usr/bin/env python3
"""The server and those who mean it harm: caps, addresses, paths, bombs, bytes that are no HTTP, keys, what errors say."""
import base64
import json
import os
import pathlib
import re
import socket
import stat
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _png import file_of  # noqa: E402
from _serve import Server, run_all  # noqa: E402

SMALL = {"prompt": "a red circle", "size": "64x64", "steps": 1, "seed": 3}
GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
server = None


def png(width, height, lines=None):
    """A PNG of this declared size; lines: its scan lines, or those of a grey picture."""
    return file_of(width, height, lines if lines is not None else (b"\0" + b"\x80" * (3 * width)) * height)


def refused(answer, statuses, *words):
    status, body, headers = answer
    assert status in ({statuses} if isinstance(statuses, int) else statuses), answer
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    for word in words:
        assert word in error["message"], (word, error)
    return error


def test_every_cap_is_named():
    caps = ("--max_pixels", "8192", "--max_steps", "5", "--max_n", "2", "--max_prompt_bytes", "100", "--max_adapters", "1", "--max_body_mb", "1")
    with tempfile.TemporaryDirectory() as data, Server(*caps, data=data) as one:
        ask = lambda **more: one.ask("POST", GENERATE, {**SMALL, **more})
        assert ask(size="128x64", steps=5, n=2)[0] == 200
        refused(ask(size="128x128"), 400, "max_pixels 8192")
        refused(one.ask("POST", GENERATE, {"prompt": "a", "steps": 1}), 400, "max_pixels 8192")  # the model's own size is above it
        refused(ask(steps=6), 400, "max_steps 5")
        refused(one.ask("POST", GENERATE, {"prompt": "a", "size": "64x64", "sigmas": "9,8,7,6,5,4,3"}), 400, "max_steps 5")
        refused(ask(n=3), 400, "1 to 2")
        refused(ask(prompt="x" * 101), 400, "max_prompt_bytes 100")
        refused(ask(negative_prompt="x" * 101), 400, "max_prompt_bytes 100")
        refused(ask(lora=["a", "b"]), 400, "max_adapters 1")
        refused(one.ask("POST", GENERATE, "{" + " " * (1 << 20) + "}", {"Content-Type": "application/json"}), 413, "1048576")
        text = one.ask("GET", "/metrics")[1].decode()
        assert 'atelier_jobs_total{state="done"} 1' in text and "atelier_batches_total" in text, text
    refused(server.ask("POST", GENERATE, {**SMALL, "steps": 200, "timeout": 0.1}), {400, 429, 504})


def test_a_burst_is_refused_in_time():
    with tempfile.TemporaryDirectory() as data, Server("--max_queue", "3", "--max_per_key", "100", data=data) as one:
        answers = [one.ask("POST", GENERATE, {**SMALL, "steps": 60, "size": "128x128", "async": True}) for _ in range(12)]
        taken = [body["id"] for status, body, _ in answers if status == 202]
        full = [(status, body, headers) for status, body, headers in answers if status != 202]
        assert full and len(taken) >= 3, answers
        for status, body, headers in full:
            refused((status, body, headers), 429, "max_queue 3")
            assert int(headers["Retry-After"]) >= 1
        for job in taken:
            one.ask("POST", f"/v1/jobs/{job}/cancel")
    with tempfile.TemporaryDirectory() as data, Server("--max_per_key", "2", data=data) as one:
        answers = [one.ask("POST", GENERATE, {**SMALL, "steps": 60, "size": "128x128", "async": True}) for _ in range(4)]
        refused(answers[-1], 429, "max_per_key 2")


def test_image_addresses_are_not_fetched():
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.5)
    port = listener.getsockname()[1]
    addresses = [f"http://127.0.0.1:{port}/a.png", f"http://localhost:{port}/", f"HTTP://127.0.0.1:{port}/", f" http://127.0.0.1:{port}/", f"http://[::1]:{port}/",
                 f"http://[::ffff:127.0.0.1]:{port}/", f"http://2130706433:{port}/", f"http://0x7f.1:{port}/", f"https://127.0.0.1:{port}/", f"//127.0.0.1:{port}/",
                 f"ftp://127.0.0.1:{port}/", "file:///etc/passwd", "/etc/passwd", "http://169.254.169.254/latest/meta-data/", "gopher://127.0.0.1/",
                 f"http://a@127.0.0.1:{port}/", "data:image/png,http://127.0.0.1/", "data:text/html;base64,aGVsbG8="]
    for address in addresses:
        for fields in ({"image": address}, {"images": [{"image_url": address}]}, {"image": {"image_url": {"url": address}}}):
            refused(server.ask("POST", EDIT, {"prompt": "a", "size": "64x64", **fields}), 400)
    try:
        listener.accept()
    except TimeoutError:
        pass
    else:
        raise AssertionError("the server fetched an address")
    finally:
        listener.close()


def test_pictures_that_are_bombs():
    for data, word in ((png(30000, 30000, b"\0" * 100), ""), (png(1 << 30, 1 << 30, b""), ""), (png(0, 5, b""), ""), (b"\x89PNG\r\n\x1a\n", ""), (b"", ""),
                       (png(8000, 8000), "")):
        encoded = base64.b64encode(data).decode()
        status, body, _ = server.ask("POST", EDIT, {"prompt": "a", "size": "64x64", "steps": 1, "image": encoded})
        assert status in (200, 400), (len(data), status, body)
        if status == 400:
            refused((status, body, {}), 400)
    status, body, _ = server.ask("POST", EDIT, {"prompt": "a", "size": "64x64", "steps": 2, "image": base64.b64encode(png(1, 1)).decode()})
    assert status == 200, body  # the smallest picture is one
    peak = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{server.process.pid}/status").read_text()).group(1)) >> 10
    assert peak < 2048, f"{peak} MiB"


CORPUS = [
    ("POST", GENERATE, "{"), ("POST", GENERATE, {}), ("POST", GENERATE, {"prompt": ""}), ("POST", GENERATE, {**SMALL, "size": "67x67"}),
    ("POST", GENERATE, {**SMALL, "size": "65537x16"}), ("POST", GENERATE, {**SMALL, "sampler": "nonsense"}), ("POST", GENERATE, {**SMALL, "lora": ["../../etc/passwd"]}),
    ("POST", GENERATE, {**SMALL, "lora": [{"name": "/etc/passwd"}]}), ("POST", GENERATE, {**SMALL, "model": "../../x"}), ("POST", GENERATE, {**SMALL, "sigmas": "a,b"}),
    ("POST", GENERATE, {**SMALL, "tier": "fast"}), ("POST", GENERATE, {**SMALL, "layout": "ulysses=2"}),
    ("POST", GENERATE, {**SMALL, "seed": -5}), ("POST", GENERATE, {**SMALL, "seed": 1 << 70}), ("POST", GENERATE, {**SMALL, "max_sequence_length": 10**9}),
    ("POST", GENERATE, {**SMALL, "true_cfg_scale": 1e308}), ("POST", GENERATE, {**SMALL, "image": "/etc/passwd"}), ("POST", GENERATE, {**SMALL, "name": "/tmp/x.png"}),
    ("POST", GENERATE, {**SMALL, "response_format": "path"}), ("POST", GENERATE, {**SMALL, "output_path": "/tmp/x"}), ("POST", GENERATE, {**SMALL, "negative_prompt": "x" * 40000}),
    ("POST", EDIT, {"prompt": "a", "image": base64.b64encode(b"no picture").decode()}), ("POST", EDIT, {"prompt": "a", "image": base64.b64encode(png(64, 64)[:90]).decode()}),
    ("POST", EDIT, {"prompt": "a", "image": base64.b64encode(png(64, 64)).decode(), "mask": base64.b64encode(png(3, 3)[:60]).decode()}),
    ("POST", EDIT, {"prompt": "a", "image": base64.b64encode(png(64, 64)).decode(), "strength": 0}),
    ("POST", EDIT, {"prompt": "a", "image": base64.b64encode(png(64, 64)).decode(), "size": "67x67"}),
    ("POST", "/v1/videos", {"prompt": "a"}), ("GET", "/v1/videos/../../etc/passwd", None), ("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", None),
    ("GET", "/v1/jobs/job_1/images/0", None), ("GET", "/v1/jobs?limit=0", None), ("GET", "/v1/jobs?before=%00", None), ("GET", "/v1/jobs?%zz=1", None),
    ("GET", "/v1/files/a/0?expires=1&signature=x", None), ("GET", "/v1/models/..%2f..%2fx", None), ("DELETE", "/v1/jobs/x", None), ("POST", "/v1/jobs/x/cancel", None),
    ("GET", "/v1/events", None), ("OPTIONS", GENERATE, None), ("TRACE", "/", None), ("GET", "/../../etc/passwd", None), ("GET", "//etc/passwd", None),
]
# Folders, sources, addresses in memory, words of libraries.
LEAKS = re.compile(r"/(work|root|home|tmp|usr|etc|var|proc|mnt)\b|\.(cpp|h|py)\b|0x[0-9a-f]{6,}|std::|c10|ATen|torch|Traceback|errno|nlohmann|sqlite", re.I)


def test_errors_say_nothing_of_this_machine():
    for method, path, body in CORPUS:
        if isinstance(body, str):
            answer = server.ask(method, path, body, {"Content-Type": "application/json"})
        else:
            answer = server.ask(method, path, body)
        assert 400 <= answer[0] < 500, (method, path, body, answer)
        error = refused(answer, answer[0])
        told = error["message"] if isinstance(body, str) or body is None else error["message"].replace("/etc/passwd", "").replace("../../etc/passwd", "")
        assert not LEAKS.search(told), (method, path, body, error)
    assert server.ask("POST", GENERATE, {**SMALL, "stepz": 1})[2].get("x-request-id", "").startswith("req_")


def test_paths_lead_nowhere():
    job = server.ask("POST", GENERATE, SMALL)[1]["job"]
    for index in ("1", "-1", "0.png", "..%2f0", "18446744073709551616", "0x0", "%30", "00"):
        status = server.ask("GET", f"/v1/jobs/{job}/images/{index}")[0]
        assert status == (200 if index in ("%30", "00") else 404), (index, status)
    for path in (f"/v1/jobs/{job}%2f..", f"/v1/jobs/{job}/../{job}", f"/v1/jobs/{job}/images/0/", f"/v1/jobs//{job}"):
        assert server.ask("GET", path)[0] == 404, path
    shown = json.dumps(server.ask("GET", f"/v1/jobs/{job}")[1])
    assert str(server.data) not in shown and "/work" not in shown, shown


def test_raw_bytes():
    """Whatever comes, the server answers or closes, and then draws."""
    head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = json.dumps(SMALL)
    attacks = [
        b"\0" * 4096, os.urandom(8192), b"GET / HTTP/9.9\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET / HTTP/1.1\n\n",
        b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", (head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}").encode(),
        (head + f"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n").encode(),
        (head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc").encode(), (head + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc").encode(),
        (head + "Transfer-Encoding: chunked\r\n\r\n1;" + "x" * 100000).encode(), (head + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + "T: x\r\n" * 20000).encode(),
        (head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n").encode(), (head + "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc").encode(),
        (head.replace("localhost", "localhost\r\nHost: evil.example") + "Content-Length: 2\r\n\r\n{}").encode(),
        b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=" + b"b" * 71 + b"\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 40\r\n\r\n--b\r\nContent-Disposition: form-data; x\r\n\r\n",
        b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\nSec-WebSocket-Key: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    for attack in attacks:
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as s:
            try:
                s.sendall(attack)
                s.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := s.recv(65536):
                    answer += piece
            except OSError:
                answer = b""
        codes = re.findall(rb"HTTP/1\.1 (\d+)", answer)
        assert b"200" not in codes, (attack[:120], answer[:300])
        assert not LEAKS.search(answer.partition(b"\r\n\r\n")[2].decode("latin-1")), answer
    assert server.ask("POST", GENERATE, SMALL)[0] == 200
    assert server.process.poll() is None


def test_websocket_frames_that_are_none():
    hello = (b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    frames = [b"\x81\x05hello", b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff" + b"\0" * 4, b"\xf1\x80\0\0\0\0", b"\x81\xfe\xff\xff\0\0\0\0" + b"x" * 65535, os.urandom(1000),
              b"\x89\xfe\x01\x00\0\0\0\0" + b"p" * 256, b"\x81\x83\0\0\0\0\xff\xfe\xfd", b"\x00\x80\0\0\0\0"]
    texts = ["{", "[]", "{}", '{"cancel": 1}', '{"cancel": "x", "y": 1}', "[" * 5000, '{"cancel": "job_' + "0" * 32 + '"}']
    frames += [bytes([0x81, 0xfe]) + struct.pack(">H", len(t)) + b"\0\0\0\0" + t.encode() for t in texts]
    for frame in frames:
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as s:
            s.sendall(hello)
            assert b"101" in s.recv(65536)
            s.sendall(frame)
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(65536):
                    pass
            except OSError:
                pass
    assert server.ask("GET", "/livez")[0] == 200


def test_slow_senders_hold_up_nobody():
    slow = []
    for i in range(200):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall((b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{" if i % 2 else b"GET / HT"))
        slow.append(s)
    began = time.monotonic()
    assert server.ask("GET", "/livez")[0] == 200
    assert server.ask("POST", GENERATE, SMALL)[0] == 200
    assert time.monotonic() - began < 5
    for s in slow:
        s.close()


def test_files_are_private():
    for path in [server.data / "data", *(server.data / "data").rglob("*")]:
        mode = path.stat().st_mode
        if path == server.data / "data":
            assert stat.S_IMODE(mode) == 0o700, oct(mode)
        assert not mode & 0o022, (path, oct(mode))
    for path in pathlib.Path("/dev/shm").iterdir():
        assert not path.stat().st_mode & 0o077 or "atelier" not in path.name, path


def test_keys_and_prompts_stay_out_of_the_log():
    key, secret = "0123456789abcdef0", "a very private wish"
    with tempfile.TemporaryDirectory() as data, Server("--api_key", f"alice:{key}", "--verbose", data=data, wait_ready=False) as one:
        headers = {"Authorization": f"Bearer {key}"}
        end = time.monotonic() + 60
        while one.ask("GET", "/readyz")[0] != 200 and time.monotonic() < end:
            time.sleep(0.1)
        assert one.ask("POST", GENERATE, {**SMALL, "prompt": secret}, headers)[0] == 200
        one.ask("POST", GENERATE, {**SMALL, "prompt": secret, "size": "67x67"}, headers)
        one.ask("GET", "/v1/jobs", headers={"Authorization": "Bearer wrong-key-of-somebody"})
        told = (one.data / "log").read_text() + one.ask("GET", "/metrics", headers=headers)[1].decode() + json.dumps(one.ask("GET", "/v1/status", headers=headers)[1])
        for word in (key, secret, "wrong-key-of-somebody"):
            assert word not in told, word


def test_pages_of_elsewhere():
    origin = {"Origin": "http://evil.example"}
    refused(server.ask("GET", "/v1/jobs", headers=origin), 403)
    refused(server.ask("POST", GENERATE, json.dumps(SMALL), {**origin, "Content-Type": "text/plain"}), 403)
    refused(server.ask("POST", GENERATE, json.dumps(SMALL), {"Content-Type": "text/plain"}), 415)
    refused(server.ask("GET", "/", headers={"Host": "evil.example"}), 421)
    with tempfile.TemporaryDirectory() as data, Server("--cors_origins", "https://app.example", data=data) as one:
        status, _, headers = one.ask("OPTIONS", GENERATE, headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST"})
        assert status == 204 and headers["Access-Control-Allow-Origin"] == "https://app.example", headers
        status, _, headers = one.ask("GET", "/v1/models", headers={"Origin": "https://app.example"})
        assert status == 200 and headers["Access-Control-Allow-Origin"] == "https://app.example"
        refused(one.ask("GET", "/v1/models", headers=origin), 403)


def test_many_threads_of_nonsense():
    """The corpus from eight clients at once; a good picture afterwards is the one from before."""
    before = server.ask("POST", GENERATE, SMALL)[1]["data"][0]["b64_json"]
    failed = []

    def client(shift):
        for method, path, body in CORPUS[shift:] + CORPUS[:shift]:
            try:
                status = server.ask(method, path, body)[0]
                if status >= 500:
                    failed.append((method, path, status))
            except Exception as error:  # noqa: BLE001
                failed.append((method, path, repr(error)))
    threads = [threading.Thread(target=client, args=(n * 5,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed[:3]
    assert server.ask("POST", GENERATE, SMALL)[1]["data"][0]["b64_json"] == before


def main():
    global server
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    wanted = sys.argv[1:]
    with Server() as server:
        return run_all([t for t in tests if not wanted or any(w in t.__name__ for w in wanted)])


if __name__ == "__main__":
    sys.exit(main())
