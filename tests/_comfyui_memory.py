"""Two experts of one folder, and engines that have to share memory, which comfyui.py runs.

Where memory does not suffice the program is a stand-in that speaks the engine's protocol and has room for one denoiser.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
import types

FOLDER = pathlib.Path(__file__).resolve().parent / "goldens/wan_experts/model"

STAND_IN = r'''#!{python}
import json, os, socket, sys

room, flags = os.environ["ROOM"], sys.argv[2:]
model = flags[flags.index("--model_name") + 1]
index = os.path.join(model, "model_index.json")
experts = 1
if os.path.exists(index):
    experts += bool((json.load(open(index)).get("transformer_2") or [None])[0])
line = socket.socket(fileno=int(flags[flags.index("--fd") + 1]))
own = os.path.join(room, f"held-{{os.getpid()}}")

def say(**message):
    line.send(json.dumps(message).encode())

def note(what):
    with open(os.path.join(room, "said"), "a") as file:
        file.write(json.dumps(what) + "\n")

say(**{{"is": "hello"}}, model=model, family="wan", ranks=1, device="cpu", layout="1", folder=model)
while True:
    data, fds, _, _ = socket.recv_fds(line, 1 << 17, 4)
    if not data:
        break
    for fd in fds:
        os.close(fd)
    message = json.loads(data)
    if message["do"] == "release":
        if os.path.exists(own):
            os.remove(own)
    elif experts > int(os.environ["ROOM_FOR"]) or any(name.startswith("held-") and name != os.path.basename(own) for name in os.listdir(room)):
        say(**{{"is": "failed"}}, id=message["id"], kind="capacity", reason="no room")
        continue
    else:
        open(own, "w").close()
    if message["do"] == "predict":
        note([os.path.realpath(os.path.join(model, "transformer")), message["expert"], message["adapters"]])
    say(**{{"is": "done"}}, id=message["id"], shape=[1, 2])
if os.path.exists(own):
    os.remove(own)
'''


@contextlib.contextmanager
def small_room(denoisers=1):
    """(program, what it is asked to evaluate) of stand-ins, one of which at a time has room for so many denoisers."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "engine")
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        os.environ["ROOM"], os.environ["ROOM_FOR"] = folder, str(denoisers)
        said = pathlib.Path(folder, "said")
        try:
            yield str(program), lambda: [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []
        finally:
            del os.environ["ROOM"], os.environ["ROOM_FOR"]


def cases(raises):
    from nodes_here.atelier import delegate, engine, experts, host, loading, lora, settings

    def experts_are_chosen():
        folder = str(FOLDER)
        both = experts.chosen(folder)
        assert both == experts.Experts(boundary=800.0, fixed=None) and both.all() == (0, 1), both
        assert [both.of(t) for t in (1000.0, 800.0, 799.9, 0.0)] == [0, 0, 1, 1], "as t >= boundary_timestep says it"
        assert experts.chosen(folder, "high noise").all() == (0,) and experts.chosen(folder, "low noise").of(1000.0) == 1
        assert experts.chosen("").of(3.0) == 0, "a file has one"
        raises(["low noise", "one denoiser", "loader of its own"], lambda: experts.chosen("", "low noise"))
        alone = experts.Alone(folder)
        second = pathlib.Path(alone.path(1))
        assert not experts.has_two(second) and (second / "transformer").resolve() == FOLDER / "transformer_2"
        assert alone.path(1) == str(second) != alone.path(0)
        del alone
        assert not second.exists(), "its folders go with it"

    def memory_goes_from_one_engine_to_another():
        """No engine gives its memory back before another one lacks it; from then on it goes at once."""
        with small_room() as (program, _):
            high, low = (engine.serve(program, ["--model_name", name], name) for name in ("high", "low"))
            high.load()
            assert high.holds
            low.load()
            assert low.holds and not high.holds and high.is_running()
            high.load()
            assert high.holds and not low.holds
            low.load()
            assert low.holds and not high.holds
            low.close()
            assert not low.holds
            high.load()
            high.close()

    def one_expert_at_a_time(torch):
        """A folder whose denoisers do not fit together: each is loaded when it is called."""
        with small_room() as (program, said):
            one = engine.serve(program, ["--model_name", str(FOLDER)], "both")
            raises(["no room"], one.load)
            one.alone = experts.Alone(str(FOLDER))
            one.load(0)
            ask = lambda expert, adapters: one.predict(torch.zeros(1, 2), torch.zeros(1), {}, 2, adapters, expert)
            for expert in (0, 1, 1, 0):
                ask(expert, [f"{expert}:1"])
            first, second = str(FOLDER / "transformer"), str(FOLDER / "transformer_2")
            wanted = [[first, 0, ["0:1"]], [second, 0, ["1:1"]], [second, 0, ["1:1"]], [first, 0, ["0:1"]]]
            assert said() == wanted, said()
            assert one.hello["model"] == str(FOLDER), "what the loader was told stays"
            one.close()

    def own_models_go_engines_stay():
        """Of what ComfyUI has loaded on the GPU only its own models make room."""
        def loaded(**members):
            return types.SimpleNamespace(model=types.SimpleNamespace(model=types.SimpleNamespace(**members)))

        own, ours, dead = loaded(), loaded(atelier=1), types.SimpleNamespace(model=None)
        stub = types.SimpleNamespace(current_loaded_models=[own, ours, dead], soft_empty_cache=lambda: None)
        stub.get_torch_device = lambda: types.SimpleNamespace(type="cuda")

        def free(memory, device, keep_loaded=()):
            stub.current_loaded_models = [one for one in stub.current_loaded_models if one in keep_loaded]

        stub.free_memory = free
        sys.modules["comfy.model_management"] = stub
        try:
            assert host.make_room() == 2 and stub.current_loaded_models == [ours]
            assert host.make_room() == 0
        finally:
            del sys.modules["comfy.model_management"]

    def experts_of_a_folder_differ(torch):
        """One engine evaluates the denoiser that a call names, and one that holds a single one says the same of it."""
        config = settings.XDitUSPConfig(num_gpus=1, device="cpu")
        one = loading.serve(str(FOLDER), config, "denoiser", "fp32")
        one.alone = experts.Alone(str(FOLDER))
        g = torch.Generator().manual_seed(5)
        x, text = torch.randn(2, 4, 3, 4, 4, generator=g), torch.randn(2, 512, 8, generator=g)
        change = {"blocks.0.self_attn.q.diff": torch.randn(18, 18, generator=g)}
        with tempfile.TemporaryDirectory() as folder:
            from safetensors.torch import save_file

            files = [f"{folder}/{expert}.safetensors" for expert in (0, 1)]
            for file in files:
                save_file({lora.PREFIX + name: tensor for name, tensor in change.items()}, file)
            ask = lambda expert, *adapters: one.predict(x, torch.tensor([900.0, 900.0]), {"context": text}, 4, [f"{a}:1" for a in adapters], expert)
            plain, adapted = [ask(0), ask(1)], [ask(0, files[0]), ask(1, files[1])]
            apart = [float((a - b).abs().max()) for a, b in ((plain[0], plain[1]), (plain[0], adapted[0]), (plain[1], adapted[1]))]
            assert min(apart) > 1e-2, apart
            os.remove(files[0])
            assert (ask(1, files[1]) - adapted[1]).abs().max() == 0, "an adapter that is gone was the other expert's"
            one.close()
            one._expert = 0
            alone = [ask(0), ask(1), ask(1, files[1])]
            for a, b in zip(alone, (*plain, adapted[1])):
                assert (a - b).abs().max() < 1e-5, float((a - b).abs().max())
            one.close()

    def calls_name_their_expert(torch):
        """Rows above the boundary go to the first denoiser, others to the second, each with its own LoRAs."""
        seen = []

        def predict(latents, times, inputs, channels, adapters, expert):
            seen.append((expert, times.tolist(), adapters))
            return latents + expert

        family = types.SimpleNamespace(prepare=None, inputs={}, absent_is_fine=(), patch=1)
        both = delegate.Delegation(types.SimpleNamespace(predict=predict), family, None, experts=experts.Experts(800.0, None))
        both.adapters = {0: ["a"], 1: ["b"]}
        out = both.evaluate(torch.zeros(3, 1, 2, 2), torch.tensor([900.0, 800.0, 700.0]), {}, {})
        assert out[:, 0, 0, 0].tolist() == [0, 0, 1] and seen == [(0, [900.0, 800.0], ["a"]), (1, [700.0], ["b"])], seen
        seen.clear()
        both.evaluate(torch.zeros(1, 1, 3, 2, 2), torch.tensor([[0.0, 900.0, 900.0]]), {}, {})
        assert [expert for expert, _, _ in seen] == [0], "frames that are given have time 0"

    plain = [experts_are_chosen, memory_goes_from_one_engine_to_another, own_models_go_engines_stay]
    return plain, [one_expert_at_a_time, experts_of_a_folder_differ, calls_name_their_expert]
