"""Names and shapes of a GGUF file's tensors; the numbers are read by the engine.

The form is that of ggml's docs/gguf.md, versions 2 and 3; shapes of tensors that were folded for quantising stand under
comfy.gguf.orig_shape, as ComfyUI-GGUF writes them.
"""

import struct

from .errors import EngineError

ENDING = ".gguf"
MOST = 1 << 20  # entries, and bytes of a name: more is no file that can be read
SHAPE_OF = "comfy.gguf.orig_shape."
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class _Reader:
    def __init__(self, file):
        self._file = file

    def number(self, form):
        size = struct.calcsize("<" + form)
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("it ends too early")
        return struct.unpack("<" + form, data)[0]

    def count(self):
        count = self.number("Q")
        if count > MOST:
            raise ValueError(f"{count} entries")
        return count

    def text(self):
        return self._file.read(self.count()).decode("utf-8", "replace")

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner = self.number("I")
            return [self.value(inner) for _ in range(self.count())]
        if kind not in NUMBERS:
            raise ValueError(f"a value of type {kind}")
        return self.number(NUMBERS[kind])


def read_shapes(path):
    """{name: shape} of a file's tensors. Raises EngineError."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError("it does not begin with GGUF")
            reader = _Reader(file)
            version = reader.number("I")
            if version not in (2, 3):
                raise ValueError(f"version {version}")
            tensors, facts = reader.count(), {}
            for _ in range(reader.count()):
                key = reader.text()
                facts[key] = reader.value(reader.number("I"))
            shapes = {}
            for _ in range(tensors):
                name = reader.text()
                sides = [reader.number("Q") for _ in range(reader.number("I"))]
                reader.number("I")  # how its numbers are kept
                reader.number("Q")  # and where
                shapes[name] = facts.get(SHAPE_OF + name) or sides[::-1]
            return shapes
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} is no GGUF file that can be read: {error}", "checkpoint") from error
