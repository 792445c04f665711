#!/usr/bin/env python3
"""The server as real clients see it: the openai package against a real model, alone and 64 at once."""
import asyncio
import base64
import io
import pathlib
import struct
import sys
import tempfile
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _client_python import need  # noqa: E402

need("openai")
import openai  # noqa: E402

from _serve import Server, run_all  # noqa: E402

MORE = {"seed": 3, "steps": 2}
server = client = None


def png(width, height, pixel, channels=3):
    """The bytes of a PNG whose pixel (x, y) is pixel(x, y)."""
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixels(data):
    """width, height and rows of RGB of a PNG without interlacing."""
    at, body = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        piece = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", piece[:8])
        if kind == b"IDAT":
            body += piece
        at += 12 + size
    raw, rows, before = zlib.decompress(body), [], bytes(3 * width)
    for y in range(height):
        line = bytearray(raw[y * (3 * width + 1) + 1:(y + 1) * (3 * width + 1)])
        kind = raw[y * (3 * width + 1)]
        for i in range(3 * width):
            a, b, c = (line[i - 3] if i >= 3 else 0), before[i], (before[i - 3] if i >= 3 else 0)
            if kind == 1:
                line[i] = (line[i] + a) & 255
            elif kind == 2:
                line[i] = (line[i] + b) & 255
            elif kind == 3:
                line[i] = (line[i] + (a + b) // 2) & 255
            elif kind == 4:
                p = a + b - c
                nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                line[i] = (line[i] + nearest) & 255
        rows.append(bytes(line))
        before = bytes(line)
    return width, height, rows


def drawn(answer):
    return [base64.b64decode(entry.b64_json) for entry in answer.data]


def refused(kind, call, param=None):
    try:
        call()
    except kind as error:
        assert param is None or error.param == param, (error.param, error)
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def test_generate():
    answer = client.images.generate(model="mini", prompt="a red circle", n=2, size="64x48", extra_body=MORE)
    assert [pixels(data)[:2] for data in drawn(answer)] == [(64, 48)] * 2
    assert answer.created > 0 and answer.output_format == "png" and answer.size == "64x48"
    again = client.images.generate(prompt="a red circle", n=1, size="64x48", response_format="b64_json", quality="high",
                                   background="opaque", moderation="low", user="me", extra_body={"seed": 4, "steps": 2})
    assert drawn(again)[0] == drawn(answer)[1]


def test_errors_are_the_clients_own():
    generate = lambda **more: client.images.generate(prompt="a", **{"size": "64x64", "extra_body": MORE, **more})
    refused(openai.BadRequestError, lambda: generate(style="vivid"), "style")
    refused(openai.BadRequestError, lambda: generate(size="huge"), "size")
    refused(openai.BadRequestError, lambda: generate(n=9), "n")
    refused(openai.BadRequestError, lambda: generate(response_format="url"), "response_format")
    refused(openai.BadRequestError, lambda: generate(background="transparent"), "background")
    refused(openai.BadRequestError, lambda: generate(extra_body={"nonsense": 1}), "nonsense")
    refused(openai.NotFoundError, lambda: generate(model="dall-e-3"), "model")
    refused(openai.NotFoundError, lambda: client.models.retrieve("black-forest-labs/FLUX.1-schnell"))
    refused(openai.NotFoundError, lambda: client.embeddings.create(model="mini", input="a"))


def test_models():
    assert [m.id for m in client.models.list()] == ["mini"]
    assert client.models.retrieve("mini").id == "mini"


def test_a_stream_has_previews():
    events = list(client.images.generate(prompt="a red circle", size="64x64", stream=True, partial_images=2,
                                         extra_body={"seed": 3, "steps": 6}))
    partial = [e for e in events if e.type == "image_generation.partial_image"]
    assert [e.partial_image_index for e in partial] == [0, 1], partial
    assert all(pixels(base64.b64decode(e.b64_json))[:2] == (64, 64) for e in partial)
    assert events[-1].type == "image_generation.completed"
    whole = drawn(client.images.generate(prompt="a red circle", size="64x64", extra_body={"seed": 3, "steps": 6}))[0]
    assert base64.b64decode(events[-1].b64_json) == whole  # previews change nothing
    assert pixels(base64.b64decode(partial[0].b64_json))[2] != pixels(whole)[2]


def file_of(data, name="a.png"):
    stream = io.BytesIO(data)
    stream.name = name
    return stream


def test_edits():
    flat = png(64, 64, lambda x, y: (200, 40, 40))
    edit = lambda **more: client.images.edit(prompt="a blue square", size="64x64",
                                             extra_body={**MORE, "steps": 4, **more.pop("extra", {})}, **more)
    weak, strong = (drawn(edit(image=file_of(flat), extra={"strength": s}))[0] for s in (0.3, 1.0))
    assert weak != strong and pixels(weak)[:2] == (64, 64)
    # the left half is transparent in the mask: it is drawn anew, the right half stays
    mask = png(64, 64, lambda x, y: (0, 0, 0, 0 if x < 32 else 255), 4)
    masked = pixels(drawn(edit(image=file_of(flat), mask=file_of(mask, "mask.png"), extra={"strength": 1.0}))[0])[2]
    opaque = png(64, 64, lambda x, y: (255, 255, 255) if x < 32 else (0, 0, 0))
    same = pixels(drawn(edit(image=file_of(flat), mask=file_of(opaque, "mask.png"), extra={"strength": 1.0}))[0])[2]
    assert masked == same
    refused(openai.BadRequestError, lambda: edit(image=[file_of(flat), file_of(flat)]), "image")
    refused(openai.BadRequestError, lambda: edit(image=file_of(b"no picture")), "image")
    error = refused(openai.BadRequestError, lambda: edit(image=file_of(flat[:200])))
    assert "/" not in str(error.body["message"]), error


def test_edits_in_json():
    data = base64.b64encode(png(64, 64, lambda x, y: (x * 4, y * 4, 0))).decode()
    ask = lambda **fields: server.ask("POST", "/v1/images/edits", {"prompt": "a", "size": "64x64", "seed": 1, "steps": 2, **fields})
    answers = [ask(image=data), ask(images=[{"image_url": "data:image/png;base64," + data}]), ask(image={"image_url": data})]
    assert [a[0] for a in answers] == [200] * 3, answers
    assert len({a[1]["data"][0]["b64_json"] for a in answers}) == 1
    for fields, param in (({"image": "http://169.254.169.254/latest"}, "image"), ({"images": [{"file_id": "f"}]}, "images"),
                          ({"image": "%%%"}, "image"), ({}, "image"), ({"image": data, "mask": [1]}, "mask")):
        status, body, _ = ask(**fields)
        assert status == 400 and body["error"]["param"] == param, (fields.keys(), body)


def test_64_clients_at_once():
    sizes = ("64x64", "64x48", "48x64", "32x32")

    async def all_of_them():
        other = openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0, timeout=600)

        async def one(i):
            answer = await other.images.generate(prompt=f"picture {i % 8}", size=sizes[i % 4], extra_body={"seed": i % 8, "steps": 2})
            return drawn(answer)[0]
        return await asyncio.gather(*(one(i) for i in range(64)))

    got = asyncio.run(all_of_them())
    for i in range(8):
        alone = drawn(client.images.generate(prompt=f"picture {i}", size=sizes[i % 4], extra_body={"seed": i, "steps": 2}))[0]
        assert pixels(alone)[0] == int(sizes[i % 4].split("x")[0])
        for k in range(i, 64, 8):
            assert pixels(got[k])[2] == pixels(alone)[2], (i, k)


def test_urls_are_signed_and_expire():
    with tempfile.TemporaryDirectory() as data, Server("--public_url", "http://draw.example/", data=data) as other:
        status, body, _ = other.ask("POST", "/v1/images/generations", {"prompt": "a", "size": "64x64", **MORE, "response_format": "url"})
        assert status == 200, body
        url = body["data"][0]["url"]
        assert url.startswith("http://draw.example/v1/files/") and body["data"][0]["b64_json"] is None
        path = url[len("http://draw.example"):]
        assert other.ask("GET", path)[0] == 200
        assert other.ask("GET", path[:-1] + ("0" if path[-1] != "0" else "1"))[0] == 404
        assert other.ask("GET", path.replace("expires=", "expires=9"))[0] == 404
        assert other.ask("GET", path.replace("/0?", "/1?"))[0] == 404


def main():
    global server, client
    wanted = sys.argv[1:]
    with Server("--batch_size", "4") as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0, timeout=600)
        tests = [value for name, value in globals().items() if name.startswith("test_")]
        return run_all([t for t in tests if not wanted or any(w in t.__name__ for w in wanted)])


if __name__ == "__main__":
    sys.exit(main())
