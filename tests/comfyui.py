#!/usr/bin/env python3
"""The nodes of comfyui/ without a ComfyUI: what they register, their workflows, what they refuse, and the engine behind them.

The program is $ATELIER; with a Python that has torch also calls on tensors. tests/slow_comfyui.sh starts a real ComfyUI.
Exit 0: all as it should be; 77: there is no program; else what was not.
"""

import importlib.util
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("ATELIER", str(ROOT / "build/cpu/src/atelier"))
os.environ.setdefault("OMP_NUM_THREADS", "1")


def load_package():
    spec = importlib.util.spec_from_file_location("nodes_here", ROOT / "comfyui/__init__.py", submodule_search_locations=[str(ROOT / "comfyui")])
    module = importlib.util.module_from_spec(spec)
    sys.modules["nodes_here"] = module
    spec.loader.exec_module(module)
    return module


PACKAGE = load_package()
import _comfyui_cancel  # noqa: E402
import _comfyui_memory  # noqa: E402
import _comfyui_package  # noqa: E402
import _comfyui_pairs  # noqa: E402
import _comfyui_wrapper  # noqa: E402
from nodes_here.atelier import alterations, delegate, engine, errors, hunyuan_names, loading, program, settings, wan_names, wrapper  # noqa: E402


def raises(words, work):
    try:
        work()
    except errors.EngineError as error:
        missing = [w for w in words if w not in str(error)]
        assert not missing, f"{missing} not in: {error}"
        return error
    raise AssertionError(f"nothing was refused; {words} expected")


def registers():
    names = PACKAGE.NODE_CLASS_MAPPINGS
    assert {"XDitUSPConfigNode", "XDitUSPWanVideoModelLoader"} <= set(names)
    assert set(names) == set(PACKAGE.NODE_DISPLAY_NAME_MAPPINGS)
    for name, kind in names.items():
        assert kind.CATEGORY and kind.RETURN_TYPES and callable(getattr(kind, kind.FUNCTION)), name
        assert kind.INPUT_TYPES()["required"], name
        assert (ROOT / "comfyui/web/docs" / f"{name}.md").is_file(), f"{name} has no help page"
    required = names["XDitUSPConfigNode"].INPUT_TYPES()["required"]
    defaults = {name: spec[1]["default"] for name, spec in required.items()}
    config = names["XDitUSPConfigNode"]().create_config(**defaults)[0]
    assert config == settings.XDitUSPConfig(), config
    loader = names["XDitUSPWanVideoModelLoader"]
    assert loader.RETURN_TYPES == ("WANVIDEOMODEL", "MODEL")


def settings_refuse():
    config = lambda **values: settings.XDitUSPConfig(**values)
    for count in (9, 99):
        raises([f"asked {count}", "8"], config(num_gpus=count).check)
        assert f"asked {count}" in PACKAGE.NODE_CLASS_MAPPINGS["XDitUSPConfigNode"].VALIDATE_INPUTS(count)
    assert PACKAGE.NODE_CLASS_MAPPINGS["XDitUSPConfigNode"].VALIDATE_INPUTS(None) is True, "a number of another node is not known yet"
    raises(["data_parallel_size is 4"], config(num_gpus=4, data_parallel_size=4).check)
    raises(["does not divide", "3"], config(num_gpus=4, pipeline_parallel_size=3).check)
    raises(["use_fp16", "use_bf16"], config(use_bf16=True).check)
    raises(["use_bf16", "fp32"], lambda: config(use_fp16=False, use_bf16=True).arguments("fp32", "sdpa"))
    raises(["sageattn", "sdpa"], lambda: config().arguments("bf16", "sageattn"))
    flags = config(num_gpus=8, pipeline_parallel_size=2, data_parallel_size=2).arguments("bf16", "flash_attn_2")
    assert flags[flags.index("--ulysses_degree") + 1] == "2" and "--use_cfg_parallel" in flags, flags
    assert flags[flags.index("--torch_dtype") + 1] == "bfloat16", flags
    flags = config(gpu_memory_fraction=0.35).arguments("bf16", "sdpa")
    assert flags[flags.index("--gpu_memory_fraction") + 1] == "0.35" and "--enable_activation_checkpointing" in flags, flags
    flags = config(device="cpu", enable_activation_checkpointing=False).arguments("fp32", "sdpa")
    assert "--no_overlap_p2p_comm" not in flags and "--no_overlap_p2p_comm" in config(overlap_p2p_comm=False).arguments("fp32", "sdpa")
    assert "--gpu_memory_fraction" not in flags and "--enable_activation_checkpointing" not in flags, flags
    raises(["WanVideoWrapper", "MODEL"], lambda: wrapper.XDitUSPWanVideoModel.of(None, "bf16").model)
    assert not hasattr(wrapper.XDitUSPWanVideoModel.of(None, "bf16"), "is_dynamic"), "ComfyUI's cache asks every output for that"
    raises(["VACE"], lambda: wrapper.refuse_vace_part({"path": "x"}))


