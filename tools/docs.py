"""Writes the tables of the documentation between their markers, from what the program says, does and measured.

python3 tools/docs.py               rewrites the pages; the table of options and strategies draws some 120 pictures
python3 tools/docs.py --check       exits 1 and names the pages that differ from what the program says
python3 tools/docs.py NAME...       only these tables; names are those of the markers: <!-- NAME --> ... <!-- end -->
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import docs_flags  # noqa: E402
import docs_layouts  # noqa: E402
import docs_measured  # noqa: E402
from docs_program import ROOT, filled  # noqa: E402

PAGES = {
    "flags.md": {"flags": docs_flags.flags, "own": docs_flags.own, "refused": docs_flags.refused},
    "environment.md": {"variables": docs_flags.variable_table, "idle": docs_flags.idle_variables},
    "layouts.md": {"families": docs_layouts.families, "compatibility": docs_layouts.compatibility, "eight_bits": docs_measured.eight_bits},
    "performance.md": {"performance": docs_measured.performance, "beside_diffusers": docs_measured.beside_diffusers, "aims": docs_measured.aims, "kernels": docs_measured.kernels, "attention": docs_measured.attention},
}


def main() -> int:
    """Rewrites or checks."""
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    different = []
    for name, makers in PAGES.items():
        makers = {m: f for m, f in makers.items() if not wanted or m in wanted}
        path = ROOT / "docs" / name
        old = path.read_text()
        new = filled(old, makers)
        if new != old:
            different.append(name)
            if "--check" not in sys.argv:
                path.write_text(new)
    if "--check" not in sys.argv:
        return 0
    for name in different:
        print(f"docs/{name} is not what the program says: run tools/docs.py")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
