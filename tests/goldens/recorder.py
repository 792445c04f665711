"""Records what a diffusers pipeline computes during a call, under the names that README.md describes."""
import contextlib
import functools
import hashlib
import json
import sys
from unittest import mock

import torch
from safetensors.torch import save_file

SIDES = ("prompt.", "negative.")  # in the order in which pipelines encode


class Recorded:
    """Tensors by name, float32 or int64, each named once."""

    def __init__(self):
        self.tensors = {}

    def add(self, name, value):
        if name in self.tensors:
            return
        value = value.detach().clone()
        self.tensors[name] = (value.float() if value.is_floating_point() else value.long()).contiguous()

    def write(self, folder, about):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "golden.safetensors"
        save_file(self.tensors, file)
        import diffusers
        import transformers

        about = {"case": folder.name, "dtype": "float32", "device": "cpu",
                 "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__,
                              "transformers": transformers.__version__}, **about}
        about["golden_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        about["tensors"] = [{"name": n, "shape": list(t.shape), "dtype": "F32" if t.is_floating_point() else "I64"}
                            for n, t in sorted(self.tensors.items())]
        (folder / "golden.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")


class AnotherRun:
    """A further call of the same case: its first step and its end, behind the run's name."""

    def __init__(self, recorded, name):
        self.recorded, self.name = recorded, name

    def add(self, name, value):
        if name.startswith("step0.") or name in ("timesteps", "sigmas", "latents.final", "image"):
            self.recorded.add(f"{self.name}.{name}", value)


def flatten(name, value):
    """Tensors of nested tuples and dictionaries: `name.0`, `name.1.2`, `name.key`."""
    if torch.is_tensor(value):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from flatten(f"{name}.{key}", part)
    elif isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from flatten(f"{name}.{i}", part)


def hook_modules(module, record, wanted):
    """Records outputs of named modules: `record(name, value)`; the only part of a tuple has the module's name."""

    def hook(name):
        def call(_, __, output):
            only = output[0] if isinstance(output, (tuple, list)) and len(output) == 1 else output
            for pair in flatten(name, only):
                record(*pair)

        return call

    return [m.register_forward_hook(hook(n)) for n, m in module.named_modules() if n and wanted(n)]


class Run:
    """Hooks on the parts of a pipeline during one call.

    `inputs` names what the denoiser receives: {"embeds": "encoder_hidden_states"} records prompt.embeds and negative.embeds, be
    they halves of one batch or given in two calls; `also` are arguments recorded as step0.in.<name>. A second call of a step
    ends in .1, its modules in @1. `numbered`: token ids alone, as input_ids and input_ids_2.
    """

    def __init__(self, recorded, pipe, is_wanted, inputs=None, also=(), numbered=False):
        self.r, self.pipe, self.is_wanted = recorded, pipe, is_wanted
        self.inputs, self.also, self.numbered = inputs or {}, also, numbered
        self.step = self.calls = 0
        self.times = []

    def encoded(self, name):
        sides = iter(SIDES)

        def hook(module, args, kwargs, out):
            side, ids = next(sides), args[0] if args else kwargs["input_ids"]
            if self.numbered:
                return self.r.add(side + "input_ids" + name.removeprefix("text_encoder"), ids)
            found = {"input_ids": ids, "mask": kwargs.get("attention_mask"), "last_hidden_state": out.last_hidden_state,
                     "pooler_output": out.get("pooler_output"), "text_embeds": out.get("text_embeds"),
                     "hidden_states_m2": out.hidden_states[-2] if out.get("hidden_states") else None}
            for what, value in found.items():
                if value is not None:
                    self.r.add(f"{side}{what}.{name}", value)

        return hook

    def add_inputs(self, arguments):
        for name, argument in self.inputs.items():
            value = arguments[argument]
            halves = value.chunk(2)[::-1] if value.shape[0] == 2 * self.rows else [value]
            for side, part in zip(SIDES[self.calls:], halves):
                self.r.add(side + name, part)
        for name in self.also:
            for pair in flatten(f"step0.in.{name}", arguments[name]):
                self.r.add(*pair)

    def suffix(self, mark):
        return mark + "1" if self.calls else ""

    def before(self, module, args, kwargs):
        self.r.add(f"step{self.step}.model_in" + self.suffix("."), args[0] if args else kwargs["hidden_states"])
        if not self.calls:
            self.times.append((kwargs["timestep"] if "timestep" in kwargs else args[1]).reshape(-1)[:1].clone())
        if self.step == 0:
            self.add_inputs({**kwargs, **kwargs.get("added_cond_kwargs", {})})

    def after(self, module, args, kwargs, out):
        self.r.add(f"step{self.step}.model_out" + self.suffix("."), out[0])
        self.calls += 1

    def block(self, name, value):
        if self.step == 0:
            self.r.add(f"block.{name}" + self.suffix("@"), value)

    def stepped(self, step):
        def call(model_output, timestep, sample, **kwargs):
            out = step(model_output, timestep, sample, **kwargs)
            self.r.add(f"step{self.step}.guided", model_output)
            self.r.add(f"step{self.step}.latents", out[0])
            self.step, self.calls, self.latents = self.step + 1, 0, out[0]
            return out

        return functools.wraps(step)(call)

    def decoded(self, decode):
        def call(z, **kwargs):
            self.r.add("vae.in", z)
            out = decode(z, **kwargs)
            self.r.add("vae.out", out[0])
            return out

        return call

    def drawn(self, draw):
        def call(*args, **kwargs):
            value = draw(*args, **kwargs)
            self.r.add(f"step{self.step}.sched_noise", value)
            return value

        return call

    @contextlib.contextmanager
    def attached(self):
        pipe = self.pipe
        denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        hooks = hook_modules(denoiser, self.block, self.is_wanted)
        hooks.append(denoiser.register_forward_pre_hook(self.before, with_kwargs=True))
        hooks.append(denoiser.register_forward_hook(self.after, with_kwargs=True))
        for name, part in pipe.components.items():
            if name.startswith("text_encoder"):
                hooks.append(part.register_forward_hook(self.encoded(name), with_kwargs=True))
        library = sys.modules[type(pipe.scheduler).__module__]
        with mock.patch.object(pipe.scheduler, "step", self.stepped(pipe.scheduler.step)), \
                mock.patch.object(pipe.vae, "decode", self.decoded(pipe.vae.decode)), \
                mock.patch.object(library, "randn_tensor", self.drawn(getattr(library, "randn_tensor", None)), create=True):
            yield
        for hook in hooks:
            hook.remove()

    def record(self, call, noise, latents=None, unpack=lambda latents: latents):
        """Draws with given noise [B, C, H, W]; `latents` is that in the pipeline's own form, `unpack` its way back."""
        self.rows = noise.shape[0]
        self.r.add("noise", noise)
        # sizes are lists in JSON, and tuples for a pipeline
        call = {k: tuple(v) if isinstance(v, list) and not isinstance(v[0], str) else v for k, v in call.items()}
        with self.attached():
            image = self.pipe(**call, latents=(noise if latents is None else latents).clone(), output_type="pt").images
        self.r.add("image", image)
        self.r.add("timesteps", self.pipe.scheduler.timesteps)
        self.r.add("model_timesteps", torch.cat(self.times))
        if hasattr(self.pipe.scheduler, "sigmas"):
            self.r.add("sigmas", self.pipe.scheduler.sigmas)
        self.r.add("latents.final", unpack(self.latents))
