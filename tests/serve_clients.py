#!/usr/bin/env python3
"""The server as real clients see it: the openai package against a real model, alone and 64 at once."""
import asyncio
import base64
import io
import pathlib
import struct
import sys
import tempfile
import warnings
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _client_python import need  # noqa: E402

need("openai")
import openai  # noqa: E402

warnings.simplefilter("ignore", DeprecationWarning)  # of the client, about videos

from _png import png_of as png  # noqa: E402
from _serve import ROOT, Server, run_all  # noqa: E402

MORE = {"seed": 3, "steps": 2}
server = client = None


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
    error = refused(openai.BadRequestError, lambda: edit(image=file_of(flat[:len(flat) // 2])))
    assert "/" not in str(error.body["message"]), error


def test_lists_and_notes():
    """Lists in forms are written as this client writes them; what has no effect is said."""
    flat = png(64, 64, lambda x, y: (200, 40, 40))
    edit = lambda lora, **more: client.images.edit(prompt="a blue square", size="64x64", image=file_of(flat), extra_body={**MORE, "lora": lora, **more})
    plain = drawn(client.images.edit(prompt="a blue square", size="64x64", image=file_of(flat), extra_body=MORE))[0]
    one, two = drawn(edit(["house"]))[0], drawn(edit([{"name": "house", "strength": 0.5}, {"name": "sticker", "strength": 1}]))[0]
    assert len({plain, one, two}) == 3
    body = {"prompt": "a blue square", "size": "64x64", **MORE, "image": base64.b64encode(flat).decode()}
    same = server.ask("POST", "/v1/images/edits", {**body, "lora": [{"name": "house", "strength": 0.5}, "sticker"]})[1]
    assert base64.b64decode(same["data"][0]["b64_json"]) == two
    refused(openai.BadRequestError, lambda: edit(["house", "nope"]), "lora")
    # the client writes all names before all strengths, so that nobody knows whose it is
    refused(openai.BadRequestError, lambda: edit([{"name": "house"}, {"name": "sticker", "strength": 0.5}]), "lora")
    answer = client.images.generate(prompt="a", size="64x64", extra_body={**MORE, "guidance_scale": 5, "sigmas": [1.0, 0.5, 0.2]})
    assert [n.split(":")[0] for n in answer.notes] == ["num_inference_steps 2 has no effect", "guidance_scale has no effect"], answer.notes
    wide = client.images.edit(prompt="a", size="128x64", image=file_of(flat), extra_body=MORE)
    assert len(wide.notes) == 1 and wide.notes[0].startswith("image is 64x64 and becomes 128x64") and "/" not in wide.notes[0], wide.notes


def test_capabilities_are_what_happens():
    """What they call refused is refused, what they call honoured changes the picture or its file."""
    told = {f["name"]: f for f in server.ask("GET", "/v1/capabilities")[1]["generations"]}
    assert told["prompt_3"]["use"] == told["clip_skip"]["use"] == "refused" and told["guidance_scale"]["use"] == "no effect", told
    assert "flow_euler" in told["sampler"]["schema"]["enum"] or "euler" in told["sampler"]["schema"]["enum"]
    for sampler in told["sampler"]["schema"]["enum"]:
        client.images.generate(prompt="a", size="64x64", extra_body={**MORE, "sampler": sampler})
    for name, value in {"prompt_3": "a", "clip_skip": 1, "original_size": [64, 64], "eta": 0.5, "sampler": "ddim"}.items():
        refused(openai.BadRequestError, lambda: client.images.generate(prompt="a", size="64x64", extra_body={**MORE, name: value}))
        assert told[name]["use"] == "refused" or value not in told[name]["schema"]["enum"], told[name]


def test_a_refused_stream_has_its_status():
    stream = lambda **more: client.images.generate(prompt="a", size="64x64", stream=True, extra_body={**MORE, **more})
    list(stream(steps=40))  # costs are known now
    refused(openai.BadRequestError, lambda: list(stream(steps=200, timeout=0.1)), "timeout")


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
        for k in range(i, 64, 8):  # neighbours in a batch change the order of sums, and with it at most the last level
            gaps = [abs(a - b) for one, other in zip(pixels(got[k])[2], pixels(alone)[2]) for a, b in zip(one, other)]
            assert max(gaps) <= 1, (i, k, max(gaps), sum(g > 0 for g in gaps))


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


def test_videos():
    """The Videos API of the real client, over a small model of videos, and one that is shown its first frame."""
    with tempfile.TemporaryDirectory() as data, Server("--max_sequence_length", "16", model=str(ROOT / "tests/goldens/wan_experts/model"), data=data) as one:
        videos = openai.OpenAI(base_url=f"http://127.0.0.1:{one.port}/v1", api_key="none", max_retries=0, timeout=600).videos
        more = {"fps": 8, "steps": 2, "seed": 5, "output_format": "webp"}
        done = videos.create_and_poll(prompt="a red fox runs", seconds="1", size="48x16", extra_body=more, poll_interval_ms=100)
        assert done.status == "completed" and done.progress == 100 and done.size == "48x16" and done.completed_at >= done.created_at, done
        content = videos.download_content(done.id).read()
        assert content[:4] == b"RIFF" and content.count(b"ANMF") == 9  # the 4k + 1 frames of a second
        again = videos.create_and_poll(prompt="a red fox runs", size="48x16", extra_body={**more, "num_frames": 9}, poll_interval_ms=100)
        assert videos.download_content(again.id).read() == content
        assert [v.id for v in videos.list(limit=1)] == [again.id, done.id]  # over its pages
        assert videos.retrieve(done.id).prompt == "a red fox runs"
        assert videos.delete(done.id).deleted
        refused(openai.NotFoundError, lambda: videos.retrieve(done.id))
        assert [v.id for v in videos.list()] == [again.id]
        late = videos.create(prompt="a", size="48x16", extra_body={**more, "steps": 100})
        refused(openai.ConflictError, lambda: videos.download_content(late.id))
        videos.delete(late.id)
        refused(openai.NotFoundError, lambda: videos.retrieve(late.id))
        refused(openai.BadRequestError, lambda: videos.create(prompt="a", seconds="600", extra_body=more), "seconds")
        refused(openai.BadRequestError, lambda: videos.create(prompt="a", size="48x16", extra_body={"frames": 9}), "frames")
        refused(openai.BadRequestError, lambda: videos.create(prompt="a", size="48x16", input_reference=file_of(png(48, 16, lambda x, y: (9, 9, 9)))))
        refused(openai.NotFoundError, lambda: videos.create(prompt="a", model="sora-2", size="48x16"), "model")
    refused(openai.BadRequestError, lambda: client.videos.create(prompt="a"), "model")


def main():
    global server, client
    wanted = sys.argv[1:]
    with Server("--batch_size", "4", "--lora_dir", str(ROOT / "models" / "mini-adapters")) as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0, timeout=600)
        tests = [value for name, value in globals().items() if name.startswith("test_")]
        return run_all([t for t in tests if not wanted or any(w in t.__name__ for w in wanted)])


if __name__ == "__main__":
    sys.exit(main())
