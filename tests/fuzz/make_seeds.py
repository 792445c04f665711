#!/usr/bin/env python3
"""Writes the binary seeds of the targets gguf and reduced: small files of every kind that their readers know."""
import json
import pathlib
import struct

SEEDS = pathlib.Path(__file__).parent / 'seeds'
TYPES = {'f32': (0, 4, 1), 'f16': (1, 2, 1), 'q4_0': (2, 18, 32), 'q4_1': (3, 20, 32), 'q5_0': (6, 22, 32),
         'q5_1': (7, 24, 32), 'q8_0': (8, 34, 32), 'q4_k': (12, 144, 256), 'q5_k': (13, 176, 256),
         'q6_k': (14, 210, 256), 'bf16': (30, 2, 1)}


def text(value):
    data = value.encode()
    return struct.pack('<Q', len(data)) + data


def shape_of(name, dims):
    return text('comfy.gguf.orig_shape.' + name) + struct.pack('<IIQ', 9, 5, len(dims)) + struct.pack(f'<{len(dims)}i', *dims)


def gguf(types, pairs=()):
    """A file with a matrix of two rows of one block of each type."""
    infos, data = b'', b''
    for name in types:
        number, size, elements = TYPES[name]
        infos += text(name) + struct.pack('<IQQIQ', 2, elements, 2, number, len(data))
        data += bytes(i * 37 & 255 for i in range(2 * size))
        data += bytes(-len(data) % 32)
    head = b'GGUF' + struct.pack('<IQQ', 3, len(types), len(pairs)) + b''.join(pairs) + infos
    return head + bytes(-len(head) % 32) + data


def reduced(tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)."""
    header, data = {}, b''
    if metadata:
        header['__metadata__'] = metadata
    for name, (dtype, shape, value) in tensors.items():
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [len(data), len(data) + len(value)]}
        data += value
    written = json.dumps(header).encode()
    return struct.pack('<H', len(written)) + written + data


def main():
    mark = b'{"format": "float8_e5m2"}'
    files = {
        'gguf/types': gguf(list(TYPES)),
        'gguf/values': gguf(['f32'], [
            text('general.architecture') + struct.pack('<I', 8) + text('x'),
            text('general.alignment') + struct.pack('<II', 4, 32),
            text('list') + struct.pack('<IIQ', 9, 8, 2) + text('a') + text('b'),
            text('lists') + struct.pack('<IIQIQ', 9, 9, 1, 0, 1) + b'z',
            text('number') + struct.pack('<Id', 12, 1.5)]),
        'gguf/shape': gguf(['q4_0'], [shape_of('q4_0', [2, 4, 8])]),
        'reduced/old': reduced({'a.weight': ('F8_E4M3', [2, 3], b'123456'), 'a.scale_weight': ('F32', [], b'1234'),
                                'a.scale_input': ('F32', [], b'1234'), 'scaled_fp8': ('F8_E4M3', [0], b'')}),
        'reduced/new': reduced({'a.weight': ('F8_E5M2', [2, 1], b'12'), 'a.weight_scale': ('F32', [2, 1], b'12345678'),
                                'a.comfy_quant': ('U8', [len(mark)], mark)}),
        'reduced/metadata': reduced({'a.weight': ('F8_E4M3', [1], b'1')}, {
            '_quantization_metadata': '{"layers": {"a": {"format": "float8_e4m3fn"}}}'}),
        'reduced/refused': reduced({'a.weight': ('U8', [1, 1], b'1'), 'a.weight.absmax': ('F32', [1], b'1234')}),
    }
    for name, content in files.items():
        path = SEEDS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == '__main__':
    main()
