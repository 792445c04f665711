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


def many_gpus() -> str:
    """Milliseconds per step of the layouts that were run."""
    files = [load(name) for name in ("many_gpus.json",)]
    rows = [r for rows in files if rows for r in rows]
    rows.sort(key=lambda r: (r["width"], r["model"], r["ranks"]))
    if not rows:
        return "Not measured yet."
    lines = ["| model, size | GPUs | layout | ms per step | decode, ms | peak GiB per rank |", "|---|---|---|---|---|---|"]
    for r in rows:
        what = f"{r['model'].split(' ')[0]}, {r['width']} px"
        if "problem" in r:
            lines.append(f"| {what} | {r['ranks']} | {r['layout']} | {r['problem'][:60]} | | |")
            continue
        peak = " / ".join(f"{b:.1f}" for b in peaks(r))
        ms = r["ms_per_step"]
        lines.append(f"| {what} | {r['ranks']} | {r['layout']} | {ms['median']:.1f} ({ms['min']:.1f} to {ms['max']:.1f}) "
                     f"| {r['decode_s']['median'] * 1e3:.0f} | {peak} |")
    lines.append("\nMedian, least and most of the runs. With messages in place of stores (`collective`) and cuDNN's attention.")
    return "\n".join(lines)


def families() -> str:
    """Milliseconds per step and seconds per picture of every family on one GPU and on two, of one run."""
    rows = load("families_gpus_2.json")
    if not rows:
        return "Not measured yet."
    lines = ["| model | GPUs | layout | steps | ms per step | decode, ms | whole, s | peak GiB per rank |", "|---|---|---|---|---|---|---|---|"]
    for r in sorted(rows, key=lambda r: (r["model"], r["width"] * r["height"], r["tier"], r["ranks"])):
        name = r["model"].split(" ")[0].removesuffix("-Diffusers") + (f", tier {r['tier']}" if r["tier"] != "exact" else "")
        if "frames" in r:
            name += f", {r['width']}x{r['height']}, {r['frames']} frames"
        elif r["width"] != 1024:
            name += f", {r['width']} px"
        ms, peak = r["ms_per_step"], " / ".join(f"{b:.1f}" for b in peaks(r))
        lines.append(f"| {name} | {r['ranks']} | {r['layout']} | {r['steps']} | {ms['median']:.1f} ({ms['min']:.1f} to {ms['max']:.1f}) "
                     f"| {r['decode_s']['median'] * 1e3:.0f} | {r['picture_s']['median']:.2f} | {peak} |")
    device = rows[0]["device"].split(" (")[0]
    return "\n".join(lines) + (f"\n\n{device}, random weights, 1024 px where no size is said, bfloat16 (`tools/bench/families.sh`). Steps of all but "
                               "FLUX.1 compute both branches of guidance; tier fast computes the blocks' products in e4m3.")


def render(text: str) -> str:
    """README.md with every marked block filled in."""
    for name, make in (("mini", mini_scores), ("one_gpu", one_gpu), ("families", families), ("many_gpus", many_gpus)):
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
