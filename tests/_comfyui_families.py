"""Workflows with SDXL, HunyuanDiT and Wan's models of given frames, which _comfyui_cases.py runs.

ComfyUI knows SDXL and the older HunyuanDiT by their published sizes alone: the small ones are built by a test node from its own
classes. Every other stock model comes from UNETLoader.
"""

import json

from _comfyui import Graph

SCALE = 0.13025  # of SDXL's latents, and HunyuanDiT's
SIZES = {"num_heads": 6, "text_states_dim": 32, "text_states_dim_t5": 48, "size_cond": True, "use_style_cond": True}


def frames_agree(compare, stock, ours):
    """Frames that are given: behind the latents, seen by an encoder or not, and in their place."""
    video = {"width": 4096, "pooled": 0, "shape": "1,16,3,13,10"}
    for gpus, ranks in ((1, "one rank"), (2, "two ranks")):
        for name, given in (
            ("frames", "frames"),
            ("frames", "first"),
            ("frames", "image"),
            ("seeing", "seen"),
            ("seeing", "image"),
            ("i2v", "seen"),
        ):
            compare(f"wan {name}, given {given}, {ranks}", stock(name), ours(name, gpus), **video, given=given)
        large = {"width": 4096, "pooled": 0, "shape": "1,48,3,12,10", "sampler_name": "uni_pc"}
        compare(f"wan 5b, {ranks}", stock("5b"), ours("5b", gpus), **large)
        compare(f"wan 5b, a given frame, {ranks}", stock("5b"), ours("5b", gpus), **large, known=1)
    compare("wan frames, branches side by side", stock("frames"), ours("frames", 2, data_parallel_size=2), **video, given="frames")
    compare("wan 5b, branches side by side", stock("5b"), ours("5b", 2, data_parallel_size=2), **large, known=1)


def forms_agree(compare, stock, ours):
    """Files as they are published; beside a form that this ComfyUI does not read lies the same file in one that it does."""
    video = {"width": 4096, "pooled": 0, "shape": "1,16,3,12,10"}
    beside = {"quantised_by_layer": "quantised", "prefixed_by_trainers": "bare"}
    for name in ("fp8", "scaled", "quantised", "quantised_by_layer", "prefixed", "prefixed_by_trainers"):
        compare(f"wan, {name}, one rank", stock(beside.get(name, name)), ours(name), **video)
        compare(f"wan, {name}, two ranks", stock(beside.get(name, name)), ours(name, 2), **video)
    compare("wan, GGUF, two ranks", stock("q8_as_read"), ours("q8", 2, ending=".gguf"), **video)


def ours_of(model, config, gpus=1, **settings):
    return lambda graph: graph.add("AtelierModelLoader", model=model, weight_dtype="fp32", xdit_usp_config=config(graph, gpus, **settings))


def with_lora(name, loader):
    return lambda graph: graph.add("LoraLoaderModelOnly", model=loader(graph), lora_name=f"{name}_mini_lora.safetensors", strength_model=0.7)


def unets_agree(compare, config):
    def stock(file):
        return lambda graph: graph.add("TestStockSized", file=file, model="SDXL")

    noise, velocity = stock("sdxl_mini.safetensors"), stock("sdxl_mini_v.safetensors")
    picture = {"width": 2048, "pooled": 1280, "tokens": 77, "shape": "1,4,16,16", "scale": SCALE}
    odd = {**picture, "shape": "2,4,19,14", "given": "sizes"}
    for gpus, ranks in ((1, "one rank"), (2, "two ranks")):
        file, checkpoint, folder = (
            ours_of(model, config, gpus) for model in ("sdxl_mini.safetensors", "sdxl_mini_v.safetensors", "sdxl_mini_v")
        )
        for sampler in ("euler", "uni_pc", "dpmpp_2m"):
            compare(f"sdxl, {sampler}, {ranks}", noise, file, **picture, sampler_name=sampler)
        compare(f"sdxl, sizes, odd sides, batch, {ranks}", noise, file, **odd)
        compare(f"sdxl, a picture for words, {ranks}", noise, file, **picture, given="picture")
        compare(f"sdxl, velocity, checkpoint, {ranks}", velocity, checkpoint, **picture)
        compare(f"sdxl, velocity, folder, {ranks}", velocity, folder, **odd)
        compare(f"sdxl, LoRA, {ranks}", with_lora("sdxl", noise), with_lora("sdxl", file), **picture)
        compare(f"sdxl, LoRA, folder, {ranks}", with_lora("sdxl", velocity), with_lora("sdxl", folder), **picture)
    for name in ("edm", "edm_v"):
        file = f"sdxl_mini_{name}.safetensors"
        compare(f"sdxl, {name}", stock(file), ours_of(file, config), **picture)
    apart = ours_of("sdxl_mini.safetensors", config, 2, data_parallel_size=2)
    compare("sdxl, branches side by side", noise, apart, **picture, kind="AtelierKSampler")
    compare("sdxl, prompts of two lengths", noise, apart, **picture, negative_tokens=154)


