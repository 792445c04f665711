"""Folders with two denoisers, as Wan 2.2 A14B has them: one for the noisy steps and one for the rest.

Which one runs is said as diffusers' WanPipeline says it: the first at and above boundary_ratio of the trained timesteps.
"""

import json
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass

from .errors import EngineError

BY_NOISE, HIGH, LOW = CHOICES = ("by noise level", "high noise", "low noise")
FOLDERS = ("transformer", "transformer_2")


@dataclass(frozen=True)
class Experts:
    """The denoisers that calls choose from."""

    boundary: float = 0.0  # timestep below which the second runs
    fixed: int | None = 0  # the one that runs whatever the timestep is

    def of(self, timestep):
        """The index of the denoiser for a timestep in the network's unit."""
        if self.fixed is not None:
            return self.fixed
        return 0 if timestep >= self.boundary else 1

    def all(self):
        return (0, 1) if self.fixed is None else (self.fixed,)


def _read(folder, *path):
    file = os.path.join(folder or "", *path)
    if not os.path.isfile(file):
        return {}
    with open(file, encoding="utf-8") as handle:
        return json.load(handle)


def has_two(folder):
    """Whether a diffusers folder names a second denoiser; False for files."""
    return bool((_read(folder, "model_index.json").get("transformer_2") or [None])[0])


def chosen(folder, choice=BY_NOISE):
    """What runs of a folder, or of a file (folder: ""), for a choice of the node. Raises EngineError."""
    if choice not in CHOICES:
        raise EngineError(f"expert {choice} is unknown; there are {', '.join(CHOICES)}")
    if not has_two(folder):
        if choice != BY_NOISE:
            raise EngineError(
                f"expert {choice} was asked for, and this model has one denoiser: leave {BY_NOISE}; of Wan 2.2 A14B in two files "
                "give each file a loader of its own"
            )
        return Experts()
    if choice != BY_NOISE:
        return Experts(fixed=CHOICES.index(choice) - 1)
    ratio = _read(folder, "model_index.json").get("boundary_ratio")
    if ratio is None:
        return Experts()
    trained = _read(folder, "scheduler", "scheduler_config.json").get("num_train_timesteps", 1000)
    return Experts(boundary=ratio * trained, fixed=None)


class Alone:
    """Folders of links that hold one of the denoisers each, for an engine that has no room for both."""

    def __init__(self, folder):
        self.folder = folder
        self._made = {}

    def path(self, expert):
        """The folder that holds this denoiser as its only one."""
        if expert not in self._made:
            made = tempfile.mkdtemp(prefix="atelier-expert-")
            weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
            for name in os.listdir(self.folder):
                if name not in (*FOLDERS, "model_index.json"):
                    os.symlink(os.path.join(self.folder, name), os.path.join(made, name))
            os.symlink(os.path.join(self.folder, FOLDERS[expert]), os.path.join(made, FOLDERS[0]))
            index = {**_read(self.folder, "model_index.json"), "boundary_ratio": None, FOLDERS[1]: [None, None]}
            with open(os.path.join(made, "model_index.json"), "w", encoding="utf-8") as handle:
                json.dump(index, handle)
            self._made[expert] = made
        return self._made[expert]
