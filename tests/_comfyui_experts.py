"""Workflows with Wan's two experts, in two files and in one diffusers folder, which _comfyui_cases.py runs."""

from dataclasses import dataclass

from _comfyui import Graph

SHAPE = "1,16,3,13,10"
STEPS = 4
BOUND = 1e-4
GIVEN = {"cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "steps": STEPS}


@dataclass
class Pair:
    """Two experts: two files, and a folder with both."""

    label: str
    high: str
    low: str
    folder: str
    handover: int  # of STEPS the first whose timestep lies below the folder's boundary
    given: str = ""  # a kind of TestGivenFrames


PAIRS = (
    Pair("two experts", "high", "low", "wan_mini_experts", handover=3),  # below 800 of 1000
    Pair("two experts, image to video", "i2v", "i2v_low", "wan_mini_i2v_experts", handover=2, given="image"),  # below 900
)


class Paths:
    """Ways to draw one latent in one graph."""

    def __init__(self, server, stock, ours, config, pair):
        self.graph, self._stock, self._ours, self._config, self._pair = Graph(server), stock, ours, config, pair
        add = self.graph.add
        texts = [add("TestConditioning", seed=i, tokens=16, width=4096, pooled=0) for i in (1, 2)]
        if pair.given:
            texts = [add("TestGivenFrames", conditioning=text, shape=SHAPE, what=pair.given) for text in texts]
        self._texts = dict(zip(("positive", "negative"), texts))
        self._latent = add("TestLatent", shape=SHAPE)

    def folder(self, gpus, **choice):
        given = {"weight_dtype": "fp32", "xdit_usp_config": self._config(self.graph, gpus)}
        return self.graph.add("AtelierModelLoader", model=self._pair.folder, **given, **choice)

    def stock(self, name):
        return self._stock(name)(self.graph)

    def file(self, name, gpus):
        return self._ours(name, gpus)(self.graph)

    def adapted(self, model, strength=0.7):
        return self.graph.add("LoraLoaderModelOnly", model=model, lora_name="wan_mini_lora.safetensors", strength_model=strength)

    def whole(self, model):
        return self.graph.add("KSampler", model=model, latent_image=self._latent, seed=9, denoise=1.0, **self._texts, **GIVEN)

    def chain(self, high, low, at=None):
        at = at or self._pair.handover
        given = {"noise_seed": 9, **self._texts, **GIVEN}
        first = self.graph.add("KSamplerAdvanced", model=high, latent_image=self._latent, add_noise="enable", start_at_step=0, end_at_step=at, return_with_leftover_noise="enable", **given)
        return self.graph.add("KSamplerAdvanced", model=low, latent_image=first, add_noise="disable", start_at_step=at, end_at_step=10000, return_with_leftover_noise="disable", **given)

    def compare(self, a, b):
        return self.graph.add("TestCompare", a=a, b=b)[0]


def agree(server, stock, ours, config, found):
    """Two files with a loader each; one folder with a loader for each expert; one folder and one sampler."""
    for pair in PAIRS:
        pair_agrees(pair, Paths(server, stock, ours, config, pair), server, found)


def pair_agrees(pair, p, server, found):
    high, low = p.stock(pair.high), p.stock(pair.low)
    wanted = p.chain(high, low)
    adapted = p.chain(p.adapted(high), p.adapted(low, 0.4))
    same = p.chain(p.adapted(high), p.adapted(low))
    nodes = {f"{pair.label}, all steps by the first": p.compare(wanted, p.whole(p.folder(1, expert="high noise")))}
    for gpus, ranks in ((1, "one rank"), (2, "two ranks")):
        first, second = (p.folder(gpus, expert=f"{noise} noise") for noise in ("high", "low"))
        both = p.folder(gpus)
        files = p.chain(p.file(pair.high, gpus), p.file(pair.low, gpus), 1)
        nodes |= {
            f"{pair.label}, a file each, {ranks}": p.compare(p.chain(high, low, 1), files),
            f"{pair.label}, a folder, a loader each, {ranks}": p.compare(wanted, p.chain(first, second)),
            f"{pair.label}, a folder, one sampler, {ranks}": p.compare(wanted, p.whole(both)),
            f"{pair.label}, a folder, LoRAs of their own, {ranks}": p.compare(adapted, p.chain(p.adapted(first), p.adapted(second, 0.4))),
            f"{pair.label}, a folder, one LoRA, {ranks}": p.compare(same, p.whole(p.adapted(both))),
        }
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
