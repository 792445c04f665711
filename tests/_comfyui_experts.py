"""Workflows with Wan's two experts, in two files and in one diffusers folder, which _comfyui_cases.py runs."""

from _comfyui import Graph

SHAPE = "1,16,3,13,10"
STEPS = 4
HANDOVER = 3  # of these steps the first whose timestep lies below the folder's boundary, 800 of 1000
BOUND = 1e-4
GIVEN = {"cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "steps": STEPS}


class Paths:
    """Ways to draw one latent in one graph."""

    def __init__(self, server, stock, ours, config):
        self.graph, self._stock, self._ours, self._config = Graph(server), stock, ours, config
        add = self.graph.add
        self._texts = dict(zip(("positive", "negative"), (add("TestConditioning", seed=i, tokens=16, width=4096, pooled=0) for i in (1, 2))))
        self._latent = add("TestLatent", shape=SHAPE)

    def folder(self, gpus, **choice):
        given = {"weight_dtype": "fp32", "xdit_usp_config": self._config(self.graph, gpus)}
        return self.graph.add("AtelierModelLoader", model="wan_mini_experts", **given, **choice)

    def stock(self, name):
        return self._stock(name)(self.graph)

    def file(self, name, gpus):
        return self._ours(name, gpus)(self.graph)

    def adapted(self, model, strength=0.7):
        return self.graph.add("LoraLoaderModelOnly", model=model, lora_name="wan_mini_lora.safetensors", strength_model=strength)

    def whole(self, model):
        return self.graph.add("KSampler", model=model, latent_image=self._latent, seed=9, denoise=1.0, **self._texts, **GIVEN)

    def chain(self, high, low, at=HANDOVER):
        given = {"noise_seed": 9, **self._texts, **GIVEN}
        first = self.graph.add("KSamplerAdvanced", model=high, latent_image=self._latent, add_noise="enable", start_at_step=0, end_at_step=at, return_with_leftover_noise="enable", **given)
        return self.graph.add("KSamplerAdvanced", model=low, latent_image=first, add_noise="disable", start_at_step=at, end_at_step=10000, return_with_leftover_noise="disable", **given)

    def compare(self, a, b):
        return self.graph.add("TestCompare", a=a, b=b)[0]


def agree(server, stock, ours, config, found):
    """Two files with a loader each; one folder with a loader for each expert; one folder and one sampler."""
    p = Paths(server, stock, ours, config)
    high, low = p.stock("high"), p.stock("low")
    wanted = p.chain(high, low)
    adapted = p.chain(p.adapted(high), p.adapted(low, 0.4))
    same = p.chain(p.adapted(high), p.adapted(low))
    nodes = {
        "two experts, a file each": p.compare(p.chain(high, low, 2), p.chain(p.file("high", 2), p.file("low", 2), 2)),
        "two experts, all steps by the first": p.compare(wanted, p.whole(p.folder(1, expert="high noise"))),
    }
    for gpus, ranks in ((1, "one rank"), (2, "two ranks")):
        first, second = (p.folder(gpus, expert=f"{noise} noise") for noise in ("high", "low"))
        both = p.folder(gpus)
        nodes[f"two experts, a folder, a loader each, {ranks}"] = p.compare(wanted, p.chain(first, second))
        nodes[f"two experts, a folder, one sampler, {ranks}"] = p.compare(wanted, p.whole(both))
        nodes[f"two experts, a folder, LoRAs of their own, {ranks}"] = p.compare(adapted, p.chain(p.adapted(first), p.adapted(second, 0.4)))
        nodes[f"two experts, a folder, one LoRA, {ranks}"] = p.compare(same, p.whole(p.adapted(both)))
    out = server.run(p.graph.nodes)
    for label, node in nodes.items():
        difference, largest = (float(f"{out[node][name][0]:.3g}") for name in ("difference", "largest"))
        print(f"{label}: {difference:.2g} of {largest:.2g}", flush=True)
        if label.endswith("by the first"):
            assert difference > 0.01, f"{label}: the experts are alike ({difference})"
            continue
        found[f"wan, {label}"] = {"difference": difference, "largest": largest}
        assert difference <= BOUND, f"{label}: {difference}"


def one_is_asked_for_in_vain(server, config):
    """A model with one denoiser has no other."""
    graph = Graph(server)
    model = graph.add("AtelierModelLoader", model="wan_mini_low.safetensors", expert="low noise", xdit_usp_config=config(graph, 1))
    texts = [graph.add("TestConditioning", seed=i, width=4096, pooled=0) for i in (1, 2)]
    latent = graph.add("TestLatent", shape=SHAPE)
    graph.add("TestCompare", a=latent, b=graph.add("KSampler", model=model, positive=texts[0], negative=texts[1], latent_image=latent))
    text = server.fail(graph.nodes)
    assert "one denoiser" in text, text
