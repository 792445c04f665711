"""Workflows against a running ComfyUI: _comfyui_cases.py URL PID LOG RESULTS"""

import json
import os
import signal
import sys
import time

import _comfyui_experts
import _comfyui_families
import _comfyui_free
import _comfyui_page
import _comfyui_video
from _comfyui import ROOT, Graph, Server, processes_of, reason

url, pid, log, results = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
server = Server(url)
mini = str(ROOT / "models" / "mini")
BOUND = 1e-4
found = {}


def config(graph, gpus=1, **settings):
    return graph.add("XDitUSPConfigNode", num_gpus=gpus, device="cpu", **settings)


def flux(graph, gpus=1, **settings):
    loader = graph.add("AtelierModelLoader", model="mini", weight_dtype="fp32", xdit_usp_config=config(graph, gpus, **settings))
    return loader


def sampled(graph, model, positive, negative, latent, **settings):
    given = {"seed": 5, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **settings}
    kind = given.pop("kind", "KSampler")
    return graph.add(kind, model=model, positive=positive, negative=negative, latent_image=latent, **given)


def compare(label, stock, ours, width, pooled, shape, given=None, **settings):
    """Latents of the stock path and of ours in one graph. given: a kind of TestGivenFrames."""
    tokens = settings.pop("tokens", 16)
    counts = (tokens, settings.pop("negative_tokens", tokens))

    def conditionings(graph):
        return [graph.add("TestConditioning", seed=i + 1, tokens=n, width=width, pooled=pooled) for i, n in enumerate(counts)]

    compare_with(label, stock, ours, conditionings, shape, given, **settings)


def compare_with(label, stock, ours, conditionings, shape, given=None, known=0, scale=1.0, **settings):
    """scale: of the latents that are sampled, by which ComfyUI has divided those that come out."""
    graph = Graph(server)
    positive, negative = conditionings(graph)
    latent = graph.add("TestLatent", shape=shape, known=known)
    if given:
        positive, negative = (
            graph.add("TestGivenFrames", conditioning=c, shape=shape, what=given) for c in (positive, negative)
        )
    kind = settings.pop("kind", "KSampler")
    a = sampled(graph, stock(graph), positive, negative, latent, **settings)
    b = sampled(graph, ours(graph), positive, negative, latent, kind=kind, **settings)
    node = graph.add("TestCompare", a=a, b=b, label=label)
    out = server.run(graph.nodes)[node[0]]
    difference, largest = (scale * out[name][0] for name in ("difference", "largest"))
    found[label] = {"difference": float(f"{difference:.3g}"), "largest": float(f"{largest:.3g}")}
    print(f"{label}: {difference:.2g} of {largest:.2g}", flush=True)
    assert difference <= BOUND, f"{label}: {difference} > {BOUND}"
    assert largest > 0.1, f"{label}: nothing was drawn"


def stock_flux(graph):
    return graph.add("TestStockFlux", folder=mini)


def stock_sd3(graph):
    return graph.add("UNETLoader", unet_name="sd3_mini.safetensors", weight_dtype="default")


def our_sd3(gpus=1, **settings):
    return lambda graph: graph.add(
        "AtelierModelLoader", model="sd3_mini.safetensors", weight_dtype="fp32", xdit_usp_config=config(graph, gpus, **settings)
    )


def with_lora(loader):
    return lambda graph: graph.add(
        "LoraLoaderModelOnly", model=loader(graph), lora_name="sd3_mini_lora.safetensors", strength_model=0.7
    )


def nodes_are_listed():
    for name in ("XDitUSPConfigNode", "XDitUSPWanVideoModelLoader", "AtelierModelLoader", "AtelierKSampler", "AtelierVAEDecode", "AtelierTextToImage", "AtelierTextToVideo"):
        assert name in server.get(f"/object_info/{name}"), name
    assert server.get("/object_info/XDitUSPConfigNode")["XDitUSPConfigNode"]["display_name"] == "XDit+USP Config"
    assert server.get("/object_info/XDitUSPWanVideoModelLoader")["XDitUSPWanVideoModelLoader"]["display_name"] == "XDit+USP WanVideo Model Loader"


