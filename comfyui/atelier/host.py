"""What ComfyUI tells the engine's client: whether the user has pressed cancel, and where progress goes."""

import logging
import sys

log = logging.getLogger("atelier")


def _management():
    return sys.modules.get("comfy.model_management")


def is_interrupted():
    management = _management()
    return bool(management and management.processing_interrupted())


def raise_if_interrupted():
    """ComfyUI's own exception, which ends a prompt without an error."""
    management = _management()
    if management:
        management.throw_exception_if_processing_interrupted()


def make_room():
    """Before the engine loads onto devices that ComfyUI uses too: its own models go, those in engines stay.

    How many went.
    """
    management = _management()
    if management is None or management.get_torch_device().type == "cpu":
        return 0
    loaded = management.current_loaded_models
    ours = [one for one in loaded if hasattr(getattr(one.model, "model", None), "atelier")]
    before = len(loaded)
    management.free_memory(1e30, management.get_torch_device(), keep_loaded=ours)
    management.soft_empty_cache()
    return before - len(management.current_loaded_models)


def gpu_count():
    """GPUs that this process sees; -1: not known."""
    torch = sys.modules.get("torch")
    if torch is None:
        return -1
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def progress():
    """A function of (step, steps) that moves the node's bar; every move raises when the user has pressed cancel."""
    if "comfy.utils" not in sys.modules:
        return None
    import comfy.utils

    bars = {}

    def tell(step, steps):
        bar = bars.setdefault("bar", comfy.utils.ProgressBar(steps))
        bar.update_absolute(step, steps)

    return tell
