#!/usr/bin/env python3
"""The resident server with a real model: answers of the API, jobs that outlive the process, cancel, drain."""
import base64
import contextlib
import http.client
import json
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import _png  # noqa: E402
from _serve import PROGRAM, ROOT, Server, run_all, workers_of  # noqa: E402

SMALL = {"prompt": "a red circle", "size": "64x64", "steps": 2, "seed": 3}


def whole_png(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND", data[:16]
    return data


def pictures(body):
    return [whole_png(base64.b64decode(entry["b64_json"])) for entry in body["data"]]


def refused(answer, status, *words):
    assert answer[0] == status, answer
    error = answer[1]["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    for word in words:
        assert word in error["message"], (word, error)
    return error


server = None


def test_pictures_are_those_of_the_command_line():
    status, body, headers = server.ask("POST", "/v1/images/generations", {**SMALL, "n": 2})
    assert status == 200, body
    assert headers["x-request-id"].startswith("req_")
    assert body["output_format"] == "png" and body["size"] == "64x64" and body["seeds"] == [3, 4]
    drawn = pictures(body)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PROGRAM.parent / "atelier", "t2i", "--model_name", "mini", "--device", "cpu", "--prompt", SMALL["prompt"],
                        "--width", "64", "--height", "64", "--num_inference_steps", "2", "--seed", "3", "--num_images_per_prompt", "2",
                        "--output_dir", folder, "--quiet"], check=True, cwd=ROOT)
        files = sorted(pathlib.Path(folder).glob("*.png"))
        assert [f.read_bytes() for f in files] == drawn


def test_previews_are_pictures_and_change_nothing():
    whole = pictures(server.ask("POST", "/v1/images/generations", {**SMALL, "steps": 8})[1])[0]
    events = events_of(server.ask("POST", "/v1/images/generations", {**SMALL, "steps": 8, "stream": True, "partial_images": 3})[1])
    previews = [e for e in events if e["type"] == "image_generation.partial_image"]
    assert [(e["partial_image_index"], e["step"]) for e in previews] == [(0, 2), (1, 4), (2, 6)], events
    assert len({e["b64_json"] for e in previews}) == 3
    for e in previews:
        whole_png(base64.b64decode(e["b64_json"]))
    assert base64.b64decode(events[-1]["b64_json"]) == whole


def test_quality_of_jpeg_and_webp_is_the_requests():
    for form in ("jpeg", "webp"):
        sizes = []
        for compression in (10, 95):
            status, body, _ = server.ask("POST", "/v1/images/generations", {**SMALL, "output_format": form, "output_compression": compression})
            assert status == 200, body
            sizes.append(len(body["data"][0]["b64_json"]))
        assert sizes[0] < sizes[1], sizes
    refused(server.ask("POST", "/v1/images/generations", {**SMALL, "output_compression": 10}), 400, "output_compression")


def test_formats():
    for form, magic in (("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")):
        status, body, _ = server.ask("POST", "/v1/images/generations", {**SMALL, "output_format": form})
        assert status == 200 and body["output_format"] == form, body
        assert base64.b64decode(body["data"][0]["b64_json"]).startswith(magic)


def test_step_caches():
    def drawn(**fields):
        status, body, _ = server.ask("POST", "/v1/images/generations", {**SMALL, "steps": 4, "seed": 1, **fields})
        assert status == 200, body
        with tempfile.NamedTemporaryFile() as file:
            file.write(pictures(body)[0])
            file.flush()
            return _png.pixels(file.name)

    plain = drawn()
    assert drawn(cache_type="none") == plain == drawn(cache_type="first_block_cache", cache_threshold=0)
    assert drawn(cache_type="first_block_cache", cache_threshold=0.5) != plain


