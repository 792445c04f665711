#!/usr/bin/env python3
"""What the tools beside the benchmarks make of inputs whose answer is known."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/bench"))
import overlap  # noqa: E402


def event(category, begin, end, name="", **args):
    """One event of a trace, in microseconds."""
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": end - begin, "args": args}


def copy(begin, end, size=1 << 21, name="Memcpy HtoD (Pinned -> Device)"):
    return event("gpu_memcpy", begin, end, name, bytes=size)


def test_overlap():
    """Kernels cover 0-20 and 30-40 ms; copies 15-35 and 36-38, of which 12 of 22 ms lie behind kernels."""
    ms = 1000
    kernels = [event("kernel", 0, 10 * ms), event("kernel", 5 * ms, 20 * ms), event("kernel", 30 * ms, 40 * ms)]
    left_out = [copy(50 * ms, 60 * ms), copy(1 * ms, 2 * ms, size=100), copy(3 * ms, 4 * ms, name="Memcpy DtoH (Device -> Pinned)")]
    found = overlap.measure([*kernels, copy(15 * ms, 35 * ms), copy(36 * ms, 38 * ms), *left_out, {"ph": "i", "ts": 1}])
    assert (found["whole_ms"], found["kernels_ms"], found["copies"], found["copies_ms"], found["hidden_ms"]) == (40, 30, 2, 22, 12), found
    part = overlap.measure([*kernels, copy(15 * ms, 35 * ms), copy(36 * ms, 38 * ms)], 0.036, 0.039)
    assert (part["copies"], part["hidden_share"], part["kernels_ms"]) == (1, 1.0, 3), part
    assert overlap.measure(kernels)["hidden_share"] is None
    try:
        overlap.measure([copy(0, 1)])
    except SystemExit as error:
        assert "no kernels" in str(error)
    else:
        raise AssertionError("a trace without kernels was measured")


if __name__ == "__main__":
    for name, function in list(globals().items()):
        if name.startswith("test_"):
            function()
            print(f"ok      {name}")
