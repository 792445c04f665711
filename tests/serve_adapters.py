#!/usr/bin/env python3
"""Adapters of the server: named by requests with strengths, looked up again without a restart, none left behind."""
import base64
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _adapter import write_lora  # noqa: E402
from _png import pixels  # noqa: E402
from _serve import Server, run_all  # noqa: E402

SMALL = {"prompt": "a red circle", "size": "64x64", "steps": 2, "seed": 3}
server = shelf = None


def draw(**more):
    status, body, _ = server.ask("POST", "/v1/images/generations", {**SMALL, **more})
    assert status == 200, body
    return body["data"][0]["b64_json"]


def pixels_of(text):
    file = shelf.parent / "drawn.png"
    file.write_bytes(base64.b64decode(text))
    return pixels(file)


def refused(answer, *words):
    assert answer[0] == 400, answer
    for word in words:
        assert word in answer[1]["error"]["message"], answer[1]
    return answer[1]["error"]


def test_a_b_a():
    plain, a, b = draw(), draw(lora=["a"]), draw(lora=[{"name": "b", "strength": 1}])
    assert len({plain, a, b}) == 3
    assert draw(lora=["a"]) == a and draw() == plain and draw(lora=["b"]) == b
    assert pixels_of(draw(lora=[{"name": "a", "expert": "transformer"}])) == pixels_of(a)  # the file says who was asked for
    half, both = draw(lora=[{"name": "a", "strength": 0.5}]), draw(lora=["a", "b"])
    assert len({plain, a, b, half, both}) == 5
    nothing = draw(lora=[{"name": "a", "strength": 0}])
    assert pixels_of(nothing) == pixels_of(plain)  # the file names its adapter


def test_neighbours_with_other_adapters():
    """Requests at once, each with its own: none of them draws with another's."""
    wishes = [[], ["a"], ["b"], [{"name": "a", "strength": 0.5}]]
    alone = [draw(lora=w) for w in wishes]
    jobs = [server.ask("POST", "/v1/images/generations", {**SMALL, "lora": wishes[i % 4], "async": True, "partial_images": 0})[1]["id"] for i in range(12)]
    for i, job in enumerate(jobs):
        assert server.wait_job(job)["status"] == "done"
        assert server.ask("GET", f"/v1/jobs/{job}/images/0")[1] == base64.b64decode(alone[i % 4]), i


def test_new_ones_without_a_restart():
    error = refused(server.ask("POST", "/v1/images/generations", {**SMALL, "lora": ["late"]}), "late")
    assert error["code"] == "unknown_adapter" and error["param"] == "lora", error
    write_lora(shelf / "late.safetensors", 77)
    status, body, _ = server.ask("POST", "/v1/adapters/reload")
    assert status == 200 and "late" in [a["id"] for a in body["data"]], body
    first = draw(lora=["late"])
    write_lora(shelf / "late.safetensors", 78)  # another one of the same name
    assert draw(lora=["late"]) != first
    (shelf / "late.safetensors").unlink()
    refused(server.ask("POST", "/v1/images/generations", {**SMALL, "lora": ["late"]}), "late")
    server.ask("POST", "/v1/adapters/reload")
    refused(server.ask("POST", "/v1/images/generations", {**SMALL, "lora": ["late"]}), "late")


def test_what_is_no_adapter_harms_nobody():
    plain = draw()
    (shelf / "noise.safetensors").write_bytes(b"\xff" * 1000)
    write_lora(shelf / "foreign.safetensors", 5, prefix="unet.down_blocks")
    (shelf / "empty").mkdir()
    server.ask("POST", "/v1/adapters/reload")
    for name in ("noise", "foreign"):
        error = refused(server.ask("POST", "/v1/images/generations", {**SMALL, "lora": [name]}), name)
        assert str(shelf) not in error["message"], error
    error = refused(server.ask("POST", "/v1/images/generations", {**SMALL, "lora": [{"name": "a", "expert": "transformer_2"}]}), "transformer_2")
    assert str(shelf) not in error["message"], error
    assert "empty" not in [a["id"] for a in server.ask("GET", "/v1/adapters")[1]["data"]]
    assert draw() == plain
    assert "group_restarts" not in server.ask("GET", "/metrics")[1].decode()


def main():
    global server, shelf
    with tempfile.TemporaryDirectory() as folder:
        shelf = pathlib.Path(folder) / "adapters"
        write_lora(shelf / "a.safetensors", 1)
        write_lora(shelf / "b.safetensors", 2)
        with Server("--lora_dir", str(shelf)) as server:
            return run_all([value for name, value in globals().items() if name.startswith("test_")])


if __name__ == "__main__":
    sys.exit(main())