def workflows_fit():
    """Every node of ours in the examples has the sockets and as many widgets as its class."""
    seen = set()
    for file in sorted((ROOT / "comfyui/example_workflows").glob("*.json")):
        graph = json.loads(file.read_text())
        by_id = {node["id"]: node for node in graph["nodes"]}
        assert file.with_suffix(".jpg").is_file(), f"{file.name} has no thumbnail"
        for link, origin, slot, target, place, kind in graph["links"]:
            assert by_id[origin]["outputs"][slot]["type"] == kind and link in by_id[origin]["outputs"][slot]["links"], (file.name, link)
            assert by_id[target]["inputs"][place]["link"] == link, (file.name, link)
        for node in graph["nodes"]:
            kind = PACKAGE.NODE_CLASS_MAPPINGS.get(node["type"])
            if not kind:
                continue
            seen.add(node["type"])
            inputs = {name: spec for part in kind.INPUT_TYPES().values() for name, spec in part.items()}
            assert [o["type"] for o in node["outputs"]] == list(kind.RETURN_TYPES), (file.name, node["type"])
            for socket in node["inputs"]:
                assert inputs[socket["name"]][0] == socket["type"], (file.name, node["type"], socket["name"])
            widgets = [spec for spec in inputs.values() if isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN")]
            controls = sum(1 for spec in widgets if len(spec) > 1 and spec[1].get("control_after_generate"))
            assert len(node["widgets_values"]) == len(widgets) + controls, (file.name, node["type"], len(widgets) + controls)
    assert {"XDitUSPConfigNode", "XDitUSPWanVideoModelLoader"} <= seen


def served(gpus=1, parts="denoiser", **values):
    return loading.serve("mini", settings.XDitUSPConfig(num_gpus=gpus, device="cpu", **values), parts, "fp32")


def engine_says_what_it_serves():
    one = served()
    hello = one.start()
    assert hello["family"] == "flux" and hello["ranks"] == 1 and hello["config"]["num_layers"] == 2, hello
    assert one is served() and one is not served(2), "loaders with the same settings share one engine"
    raises(["nothing-here"], engine.Engine(program.require(), ["--model_name", "nothing-here", "--device", "cpu"], "x").start)
    raises(["4000"], engine.Engine(program.require(), ["--model_name", "mini", "--device", "cpu", "--num_gpus", "4000"], "x").start)
    one.close()


def engine_draws():
    whole = served(2, "all")
    steps = []
    row = {"prompt": "a red circle", "seed": 3, "height": 64, "width": 64, "num_inference_steps": 2, "num_images_per_prompt": 2}
    files = whole.draw([row], lambda step, of: steps.append((step, of)))
    assert len(files) == 2 and all(data.startswith(b"\x89PNG") for _, data in files), [len(f[1]) for f in files]
    assert (2, 2) in steps, steps
    raises(["height"], lambda: whole.draw([{**row, "height": 63}]))
    assert whole.draw([row])[0][1] == files[0][1], "the same seed draws the same picture"
    whole.close()


def engine_draws_a_video():
    """mini-video on one rank and on two: one film of its own size and length."""
    row = {"prompt": "a red circle moves right", "seed": 1, "num_inference_steps": 2}
    films = []
    for gpus in (1, 2):
        config = settings.XDitUSPConfig(num_gpus=gpus, device="cpu")
        one = loading.serve(loading.path_of_model("mini-video"), config, "all", "fp32", extra=PACKAGE.NODE_CLASS_MAPPINGS["AtelierTextToVideo"].FLAGS)
        films.append([data for _, data in one.draw([row])])
        one.close()
    for film in films:
        assert len(film) == 1 and film[0][:4] == b"RIFF" and film[0][8:12] == b"WEBP", film[0][:12]
        assert film[0].count(b"ANMF") == 17, film[0].count(b"ANMF")


def wan_files_are_wan():
    """A text-to-video file in the original naming is no file of the network with a control stream."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/native.safetensors"
        command = [program.require(), "convert", str(ROOT / "models/mini-video/transformer"), file, "--to", "native"]
        subprocess.run(command, check=True, capture_output=True)
        one = loading.serve(file, settings.XDitUSPConfig(num_gpus=1, device="cpu"), "denoiser", "fp32")
        hello = one.start()
        one.close()
        assert hello["family"] == "wan" and hello["config"]["num_layers"] == 4, hello


# With tensors


def wan_names_agree(torch):
    """The names of a diffusers folder are those that `atelier convert` writes."""
    with tempfile.TemporaryDirectory() as folder:
        for model in ("models/mini-video", "tests/goldens/wan_frames/model", "tests/goldens/wan_steered/model"):
            file = f"{folder}/native.safetensors"
            subprocess.run([program.require(), "convert", str(ROOT / model / "transformer"), file, "--to", "native"], check=True, capture_output=True)
            ours, _ = loading._tensors(str(ROOT / model))
            assert wan_names.MARK in ours
            shapes = lambda tensors: {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            assert shapes(wan_names.original(ours)) == shapes(delegate.read_header(file)[0]), model


def hunyuan_names_are_the_originals(torch):
    """What is apart in a diffusers folder is one tensor there, and two norms have each other's names."""
    tensors = hunyuan_names.original(loading._tensors(str(ROOT / "tests/goldens/hunyuan_small/model"))[0])
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith("blocks.5.") or "." not in name}
    assert shapes["blocks.5.attn1.Wqkv.weight"] == (24, 8) and shapes["blocks.5.attn2.kv_proj.bias"] == (16,), shapes
    assert shapes["blocks.5.skip_linear.weight"] == (8, 16) and shapes["text_embedding_padding"] == (333, 8), shapes
    assert len([name for name in tensors if name.startswith("blocks.5.")]) == 34 and len(tensors) == 218, len(tensors)
    assert not [name for name in tensors if "to_" in name or name.startswith(("time_", "text_embedder", "pos_embed", "proj_out"))]


