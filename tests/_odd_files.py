"""Files as nobody should make them: safetensors, GGUF, PNG and JSON with damages, and whole folders with some files changed."""
import json
import os
import pathlib
import random
import struct
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
DELETE = object()
WRONG = [None, "", -1, 0, 1e308, [], {}, 2**63, "x", 1, 3, True, 0.5, -2**31, 2**31, [None], [[1]], 2**64, {"a": {}}, DELETE, "\u0000\u001b[31m"]
JSONS = {"empty": b"", "null": b"null", "number": b"7", "list": b"[]", "object": b"{}", "cut": b'{"a": [1, 2', "twice": b'{"_class_name": 1, "_class_name": []}', "deep": b"[" * 200000, "deep objects": b'{"a":' * 100000 + b"1" + b"}" * 100000,
         "digits": b'{"a": ' + b"9" * 100000 + b"}", "nan": b'{"a": NaN, "b": -Infinity}', "NULs": bytes(4096), "latin1": b'{"a": "\xe9\xff"}', "utf16": '{"a": 1}'.encode("utf-16"), "surrogate": b'{"a": "\\ud800"}', "huge key": b'{"' + b"k" * 3_000_000 + b'": 1}'}


def maker(function):
    def make(place):
        function(place)
    make.makes = True
    return make


STRANGE = {"folder": maker(os.mkdir), "pipe": maker(os.mkfifo), "loop": maker(lambda p: os.symlink(p.name, p)), "dangling": maker(lambda p: os.symlink("nowhere", p)), "zeros without end": maker(lambda p: os.symlink("/dev/zero", p)),
           "null": maker(lambda p: os.symlink("/dev/null", p)), "process": maker(lambda p: os.symlink("/proc/self/mem", p)), "missing": None, "empty": b""}


def files(changes, source=None, under=""):
    """Puts a folder into that of the case, some files changed: bytes, None (left out), bytes -> bytes, or a maker."""
    def make(folder):
        for here, _, names in os.walk(source, followlinks=True) if source else ():
            to = folder / under / os.path.relpath(here, source)
            to.mkdir(parents=True, exist_ok=True)
            for name in names:
                os.symlink(os.path.realpath(os.path.join(here, name)), to / name)
        for name, change in changes.items():
            place = folder / under / name
            raw = place.read_bytes() if place.is_file() else b""
            place.unlink(missing_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            made = change(place if getattr(change, "makes", False) else raw) if callable(change) else change
            if isinstance(made, bytes):
                place.write_bytes(made)
        if not (folder / "a.png").is_symlink() and "a.png" not in changes:
            (folder / "a.png").write_bytes(png(32, 32))
    return make


def split(raw):
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + size]), raw[8 + size:]


