"""What ComfyUI's LoRA nodes put into a patcher, as one adapter file that the engine merges."""

import os
import uuid
import weakref

from .errors import EngineError

PREFIX = "diffusion_model."


def _number(value):
    return float(value.item()) if hasattr(value, "item") else float(value)


def _place(rows, offset, total):
    """A factor of some rows (or columns) of a fused weight, as one of all of them."""
    if offset is None:
        return rows
    dim, start, length = offset
    full = rows.new_zeros((total, rows.shape[1])) if dim == 0 else rows.new_zeros((rows.shape[0], total))
    full.narrow(dim, start, length).copy_(rows)
    return full


def _factors(adapter, strength, offset, shape):
    """(up, down) of a plain LoRA, strength and alpha within; None for every other kind."""
    if type(adapter).__name__ != "LoRAAdapter":
        return None
    up, down, alpha, middle, dora, reshape = (list(adapter.weights) + [None] * 6)[:6]
    if middle is not None or dora is not None or reshape is not None:
        return None
    rank = down.shape[0]
    scale = strength * (1.0 if alpha is None else _number(alpha) / rank)
    up, down = up.float().flatten(1) * scale, down.float().flatten(1)
    if offset is not None and offset[0] == 0:
        up = _place(up, offset, shape[0])
    elif offset is not None:
        down = _place(down, offset, shape[1])
    return up, down


def _difference(patch, shape, key):
    """What any other kind of patch adds to a weight of zeros. Kinds that depend on the weight itself are refused."""
    import comfy.lora
    import torch

    strength, adapter, _, offset, function = patch
    kind = type(adapter).__name__
    norms = _NORMS.get(kind)
    weights = getattr(adapter, "weights", None) or ()
    has_norms = norms is not None and norms < len(weights) and weights[norms] is not None
    if kind in _OF_WEIGHTS or has_norms:
        raise EngineError(
            f"a LoRA of the kind {kind}{' (DoRA)' if has_norms else ''} on {key} depends on the weights themselves, "
            "which are in the engine: merge it into the file before"
        )
    if isinstance(adapter, tuple) and adapter and adapter[0] == "set":
        raise EngineError(f"a patch that replaces {key}: the weights are in the engine")
    zero = torch.zeros(shape, dtype=torch.float32)
    return comfy.lora.calculate_weight([(strength, adapter, 1.0, offset, function)], zero, key)


# Kinds that turn or scale the weights, and where DoRA's norms are among the tensors of the others.
_OF_WEIGHTS = ("OFTAdapter", "BOFTAdapter", "GLoRAAdapter")
_NORMS = {"LoRAAdapter": 4, "LoHaAdapter": 7, "LoKrAdapter": 8}


def tensors_of(patches, shapes):
    """{key: patches of a ModelPatcher}, {key: shape} -> tensors of an adapter file."""
    import torch

    out = {}
    for key, entries in patches.items():
        shape = shapes[key]
        ups, downs, whole = [], [], None
        for strength, adapter, strength_model, offset, function in entries:
            if strength_model != 1.0:
                raise EngineError(f"{key} is scaled by {strength_model}: the weights are in the engine, models cannot be merged there")
            pair = _factors(adapter, strength, offset, shape) if function is None and len(shape) >= 2 else None
            if pair:
                ups.append(pair[0])
                downs.append(pair[1])
                continue
            change = _difference((strength, adapter, strength_model, offset, function), shape, key)
            whole = change if whole is None else whole + change
        layer, _, ending = key.rpartition(".")
        if ending not in ("weight", "bias"):
            raise EngineError(f"a patch on {key}, which is neither a weight nor a bias of a layer")
        if ups and whole is not None:  # a layer has one kind of change in a file
            whole = whole + (torch.cat(ups, 1) @ torch.cat(downs, 0)).view(shape)
            ups = []
        if ups:
            out[f"{layer}.lora_up.weight"] = torch.cat(ups, 1).contiguous()
            down = torch.cat(downs, 0)
            out[f"{layer}.lora_down.weight"] = down.contiguous()
        if whole is not None:
            out[f"{layer}.diff" if ending == "weight" else f"{layer}.diff_b"] = whole.contiguous()
    return out


class AdapterFiles:
    """One file for each state of a patcher's patches, in a folder that is swept when the owner goes."""

    KEPT = 4

    def __init__(self, folder):
        self.folder = folder
        self._paths = {}
        self._sweep = weakref.finalize(self, _remove, self._paths)

    def of(self, identity, patches, shapes):
        """The adapters of a call: none, or one "PATH:1"."""
        if not patches:
            return []
        if identity not in self._paths:
            from safetensors.torch import save_file

            os.makedirs(self.folder, exist_ok=True)
            path = os.path.join(self.folder, f"atelier-lora-{uuid.uuid4().hex}.safetensors")
            save_file(tensors_of(patches, shapes), path)
            self._paths[identity] = path
            while len(self._paths) > self.KEPT:
                _remove({0: self._paths.pop(next(iter(self._paths)))})
        return [self._paths[identity] + ":1"]


def _remove(paths):
    for path in paths.values():
        try:
            os.remove(path)
        except OSError:
            pass
