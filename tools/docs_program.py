"""Asks the program about itself, for the tables of the documentation. The program is $ATELIER or the CPU build's."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get("ATELIER", str(ROOT / "build/cpu/src/atelier"))
# Of the shell that runs this, nothing may change a table.
FOREIGN = ("DG_", "HF_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "OMPI_", "PMIX_", "CUDA_", "NCCL_", "XDG_", "HUGGING", "ATELIER_")


def environment(home: str, **more: str) -> dict:
    """Variables of a fresh machine whose home is this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    own = {"HOME": home, "ATELIER_SHARE": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return kept | own | more


def ask(*words: str, where: str | None = None, seconds: float = 120, **variables: str) -> subprocess.CompletedProcess:
    """Runs the program with these words; its answer as text."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run([ATELIER, *words], cwd=where or home, env=environment(home, **variables), capture_output=True, text=True,
                              timeout=seconds)


def told(*words: str, **variables: str) -> str:
    """What it prints; raises where it fails."""
    done = ask(*words, **variables)
    if done.returncode != 0:
        raise RuntimeError(f"atelier {' '.join(words)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def side_by_side(calls: list) -> list:
    """The results of several calls, two at a time, in order."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [f.result() for f in [pool.submit(c) for c in calls]]


def table(head: list, rows: list) -> str:
    """A table of markdown; bars in cells are escaped."""
    line = lambda cells: "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def filled(text: str, makers: dict) -> str:
    """A page with each block between <!-- NAME --> and <!-- end --> made anew by the maker of that name, if there is one."""
    def put(match):
        maker = makers.get(match.group(2))
        return match.group(1) + maker() + "\n" + match.group(4) if maker else match.group(0)

    return re.sub(r"(<!-- ([a-z_]+) -->\n)(.*?)(<!-- end -->)", put, text, flags=re.S)