def join(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def first(change):
    def damaged(raw):
        header, data = split(raw)
        name = next(n for n in header if n != "__metadata__")
        return join({**header, name: change(header[name])}, data)
    return damaged


def whole(change):
    return lambda raw: join(change(split(raw)[0]), split(raw)[1])


SHAPES = {"zero first": lambda s: [0, *s[1:]], "zero last": lambda s: [*s[:-1], 0], "scalar": lambda s: [], "doubled": lambda s: [s[0] * 2, *s[1:]] if s else [2], "ones": lambda s: [1] * len(s), "deeper": lambda s: [*s, 1], "turned": lambda s: s[::-1]}


def reshaped(which, how):
    """A damage that leaves a valid file: one tensor has another shape, and the data that belongs to it."""
    def damaged(raw):
        header, data = split(raw)
        names, out, at, new = [n for n in header if n != "__metadata__"], b"", 0, {}
        for i, n in enumerate(names):
            shape, part = header[n]["shape"], data[slice(*header[n]["data_offsets"])]
            if i == which % len(names):
                size = {"F32": 4, "F64": 8, "I64": 8}.get(header[n]["dtype"], 2)
                shape = SHAPES[how](shape)
                for dim in shape:
                    size *= dim
                part = (part * 2)[:size]
            new[n] = {**header[n], "shape": shape, "data_offsets": [at, at + len(part)]}
            at, out = at + len(part), out + part
        return join(new, out)
    return damaged


def safetensors():
    """{what: bytes -> bytes}"""
    made = {f"cut at {n}": (lambda raw, n=n: raw[:n]) for n in (0, 7, 8, 9, 100, -1, -4096)}
    made |= {f"length {n}": (lambda raw, n=n: struct.pack("<Q", n % 2**64) + raw[8:]) for n in (0, 2, 10**8, 2**32, 2**63, -1, -8)}
    made |= {f"header {k}": (lambda raw, t=t: join(t, b"")) for k, t in JSONS.items()}
    for key, values in (("dtype", ("", "F99", "f32", "F4", "I8", "BOOL", "F64", "F8_E5M2", None, 3, [])), ("shape", ([-1], [0], [2**62, 4], [2**32, 2**32], [2**63], [1.5], ["a"], None, "x", [], {}, [1] * 100, [2**31, 0])),
                        ("data_offsets", ([0, 0], [1, 0], [-8, 8], [0, 2**63], [2**64 - 8, 2**64 - 1], [0], [], None, "0,4", [0.0, 4.5], [3, 7], {}))):
        made |= {f"{key} {str(v)[:30]}": first(lambda e, k=key, v=v: {**e, k: v}) for v in values}
    made |= {f"entry {e!r}": first(lambda _, e=e: e) for e in (None, [], {}, 3)}
    made |= {f"metadata {m!r}": whole(lambda h, m=m: {**h, "__metadata__": m}) for m in ([], 3, None, {"a": 1}, {"lora_adapter_metadata": "{"}, {"lora_adapter_metadata": "[" * 100000})}
    none = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    made["name with NUL"] = whole(lambda h: {f"a\u0000\u001b[2J{n}": e for n, e in h.items() if n != "__metadata__"})
    made["long name"] = whole(lambda h: {**h, "n" * 1_000_000: none})
    made["many tensors"] = whole(lambda h: {**h, **{f"e{i}": none for i in range(100000)}})
    made["swapped"] = whole(lambda h: dict(zip(list(h)[::-1], h.values())))
    return made | {"all NaN": lambda raw: join(split(raw)[0], b"\xff" * len(split(raw)[1])), "more behind": lambda raw: raw + b"x" * 100} | {f"{i} {how}": reshaped(i, how) for i in (0, 5) for how in SHAPES}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(raw, version=3, tensors=None, pair=("general.architecture", 8, text("flux")), change=lambda *e: e):
    """A GGUF file of the tensors of a safetensors file; change: of the first one's dims, type and offset."""
    header, data = split(raw)
    named = [(n, e) for n, e in header.items() if n != "__metadata__"]
    out = b"GGUF" + struct.pack("<IQQ", version, len(named) if tensors is None else tensors, 1) + text(pair[0]) + struct.pack("<I", pair[1]) + pair[2]
    body = b""
    for i, (n, e) in enumerate(named):
        entry = (e["shape"][::-1], {"F32": 0, "F16": 1, "BF16": 30}[e["dtype"]], len(body))
        dims, kind, place = change(*entry) if i == 0 else entry
        out += text(n) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d % 2**64) for d in dims) + struct.pack("<IQ", kind, place % 2**64)
        body += data[slice(*e["data_offsets"])]
        body += bytes(-len(body) % 32)
    return out + bytes(-len(out) % 32) + body


