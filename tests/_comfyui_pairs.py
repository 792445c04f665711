"""Two experts in two files with a loader each, which comfyui.py runs; where weights are counted the program is a stand-in."""

import gc
import pathlib
import subprocess
import tempfile
import types

from _comfyui import ROOT
from _comfyui_memory import small_room

HELLO = {"family": "wan", "config": {"in_channels": 16, "text_dim": 8}}


def cases():
    from nodes_here.atelier import delegate, engine, loading, pairs, program, settings

    files = types.SimpleNamespace(of=lambda uuid, patches, shapes: list(patches))
    patcher = lambda *loras: types.SimpleNamespace(patches_uuid=0, patches=loras)

    def loaded(served, path, hello=HELLO):
        one = delegate.Delegation(served, None, files)
        pairs.register(one, path, served, hello)
        return one

    class Loaders:
        """Delegations of stand-ins, by the names of files in a folder."""

        def __init__(self, program, folder):
            self.program, self.folder = program, folder

        def __call__(self, name, hello=HELLO):
            path = pathlib.Path(self.folder, name)
            path.touch()
            return loaded(engine.serve(self.program, ["--model_name", str(path), "--parts", "denoiser"], name), path, hello)

    def two_files_are_one_engine():
        """Each call names its expert; what is left of the two goes on alone."""
        with small_room(denoisers=2) as (stand_in, _), tempfile.TemporaryDirectory() as folder:
            load = Loaders(stand_in, folder)
            low, high, again = load("low"), load("high"), load("high")
            high.prepare(patcher("h:1"))
            low.prepare(patcher("l:1"))
            again.prepare(patcher())
            both = high.engine
            assert both is low.engine is again.engine and both.holds and both is not high.file.engine
            assert [one.experts.all() for one in (high, low, again)] == [(0,), (1,), (0,)]
            assert high.adapters == {0: ["h:1"]} and low.adapters == {1: ["l:1"]}
            links = pathlib.Path(both.arguments[1])
            assert (links / "transformer_2/diffusion_pytorch_model").resolve() == pathlib.Path(folder, "low").resolve()
            process = both._process
            del both, low
            gc.collect()
            high.prepare(patcher())
            again.prepare(patcher())
            gc.collect()
            assert high.engine is again.engine is high.file.engine and high.experts.all() == (0,), high.engine.arguments
            assert process.poll() is not None and not links.exists(), "the engine of both outlives one of its files"
            high.engine.close()

    def they_stay_apart():
        """Where one has weights in memory, others are not experts of the same model, or there are more than two."""
        with small_room(denoisers=2) as (stand_in, _), tempfile.TemporaryDirectory() as folder:
            load = Loaders(stand_in, folder)
            high = load("high")
            high.prepare(patcher())
            low = load("low")
            low.prepare(patcher())
            assert low.engine is low.file.engine and low.engine.holds and not high.engine.holds
            low.engine.close()
            high.prepare(patcher())
            assert high.engine is low.engine, "after /free they are together"
            high.engine.close()
            del high, low
            gc.collect()
            image = {"family": "wan", "config": {**HELLO["config"], "in_channels": 36}}
            for others in ([("low", image)], [("low", HELLO), ("third", HELLO)]):
                here = [load("high"), *(load(*other) for other in others)]
                for one in here:
                    one.prepare(patcher())
                    assert one.engine is one.file.engine, others
                    one.engine.close()
                del here, one
                gc.collect()

    def by_turns_where_there_is_no_room(torch):
        """One engine of two files that do not fit together serves one of them at a time."""
        with small_room() as (stand_in, said), tempfile.TemporaryDirectory() as folder:
            load = Loaders(stand_in, folder)
            high, low = load("high"), load("low")
            for one in (high, low, high):
                one.prepare(patcher())
                one.engine.predict(torch.zeros(1, 2), torch.zeros(1), {}, 2, [], one.experts.all()[0])
            seen = [pathlib.Path(part, "diffusion_pytorch_model").resolve().name for part, _, _ in said()]
            assert high.engine is low.engine and seen == ["high", "low", "high"], said()
            high.engine.close()

    def pairs_say_what_files_say(torch):
        """The true engine, bit for bit; one expert's LoRA is not the other's."""
        from safetensors.torch import load_file, save_file

        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{name}.safetensors" for name in ("high", "low")]
            command = [program.require(), "convert", str(ROOT / "models/mini-video/transformer"), paths[0], "--to", "native"]
            subprocess.run(command, check=True, capture_output=True)
            tensors = load_file(paths[0])
            save_file({name: tensor.flip(0) if name.endswith("ffn.0.bias") else tensor for name, tensor in tensors.items()}, paths[1])
            width = tensors["blocks.0.self_attn.q.weight"].shape[0]
            save_file({"diffusion_model.blocks.0.self_attn.q.diff": torch.ones(width, width) * 0.02}, f"{folder}/lora.safetensors")
            config = settings.XDitUSPConfig(num_gpus=1, device="cpu")
            singles = [loading.serve(path, config, "denoiser", "fp32") for path in paths]
            g = torch.Generator().manual_seed(5)
            x, text = torch.randn(1, 16, 2, 8, 8, generator=g), torch.randn(1, 16, 64, generator=g)
            ask = lambda one, expert, *loras: one.predict(x, torch.tensor([700.0]), {"context": text}, 16, loras, expert)
            ones = [loaded(served, path, served.start()) for served, path in zip(singles, paths)]
            lora = f"{folder}/lora.safetensors:1"
            wanted = [ask(singles[0], 0), ask(singles[1], 0), ask(singles[0], 0, lora)]
            for served in singles:
                served.close()
            ones[0].prepare(patcher())
            both = ones[0].engine
            assert both is ones[1].engine and both is not singles[0]
            got = [ask(both, 0), ask(both, 1), ask(both, 0, lora), ask(both, 1)]
            both.close()
            for a, b in zip(got, (*wanted, wanted[1])):
                assert (a - b).abs().max() == 0, float((a - b).abs().max())
            assert all((a - b).abs().max() > 1e-4 for a, b in zip(wanted, wanted[1:])), "files and LoRA are alike"

    return [two_files_are_one_engine, they_stay_apart], [by_turns_where_there_is_no_room, pairs_say_what_files_say]
