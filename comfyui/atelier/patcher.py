"""Patchers of models whose weights are in the engine: what ComfyUI's memory management loads, and unloads on `/free`."""

from . import host
from .alterations import refuse_compiling, refuse_object_patches
from .errors import EngineError

def patcher_class():
    """The patcher of delegated models; made late, as ComfyUI is not there when this file is tested.

    No weight is here, so none is moved, merged or counted.
    """
    import comfy.model_patcher
    import comfy.utils
    from comfy.patcher_extension import CallbacksMP

    stock = comfy.model_patcher.ModelPatcher
    if stock in _patchers:
        return _patchers[stock]

    class AtelierModelPatcher(stock):
        def model_size(self):
            return 1

        def loaded_size(self):
            return 1 if self.model.current_weight_patches_uuid is not None else 0

        def patch_model(self, *args, **kwargs):
            refuse_object_patches(self.object_patches)
            refuse_compiling(self.wrappers)
            return super().patch_model(*args, **kwargs)

        def load(self, device_to=None, *args, **kwargs):
            host.raise_if_interrupted()
            try:
                self.model.atelier.prepare(self)
            except BaseException:  # ComfyUI counts only what it has loaded: nothing else may hold memory
                self.model.atelier.engine.close()
                raise
            self.model.device = device_to
            self.model.current_weight_patches_uuid = self.patches_uuid
            for callback in self.get_all_callbacks(CallbacksMP.ON_LOAD):
                callback(self, device_to, *(list(args) + [0, False, True])[:3])

        def partially_load(self, device_to, *args, **kwargs):
            self.unpatch_model(None, unpatch_weights=False)
            self.patch_model(device_to)
            return 0

        def partially_unload(self, device_to, *args, **kwargs):
            return 0

        def unpatch_model(self, device_to=None, unpatch_weights=True):
            self.eject_model()
            if unpatch_weights:
                self.model.current_weight_patches_uuid = None
            for name, value in self.object_patches_backup.items():
                comfy.utils.set_attr(self.model, name, value)
            self.object_patches_backup.clear()

        def detach(self, unpatch_all=True):
            self.eject_model()
            if unpatch_all:
                self.unpatch_model(self.offload_device)
                self.model.atelier.engine.close()
            for callback in self.get_all_callbacks(CallbacksMP.ON_DETACH):
                callback(self, unpatch_all)
            return self.model

        def get_key_patches(self, *args, **kwargs):
            raise EngineError(f"another node wants this model's weights, to merge or to save models; {ELSEWHERE}")

        def add_hook_patches(self, *args, **kwargs):
            raise EngineError(f"LoRA hooks change the weights within a run; {ELSEWHERE}, or a LoRA loader node")

        def add_weight_wrapper(self, name, *args, **kwargs):
            raise EngineError(f"another node wraps the weight {name}; {ELSEWHERE}")

    _patchers[stock] = AtelierModelPatcher
    return AtelierModelPatcher


_patchers = {}
ELSEWHERE = "the weights are in the engine: use the stock loader"


class _Held:
    """In the place of a network: an engine that draws whole pictures, decodes, or is called by another package's sampler."""

    def __init__(self, engine):
        self.engine = engine

    # As Delegation: copies share it.
    def __deepcopy__(self, memo):
        return self

    def prepare(self, patcher):
        self.engine.load()


def hold(engine, held=None):
    """Has ComfyUI count the engine among its loaded models, so that it can ask for its memory back.

    -> what has to be kept for as long as the engine is; held: what was kept before. None where there is no ComfyUI.
    """
    try:
        import comfy.model_management as management
        import torch
    except ImportError:
        return None
    if held is None or held.model.atelier.engine is not engine:
        model = torch.nn.Module()
        model.__dict__["atelier"] = _Held(engine)
        held = patcher_class()(model, management.get_torch_device(), torch.device("cpu"), size=1)
    management.load_models_gpu([held])
    return held
