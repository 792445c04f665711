"""A client of ComfyUI's HTTP API, and the graphs of the tests."""

import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """A ComfyUI that answers on this address."""

    def __init__(self, url):
        self.url = url

    def get(self, path):
        with OPENER.open(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def get_bytes(self, path):
        with OPENER.open(self.url + path, timeout=60) as answer:
            return answer.read()

    def post(self, path, value=None):
        data = json.dumps(value if value is not None else {}).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with OPENER.open(request, timeout=60) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            return json.loads(error.read())
        return json.loads(body) if body else {}

    def queue(self, graph):
        answer = self.post("/prompt", {"prompt": graph})
        if "prompt_id" not in answer:
            raise AssertionError(f"the graph was refused: {json.dumps(answer)[:3000]}")
        return answer["prompt_id"]

    def wait(self, identity, seconds=900):
        """The history entry of a prompt that has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            entry = self.get(f"/history/{identity}").get(identity)
            if entry and entry["status"].get("status_str"):
                return entry
            time.sleep(0.2)
        raise AssertionError(f"the prompt did not end within {seconds} s")

    def run(self, graph, seconds=900):
        """Outputs by node; raises with ComfyUI's message where the prompt failed."""
        entry = self.wait(self.queue(graph), seconds)
        if entry["status"]["status_str"] != "success":
            raise AssertionError(reason(entry))
        return entry["outputs"]

    def fail(self, graph, seconds=900):
        """The message of a prompt that must fail."""
        entry = self.wait(self.queue(graph), seconds)
        assert entry["status"]["status_str"] == "error", entry["status"]
        return reason(entry)


def reason(entry):
    for kind, facts in entry["status"]["messages"]:
        if kind == "execution_error":
            return facts["exception_message"]
        if kind == "execution_interrupted":
            return "interrupted"
    return json.dumps(entry["status"])


class Graph:
    """API form: nodes by number, links as [node, output]. Required inputs that nobody gives are filled from /object_info."""

    def __init__(self, server):
        self.server, self.nodes, self._info = server, {}, {}

    def info(self, kind):
        if kind not in self._info:
            self._info[kind] = self.server.get(f"/object_info/{kind}")[kind]
        return self._info[kind]

    def add(self, kind, **inputs):
        for name, spec in self.info(kind)["input"].get("required", {}).items():
            if name in inputs:
                continue
            options = spec[1] if len(spec) > 1 else {}
            if isinstance(spec[0], list):
                inputs[name] = spec[0][0]
            elif "default" in options:
                inputs[name] = options["default"]
            elif spec[0] == "COMBO":
                inputs[name] = options["options"][0]
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return [number, 0]


def processes_of(pid, name):
    """Ids below a process whose command line holds this word."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    below, found = {int(pid)}, []
    for _ in range(8):
        for row in rows:
            if int(row[1]) in below:
                below.add(int(row[0]))
    for row in rows:
        if int(row[0]) in below and name in row[2]:
            found.append(int(row[0]))
    return found
