#!/usr/bin/env python3
"""What bad_input.sh needs besides the program, with Python's own library only.

  _bad_input.py models MINI FOLDER   copies of the model MINI, each damaged in one way
  _bad_input.py pixels A.png B.png   exit 0 if both hold the same picture
  _bad_input.py whole FILE...        exit 0 if every PNG is whole
  _bad_input.py bomb FILE            makes the header of this PNG say 40000 x 50000 pixels
  _bad_input.py hub MODEL TOKEN LOG  a hub that serves the folder MODEL as org/model and cuts the first big file
"""
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import struct
import sys
import zlib

WEIGHTS = "diffusion_pytorch_model.safetensors"
COMPONENTS = "scheduler text_encoder text_encoder_2 tokenizer tokenizer_2 transformer vae".split()


def read_weights(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    start = 8 + size
    return {name: [e["dtype"], e["shape"], data[start + e["data_offsets"][0]:start + e["data_offsets"][1]]]
            for name, e in header.items()}


def header_of(tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def write_weights(path, tensors, header=None):
    text = json.dumps(header or header_of(tensors)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


class Models:
    def __init__(self, mini, folder):
        self.mini, self.folder = pathlib.Path(mini).resolve(), pathlib.Path(folder)
        self.tensors = read_weights(self.mini / "transformer" / WEIGHTS)

    def copy(self, name, own=()):
        """A model whose components are links, but for those in `own`."""
        model = self.folder / name
        model.mkdir(parents=True)
        shutil.copy(self.mini / "model_index.json", model)
        for component in COMPONENTS:
            if component in own:
                shutil.copytree(self.mini / component, model / component)
            else:
                (model / component).symlink_to(self.mini / component)
        return model

    def weights(self, name):
        return self.copy(name, ["transformer"]) / "transformer" / WEIGHTS

    def changed(self, name, change):
        tensors = {key: [dtype, list(shape), data] for key, (dtype, shape, data) in self.tensors.items()}
        file = self.weights(name)
        write_weights(file, tensors, change(tensors))

    def make(self):
        self.damage_files()
        self.damage_tensors()
        self.damage_folders()
        self.other_formats()

    def damage_files(self):
        file = self.weights("truncated")
        file.write_bytes(file.read_bytes()[:100_000])
        self.weights("empty").write_bytes(b"")
        self.weights("huge_header").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
        self.weights("no_header").write_bytes(struct.pack("<Q", 16) + b'{"a": [1,2,3,4,5')
        file = self.weights("pickle")
        file.rename(file.with_suffix(".bin"))
        self.weights("no_weights").unlink()
        config = self.copy("bad_config", ["transformer"]) / "transformer" / "config.json"
        config.write_text('{"num_layers": ')

    def damage_tensors(self):
        def overlap(tensors):
            header = header_of(tensors)
            size = header["proj_out.weight"]["data_offsets"]
            header["proj_out.weight"]["data_offsets"] = [0, size[1] - size[0]]
            return header

        def fill(name, words):
            def change(tensors):
                dtype, _, data = tensors[name]
                tensors[name][2] = words[dtype] * (len(data) // len(words[dtype]))
            return change

        nan = {"BF16": b"\xc0\x7f", "F16": b"\x00\x7e", "F32": b"\x00\x00\xc0\x7f"}
        most = {"BF16": b"\x7f\x7f", "F16": b"\xff\x7b", "F32": b"\xff\xff\x7f\x7f"}

        self.changed("overlap", overlap)
        self.changed("missing", lambda t: t.pop("proj_out.bias") and None)
        self.changed("extra", lambda t: t.update(surplus=["BF16", [2], b"\0" * 4]))
        self.changed("misshapen", lambda t: t["proj_out.weight"][1].reverse())
        self.changed("lying_shape", lambda t: t["proj_out.weight"][1].append(2))
        self.changed("nan", fill("proj_out.weight", nan))
        self.changed("overflow", fill("proj_out.weight", most))

    def damage_folders(self):
        index = self.copy("family") / "model_index.json"
        index.write_text(index.read_text().replace("FluxPipeline", "KandinskyPipeline"))
        (self.copy("no_index") / "model_index.json").unlink()
        (self.copy("no_vae") / "vae").unlink()

    def other_formats(self):
        def four_bit(tensors):
            size = len(tensors["proj_out.weight"][2]) // 4
            tensors["proj_out.weight"] = ["U8", [size, 1], b"\0" * size]
            tensors["proj_out.weight.absmax"] = ["F32", [1], b"\0" * 4]

        self.changed("nf4", four_bit)
        self.changed("eight_bit", lambda t: t.update({"proj_out.SCB": ["F32", [1], b"\0" * 4]}))
        self.changed("lora", lambda t: t.update({"transformer.proj_out.lora_A.weight": ["F32", [1], b"\0" * 4]}))
        gguf = self.weights("gguf")
        gguf.unlink()
        name = b"proj_out.weight"
        tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 256, 1, 10, 0)  # Q2_K
        gguf.with_suffix(".gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor + b"\0" * 200)
        cut = self.weights("gguf_cut")
        cut.unlink()
        cut.with_suffix(".gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor[:20])
        config = self.copy("unlike", ["text_encoder_2"]) / "text_encoder_2" / "config.json"
        text = json.loads(config.read_text())
        config.write_text(json.dumps(text | {"d_model": 2 * text["d_model"]}))


def pixels(path):
    data, at, packed, size = path.read_bytes(), 8, b"", b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if zlib.crc32(kind + body) != struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]:
            raise ValueError(f"{path}: a chunk is damaged")
        size = body if kind == b"IHDR" else size
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
        if kind == b"IEND":
            return size, zlib.decompress(packed)
    raise ValueError(f"{path}: it ends early")


def hub(model, token, log):
    model = pathlib.Path(model)
    commit, cuts = "0123456789abcdef0123456789abcdef01234567", set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status, body, **headers):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            is_first = self.path.endswith(".safetensors") and not cuts
            if is_first and len(body) > 100_000:
                cuts.add(self.path)
                self.wfile.write(body[:50_000])
                self.connection.close()
            else:
                self.wfile.write(body)

        def do_GET(self):
            with open(log, "a") as out:
                out.write(f"{self.path} {self.headers.get('Range', '-')} {self.headers.get('Authorization', '-')}\n")
            if self.headers.get("Authorization") != f"Bearer {token}":
                return self.answer(401, b"")
            if self.path.startswith("/api/models/org/model/revision/"):
                names = [str(p.relative_to(model)) for p in sorted(model.rglob("*")) if p.is_file()]
                listing = {"sha": commit, "siblings": [{"rfilename": n} for n in names]}
                return self.answer(200, json.dumps(listing).encode())
            file = model / self.path.removeprefix(f"/org/model/resolve/{commit}/")
            if not file.is_file():
                return self.answer(404, b"")
            body = file.read_bytes()
            etag = hashlib.sha256(body).hexdigest() if file.suffix == ".safetensors" else hashlib.sha1(
                b"blob %d\0" % len(body) + body).hexdigest()
            begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            if begin:
                span = f"bytes {begin}-{len(body) - 1}/{len(body)}"
                return self.answer(206, body[begin:], ETag=f'"{etag}"', Content_Range=span)
            return self.answer(200, body, ETag=f'"{etag}"')

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def bomb(path):
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 40000, 50000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def main(task, *words):
    if task == "models":
        Models(*words).make()
    elif task == "hub":
        hub(*words)
    elif task == "pixels":
        return pixels(pathlib.Path(words[0])) != pixels(pathlib.Path(words[1]))
    elif task == "bomb":
        bomb(pathlib.Path(words[0]))
    elif task == "whole":
        for word in words:
            pixels(pathlib.Path(word))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