def nine_gpus_are_refused():
    graph = Graph(server)
    graph.add("AtelierModelLoader", model="mini", xdit_usp_config=config(graph, 9))
    node = graph.add("TestLatent", shape="1,8,16,16")
    graph.add("TestCompare", a=node, b=sampled(graph, ["2", 0], *[graph.add("TestConditioning", seed=i) for i in (1, 2)], node))
    answer = server.post("/prompt", {"prompt": graph.nodes})
    text = json.dumps(answer)
    assert "asked 9" in text and "8" in text, text[:2000]


def samplers_agree():
    mini_shape = {"width": 128, "pooled": 64, "shape": "1,8,18,16"}
    big = {"width": 4096, "pooled": 2048, "shape": "1,16,17,14"}
    for sampler in ("euler", "uni_pc", "dpmpp_2m"):
        compare(f"flux mini, {sampler}, one rank", stock_flux, lambda g: flux(g), **mini_shape, sampler_name=sampler)
        compare(f"sd3, {sampler}, two ranks", stock_sd3, our_sd3(2), **big, sampler_name=sampler)
    compare("flux mini, two ranks", stock_flux, lambda g: flux(g, 2), **mini_shape)
    compare("flux mini, CFG 1", stock_flux, lambda g: flux(g, 2), **mini_shape, cfg=1.0)
    compare("flux mini, batch of 3", stock_flux, lambda g: flux(g), width=128, pooled=64, shape="3,8,16,16")
    compare("sd3, branches side by side", stock_sd3, our_sd3(2, data_parallel_size=2), **big, kind="AtelierKSampler")
    compare("sd3, prompts of two lengths", stock_sd3, our_sd3(2, data_parallel_size=2), **big, negative_tokens=9)
    compare("sd3, tensor and pipeline", stock_sd3, our_sd3(2, pipeline_parallel_size=2), **big)
    compare("sd3, LoRA, one rank", with_lora(stock_sd3), with_lora(our_sd3()), **big)
    compare("sd3, LoRA, two ranks", with_lora(stock_sd3), with_lora(our_sd3(2)), **big)
    compare("sd3, without the LoRA again", stock_sd3, our_sd3(2), **big, seed=6)


VIDEO = {"width": 4096, "pooled": 0, "shape": "1,16,3,13,10"}


def stock_wan(name):
    return lambda graph: graph.add("UNETLoader", unet_name=f"wan_mini_{name}.safetensors", weight_dtype="default")


def our_wan(name, gpus=1, ending=".safetensors", **settings):
    def load(graph):
        loader = graph.add(
            "XDitUSPWanVideoModelLoader",
            model=f"wan_mini_{name}{ending}",
            base_precision="fp32",
            xdit_usp_config=config(graph, gpus, **settings),
        )
        return [loader[0], 1]

    return load


def videos_agree():
    for sampler in ("uni_pc", "euler", "dpmpp_2m"):
        compare(f"wan, {sampler}, one rank", stock_wan("high"), our_wan("high"), **VIDEO, sampler_name=sampler)
        compare(f"wan, {sampler}, two ranks", stock_wan("high"), our_wan("high", 2), **VIDEO, sampler_name=sampler, seed=8)
    compare("wan, branches side by side", stock_wan("high"), our_wan("high", 2, data_parallel_size=2), **VIDEO)
    compare("wan, image to video", stock_wan("i2v"), our_wan("i2v", 2), **VIDEO, given="image")
    # ComfyUI's own network takes no odd sides here.
    even = {**VIDEO, "shape": "1,16,3,12,10"}
    compare("wan, VACE", stock_wan("vace"), our_wan("vace", 2), **even, given="control")

    def with_wan_lora(loader):
        return lambda graph: graph.add(
            "LoraLoaderModelOnly", model=loader(graph), lora_name="wan_mini_lora.safetensors", strength_model=0.7
        )

    compare("wan, LoRA", with_wan_lora(stock_wan("low")), with_wan_lora(our_wan("low", 2)), **VIDEO)


