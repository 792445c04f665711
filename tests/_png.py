"""Pixels of 8-bit RGB PNG files without further packages, to compare pictures that differ in their compression."""
import pathlib
import struct
import zlib


def _undo(kind, line, above, width=3):
    """One filtered line back to bytes (PNG specification, section 9)."""
    for i, value in enumerate(line):
        left = line[i - width] if i >= width else 0
        corner = above[i - width] if i >= width else 0
        if kind == 4:
            guess = left + above[i] - corner
            near = min((abs(guess - left), 0, left), (abs(guess - above[i]), 1, above[i]), (abs(guess - corner), 2, corner))
            line[i] = (value + near[2]) & 255
        else:
            line[i] = (value + (0, left, above[i], (left + above[i]) // 2)[kind]) & 255
    return line


def pixels(path):
    """All bytes of the picture, row by row."""
    data, at, width, packed = pathlib.Path(path).read_bytes(), 8, 0, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, _, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2), f"{path}: not 8-bit RGB"
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    raw, out, above = zlib.decompress(packed), bytearray(), bytearray(3 * width)
    for start in range(0, len(raw), 3 * width + 1):
        above = _undo(raw[start], bytearray(raw[start + 1:start + 1 + 3 * width]), above)
        out += above
    return bytes(out)


def file_of(width, height, lines, channels=3):
    """A file of these unfiltered lines, each with its filter's byte in front, whatever they hold."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def png_of(width, height, pixel, channels=3):
    """A file whose pixel (x, y) is pixel(x, y)."""
    return file_of(width, height, b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height)), channels)


def difference(a, b):
    """(largest difference in levels, share of values that differ)."""
    one, other = pixels(a), pixels(b)
    assert len(one) == len(other), f"{a} and {b} differ in size"
    gaps = [abs(x - y) for x, y in zip(one, other)]
    return max(gaps), sum(gap > 0 for gap in gaps) / len(gaps)
