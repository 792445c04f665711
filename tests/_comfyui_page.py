"""What the page of a ComfyUI gets of the package: example workflows, their thumbnails, help pages, previews and progress.

_comfyui_cases.py runs these.
"""

import asyncio
import json

from _comfyui import ROOT, Graph

PACKAGE = "atelier-xdit-usp"  # the folder's name in custom_nodes
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")
EXAMPLES = sorted((ROOT / "comfyui/example_workflows").glob("*.json"))


def api_form(server, graph):
    """A workflow as it is saved -> as it is posted: links by name, the values of widgets in the order of a node's inputs."""
    info = Graph(server).info
    links = {link: [str(origin), slot] for link, origin, slot, *_ in graph["links"]}
    kinds = {link: kind for link, *_, kind in graph["links"]}
    nodes = {}
    for node in graph["nodes"]:
        specs = {name: spec for part in ("required", "optional") for name, spec in info(node["type"])["input"].get(part, {}).items()}
        inputs = {}
        for socket in (one for one in node["inputs"] if one["link"] is not None):
            assert specs[socket["name"]][0] == kinds[socket["link"]], (node["type"], socket)
            inputs[socket["name"]] = links[socket["link"]]
        values = iter(node.get("widgets_values", []))
        for name, spec in specs.items():
            options = spec[1] if len(spec) > 1 else {}
            if not (isinstance(spec[0], list) or spec[0] in (*WIDGETS, "COMBO")) or name in inputs:
                continue
            inputs[name] = next(values)
            if options.get("control_after_generate"):
                next(values)
            check(node["type"], name, inputs[name], spec[0], options)
        assert not list(values), f"{node['type']} has values for no input"
        missing = set(info(node["type"])["input"].get("required", {})) - set(inputs)
        assert not missing, (node["type"], missing)
        nodes[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return nodes


def check(kind, name, value, given, options):
    given = options.get("options", given)
    if isinstance(given, list):  # files are those of the machine
        assert value in given or str(value).endswith(".safetensors"), (kind, name, value, given)
    elif given in ("INT", "FLOAT"):
        assert options.get("min", value) <= value <= options.get("max", value), (kind, name, value)


# What stands in for published files in the examples: (class, inputs that are then others).
SMALL = {
    "xdit_usp_example": {
        "XDitUSPConfigNode": (None, {"device": "cpu"}),
        "XDitUSPWanVideoModelLoader": (None, {"model": "wan_mini_high.safetensors"}),
        "CLIPTextEncode": ("TestConditioning", {"tokens": 16, "width": 4096, "pooled": 0}),
        "EmptyHunyuanLatentVideo": (None, {"width": 64, "height": 48, "length": 5}),
        "KSampler": (None, {"steps": 2}),
        "VAELoader": (None, {"vae_name": "wan_mini_vae.safetensors"}),
    },
    "atelier_flux": {
        "XDitUSPConfigNode": (None, {"device": "cpu"}),
        "AtelierModelLoader": (None, {"model": "mini"}),
        "CLIPTextEncode": ("TestConditioning", {"tokens": 16, "width": 128, "pooled": 64}),
        "EmptySD3LatentImage": ("TestLatent", {"shape": "1,8,16,16", "known": 0}),
        "KSampler": (None, {"steps": 2}),
        "VAEDecode": ("AtelierVAEDecode", {"model": "mini"}),
    },
    "atelier_mini": {},
}


def with_small_files(name, nodes):
    """An example's graph with small models of random weights; of nodes that load text encoders there are none left."""
    for number, node in nodes.items():
        kind, others = SMALL[name].get(node["class_type"], (None, {}))
        if kind:
            node["class_type"] = kind
            node["inputs"] = {key: value for key, value in node["inputs"].items() if key == "samples"}
            others = {**others, "seed": int(number)} if kind == "TestConditioning" else others
        node["inputs"].update(others)
    unused = {"CLIPLoader", "DualCLIPLoader", *(["VAELoader"] if name == "atelier_flux" else [])}
    return {number: node for number, node in nodes.items() if node["class_type"] not in unused}


def examples_fit(server):
    """Every node, socket and value of the examples is one that this ComfyUI has, and with small files each draws."""
    listed = server.get("/workflow_templates")
    assert sorted(listed[PACKAGE]) == [file.stem for file in EXAMPLES], listed
    for file in EXAMPLES:
        assert server.get_bytes(f"/api/workflow_templates/{PACKAGE}/{file.stem}.jpg").startswith(b"\xff\xd8"), file
        nodes = api_form(server, json.loads(file.read_text()))
        out = server.run(with_small_files(file.stem, nodes))
        assert any("images" in of_node for of_node in out.values()), (file, out)


def help_is_there(server):
    """Each node's page, where the front end looks for it."""
    for file in sorted((ROOT / "comfyui/web/docs").glob("*.md")):
        assert file.stem in server.get(f"/object_info/{file.stem}"), file.stem
        assert server.get_bytes(f"/extensions/{PACKAGE}/docs/{file.name}").startswith(b"# "), file.name


def absence_is_explained(server, config):
    """Where there is no engine every node says so, and what to do."""
    for kind, inputs in (
        ("AtelierModelLoader", {"model": "mini"}),
        ("XDitUSPWanVideoModelLoader", {"model": "wan_mini_high.safetensors"}),
        ("AtelierTextToImage", {"model": "mini"}),
        ("AtelierTextToVideo", {"model": "mini-video"}),
        ("AtelierVAEDecode", {"model": "mini"}),
    ):
        graph = Graph(server)
        if kind == "AtelierVAEDecode":
            inputs["samples"] = graph.add("TestLatent")
        node = graph.add(kind, **inputs, xdit_usp_config=config(graph, 2, atelier_program="/nowhere/atelier"))
        graph.add("PreviewAny", source=node)
        text = server.fail(graph.nodes)
        assert "engine was not found" in text and "/nowhere/atelier" in text, (kind, text)


def previews_arrive(server, graph, steps):
    """(previews, steps told) of one prompt. graph: nodes in API form."""
    import aiohttp

    async def watch():
        pictures, told = 0, set()
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=tests") as line:
            async with session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": "tests"}) as answer:
                identity = (await answer.json())["prompt_id"]
            async for message in line:
                if message.type == aiohttp.WSMsgType.BINARY:
                    pictures += int.from_bytes(message.data[:4], "big") == 1
                    continue
                said = json.loads(message.data)
                if said["type"] == "progress":
                    told.add((said["data"]["value"], said["data"]["max"]))
                if said["type"].startswith("execution_") and said["data"].get("prompt_id") == identity:
                    assert said["type"] not in ("execution_error", "execution_interrupted"), said
                    if said["type"] == "execution_success":
                        return pictures, told

    pictures, told = asyncio.run(asyncio.wait_for(watch(), 300))
    assert pictures >= steps and {(n, steps) for n in range(1, steps + 1)} <= told, (pictures, told)