def mini_video_agrees():
    _comfyui_video.stock_loaders_refuse(server)
    _comfyui_video.denoisers_agree(compare, config)


def mini_video_draws():
    _comfyui_video.stock_graph_draws(server, config, found)


def videos_come_back():
    _comfyui_video.frames_come_back(server, config, found)


def frames_agree():
    _comfyui_families.frames_agree(compare, stock_wan, our_wan)


def forms_agree():
    _comfyui_families.forms_agree(compare, stock_wan, our_wan)


def other_families_agree():
    _comfyui_families.unets_agree(compare, config)
    _comfyui_families.hunyuan_agrees(compare_with, config)


def other_families_refuse():
    _comfyui_families.alterations_are_refused(server, config)


def two_experts_agree():
    _comfyui_experts.agree(server, stock_wan, our_wan, config, found)
    _comfyui_experts.one_is_asked_for_in_vain(server, config)


def shift_and_cache_nodes_work():
    def shifted(loader):
        return lambda graph: graph.add("ModelSamplingSD3", model=loader(graph), shift=5.0)

    big = {"width": 4096, "pooled": 2048, "shape": "1,16,16,16"}
    compare("sd3, ModelSamplingSD3", shifted(stock_sd3), shifted(our_sd3()), **big)

    def cached(loader):
        return lambda graph: graph.add("EasyCache", model=loader(graph))

    compare("wan, EasyCache", cached(stock_wan("high")), cached(our_wan("high")), **VIDEO, steps=8)

    def windowed(loader):
        sizes = {"context_length": 9, "context_overlap": 4}  # of frames, of which a latent holds four
        return lambda graph: graph.add("WanContextWindowsManual", model=loader(graph), **sizes)

    long = {**VIDEO, "shape": "1,16,7,13,10"}
    compare("wan, context windows", windowed(stock_wan("high")), windowed(our_wan("high", 2)), **long)


def the_page_is_served():
    _comfyui_page.examples_fit(server)
    _comfyui_page.help_is_there(server)
    _comfyui_page.absence_is_explained(server, config)


def previews_arrive():
    graph = Graph(server)
    texts = [graph.add("TestConditioning", seed=i, width=4096, pooled=0) for i in (1, 2)]
    latent = graph.add("TestLatent", shape=VIDEO["shape"])
    graph.add("TestCompare", a=latent, b=sampled(graph, our_wan("high", 2)(graph), *texts, latent, seed=31, steps=4))
    _comfyui_page.previews_arrive(server, graph.nodes, 4)


def alterations_are_refused():
    graph = Graph(server)
    model = graph.add("TestPatch", model=flux(graph))
    latent = graph.add("TestLatent", shape="1,8,16,16")
    conditionings = [graph.add("TestConditioning", seed=i) for i in (1, 2)]
    graph.add("TestCompare", a=latent, b=sampled(graph, model, *conditionings, latent))
    text = server.fail(graph.nodes)
    assert "attn1_patch" in text, text


def pictures_come_back():
    graph = Graph(server)
    pictures = graph.add("AtelierTextToImage", model="mini", prompt="a red circle above a blue square", steps=4, width=128, height=128, seed=3, weight_dtype="fp32", xdit_usp_config=config(graph, 2))
    node = graph.add("SaveImage", images=pictures, filename_prefix="test")
    out = server.run(graph.nodes)[node[0]]["images"][0]
    data = server.get_bytes(f"/view?filename={out['filename']}&subfolder={out['subfolder']}&type={out['type']}")
    assert data.startswith(b"\x89PNG") and len(data) > 1000, len(data)
    found["text to image"] = {"bytes": len(data)}


def decodes():
    graph = Graph(server)
    latent = sampled(graph, flux(graph), *[graph.add("TestConditioning", seed=i) for i in (1, 2)], graph.add("TestLatent", shape="1,8,16,16"), seed=77, steps=2)
    node = graph.add("SaveImage", images=graph.add("AtelierVAEDecode", samples=latent, model="mini", xdit_usp_config=config(graph, 2)), filename_prefix="decoded")
    out = server.run(graph.nodes)[node[0]]["images"][0]
    assert out["filename"].startswith("decoded"), out


