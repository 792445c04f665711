#!/usr/bin/env python3
"""Cancel at every step index, on four ranks under every strategy: how long until the group is free, in steps, and whether the
next picture is unharmed. slow_serve_cancel.py [RESULT.json]"""
import base64
import json
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _serve import Server  # noqa: E402

STEPS = 12
STRATEGIES = ("ulysses=4", "kv_gather=4", "ring=4", "ulysses=2, ring=2", "tensor=4", "pipefusion=4", "pipefusion=2, ulysses=2", "pipefusion=2, tensor=2",
              "cfg=2, ulysses=2", "data=2, ulysses=2")
REQUEST = {"prompt": "a red circle", "negative_prompt": "blur", "true_cfg_scale": 2, "size": "128x128", "seed": 3, "steps": STEPS}


def picture(server):
    status, body, _ = server.ask("POST", "/v1/images/generations", {**REQUEST, "steps": 2})
    assert status == 200, body
    return base64.b64decode(body["data"][0]["b64_json"])


def busy(server):
    return [g for g in server.ask("GET", "/v1/status")[1]["groups"] if g["busy"]]


def cancel_at(server, step):
    """(seconds until the group is free, steps that ended after the cancel had been answered)"""
    job = server.ask("POST", "/v1/images/generations", {**REQUEST, "async": True})[1]["id"]
    while True:
        now = busy(server)
        if now and now[0]["step"] >= step:
            break
        if server.ask("GET", f"/v1/jobs/{job}")[1]["status"] in ("done", "failed"):
            return None
    began = time.monotonic()
    if server.ask("POST", f"/v1/jobs/{job}/cancel")[0] != 200:
        return None
    first, last = None, 0
    while now := busy(server):
        first, last = now[0]["step"] if first is None else first, now[0]["step"]
        assert time.monotonic() - began < 60
    free = time.monotonic() - began
    assert server.ask("GET", f"/v1/jobs/{job}")[1]["status"] == "cancelled"
    return free, last - (first or last)


def main():
    rows, failed = [], 0
    for strategy in STRATEGIES:
        with tempfile.TemporaryDirectory() as data, Server("--strategy", strategy, "--num_gpus", "4", data=data) as server:
            before = picture(server)
            began = time.monotonic()
            server.ask("POST", "/v1/images/generations", REQUEST)
            step_s = (time.monotonic() - began) / STEPS
            seen = [r for r in (cancel_at(server, step) for step in range(STEPS)) if r]
            same = picture(server) == before
            restarts = "group_restarts" in server.ask("GET", "/metrics")[1].decode()
            late = statistics.median(r[0] for r in seen) / step_s, max(r[0] for r in seen) / step_s
            rows.append({"layout": strategy, "cancels": len(seen), "step_ms": step_s * 1000, "free_after_steps_median": late[0], "free_after_steps_most": late[1],
                         "steps_after_the_answer": max(r[1] for r in seen), "next_picture_is_the_same": same, "workers_restarted": restarts})
            ok = same and not restarts and len(seen) >= STEPS - 2 and rows[-1]["steps_after_the_answer"] <= 1
            failed += not ok
            print(f"{'ok     ' if ok else 'FAILED '} {strategy}: {len(seen)} cancels, median {late[0]:.1f}, most {late[1]:.1f} steps of {step_s * 1000:.0f} ms", flush=True)
    summary = (f"{sum(r['cancels'] for r in rows)} cancels on 4 ranks under {len(rows)} layouts, free after {statistics.median(r['free_after_steps_median'] for r in rows):.1f} "
               f"steps (median), at most {max(r['steps_after_the_answer'] for r in rows)} step ends after the answer")
    print(summary)
    if sys.argv[1:]:
        pathlib.Path(sys.argv[1]).write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
