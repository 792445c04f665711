"""Writes the tables of README.md between its markers from the files in results/.

python3 tools/readme.py          rewrites README.md
python3 tools/readme.py --check  exits 1 if README.md differs from what the files give
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load(name: str):
    """The rows of a result file, or None where it does not exist."""
    path = ROOT / "results" / name
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return found["rows"] if isinstance(found, dict) and "rows" in found else found


def peaks(row: dict) -> list:
    """Most device memory of each rank, GiB: of a run report, or of the rows that bench wrote before it shared its schema."""
    return [b / 2**30 for b in row.get("peak_bytes") or [p["device_bytes"] for p in row["peak_memory"]]]


def mini_scores() -> str:
    """Share of pictures drawn by the C++ program that show what their caption says."""
    scores = load("mini.json")
    if not scores:
        return "Not measured yet."
    rows = ["| captions | share right |", "|---|---|"]
    rows += [f"| {name} | {value:.2f} |" for name, value in scores["shares"].items()]
    return "\n".join(rows) + f"\n\n{scores['pictures']} pictures, fixed seeds, none discarded: `tools/mini/score.sh`."


def one_gpu() -> str:
    """Milliseconds per step on one GPU beside diffusers on the same machine."""
    graphs, eager, peer = load("one_gpu.json"), load("one_gpu_no_graphs.json"), load("one_gpu_diffusers.json")
    if not graphs or not eager or not peer or not load("one_gpu_load.json"):
        return "Not measured yet."
    cell = lambda t: f"{t['median']:.1f} ({t['min']:.1f} to {t['max']:.1f})"
    rows = ["| engine | ms per step |", "|---|---|"]
    for name, key in (("diffusers eager", "eager"), ("diffusers, blocks compiled", "compiled_blocks")):
        t = peer[key]
        rows.append(f"| {name} {peer['diffusers']} | {cell(dict(median=t['median_ms_per_step'], min=t['min'], max=t['max']))} |")
    for name, r in (("CUDA graphs", graphs[0]), ("no graphs", eager[0])):
        rows.append(f"| Atelier, {name} | {cell(r['ms_per_step'])} |")
    loaded = load("one_gpu_load.json")
    seconds, bytes_, host = (loaded[0].get(k) for k in ("load_s", "weight_bytes", "load_anonymous_host_bytes"))
    memory = f", {host / 2**20:.0f} MiB of anonymous host memory at most" if host else ""
    rows.append(f"\nLoading {bytes_[0] / 2**30:.1f} GiB of weights from the page cache: {seconds:.1f} s "
                f"({bytes_[0] / seconds / 1e9:.0f} GB/s){memory}; peak on the GPU {peaks(graphs[0])[0]:.1f} GiB.")
    return "\n".join(rows) + f"\n\n{peer['gpu']}, FLUX.1-schnell geometry, random weights, 1024 px, bfloat16, torch {peer['torch']}."


def best(rows: list, ranks: int) -> dict | None:
    """The fastest exact layout of that many GPUs."""
    rows = [r for r in rows if r["ranks"] == ranks and "problem" not in r and "pipefusion" not in r["layout"]]
    return min(rows, key=lambda r: r["ms_per_step"]["median"], default=None)


def subject(row: dict) -> str:
    """The model, and what differs from its usual size and arithmetic."""
    name = row["model"].split(" ")[0].removesuffix("-Diffusers")
    if row.get("tier", "exact") != "exact":
        name += f", tier {row['tier']}"
    if "frames" in row:
        return name + f", {row['width']}x{row['height']}, {row['frames']} frames"
    return name + (f", {row['width']} px" if row["width"] != 1024 else "")


def speed() -> str:
    """For every model: milliseconds per step and seconds per picture on one GPU and on two, and per step on four where that was run."""
    rows, older = load("families_gpus_2.json"), load("many_gpus.json")
    if not rows or not older:
        return "Not measured yet."
    lines = ["| model | one GPU, ms per step | two | fastest exact layout | picture or video, s | four, older code |", "|---|---|---|---|---|---|"]
    subjects = {}
    for r in rows:
        subjects.setdefault(subject(r), []).append(r)
    for name, own in sorted(subjects.items()):
        one, two = best(own, 1), best(own, 2)
        four = best([r for r in older if subject(r) == name], 4)
        cells = [name, f"{one['ms_per_step']['median']:.1f}"]
        cells += [f"{two['ms_per_step']['median']:.1f}", two["layout"]] if two else ["", ""]
        cells.append(" / ".join(f"{r['picture_s']['median']:.2f}" for r in (one, two) if r))
        cells.append(f"{four['ms_per_step']['median']:.1f}, {four['layout']}" if four else "")
        lines.append("| " + " | ".join(cells) + " |")
    device = rows[0]["device"].split(" (")[0]
    return "\n".join(lines) + (f"\n\n{device}, random weights, 1024 px where no size is said, bfloat16 (`tools/bench/families.sh`), medians. Steps of all but "
                              "FLUX.1 compute both branches of guidance; tier fast computes the blocks' products in e4m3.")


def render(text: str) -> str:
    """README.md with every marked block filled in."""
    for name, make in (("mini", mini_scores), ("one_gpu", one_gpu), ("speed", speed)):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m: m.group(1) + make() + "\n" + m.group(2), text, flags=re.S)
    return text


def main() -> int:
    """Rewrites or checks."""
    path = ROOT / "README.md"
    old = path.read_text()
    new = render(old)
    if "--check" in sys.argv:
        return 0 if old == new else 1
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
