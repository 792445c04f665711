"""Where the engine is: a program of its own, in no package."""

import os
import shutil
import sys
from pathlib import Path

from .errors import EngineError

VARIABLE = "ATELIER"
BESIDE = "the build beside this package"


def find(named=""):
    """The path of the program: as a node names it, of the variable ATELIER, on PATH, or built beside this package.

    Returns (path, ""), or ("", a sentence that says what was looked for).
    """
    if not sys.platform.startswith("linux"):
        return "", f"the engine runs on Linux; this is {sys.platform}"
    builds = Path(__file__).resolve().parents[2] / "build"
    places = [
        ("the node's settings", named),
        (f"the variable {VARIABLE}", os.environ.get(VARIABLE, "")),
        ("PATH", shutil.which("atelier") or ""),
        (BESIDE, builds / "cuda/src/atelier"),
        (BESIDE, builds / "cpu/src/atelier"),
    ]
    for where, place in places:
        if not str(place):
            continue
        path = Path(place).expanduser()
        if path.is_file() and os.access(path, os.X_OK):
            return str(path), ""
        if where != BESIDE:
            return "", f"{where} says {place}, which is no program that can be run"
    return "", (
        "there is no program named atelier on PATH; build it, then put it there, "
        f"or set {VARIABLE} to its path before ComfyUI starts"
    )


def require(named=""):
    """As find(); raises EngineError where there is none."""
    path, problem = find(named)
    if not path:
        raise EngineError(f"Atelier's engine was not found: {problem}")
    return path