def video_calls_agree(torch):
    """The denoiser of mini-video by one call: two ranks as one."""
    g = torch.Generator().manual_seed(5)
    x, given = torch.randn(2, 16, 5, 8, 8, generator=g), {"context": torch.randn(2, 16, 64, generator=g)}
    out = []
    for gpus, more in ((1, {}), (2, {}), (2, {"data_parallel_size": 2})):
        one = loading.serve("mini-video", settings.XDitUSPConfig(num_gpus=gpus, device="cpu", **more), "denoiser", "fp32")
        out.append(one.predict(x, torch.tensor([700.0, 700.0]), given, 16))
        one.close()
    assert out[0].std() > 0.1 and all((got - out[0]).abs().max() < 1e-4 for got in out[1:]), [float((got - out[0]).abs().max()) for got in out]


def inputs(torch, batch=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    return draw(batch, 8, 12, 10), {"context": draw(batch, 9, 128), "y": draw(batch, 64), "guidance": torch.full((batch,), 3.5)}


def calls_agree(torch):
    x, given = inputs(torch, 2)
    t = torch.tensor([0.7, 0.7])
    alone = served()
    one = alone.predict(x, t, given, 8)
    for i in range(2):
        row = alone.predict(x[i : i + 1], t[:1], {k: v[i : i + 1] for k, v in given.items()}, 8)
        assert (row - one[i : i + 1]).abs().max() < 1e-5
    several = alone.predict(x, torch.tensor([0.7, 0.2]), given, 8)  # times of their own
    assert (several[:1] - one[:1]).abs().max() < 1e-5 and (several[1:] - one[1:]).abs().max() > 1e-3
    for settings_of in ({}, {"data_parallel_size": 2}, {"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}):
        two = served(2, **settings_of)
        got = two.predict(x, t, given, 8)
        assert (got - one).abs().max() < 1e-4, (settings_of, (got - one).abs().max())
        three = two.predict(torch.cat([x, x[:1]]), torch.cat([t, t[:1]]), {k: torch.cat([v, v[:1]]) for k, v in given.items()}, 8)
        assert (three - torch.cat([one, one[:1]])).abs().max() < 1e-4, settings_of
        two.close()
    raises(["control", "context"], lambda: alone.predict(x, t, {**given, "control": x}, 8))
    raises(["y"], lambda: alone.predict(x, t, {"context": given["context"]}, 8))
    raises(["context", "7"], lambda: alone.predict(x, t, {**given, "context": given["context"][:, :, :7]}, 8))
    raises(["latents"], lambda: alone.predict(x[:, :4], t, given, 8))
    assert (alone.predict(x, t, given, 8) - one).abs().max() == 0, "a refused call leaves nothing behind"
    alone.close()


def decodes(torch):
    latents = torch.randn(2, 8, 8, 6, generator=torch.Generator().manual_seed(4))
    pictures = []
    for gpus in (1, 2):
        config = settings.XDitUSPConfig(num_gpus=gpus, device="cpu")
        one = loading.serve("mini", config, "vae", "fp32", extra=["--use_parallel_vae"])
        scale = one.start()["vae"]["spatial"]
        pictures.append(one.decode(latents, [2, 3, 8 * scale, 6 * scale]))
        one.close()
    assert pictures[0].min() >= 0 and pictures[0].max() <= 1 and pictures[0].std() > 0.01
    assert (pictures[0] - pictures[1]).abs().max() < 1e-3


def survives(torch):
    x, given = inputs(torch)
    t = torch.tensor([0.5])
    two = served(2)
    want = two.predict(x, t, given, 8)
    for process in below(two._process.pid)[:1]:
        os.kill(process, signal.SIGKILL)
    assert (two.predict(x, t, given, 8) - want).abs().max() == 0, "a worker died"
    os.kill(two._process.pid, signal.SIGKILL)
    assert (two.predict(x, t, given, 8) - want).abs().max() == 0, "the engine died"
    workers = below(two._process.pid)
    assert workers
    two.release()
    assert not below(two._process.pid), "release leaves workers"
    assert (two.predict(x, t, given, 8) - want).abs().max() == 0, "after a release"
    process = two._process
    workers = below(process.pid)
    del two
    import gc

    gc.collect()
    until = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_alive, workers)), "workers outlive their engine"
    assert process.poll() is not None, "the engine outlives its owner"


def below(pid):
    """Its children."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(entry.name))
    return found


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def changes_of_a_network_are_seen(torch):
    """Nodes replace methods of a network, methods of its parts, and parts: nothing of that would run."""
    linear = torch.nn.Linear
    network = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([linear(2, 2), linear(2, 2)]), "head": linear(2, 1)})
    parts = alterations.Parts(network)
    parts.refuse_changes(network)
    network["blocks"][1].rope_func = "a setting"
    parts.refuse_changes(network)

    network["blocks"][1].forward = lambda x: x
    raises(["diffusion_model.blocks.1.forward"], lambda: parts.refuse_changes(network))
    del network["blocks"][1].forward
    network.forward_orig = lambda x: x
    raises(["diffusion_model.forward_orig"], lambda: parts.refuse_changes(network))
    del network.forward_orig
    with_hook = network["head"].register_forward_hook(lambda *_: None)
    raises(["diffusion_model.head", "hook"], lambda: parts.refuse_changes(network))
    with_hook.remove()
    parts.refuse_changes(network)
    network["head"] = linear(2, 1)
    raises(["diffusion_model.head"], lambda: parts.refuse_changes(network))

    alterations.refuse_object_patches(["model_sampling", "manual_cast_dtype"])
    for name in ("diffusion_model", "diffusion_model.blocks.0.cross_attn.forward"):
        raises([name], lambda: alterations.refuse_object_patches(["model_sampling", name]))
    alterations.refuse_compiling({"apply_model": {"another": [len]}})
    raises(["torch.compile"], lambda: alterations.refuse_compiling({"apply_model": {"torch.compile": [len]}}))


def cancels(torch):
    x = torch.zeros(1, 8, 128, 128)
    _, given = inputs(torch)
    one = served()
    one.load()
    flag = threading.Event()

    class Interrupted(Exception):
        pass

    def throw():
        if flag.is_set():
            flag.clear()
            raise Interrupted

    stub = types.SimpleNamespace(processing_interrupted=flag.is_set, throw_exception_if_processing_interrupted=throw)
    sys.modules["comfy.model_management"] = stub
    try:
        threading.Timer(0.3, flag.set).start()
        began = time.monotonic()
        calls = 0
        try:
            while time.monotonic() < began + 60:
                calls += 1
                one.predict(x, torch.tensor([0.5]), given, 8)
            raise AssertionError("the cancel was not heard")
        except Interrupted:
            pass
        assert time.monotonic() - began < 5, "the cancel took long"
        small, given = inputs(torch)
        one.predict(small, torch.tensor([0.5]), given, 8)
    finally:
        del sys.modules["comfy.model_management"]
        one.close()


def main():
    if not os.access(os.environ["ATELIER"], os.X_OK):
        print(f"there is no program at {os.environ['ATELIER']}")
        return 77
    logging.basicConfig(level=logging.WARNING)
    of_memory, of_memory_with_tensors = _comfyui_memory.cases(raises)
    of_pairs, of_pairs_with_tensors = _comfyui_pairs.cases()
    cases = [*_comfyui_package.CASES, *of_memory, *of_pairs, *_comfyui_cancel.cases(), registers, settings_refuse, workflows_fit, engine_says_what_it_serves, engine_draws, engine_draws_a_video, wan_files_are_wan]
    with_tensors = [*of_memory_with_tensors, *of_pairs_with_tensors, *_comfyui_wrapper.cases(PACKAGE, raises), changes_of_a_network_are_seen, wan_names_agree, hunyuan_names_are_the_originals, calls_agree, video_calls_agree, decodes, survives, cancels]
    try:
        import torch
    except ImportError:
        torch = None
        print("no torch in this Python: calls on tensors are left out")
    failed = 0
    for case in [*cases, *(with_tensors if torch else [])]:
        began = time.monotonic()
        try:
            case(torch) if case in with_tensors else case()
            print(f"passed  {case.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:  # every case is told of
            failed += 1
            print(f"FAILED  {case.__name__}: {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
