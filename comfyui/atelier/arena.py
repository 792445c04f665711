"""Tensors in a memory file that another process maps: one file, laid out anew for every call."""

import mmap
import os

UNIT = 64  # bytes that a tensor begins at a multiple of
TYPES = ("float32", "float16", "bfloat16", "int64")


def size_of(shape):
    """Bytes of a float32 tensor."""
    count = 4
    for n in shape:
        count *= int(n)
    return count


def _name_of(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def up(offset):
    return -(-offset // UNIT) * UNIT


class Arena:
    """Grows, never shrinks. Not for two calls at once."""

    def __init__(self):
        self.fd = -1
        self._map = None
        self._bytes = 0

    def _hold(self, size):
        if self.fd >= 0 and size <= self._bytes:
            return
        self.close()
        self.fd = os.memfd_create("atelier-tensors", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self._bytes = size

    def put(self, tensors, result_bytes):
        """Copies the tensors in; ({name: reference}, offset of the result)."""
        references, offset, ready = {}, 0, {}
        for name, tensor in tensors.items():
            if _name_of(tensor) not in TYPES:
                tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
            ready[name] = tensor
            references[name] = {"dtype": _name_of(tensor), "shape": list(tensor.shape), "offset": offset}
            offset = up(offset + tensor.numel() * tensor.element_size())
        self._hold(max(offset + result_bytes, UNIT))
        for name, tensor in ready.items():
            self._view(_name_of(tensor), tensor.shape, references[name]["offset"]).copy_(tensor)
        return references, offset

    def take(self, shape, offset):
        """A copy of the float32 tensor there."""
        return self._view("float32", shape, offset).clone()

    def _view(self, name, shape, offset):
        import torch

        dtype, count = getattr(torch, name), 1
        for n in shape:
            count *= int(n)
        if count == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset).view(tuple(shape))

    def close(self):
        """Lets go of the file. Whoever maps it keeps it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self._map, self._bytes = -1, None, 0

    def __del__(self):
        self.close()
