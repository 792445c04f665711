"""How much of the copies to a GPU is hidden behind its kernels: python3 tools/bench/overlap.py TRACE.json [--out FILE]

TRACE.json is what --profile writes. Counted are copies from the host of a megabyte and more; hidden is the time of such a copy in
which at least one kernel ran. Counted is the time between the first kernel and the last one, or from --begin to --end (seconds
after the first kernel): a part that comes whole before it runs has nothing to hide behind, blocks that come one by one have.
"""

import argparse
import gzip
import json
import pathlib

LEAST_BYTES = 1 << 20


def merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of spans (begin, end), in order."""
    out: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((begin, end))
    return out


def common(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float:
    """How long two unions hold at once."""
    i = j = 0
    total = 0.0
    while i < len(a) and j < len(b):
        total += max(0.0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return total


def span(event: dict) -> tuple[float, float]:
    """When an event began and ended, in microseconds."""
    return float(event["ts"]), float(event["ts"]) + float(event["dur"])


def measure(events: list[dict], since: float = 0.0, until: float = float("inf")) -> dict:
    """Milliseconds of kernels, of copies and of copies behind kernels, and the copies' bytes; since, until: seconds after the first kernel."""
    timed = [e for e in events if e.get("ph") == "X" and "dur" in e]
    kernels = merged([span(e) for e in timed if e.get("cat") == "kernel"])
    if not kernels:
        raise SystemExit("the trace holds no kernels: it is not of a GPU")
    begin, end = kernels[0][0] + 1e6 * since, min(kernels[-1][1], kernels[0][0] + 1e6 * until)
    kernels = [(max(b, begin), min(e, end)) for b, e in kernels if b < end and e > begin]
    copies = [e for e in timed if e.get("cat") == "gpu_memcpy" and "HtoD" in e.get("name", "")
              and int(e.get("args", {}).get("bytes", 0)) >= LEAST_BYTES and begin <= float(e["ts"]) < end]
    moved = merged([span(e) for e in copies])
    busy, hidden = sum(e - b for b, e in moved), common(moved, kernels)
    return {
        "whole_ms": round((end - begin) / 1000, 1), "kernels_ms": round(sum(e - b for b, e in kernels) / 1000, 1),
        "copies": len(copies), "copied_gib": round(sum(int(e["args"]["bytes"]) for e in copies) / 2**30, 2),
        "copies_ms": round(busy / 1000, 1), "hidden_ms": round(hidden / 1000, 1),
        "hidden_share": round(hidden / busy, 4) if busy else None,
    }


def main() -> None:
    """Reads a trace and prints what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--begin", type=float, default=0.0)
    parser.add_argument("--end", type=float, default=float("inf"))
    a = parser.parse_args()
    raw = a.trace.read_bytes()
    found = measure(json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)["traceEvents"], a.begin, a.end)
    text = json.dumps(found, indent=1)
    print(text)
    if a.out:
        a.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
