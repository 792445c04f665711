"""Wan 2.2's two experts as two files with a loader each: one engine holds both, with one set of processes and activations.

What that engine is told is a diffusers folder of links. Files stay in engines of their own, which draw the same by turns, where
one of them has weights in memory already, or where more than two files of a kind are loaded.
"""

import json
import logging
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass

from . import engine as engines
from . import experts
from .errors import EngineError

log = logging.getLogger("atelier")

PIPELINES = {"wan": "WanPipeline", "wan_i2v": "WanImageToVideoPipeline"}
# Parts that a folder must have and no denoiser reads.
OTHERS = {
    "vae": {"_class_name": "AutoencoderKLWan"},
    "text_encoder": {"architectures": ["UMT5EncoderModel"]},
}
SCHEDULER = {"_class_name": "UniPCMultistepScheduler"}


@dataclass(frozen=True)
class File:
    """Of a delegation: its file, and the engine that serves it alone."""

    path: str
    engine: engines.Engine
    family: str
    config: str  # JSON, as the engine has read it

    def kind(self):
        """What two experts agree in."""
        return self.engine.program, *self.engine.arguments[2:], self.family, self.config


_known = weakref.WeakSet()  # delegations of files
_pairs = weakref.WeakValueDictionary()  # engines of two, by their files
_refused = set()


def register(delegation, path, served, hello):
    """Once a file is loaded. hello: of its engine."""
    config = hello["config"]
    # What sees an image by an encoder is of Wan 2.1, which has no second expert.
    if hello["family"] in PIPELINES and not config.get("image_dim"):
        delegation.file = File(os.path.realpath(path), served, hello["family"], json.dumps(config, sort_keys=True))
        _known.add(delegation)


def settle(delegation):
    """Before a run's weights are loaded: which engine the delegation is served by."""
    mine = delegation.file
    if mine is None:
        return
    peers = [one for one in _known if one.file.kind() == mine.kind()]
    paths = sorted({one.file.path for one in peers})
    if len(paths) == 1:
        _move(delegation, mine.engine, experts.Experts())
    alone = [one.file.engine for one in peers]
    if len(paths) != 2 or any(one.holds and one.is_running() for one in alone):
        return
    pair = _pair(mine, paths)
    for one in peers if pair else []:
        _move(one, pair, experts.Experts(fixed=paths.index(one.file.path)))


def _move(delegation, engine, chosen):
    if delegation.engine is not engine:
        adapters = next(iter(delegation.adapters.values()), [])
        delegation.engine, delegation.experts, delegation.adapters = engine, chosen, {chosen.fixed: adapters}


def _pair(file, paths):
    """The engine of two files; None where it does not take them as one model."""
    key = (file.kind(), *paths)
    if key in _refused:
        return None
    pair = _pairs.get(key)
    if pair is None:
        folder = _folder(file, paths)
        arguments = ["--model_name", folder, *file.engine.arguments[2:]]
        pair = engines.serve(file.engine.program, arguments, " and ".join(map(os.path.basename, paths)))
        weakref.finalize(pair, shutil.rmtree, folder, ignore_errors=True)
        pair.alone = experts.Alone(folder)
        try:
            pair.start()
        except EngineError as error:
            log.info("[atelier %s] two engines, by turns: %s", pair.name, error)
            _refused.add(key)
            return None
        _pairs[key] = pair
    return pair


def _folder(file, paths):
    folder = tempfile.mkdtemp(prefix="atelier-experts-")
    index = {"_class_name": PIPELINES[file.family], "boundary_ratio": 0.5}  # calls name their expert
    texts = {"d_model": json.loads(file.config).get("text_dim")}
    parts = {**OTHERS, "text_encoder": {**OTHERS["text_encoder"], **texts}}
    for part, path in zip(experts.FOLDERS, paths):
        parts[part] = json.loads(file.config)
        index[part] = ["diffusers", "WanTransformer3DModel"]
        os.makedirs(os.path.join(folder, part))
        os.symlink(path, os.path.join(folder, part, "diffusion_pytorch_model" + os.path.splitext(path)[1]))
    named = {f"{part}/config.json": config for part, config in parts.items()}
    for name, value in {**named, "scheduler/scheduler_config.json": SCHEDULER, "model_index.json": index}.items():
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as handle:
            json.dump(value, handle)
    return folder
