"""How long engines and their work live in a ComfyUI: between prompts for as long as the graph has them, not after `/free`, and no
call after a cancel."""

import os
import time

from _comfyui import Graph, processes_of, reason

WITHIN_S = 5
UNLOAD, BOTH = {"unload_models": True}, {"unload_models": True, "free_memory": True}


def whole_picture(server, config, seed):
    graph = Graph(server)
    settings = config(graph, 2)
    given = {"prompt": "a red circle", "steps": 1, "width": 64, "height": 64, "weight_dtype": "fp32"}
    pictures = graph.add("AtelierTextToImage", model="mini", seed=seed, xdit_usp_config=settings, **given)
    graph.add("PreviewImage", images=pictures)
    latent = graph.add("TestLatent", shape=f"1,8,{8 + seed % 8},16")
    graph.add("PreviewImage", images=graph.add("AtelierVAEDecode", samples=latent, model="mini", xdit_usp_config=settings))
    return graph.nodes


def whole_graph(server, config, kind, seed, **given):
    graph = Graph(server)
    frames = graph.add(kind, prompt="a red circle", seed=seed, weight_dtype="fp32", xdit_usp_config=config(graph, 2), **given)
    graph.add("PreviewImage", images=frames)
    return graph.nodes


def cancelled_in_the_middle(server, pid, config, found):
    """Whole pictures and videos: steps quicker than the client looks at the button, many pictures, and a prompt behind them."""
    for label, kind, given, more in (
        ("whole pictures", "AtelierTextToImage", {"model": "mini", "width": 64, "height": 64}, {"batch_size": 64, "steps": 500}),
        ("a whole video", "AtelierTextToVideo", {"model": "mini-video"}, {"steps": 10000}),
    ):
        server.run(whole_graph(server, config, kind, 300, **given, steps=1))
        before = engines(pid), memory_files(pid)
        identity = server.queue(whole_graph(server, config, kind, 301, **given, **more))
        time.sleep(4)
        assert any(row[1] == identity for row in server.get("/queue")["queue_running"]), f"{label}: it does not run"
        began = time.monotonic()
        server.post("/interrupt")
        entry = server.wait(identity, 60)
        seconds = [time.monotonic() - began]
        assert reason(entry) == "interrupted", (label, entry["status"])
        server.run(whole_graph(server, config, kind, 302, **given, steps=1), 60)
        seconds.append(time.monotonic() - began - seconds[0])
        found[f"cancel, {label}"] = dict(zip(("seconds", "seconds of the next prompt"), (round(s, 2) for s in seconds)))
        print(f"cancel, {label}: {found[f'cancel, {label}']}", flush=True)
        left = engines(pid), memory_files(pid)
        assert left[0] and left[0] <= before[0] and left[1] == before[1], f"{label}: {before}, then {left}"


def memory_files(pid):
    """Pictures of engines that this process has open."""
    links = [os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd")]
    return sum("memfd:" in os.readlink(link) for link in links if os.path.islink(link))


def engines(pid):
    return set(processes_of(pid, "tensor_server"))


def engines_stay(server, pid, config):
    """Whole pictures and decoding: a second prompt finds the weights where the first one left them."""
    server.run(whole_picture(server, config, 1))
    before = engines(pid)
    server.run(whole_picture(server, config, 2))
    assert len(before) >= 2 and before <= engines(pid), (before, engines(pid))


def engines_go_with_their_nodes(server, pid, config, flux):
    """A graph that has other loaders leaves no process of the one before; what both have stays."""
    def sampled(*settings):
        graph = Graph(server)
        latent = graph.add("TestLatent", shape="1,8,16,16")
        texts = [graph.add("TestConditioning", seed=i) for i in (1, 2)]
        for gpus, seed in settings:
            drawn = graph.add("KSampler", model=flux(graph, gpus), positive=texts[0], negative=texts[1], latent_image=latent, seed=seed, steps=1)
            graph.add("TestCompare", a=latent, b=drawn)
        return graph.nodes

    server.post("/free", BOTH)
    time.sleep(1)
    server.run(sampled((1, 400), (2, 401)))
    both, began = engines(pid), time.monotonic()
    server.run(sampled((1, 402)))
    while len(engines(pid)) > 1 or len(processes_of(pid, " worker --fd")) > 1:
        assert time.monotonic() - began < 60, (both, engines(pid), processes_of(pid, " worker --fd"))
        time.sleep(0.1)
    assert len(both) == 2 and engines(pid) < both, (both, engines(pid))


def is_free(server, pid, what, found, label):
    """Nothing of any engine is left soon after."""
    assert engines(pid), f"{label}: there was nothing to give back"
    began = time.monotonic()
    server.post("/free", what)
    while processes_of(pid, "tensor_server") or processes_of(pid, " worker --fd"):
        assert time.monotonic() - began < WITHIN_S, f"{label}: {processes_of(pid, 'tensor_server')} live {WITHIN_S} s after /free"
        time.sleep(0.05)
    found[f"free, {label}"] = {"seconds": round(time.monotonic() - began, 2)}
    print(f"free, {label}: {found[f'free, {label}']}", flush=True)


def after_every_use(server, pid, config, flux, long_graph, wait_for_progress, found):
    for seed, what in enumerate((UNLOAD, BOTH, {"free_memory": True})):
        server.run(long_graph(200 + seed, steps=1).nodes)
        is_free(server, pid, what, found, f"a sampler, {' and '.join(what)}")
    for seed, what in enumerate((UNLOAD, BOTH)):
        server.run(whole_picture(server, config, 3 + seed))
        is_free(server, pid, what, found, f"a whole picture and a decoder, {' and '.join(what)}")

    graph = Graph(server)
    model = graph.add("TestPatch", model=flux(graph))
    latent = graph.add("TestLatent", shape="1,8,16,16")
    texts = [graph.add("TestConditioning", seed=i) for i in (1, 2)]
    graph.add("TestCompare", a=latent, b=graph.add("KSampler", model=model, positive=texts[0], negative=texts[1], latent_image=latent))
    server.fail(graph.nodes)
    is_free(server, pid, BOTH, found, "a prompt that failed")

    identity = server.queue(long_graph(210).nodes)
    wait_for_progress(identity)
    server.post("/interrupt")
    is_free(server, pid, UNLOAD, found, "a cancel")
    server.wait(identity, 60)
    server.run(long_graph(211, steps=1).nodes)
