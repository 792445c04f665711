"""Writes small adapters for the model mini: a LoRA on the queries of its single blocks. Python's own library only."""
import json
import pathlib
import random
import struct

WIDTH, RANK, BLOCKS = 192, 2, 6


def write_lora(path, seed, strength=0.3, blocks=BLOCKS, prefix="transformer.single_transformer_blocks"):
    """A safetensors file of float32 factors, another one for every seed."""
    picks, header, body = random.Random(seed), {}, b""
    for block in range(blocks):
        for name, shape in (("lora_A", (RANK, WIDTH)), ("lora_B", (WIDTH, RANK))):
            count = shape[0] * shape[1]
            data = struct.pack(f"<{count}f", *(picks.gauss(0, strength) for _ in range(count)))
            header[f"{prefix}.{block}.attn.to_q.{name}.weight"] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
            body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path