def test_what_is_wrong_is_named():
    ask = lambda **fields: server.ask("POST", "/v1/images/generations", {**SMALL, **fields})
    assert refused(ask(stepz=3), 400, "stepz")["code"] == "unknown_parameter"
    assert refused(ask(style="vivid"), 400, "style")["param"] == "style"
    refused(ask(size="67x64"), 400, "67")
    refused(ask(size="4096x4096"), 400, "max_pixels")
    refused(ask(size="round"), 400, "round")
    refused(ask(steps=201), 400, "max_steps 200")
    refused(ask(n=5), 400, "1 to 4")
    refused(ask(response_format="url"), 400, "public_url")
    refused(ask(lora=["nothing"]), 400, "nothing")
    refused(ask(model="other"), 404, "other")
    refused(ask(clip_skip=1), 400, "clip_skip")
    refused(ask(cache_type="pab"), 400, "first_block_cache")
    refused(ask(cache_threshold=0.1), 400, "cache_type")
    refused(ask(tier="fast"), 400, "tier")
    refused(ask(attention_dtype="fp8_e4m3"), 400, "attention_dtype")
    refused(ask(layout="ring=9"), 400, "layout")
    refused(server.ask("POST", "/v1/images/generations", {"size": "64x64"}), 400, "prompt")
    refused(server.ask("POST", "/v1/images/generations", "{", {"Content-Type": "application/json"}), 400, "JSON")
    refused(server.ask("POST", "/v1/images/generations", "[" * 1000, {"Content-Type": "application/json"}), 400, "deeper")
    refused(server.ask("POST", "/v1/images/generations", "{}", {"Content-Type": "text/plain"}), 415)
    refused(server.ask("POST", "/v1/images/generations", b"x" * (33 << 20), {"Content-Type": "application/json"}), 413, "33554432")
    refused(server.ask("GET", "/v1/nothing"), 404)
    refused(server.ask("PUT", "/v1/models"), 405)
    refused(server.ask("GET", "/v1/models", headers={"Host": "evil.example"}), 421)
    refused(server.ask("GET", "/v1/models", headers={"Origin": "http://evil.example"}), 403)


def test_models_health_and_metrics():
    assert [m["id"] for m in server.ask("GET", "/v1/models")[1]["data"]] == ["mini"]
    assert server.ask("GET", "/v1/models/mini")[1]["object"] == "model"
    refused(server.ask("GET", "/v1/models/a/b"), 404, "a/b")
    assert server.ask("GET", "/health")[1]["backend_ready"] is True
    assert server.ask("GET", "/livez")[0] == 200
    assert server.ask("GET", "/healthz/generate")[1]["status"] == "ok"
    text = server.ask("GET", "/metrics")[1].decode()
    assert 'atelier_jobs_total{state="done"}' in text and "atelier_http_seconds_bucket" in text, text
    status = server.ask("GET", "/v1/status")[1]
    assert status["groups"][0]["ready"] and status["ranks"][0]["peak_host_bytes"] > 0, status
    capabilities = server.ask("GET", "/v1/capabilities")[1]
    uses = {f["name"]: f["use"] for f in capabilities["generations"]}
    assert uses["seed"] == "honoured" and uses["quality"] == "no effect" and uses["style"] == "refused"
    document = server.ask("GET", "/openapi.json")[1]
    assert {n for n, u in uses.items() if u != "refused"} <= set(document["components"]["schemas"]["Generation"]["properties"])


