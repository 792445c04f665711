"""Runs the calling script again by a Python that has the named packages: ATELIER_TEST_PYTHON, or the one of .venv."""
import importlib.util
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def need(*packages):
    """Returns where the packages are there; exit code 77 (skipped, by name) where no Python has them."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if not missing:
        return
    tried = os.environ.get("ATELIER_CLIENT_PYTHON_TRIED", "")
    for python in (os.environ.get("ATELIER_TEST_PYTHON"), ROOT / ".venv" / "bin" / "python"):
        if python and str(python) not in tried.split(":") and pathlib.Path(python).exists():
            os.environ["ATELIER_CLIENT_PYTHON_TRIED"] = f"{tried}:{python}"
            os.execv(str(python), [str(python), *sys.argv])
    print(f"skipped: no Python here has {', '.join(missing)}")
    sys.exit(77)
