#!/usr/bin/env python3
"""The OpenAPI document of the server against itself: schemathesis sends what the document allows and what it forbids, to a
server whose engine draws nothing."""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _client_python import need  # noqa: E402

need("schemathesis")

from _serve import BUILD, ROOT  # noqa: E402

STUB = BUILD / "src" / "serve-stub"


def main():
    with tempfile.TemporaryDirectory() as data:
        stub = subprocess.Popen([STUB, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            address = stub.stdout.readline().split()[1]
            result = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--max-examples", sys.argv[1] if sys.argv[1:] else "15",
                 "--exclude-path-regex", "reload|healthz|events/stream", "--seed", "1", "--no-color", "--request-timeout", "20", "--exclude-checks",
                 "unsupported_method,missing_required_header,ignored_auth,"
                 # what fields say together, and sizes that a model cannot draw, is more than a schema says
                 "positive_data_acceptance"],
                cwd=data, capture_output=True, text=True, timeout=900)
            print(result.stdout[-6000:], result.stderr[-2000:])
            return result.returncode
        finally:
            stub.stdin.close()
            stub.wait(20)


if __name__ == "__main__":
    sys.exit(main())