def events_of(text):
    return [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: ")]


def test_a_stream_has_an_event_for_every_step():
    status, text, headers = server.ask("POST", "/v1/images/generations", {**SMALL, "steps": 5, "stream": True})
    assert status == 200 and headers["Content-Type"] == "text/event-stream"
    events = events_of(text)
    steps = [e["step"] for e in events if e["type"] == "image_generation.progress"]
    assert steps == [1, 2, 3, 4, 5], events
    assert events[-1]["type"] == "image_generation.completed"
    whole_png(base64.b64decode(events[-1]["b64_json"]))


def test_a_job_can_be_followed_fetched_and_forgotten():
    status, job, _ = server.ask("POST", "/v1/images/generations", {**SMALL, "async": True})
    assert status == 202 and job["status"] in ("queued", "running"), job
    events = events_of(server.ask("GET", f"/v1/jobs/{job['id']}/events")[1])
    assert events[-1]["type"] == "finished" and events[-1]["result"]["status"] == "done", events
    status, data, _ = server.ask("GET", f"/v1/jobs/{job['id']}/images/0")
    assert status == 200
    whole_png(data)
    assert "/" not in json.dumps(server.ask("GET", f"/v1/jobs/{job['id']}")[1]["parameters"]).replace("//", "")
    assert job["id"] in [j["id"] for j in server.ask("GET", "/v1/jobs?limit=5")[1]["data"]]
    deadline = time.monotonic() + 10
    while server.ask("DELETE", f"/v1/jobs/{job['id']}")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    refused(server.ask("GET", f"/v1/jobs/{job['id']}"), 404)


def test_a_cancelled_job_ends_and_harms_no_other():
    before = pictures(server.ask("POST", "/v1/images/generations", SMALL)[1])
    job = server.ask("POST", "/v1/images/generations", {**SMALL, "steps": 200, "async": True})[1]
    while server.ask("GET", f"/v1/jobs/{job['id']}")[1]["status"] == "queued":
        time.sleep(0.01)
    started = time.monotonic()
    status, ended, _ = server.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert status == 200 and ended["status"] == "cancelled", ended
    assert pictures(server.ask("POST", "/v1/images/generations", SMALL)[1]) == before
    assert time.monotonic() - started < 10
    refused(server.ask("POST", f"/v1/jobs/{job['id']}/cancel"), 409)


def test_one_idempotency_key_is_one_picture():
    headers = {"Idempotency-Key": "once", "Content-Type": "application/json"}
    body = json.dumps({k: v for k, v in SMALL.items() if k != "seed"})
    first = server.ask("POST", "/v1/images/generations", body, headers)[1]
    second = server.ask("POST", "/v1/images/generations", body, headers)[1]
    assert first["job"] == second["job"] and first["data"] == second["data"]
    refused(server.ask("POST", "/v1/images/generations", json.dumps(SMALL), headers), 422)


def test_accepted_jobs_outlive_the_process():
    with tempfile.TemporaryDirectory() as data:
        first = Server(data=data)
        try:
            jobs = [first.ask("POST", "/v1/images/generations", {**SMALL, "seed": seed, "steps": 20, "async": True})[1]["id"]
                    for seed in range(6)]
        finally:
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            first.close()
        with Server(data=data) as second:
            for seed, job in enumerate(jobs):
                done = second.wait_job(job)
                assert done["status"] == "done" and done["images"][0]["seed"] == seed, done
                drawn = second.ask("GET", f"/v1/jobs/{job}/images/0")[1]
                again = second.ask("POST", "/v1/images/generations", {**SMALL, "seed": seed, "steps": 20})[1]
                assert pictures(again) == [drawn]


def test_sigterm_drains():
    with tempfile.TemporaryDirectory() as data:
        one = Server(data=data)
        jobs = [one.ask("POST", "/v1/images/generations", {**SMALL, "seed": seed, "steps": 40, "async": True})[1]["id"] for seed in range(3)]
        while one.ask("GET", f"/v1/jobs/{jobs[0]}")[1]["status"] == "queued":
            time.sleep(0.01)
        assert one.end() == 0
        one.close()
        with Server(data=data) as two:
            assert [two.wait_job(job)["status"] for job in jobs] == ["done"] * 3


def frames_of(connection, wanted):
    """Messages of a WebSocket until `wanted` says yes to one."""
    text, messages = b"", []
    while not any(map(wanted, messages)):
        piece = connection.recv(65536)
        assert piece, messages
        text += piece
        while len(text) >= 2:
            size, at = text[1] & 127, 2
            if size == 126:
                size, at = int.from_bytes(text[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(text[2:10], "big"), 10
            if len(text) < at + size:
                break
            if text[0] & 15 == 1:
                messages.append(json.loads(text[at:at + size]))
            text = text[at + size:]
    return messages[:next(i for i, m in enumerate(messages) if wanted(m)) + 1]


def masked(message):
    data = json.dumps(message).encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


def test_a_websocket_tells_of_all_jobs_and_cancels():
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        assert b" 101 " in head, head
        time.sleep(0.2)
        job = server.ask("POST", "/v1/images/generations", {**SMALL, "async": True})[1]["id"]
        messages = frames_of(connection, lambda m: m.get("type") == "finished")
        assert {m["job"] for m in messages} == {job}
        assert [m["step"] for m in messages if m["type"] == "step"] == [1, 2]
        job = server.ask("POST", "/v1/images/generations", {**SMALL, "size": "128x128", "steps": 200, "async": True})[1]["id"]
        connection.sendall(masked({"cancel": job}))
        assert frames_of(connection, lambda m: m.get("type") == "finished")[-1]["status"] == "cancelled"
        connection.sendall(masked({"cancel": "job_of_nobody"}))
        assert frames_of(connection, lambda m: "error" in m)[-1]["error"]["code"] == "job_not_found"


def leaves_over_tls(one, context):
    """Says that it leaves, as TLS has it, and is gone: nothing more is drawn for it."""
    def jobs():
        connection = http.client.HTTPSConnection("localhost", one.port, context=context, timeout=60)
        connection.request("GET", "/v1/jobs?limit=1")
        found = json.loads(connection.getresponse().read())["data"]
        connection.close()
        return [job["status"] for job in found if job["parameters"]["num_inference_steps"] == 199]
    body = json.dumps({**SMALL, "size": "128x128", "steps": 199}).encode()
    with context.wrap_socket(socket.create_connection(("localhost", one.port), timeout=60), server_hostname="localhost") as client:
        client.sendall(b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 30
        while jobs() != ["running"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert jobs() == ["running"], jobs()
        client.settimeout(0.1)
        with contextlib.suppress(OSError):
            client.unwrap()
    deadline = time.monotonic() + 10
    while jobs() == ["running"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert jobs() == ["cancelled"], jobs()


def test_tls_and_beyond_loopback():
    with tempfile.TemporaryDirectory() as data:
        folder = pathlib.Path(data)
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
                               "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], capture_output=True)
        assert made.returncode == 0, made.stderr
        with Server("--host", "0.0.0.0", "--tls_cert", str(folder / "cert.pem"), "--tls_key", str(folder / "key.pem"), data=data, wait_ready=False) as one:
            context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
            deadline = time.monotonic() + 60
            while True:
                connection = http.client.HTTPSConnection("localhost", one.port, context=context, timeout=60)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.1)
            connection.close()
            connection.request("POST", "/v1/images/generations", json.dumps(SMALL), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200
            pictures(json.loads(answer.read()))
            leaves_over_tls(one, context)
            with socket.create_connection(("127.0.0.1", one.port), timeout=10) as plain:  # no TLS: no answer
                plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b"200" not in plain.recv(4096)
        wrong = subprocess.run([str(PROGRAM), "--model_name", "mini", "--device", "cpu", "--port", "0", "--data_dir", str(folder / "d"), "--tls_cert",
                                str(folder / "key.pem"), "--tls_key", str(folder / "key.pem")], capture_output=True, text=True, cwd=ROOT)
        assert wrong.returncode == 2 and "tls_cert" in wrong.stderr, wrong.stderr


def wait_video(one, video):
    deadline, seen = time.monotonic() + 120, []
    while time.monotonic() < deadline:
        status, body, _ = one.ask("GET", f"/v1/videos/{video}")
        assert status == 200, body
        seen.append(body["progress"])
        if body["status"] in ("completed", "failed"):
            assert seen == sorted(seen), seen
            return body
        time.sleep(0.05)
    raise AssertionError(f"{video} was not finished in time")


def test_videos():
    model = str(ROOT / "tests/goldens/wan_experts/model")
    with tempfile.TemporaryDirectory() as data, Server("--max_sequence_length", "16", model=model, data=data) as one:
        asked = {"prompt": "a red fox runs", "size": "48x16", "num_frames": 9, "fps": 8, "steps": 2, "seed": 5, "output_format": "webp"}
        status, video, _ = one.ask("POST", "/v1/videos", asked)
        assert status == 200 and video["object"] == "video" and video["status"] == "queued", video
        done = wait_video(one, video["id"])
        assert done["status"] == "completed" and done["progress"] == 100 and done["size"] == "48x16" and done["num_frames"] == 9, done
        status, content, headers = one.ask("GET", f"/v1/videos/{video['id']}/content")
        assert status == 200 and headers["Content-Type"] == "image/webp" and content.count(b"ANMF") == 9, headers
        by_time = {k: v for k, v in asked.items() if k != "num_frames"}
        second = one.ask("POST", "/v1/videos", {**by_time, "seconds": "1"})[1]
        assert second["num_frames"] == 9, second
        wait_video(one, second["id"])
        assert one.ask("GET", f"/v1/videos/{second['id']}/content")[1] == content
        assert [v["id"] for v in one.ask("GET", "/v1/videos?limit=1")[1]["data"]] == [second["id"]]
        assert [v["id"] for v in one.ask("GET", f"/v1/videos?after={second['id']}")[1]["data"]] == [video["id"]]
        assert one.ask("DELETE", f"/v1/videos/{second['id']}")[1]["deleted"] is True
        deadline = time.monotonic() + 10
        while one.ask("GET", f"/v1/videos/{second['id']}")[0] != 404 and time.monotonic() < deadline:
            time.sleep(0.05)
        refused(one.ask("GET", f"/v1/videos/{second['id']}"), 404)
        refused(one.ask("POST", "/v1/videos", {**asked, "seconds": 4}), 400, "num_frames")
        refused(one.ask("POST", "/v1/videos", {**asked, "num_frames": 1000}), 400, "max_frames 161")
        refused(one.ask("POST", "/v1/videos", {**asked, "n": 2}), 400, "n:")
        refused(one.ask("POST", "/v1/videos", {**asked, "control_video": "/etc/passwd"}), 400, "control_video")
        if not (PROGRAM.parent / "atelier_ffmpeg.so").exists():  # before it is drawn; and the server stays
            refused(one.ask("POST", "/v1/videos", {**asked, "output_format": "mp4"}), 400, "mp4", "FFmpeg")
            formats = [f["schema"]["enum"] for f in one.ask("GET", "/v1/capabilities")[1]["videos"] if f["name"] == "output_format"]
            assert formats == [["webp", "gif"]], formats
        assert one.ask("GET", "/healthz/generate")[1]["status"] == "ok"
        status, picture, _ = one.ask("POST", "/v1/images/generations", {"prompt": "a fox", "size": "48x16", "steps": 2, "seed": 5})
        assert status == 200, picture
        pictures(picture)
    refused(server.ask("POST", "/v1/videos", {"prompt": "a fox"}), 400, "pictures")


def test_a_model_that_must_be_shown_pictures():
    model = str(ROOT / "tests/goldens/wan_frames/model")
    with tempfile.TemporaryDirectory() as data, Server("--max_sequence_length", "16", model=model, data=data) as one:
        refused(one.ask("POST", "/v1/videos", {"prompt": "a fox", "size": "16x32", "num_frames": 5, "steps": 2}), 400, "image")
        status, body, _ = one.ask("GET", "/healthz/generate")
        assert status == 200 and body["status"] == "ok", body


def test_modes():
    with tempfile.TemporaryDirectory() as data, Server("--mode", "edit", data=data) as one:
        refused(one.ask("POST", "/v1/images/generations", SMALL), 400, "--mode edit")
        assert one.ask("GET", "/health")[1]["mode"] == "edit"
    wrong = subprocess.run([str(PROGRAM), "--model_name", "mini", "--mode", "both"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and "--mode both" in wrong.stderr, wrong.stderr


def test_metrics_count_what_happened():
    def counted(name):
        text = server.ask("GET", "/metrics")[1].decode()
        found = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name)]
        return sum(float(value) for _, value in found)
    before = {name: counted(name) for name in ("atelier_pictures_total", 'atelier_jobs_total{state="done"}', "atelier_job_seconds_count")}
    for _ in range(3):
        assert server.ask("POST", "/v1/images/generations", {**SMALL, "n": 2})[0] == 200
    assert counted("atelier_pictures_total") == before["atelier_pictures_total"] + 6
    assert counted('atelier_jobs_total{state="done"}') == before['atelier_jobs_total{state="done"}'] + 3
    assert counted("atelier_job_seconds_count") == before["atelier_job_seconds_count"] + 3
    deadline = time.monotonic() + 10  # gauges are of the last look, ten times a second
    while counted("atelier_waiting_pictures") != 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert counted("atelier_groups_ready") == 1 and counted("atelier_waiting_pictures") == 0


def test_readiness_drops_while_it_drains():
    with tempfile.TemporaryDirectory() as data, Server(data=data) as one:
        job = one.ask("POST", "/v1/images/generations", {**SMALL, "size": "128x128", "steps": 100, "async": True})[1]["id"]
        while one.ask("GET", f"/v1/jobs/{job}")[1]["status"] == "queued":
            time.sleep(0.01)
        one.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while one.ask("GET", "/readyz")[0] != 503 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert one.ask("GET", "/readyz")[0] == 503 and one.ask("GET", "/livez")[0] == 200
        refused(one.ask("POST", "/v1/images/generations", SMALL), 503)
        assert one.process.wait(60) == 0  # another signal would end it at once


def test_ends_leave_nothing():
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
        with tempfile.TemporaryDirectory() as data, Server(data=data) as one:
            workers = workers_of(one)
            assert workers
            shared = set(pathlib.Path("/dev/shm").iterdir())
            assert one.end(number) == code
            deadline = time.monotonic() + 5
            while any(pathlib.Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(pathlib.Path(f"/proc/{w}").exists() for w in workers)
            assert set(pathlib.Path("/dev/shm").iterdir()) <= shared


def test_a_second_server_needs_its_own_folder_and_keys_guard():
    with tempfile.TemporaryDirectory() as data:
        keys = pathlib.Path(data) / "keys"
        keys.write_text("alice:0123456789abcdef0\nbob:fedcba9876543210f\n")
        keys.chmod(0o600)
        with Server("--api_key_file", str(keys), data=data) as one:
            refused(one.ask("GET", "/v1/models"), 401)
            refused(one.ask("POST", "/v1/images/generations", SMALL), 401)
            alice, bob = ({"Authorization": f"Bearer {key}"} for key in ("0123456789abcdef0", "fedcba9876543210f"))
            status, body, _ = one.ask("POST", "/v1/images/generations", SMALL, alice)
            assert status == 200, body
            assert one.ask("GET", f"/v1/jobs/{body['job']}", headers=alice)[0] == 200
            refused(one.ask("GET", f"/v1/jobs/{body['job']}", headers=bob), 404)
            assert "0123456789abcdef0" not in one.errors()
            second = subprocess.run([str(PROGRAM), "--model_name", "mini", "--device", "cpu", "--port", "0", "--data_dir",
                                     str(one.data / "data")], capture_output=True, text=True, cwd=ROOT)
            assert second.returncode == 2 and "used by another server" in second.stderr, second.stderr
    open_to_all = subprocess.run([str(PROGRAM), "--model_name", "mini", "--device", "cpu", "--host", "0.0.0.0", "--port", "0"],
                                 capture_output=True, text=True, cwd=ROOT)
    assert open_to_all.returncode == 2 and "--api_key_file" in open_to_all.stderr, open_to_all.stderr


def main():
    global server
    if not PROGRAM.exists():
        print("the server is not built")
        return 1
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    wanted = sys.argv[1:]
    with Server() as server:
        return run_all([t for t in tests if not wanted or any(w in t.__name__ for w in wanted)])


if __name__ == "__main__":
    sys.exit(main())