def ggufs():
    made = {"whole": {}} | {f"version {v}": {"version": v} for v in (0, 1, 0x03000000)} | {f"{n} tensors": {"tensors": n} for n in (0, 1, 2**64 - 1)}
    made |= {f"pair of type {k}": {"pair": ("a", k, bytes(8))} for k in range(0, 14, 2)} | {f"text of {n}": {"pair": ("a", 8, struct.pack("<Q", n))} for n in (2**31, 2**64 - 1)} | {"nested": {"pair": ("a", 9, struct.pack("<IQ", 9, 1) * 100000)}}
    made |= {f"{n} of {k}": {"pair": ("a", 9, struct.pack("<IQ", k, n) + bytes(16))} for k in (0, 8, 12) for n in (2**40, 2**61)} | {f"alignment {a}": {"pair": ("general.alignment", 4, struct.pack("<I", a))} for a in (0, 3, 2**32 - 1)}
    made |= {f"{d} {k} {p}"[:30]: {"change": lambda *_, e=(d, k, p): e} for d, k, p in (([], 0, 0), ([0], 0, 0), ([-1], 0, 0), ([2**32, 2**32], 0, 0), ([1] * 1000, 0, 0), ([64], 2, 0), ([64], 12, 0), ([64], 39, 0), ([64], 2**32 - 1, 0), ([64], 0, 1), ([64], 0, 2**63), ([64], 0, -32))}
    return {what: (lambda raw, how=how: gguf(raw, **how)) for what, how in made.items()} | {f"damaged, {i}": (lambda raw, i=i: flip(gguf(raw), random.Random(i))) for i in range(12)}


def png(width=8, height=8, depth=8, kind=2, rows=None, interlace=0, data=None):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    rows = (b"\0" + b"\x7f" * (width * 3)) * height if rows is None and data is None else rows
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)) + chunk(b"IDAT", zlib.compress(rows) if data is None else data) + chunk(b"IEND", b"")


def pictures():
    """{what: bytes}"""
    made = {"empty": b"", "text": b"hello", "signature": png()[:8], "gif": b"GIF89a\1\0\1\0\0\0\0;", "bad stream": png(data=b"x"), "few rows": png(rows=b"\0" * 10), "many rows": png(rows=bytes(10**7)), "1x1": png(1, 1), "interlace 9": png(interlace=9),
            "no palette": png(kind=3), "bomb": png(30000, 30000, rows=bytes(10**8)), "wide": png(200000, 1), "filter 9": png(rows=(b"\x09" + b"\x7f" * 24) * 8), "16 bit": png(depth=16)}
    made |= {f"{w}x{h} of {d}, {k}": png(w, h, d, k, data=b"x") for w, h, d, k in ((0, 0, 8, 2), (2**31 - 1, 1, 8, 6), (2**32 - 1, 2**32 - 1, 16, 6), (65535, 65535, 8, 2), (8, 8, 255, 255), (8, 8, 3, 0))}
    return made | {f"{name} damaged, {i}": flip(raw, random.Random(i)) for name, raw in (("png", png()), ("webp", (ROOT / "docs/pictures/mini.webp").read_bytes())) for i in range(20)}


def flip(raw, dice):
    """The same bytes with some changed, cut, doubled or left out."""
    out = bytearray(raw or b"\xff")
    kind, at = dice.randrange(6), dice.randrange(len(out)) if dice.random() < 0.5 else dice.randrange(min(len(out), 400))
    if kind == 0:
        return bytes(out[:at])
    if kind == 1:
        del out[at:at + dice.randrange(1, 64)]
    elif kind == 2:
        out[at:at] = out[at:at + dice.randrange(1, 64)]
    else:
        for _ in range(dice.randrange(1, 9)):
            out[min(len(out) - 1, at + dice.randrange(32))] = dice.choice((0, 1, 0x7f, 0x80, 0xff, dice.randrange(256)))
    return bytes(out)


def paths(value, here=()):
    """Every place in a JSON value, of lists the first and the last element alone."""
    inside = value.items() if isinstance(value, dict) else [(i, value[i]) for i in sorted({0, len(value) - 1})] if isinstance(value, list) and value else []
    for key, child in inside:
        yield here + (key,)
        yield from paths(child, here + (key,))


def put(raw, path, value):
    inner = document = json.loads(raw)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    if value is DELETE:
        del inner[path[-1]]
    return json.dumps(document).encode()
