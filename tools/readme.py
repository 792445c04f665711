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


def kind_of(row: dict) -> str:
    """What a row of one GPU computes in."""
    tier = "exact" if row.get("tier", "exact") == "exact" else f"`--tier {row['tier']}`"
    return tier + ("" if row.get("attention_dtype", "auto") == "auto" else f", `--attention_dtype {row['attention_dtype']}`")


def one_gpu() -> str:
    """Milliseconds per step beside diffusers on one GPU of the same machine."""
    own, peer = load("one_gpu.json"), load("one_gpu_diffusers.json")
    if not own or not peer or not load("one_gpu_load.json"):
        return "Not measured yet."
    cell = lambda t: f"{t['median']:.1f} ({t['min']:.1f} to {t['max']:.1f})"
    rows = ["| engine | ms per step |", "|---|---|"]
    compiled = peer["compiled_blocks"]
    others = [("diffusers eager", peer["eager"]), ("diffusers, blocks compiled", compiled)]
    eight = load("one_gpu_diffusers_fp8.json")
    if eight:
        others.append((f"diffusers with torchao {eight['torchao']}, FP8 products, blocks compiled", eight["compiled_blocks"]))
    for name, t in others:
        rows.append(f"| {name.replace('diffusers', 'diffusers ' + peer['diffusers'], 1)} | {cell(dict(median=t['median_ms_per_step'], min=t['min'], max=t['max']))} |")
    for r in own:
        rows.append(f"| Atelier, {kind_of(r)} | {cell(r['ms_per_step'])} |")
    if eight:
        rows.append(f"\nWhat compiling takes before the first picture: {compiled['seconds_with_compiling']:.0f} s, with FP8 "
                    f"{eight['compiled_blocks']['seconds_with_compiling']:.0f} s.")
    loaded = load("one_gpu_load.json")
    seconds, bytes_, host = (loaded[0].get(k) for k in ("load_s", "weight_bytes", "load_anonymous_host_bytes"))
    memory = f", {host / 2**20:.0f} MiB of anonymous host memory at most" if host else ""
    rows.append(f"\nLoading {bytes_[0] / 2**30:.1f} GiB of weights from the page cache: {seconds:.1f} s "
                f"({bytes_[0] / seconds / 1e9:.0f} GB/s){memory}; peak on the GPU {peaks(own[0])[0]:.1f} GiB.")
    return "\n".join(rows) + f"\n\n{peer['gpu']}, FLUX.1-schnell geometry, random weights, 1024 px, bfloat16, torch {peer['torch']}."


def beside() -> str:
    """Milliseconds per step of the other families beside diffusers on one GPU of the same machine."""
    rows = load("beside_diffusers.json")
    lines = ["| model | Atelier, ms per step | diffusers compiled | ratio | compiling, s |", "|---|---|---|---|---|"]
    for row in rows:
        own, peer = row["atelier"]["ms_per_step"]["median"], row["diffusers"]["compiled"]
        ms = peer["ms_per_step"]["median"]
        lines.append(f"| {subject(row).removesuffix('-Diffusers')} | {own:.1f} | {ms:.1f} | {own / ms:.2f} | {peer['seconds_with_compiling']:.0f} |")
    return "\n".join(lines) + "\n\nThe other families on one H200, both branches of guidance (`tools/bench/beside_diffusers.sh`; [more](docs/performance.md))."


def best(rows: list, ranks: int) -> dict | None:
    """The fastest exact layout of that many GPUs."""
    rows = [r for r in rows if r["ranks"] == ranks and "problem" not in r and "pipefusion" not in r["layout"]]
    return min(rows, key=lambda r: r["ms_per_step"]["median"], default=None)


def subject(row: dict) -> str:
    """The model, and what differs from its usual size and arithmetic."""
    name = row["model"].split(" ")[0].removesuffix("-Diffusers")
    if row.get("tier", "exact") != "exact":
        name += f", tier {row['tier']}"
    if row.get("attention_dtype", "auto") != "auto":
        name += f", attention {row['attention_dtype']}"
    if "frames" in row:
        return name + f", {row['width']}x{row['height']}, {row['frames']} frames"
    return name + (f", {row['width']} px" if row["width"] != 1024 else "")


def speed() -> str:
    """For every model: milliseconds per step and seconds per picture on one GPU, two and four."""
    rows, others = load("families_gpus_4.json"), load("families_gpus_2.json")
    if not rows or not others:
        return "Not measured yet."
    lines = ["| model | one GPU, ms per step | two | four | fastest exact layouts | picture or video, s |", "|---|---|---|---|---|---|"]
    device = rows[0]["device"].split(" (")[0]
    for name in sorted({subject(r) for r in rows + others}):
        found = []
        for ranks in (1, 2, 4):
            # Another machine's, where this one has none.
            own, other = (best([r for r in some if subject(r) == name], ranks) for some in (rows, others))
            found.append((own or other, "" if own or not other else "*"))
        cells = [f"{r['ms_per_step']['median']:.1f}{mark}" if r else "" for r, mark in found]
        layouts = "; ".join(r["layout"].replace(", parallel_vae", "") for r, _ in found[1:] if r)
        lines.append("| " + " | ".join([name, *cells, layouts, " / ".join(f"{r['picture_s']['median']:.2f}" for r, _ in found if r)]) + " |")
    return "\n".join(lines) + (f"\n\n{device}, random weights, 1024 px where no size is said, bfloat16 (`tools/bench/families.sh`), medians. Steps of all but "
                              "FLUX.1 compute both branches of guidance; tier fast computes the blocks' products in e4m3. *: on another machine, with "
                              "code that is a day older.")


def render(text: str) -> str:
    """README.md with every marked block filled in."""
    for name, make in (("mini", mini_scores), ("one_gpu", one_gpu), ("beside", beside), ("speed", speed)):
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