def long_graph(seed, steps=400):
    graph = Graph(server)
    latent = graph.add("TestLatent", shape="1,8,64,64")
    conditionings = [graph.add("TestConditioning", seed=i) for i in (1, 2)]
    b = sampled(graph, flux(graph), *conditionings, latent, seed=seed, steps=steps)
    graph.add("TestCompare", a=latent, b=b)
    return graph


def cancel_in_the_middle():
    identity = server.queue(long_graph(100).nodes)
    wait_for_progress(identity)
    began = time.monotonic()
    server.post("/interrupt")
    entry = server.wait(identity, 60)
    found["cancel"] = {"seconds": round(time.monotonic() - began, 2)}
    assert reason(entry) == "interrupted", entry["status"]
    server.run(long_graph(101, steps=1).nodes)


def cancel_of_whole_pipelines():
    _comfyui_free.cancelled_in_the_middle(server, pid, config, found)


def wait_for_progress(identity, seconds=5):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if any(row[1] == identity for row in server.get("/queue")["queue_running"]) and workers():
            time.sleep(seconds)
            return
        time.sleep(0.1)
    raise AssertionError("the prompt does not run")


def workers():
    return processes_of(pid, " worker --fd")


def engines():
    return processes_of(pid, "tensor_server")


def a_worker_is_killed():
    identity = server.queue(long_graph(102, steps=40).nodes)
    wait_for_progress(identity, 3)
    os.kill(workers()[0], signal.SIGKILL)
    entry = server.wait(identity)
    assert entry["status"]["status_str"] == "success", reason(entry)


def the_engine_is_killed():
    identity = server.queue(long_graph(103, steps=40).nodes)
    wait_for_progress(identity, 3)
    for process in engines():
        os.kill(process, signal.SIGKILL)
    entry = server.wait(identity)
    found["engine killed"] = {"outcome": reason(entry) if entry["status"]["status_str"] != "success" else "started again within the prompt"}
    server.run(long_graph(104, steps=1).nodes)


def memory_is_given_back():
    _comfyui_free.after_every_use(server, pid, config, flux, long_graph, wait_for_progress, found)


def engines_stay():
    _comfyui_free.engines_stay(server, pid, config)
    _comfyui_free.engines_go_with_their_nodes(server, pid, config, flux)


def log_has_the_engine():
    with open(log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    assert "[atelier" in text, "nothing of the engine is in the log"


CASES = [
    nodes_are_listed,
    nine_gpus_are_refused,
    samplers_agree,
    videos_agree,
    frames_agree,
    forms_agree,
    other_families_agree,
    other_families_refuse,
    mini_video_agrees,
    mini_video_draws,
    videos_come_back,
    two_experts_agree,
    shift_and_cache_nodes_work,
    the_page_is_served,
    previews_arrive,
    alterations_are_refused,
    pictures_come_back,
    decodes,
    cancel_in_the_middle,
    cancel_of_whole_pipelines,
    a_worker_is_killed,
    the_engine_is_killed,
    engines_stay,
    memory_is_given_back,
    log_has_the_engine,
]
wanted = os.environ.get("COMFYUI_CASES", "").split()
failed = 0
for case in CASES:
    if wanted and case.__name__ not in wanted:
        continue
    began = time.monotonic()
    try:
        case()
        print(f"passed  {case.__name__} ({time.monotonic() - began:.0f} s)", flush=True)
    except Exception as error:  # every case is told of
        failed += 1
        print(f"FAILED  {case.__name__}: {error}", flush=True)
if not wanted and not failed:
    version = server.get("/system_stats")["system"]["comfyui_version"]
    with open(results, "w", encoding="utf-8") as file:
        rows = ",\n".join(f"  {json.dumps(label)}: {json.dumps(facts)}" for label, facts in found.items())
        file.write(f'{{"comfyui": "{version}", "bound": {BOUND}, "cases": {{\n{rows}\n}}}}\n')
sys.exit(1 if failed else 0)
