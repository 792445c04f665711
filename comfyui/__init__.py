"""Atelier in ComfyUI: one picture or video drawn by several GPUs, inside the graphs that people have.

Registers its nodes also where the engine is absent: they say so when they run.
"""

import logging

from . import nodes_xdit_usp_loader
from .atelier import nodes, program

NODE_CLASS_MAPPINGS = {**nodes_xdit_usp_loader.NODE_CLASS_MAPPINGS, **nodes.NODE_CLASS_MAPPINGS}
NODE_DISPLAY_NAME_MAPPINGS = {
    **nodes_xdit_usp_loader.NODE_DISPLAY_NAME_MAPPINGS,
    **nodes.NODE_DISPLAY_NAME_MAPPINGS,
}
WEB_DIRECTORY = "./web"
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]

_path, _problem = program.find()
if _problem:
    logging.getLogger("atelier").warning("[atelier] the engine was not found: %s", _problem)
