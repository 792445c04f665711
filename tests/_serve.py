"""A server of this build for the tests that need one, and plain HTTP to it. Python's own library only."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("ATELIER_BUILD_FOLDER", ROOT / "build" / "cpu"))
PROGRAM = BUILD / "src" / "atelier-serve"
if not PROGRAM.exists():
    print("the server is not built: tools/setup/setup.sh cpu atelier-serve builds it")
    sys.exit(77)


class Server:
    """Runs until it is closed. data: its folder, which outlives it."""

    def __init__(self, *flags, model="mini", data=None, variables=None, program=PROGRAM, wait_ready=True):
        self.folder = None if data else tempfile.TemporaryDirectory(prefix="atelier-serve-")
        self.data = pathlib.Path(data or self.folder.name)
        command = [str(program), "--model_name", model, "--device", "cpu", "--port", "0", "--data_dir", str(self.data / "data"), *flags]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **(variables or {})}
        self.log = open(self.data / "log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, cwd=ROOT)
        self.port, self.said = self._read_port(), []
        if wait_ready:
            self.wait_ready()

    def _read_port(self, seconds=60):
        end, text = time.monotonic() + seconds, b""
        while time.monotonic() < end:
            if not select.select([self.process.stdout], [], [], 0.2)[0]:
                continue
            piece = os.read(self.process.stdout.fileno(), 4096)
            text += piece
            found = re.search(rb"serving +https?://\S+:(\d+)", text)
            if found:
                return int(found.group(1))
            if not piece:
                break
        raise AssertionError(f"the server did not start: {text.decode()} {self.errors()}")

    def errors(self):
        return (self.data / "log").read_text(errors="replace")[-4000:]

    def wait_ready(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.errors()}")
            if self.ask("GET", "/readyz")[0] == 200:
                return
            time.sleep(0.05)
        raise AssertionError("the server was not ready in time: " + self.errors())

    def ask(self, method, path, body=None, headers=None, seconds=120):
        """(status, JSON or bytes, headers)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            headers = dict(headers or {})
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.getheader("Content-Type", "").startswith("application/json"):
                data = json.loads(data)
            return answer.status, data, dict(answer.getheaders())
        finally:
            connection.close()

    def wait_job(self, job, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, body, _ = self.ask("GET", f"/v1/jobs/{job}")
            assert status == 200, body
            if body["status"] in ("done", "failed", "cancelled"):
                return body
            time.sleep(0.05)
        raise AssertionError(f"{job} was not finished in time")

    def end(self, number=signal.SIGTERM, seconds=60):
        """Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end in time: " + self.errors()) from None
        self.process.stdout.close()
        self.log.close()
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        if self.folder:
            with contextlib.suppress(OSError):
                self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def workers_of(server):
    """Process numbers of its workers."""
    out = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"\nPPid:\t{server.process.pid}\n" in text:
            out.append(int(status.parent.name))
    return sorted(out)


def run_all(tests):
    """Runs functions one after the other; exit code 1 if any fails."""
    failed = 0
    for test in tests:
        started = time.monotonic()
        try:
            test()
            print(f"ok      {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001 a test may fail in any way
            failed += 1
            print(f"FAILED  {test.__name__}: {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0