def hunyuan_agrees(compare_with, config):
    def compare(label, stock, ours, conditionings, shape, **settings):
        compare_with(label, stock, ours, conditionings, shape, scale=SCALE, **settings)

    def texts(**sizes):
        return lambda graph: [graph.add("TestHunyuanConditioning", seed=i, **sizes) for i in (1, 2)]

    def published(graph):
        return graph.add("UNETLoader", unet_name="hunyuan_mini.safetensors", weight_dtype="default")

    def older(graph):
        return graph.add("TestStockSized", file="hunyuan_mini_sizes.safetensors", model="HunyuanDiT1", sizes=json.dumps(SIZES))

    narrow = {"width": 32, "t5_width": 48}
    for gpus, ranks in ((1, "one rank"), (2, "two ranks")):
        new, sized, folder = (
            ours_of(model, config, gpus) for model in ("hunyuan_mini.safetensors", "hunyuan_mini_sizes.safetensors", "hunyuan_mini")
        )
        for sampler in ("euler", "uni_pc", "dpmpp_2m"):
            compare(f"hunyuan, {sampler}, {ranks}", published, new, texts(), "1,4,16,16", sampler_name=sampler)
        compare(f"hunyuan, long texts, odd sides, batch, {ranks}", published, new, texts(tokens=100, t5_tokens=300), "2,4,17,14")
        compare(f"hunyuan, sizes, {ranks}", older, sized, texts(**narrow), "1,4,16,24")
        compare(f"hunyuan, folder, {ranks}", older, folder, texts(**narrow), "1,4,24,16")
        compare(f"hunyuan, LoRA, {ranks}", with_lora("hunyuan", older), with_lora("hunyuan", sized), texts(**narrow), "1,4,16,16")
        compare(f"hunyuan, LoRA, folder, {ranks}", with_lora("hunyuan", older), with_lora("hunyuan", folder), texts(**narrow), "1,4,16,16")
    side_by_side = ours_of("hunyuan_mini.safetensors", config, 2, data_parallel_size=2)
    compare("hunyuan, branches side by side", published, side_by_side, texts(), "1,4,16,16", kind="AtelierKSampler")


def alterations_are_refused(server, config):
    """What reaches into SDXL's network is named."""
    for kind, words in (("FreeU_V2", "output_block_patch"), ("HyperTile", "attn1_patch"), ("SelfAttentionGuidance", "patches_replace")):
        graph = Graph(server)
        model = graph.add(kind, model=ours_of("sdxl_mini.safetensors", config)(graph))
        texts = [graph.add("TestConditioning", seed=i, tokens=77, width=2048, pooled=1280) for i in (1, 2)]
        latent = graph.add("TestLatent", shape="1,4,64,64")
        given = {"positive": texts[0], "negative": texts[1], "latent_image": latent, "steps": 2, "cfg": 3.0}
        graph.add("TestCompare", a=latent, b=graph.add("KSampler", model=model, **given))
        text = server.fail(graph.nodes)
        assert words in text, (kind, text)
