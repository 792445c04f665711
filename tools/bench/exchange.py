#!/usr/bin/env python3
"""How much of each layout's exchange is hidden behind other work: timelines of tools/bench/kernel_times.cpp.

  exchange.py --steps N [--traces FOLDER] NAME=FILE.line[+FILE.line...] ... >results/exchange.json     a file per rank

Of the last picture of a process, from its first attention to its last: milliseconds per step in which only the exchange ran
(exposed), in which it ran beside other kernels (hidden), in which other kernels ran alone, and in which nothing did. Barriers
count as exchange: who waits there waits for a neighbour. Kernels that compute and store into a neighbour's memory count as other
work. --traces writes the kernels of about one step of each rank for ui.perfetto.dev."""
import argparse
import collections
import json
import pathlib
import re

EXCHANGE = re.compile(r"^_Z\d+nccl|^nccl|4meet|scatter_rows|^copy$")
ATTENTION = re.compile(r"flash|fmha|sdpa", re.I)
PAUSE = 20_000_000  # nanoseconds between two attentions of different pictures, at least: one is decoded, the next encoded


def events_of(path):
    """(begin, end, stream, name) in nanoseconds, by begin."""
    events = []
    with open(path) as file:
        for line in file:
            begin, length, stream, name = line.rstrip("\n").split(" ", 3)
            events.append((int(begin), int(begin) + int(length), int(stream), name))
    return sorted(events)


def last_picture(events):
    """What lies between the first and the last attention of the denoiser, the kernel that attends most often."""
    usual = collections.Counter(e[3] for e in events if ATTENTION.search(e[3])).most_common(1)[0][0]
    places = [i for i, e in enumerate(events) if e[3] == usual]
    first = last = len(places) - 1
    while first > 0 and events[places[first]][0] - events[places[first - 1]][1] < PAUSE:
        first -= 1
    return events[places[first]:places[last] + 1]


def union(intervals):
    out = []
    for begin, end in sorted(intervals):
        if out and begin <= out[-1][1]:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([begin, end])
    return out


def length(intervals):
    return sum(end - begin for begin, end in intervals)


def common(a, b):
    total = i = j = 0
    while i < len(a) and j < len(b):
        total += max(0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return total


def row_of(name, rank, events, steps):
    exchange = union([e[:2] for e in events if EXCHANGE.search(e[3])])
    work = union([e[:2] for e in events if not EXCHANGE.search(e[3])])
    hidden, whole = common(exchange, work), max(e[1] for e in events) - events[0][0]
    shares = {"whole": whole, "work_alone": length(work) - hidden, "exchange_hidden": hidden, "exchange_exposed": length(exchange) - hidden,
              "nothing": whole - length(work) - length(exchange) + hidden}
    return {"layout": name, "rank": rank, "steps": steps, "ms_per_step": {key: round(value / 1e6 / steps, 3) for key, value in shares.items()}}


def trace_of(events, steps):
    """About one step in the middle, as a trace in Chrome's format."""
    begin, whole = events[0][0], events[-1][1] - events[0][0]
    window = begin + whole * (steps // 2) // steps, begin + whole * (steps // 2 + 1) // steps
    return {"traceEvents": [{"name": e[3][:60], "ph": "X", "pid": 0, "tid": e[2], "ts": (e[0] - window[0]) / 1e3, "dur": (e[1] - e[0]) / 1e3,
                             "cat": "exchange" if EXCHANGE.search(e[3]) else "work"} for e in events if window[0] <= e[0] < window[1]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--traces", type=pathlib.Path)
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    rows = []
    for run in args.runs:
        name, files = run.rsplit("=", 1)
        for rank, path in enumerate(files.split("+")):
            events = last_picture(events_of(path))
            rows.append(row_of(name, rank, events, args.steps))
            if args.traces:
                args.traces.mkdir(parents=True, exist_ok=True)
                where = args.traces / (re.sub(r"\W+", "_", name) + f"_rank{rank}.json")
                where.write_text(json.dumps(trace_of(events, args.steps), separators=(",", ":")))
    print(json.dumps({"what": "a step's time by what ran: timelines of CUPTI, the last picture of each process", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
