#!/usr/bin/env python3
"""Makes recorded cases with the reference libraries: small models of random weights and what diffusers and transformers compute with them.

    python tests/goldens/make.py CASE [FOLDER]      # without CASE: lists them

Needs torch 2.11.0, diffusers 0.39.0 and transformers 4.57.6 (CPU, float32, one thread); tokenizers are linked from the case flux_dev.
"""
import hashlib
import json
import os
import pathlib
import sys

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
TOKENIZERS = pathlib.Path(os.environ.get("TOKENIZERS", HERE / "flux_dev" / "model"))
FOX = "A red fox asleep on a mossy stone, soft morning light"
BOATS = "two paper boats, watercolor (high detail), 35mm"


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


def randomise(module, seed):
    """Weights that every parameter shows in: norms about one, biases about zero, the rest by fan-in."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            if p.dim() < 2:
                p.copy_((1.0 if name.endswith("weight") else 0.0) + 0.2 * noise)
            elif "embed" in name and name.endswith("embedding.weight") or name.endswith("shared.weight"):
                p.copy_(0.5 * noise)
            else:
                p.copy_(noise * (0.5 if ".q." in name else 1.0) * (1.0 / p[0].numel()) ** 0.5)
    return module.bfloat16().eval()  # small files; every folder is read back in float32


def link_tokenizer(folder, name, source=None):
    to = folder / name
    if not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(os.path.relpath(TOKENIZERS / (source or name), to.parent))


def hook_modules(module, record, wanted):
    """Records outputs of named modules; `record(name, value)`, tuples as .0, .1."""

    def hook(name):
        def call(_, __, output):
            parts = output if isinstance(output, (tuple, list)) else (output,)
            for i, part in enumerate(parts):
                if torch.is_tensor(part):
                    record(name + (f".{i}" if len(parts) > 1 else ""), part)

        return call

    return [m.register_forward_hook(hook(n)) for n, m in module.named_modules() if n and wanted(n)]


# ---- FLUX


def flux(folder, o):
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    model = folder / "model"
    for t in ("tokenizer", "tokenizer_2"):
        link_tokenizer(model, t)
    seed = o.get("seed", 1)
    clip = randomise(CLIPTextModel(CLIPTextConfig(
        vocab_size=1014, hidden_size=o["pooled"], intermediate_size=2 * o["pooled"], num_hidden_layers=o.get("clip_layers", 2),
        num_attention_heads=o.get("clip_heads", 2), max_position_embeddings=77, hidden_act=o.get("clip_act", "quick_gelu"),
        bos_token_id=0, eos_token_id=2, projection_dim=o["pooled"])), seed)
    t5 = randomise(T5EncoderModel(T5Config(
        vocab_size=1608, d_model=o["text"], d_kv=o.get("d_kv", 8), d_ff=2 * o["text"], num_layers=o.get("t5_layers", 2),
        num_heads=o.get("t5_heads", 2), feed_forward_proj=o.get("t5_ff", "gated-gelu"), tie_word_embeddings=False)), seed + 1)
    transformer = randomise(FluxTransformer2DModel(
        in_channels=4 * o["latent"], num_layers=o["doubles"], num_single_layers=o["singles"], attention_head_dim=sum(o["axes"]),
        num_attention_heads=o["heads"], joint_attention_dim=o["text"], pooled_projection_dim=o["pooled"],
        guidance_embeds=o["guidance_embeds"], axes_dims_rope=tuple(o["axes"])), seed + 2)
    vae = randomise(AutoencoderKL(
        block_out_channels=tuple(o["vae"]), down_block_types=("DownEncoderBlock2D",) * len(o["vae"]),
        up_block_types=("UpDecoderBlock2D",) * len(o["vae"]), latent_channels=o["latent"], layers_per_block=o.get("vae_layers", 1),
        norm_num_groups=o["groups"], sample_size=o.get("sample", 32), scaling_factor=o.get("scale", 0.3611),
        shift_factor=o.get("shift", 0.1159), use_quant_conv=False, use_post_quant_conv=False,
        mid_block_add_attention=o.get("vae_attention", True)), seed + 3)
    scheduler = FlowMatchEulerDiscreteScheduler(**o.get("scheduler", {}))
    FluxPipeline(scheduler=scheduler, vae=vae, text_encoder=clip, text_encoder_2=t5, transformer=transformer,
                 tokenizer=CLIPTokenizer.from_pretrained(model / "tokenizer"),
                 tokenizer_2=T5TokenizerFast.from_pretrained(model / "tokenizer_2")).save_pretrained(folder / "tmp")
    for entry in list((folder / "tmp").iterdir()):
        if not entry.name.startswith("tokenizer"):
            to = model / entry.name
            if to.is_dir():
                for f in to.iterdir():
                    f.unlink()
                to.rmdir()
            entry.rename(to)
    import shutil

    shutil.rmtree(folder / "tmp")
    pipe = FluxPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    r, call = Recorded(), o["call"]

    seen = {}
    for name in ("text_encoder", "text_encoder_2"):
        def hook(module, args, kwargs, out, name=name):
            side = ("prompt.", "negative.")[seen.setdefault(name, 0)]
            seen[name] += 1
            ids = args[0] if args else kwargs["input_ids"]
            r.add(f"{side}input_ids.{name}", ids)
            r.add(f"{side}last_hidden_state.{name}", out[0])
            if name == "text_encoder":
                r.add(f"{side}pooler_output.{name}", out.pooler_output)
        getattr(pipe, name).register_forward_hook(hook, with_kwargs=True)

    state = {"step": 0, "calls": 0}
    deep = o.get("deep", True)

    def suffix(at):
        return at + "1" if state["calls"] else ""

    def record_block(name, value):
        if state["step"] == 0:
            r.add(f"block.{name}" + suffix("@"), value)

    def is_wanted(name):
        parts = name.split(".")
        if parts[0] in ("transformer_blocks", "single_transformer_blocks"):
            return len(parts) == 2 or deep and len(parts) == 3 and parts[1] == "0"
        return len(parts) == 1 and name != "pos_embed" or deep and len(parts) == 2 and parts[0] == "time_text_embed"

    hook_modules(pipe.transformer, record_block, is_wanted)
    pipe.transformer.pos_embed.register_forward_hook(
        lambda m, a, out: [r.add(f"block.pos_embed.{i}", v) for i, v in enumerate(out)] and None)
    model_timesteps = []

    def before(module, args, kwargs):
        r.add(f"step{state['step']}.model_in" + suffix("."), kwargs["hidden_states"])
        if not state["calls"]:
            model_timesteps.append(kwargs["timestep"][:1].clone())
        side = ("prompt.", "negative.")[state["calls"]]
        r.add(side + "embeds", kwargs["encoder_hidden_states"])
        r.add(side + "pooled", kwargs["pooled_projections"])

    def after(module, args, kwargs, out):
        r.add(f"step{state['step']}.model_out" + suffix("."), out[0])
        state["calls"] += 1

    pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    pipe.transformer.register_forward_hook(after, with_kwargs=True)
    step = pipe.scheduler.step

    def recorded_step(model_output, timestep, sample, **kwargs):
        out = step(model_output, timestep, sample, **kwargs)
        r.add(f"step{state['step']}.guided", model_output)
        r.add(f"step{state['step']}.latents", out[0])
        state["step"] += 1
        state["calls"] = 0
        return out

    pipe.scheduler.step = recorded_step
    decode = pipe.vae.decode

    def recorded_decode(z, **kwargs):
        r.add("vae.in", z)
        out = decode(z, **kwargs)
        r.add("vae.out", out[0])
        return out

    pipe.vae.decode = recorded_decode
    prompts = call["prompt"] if isinstance(call["prompt"], list) else [call["prompt"]]
    batch = len(prompts) * call.get("num_images_per_prompt", 1)
    spatial = 2 ** (len(o["vae"]) - 1)
    h, w = call["height"] // spatial, call["width"] // spatial
    noise = torch.randn((batch, o["latent"], h, w), generator=torch.Generator().manual_seed(7))
    packed = FluxPipeline._pack_latents(noise, batch, o["latent"], h, w)
    r.add("noise", noise)
    r.add("noise.packed", packed)
    image = pipe(**call, latents=packed.clone(), output_type="pt").images
    r.add("image", image)
    r.add("timesteps", pipe.scheduler.timesteps)
    r.add("model_timesteps", torch.cat(model_timesteps))
    r.add("sigmas", pipe.scheduler.sigmas)
    r.add("latents.final", FluxPipeline._unpack_latents(
        r.tensors[f"step{state['step'] - 1}.latents"], call["height"], call["width"], spatial))
    r.write(folder, {"seed_weights": seed, "seed_noise": 7, "call": call, "family": "flux", "pipeline": "FluxPipeline"})


# ---- PixArt


def pixart(folder, o):
    import diffusers
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pipeline = getattr(diffusers, o.get("pipeline", "PixArtSigmaPipeline"))
    model, seed, spatial = folder / "model", o.get("seed", 1), 2 ** (len(o["vae"]) - 1)
    link_tokenizer(model, "tokenizer", "tokenizer_2")
    t5 = randomise(T5EncoderModel(T5Config(vocab_size=1608, d_kv=8, num_layers=1, tie_word_embeddings=False, **o["t5"])), seed)
    transformer = randomise(diffusers.PixArtTransformer2DModel(**o["transformer"]), seed + 1)
    vae = randomise(diffusers.AutoencoderKL(
        block_out_channels=tuple(o["vae"]), down_block_types=("DownEncoderBlock2D",) * len(o["vae"]),
        up_block_types=("UpDecoderBlock2D",) * len(o["vae"]), layers_per_block=1, norm_num_groups=o["groups"],
        latent_channels=transformer.config.in_channels, sample_size=32, scaling_factor=0.13025), seed + 2)
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, **o.get("scheduler", {}))
    for name, part in (("text_encoder", t5), ("transformer", transformer), ("vae", vae), ("scheduler", scheduler)):
        part.save_pretrained(model / name)
    index = {"_class_name": pipeline.__name__, "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
             "text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"],
             "transformer": ["diffusers", "PixArtTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (model / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    pipe = pipeline.from_pretrained(model, tokenizer=T5Tokenizer.from_pretrained(model / "tokenizer"), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    r, call, sides, model_timesteps, step = Recorded(), o["call"], ["negative.", "prompt."], [], [0]

    def encoded(module, args, kwargs, out):
        side = sides.pop()
        for name, value in (("input_ids", args[0]), ("mask", kwargs["attention_mask"]), ("last_hidden_state", out[0])):
            r.add(f"{side}{name}.text_encoder", value)

    def before(module, args, kwargs):
        r.add(f"step{step[0]}.model_in", args[0])
        model_timesteps.append(kwargs["timestep"][:1].clone())

    pipe.text_encoder.register_forward_hook(encoded, with_kwargs=True)
    pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    pipe.transformer.register_forward_hook(lambda m, a, out: r.add(f"step{step[0]}.model_out", out[0]))
    hook_modules(pipe.transformer, lambda name, value: step[0] == 0 and r.add("block." + name, value),
                 lambda n: n in ("pos_embed", "adaln_single", "caption_projection", "proj_out")
                 or n.startswith("transformer_blocks.") and n.count(".") == 1)
    sample, decode = pipe.scheduler.step, pipe.vae.decode

    def recorded_step(model_output, timestep, x, **kwargs):
        out = sample(model_output, timestep, x, **kwargs)
        r.add(f"step{step[0]}.guided", model_output)
        r.add(f"step{step[0]}.latents", out[0])
        step[0] += 1
        return out

    def recorded_decode(z, **kwargs):
        r.add("vae.in", z)
        out = decode(z, **kwargs)
        r.add("vae.out", out[0])
        return out

    pipe.scheduler.step, pipe.vae.decode = recorded_step, recorded_decode
    batch = (len(call["prompt"]) if isinstance(call["prompt"], list) else 1) * call.get("num_images_per_prompt", 1)
    noise = torch.randn((batch, transformer.config.in_channels, call["height"] // spatial, call["width"] // spatial),
                        generator=torch.Generator().manual_seed(7))
    r.add("noise", noise)
    r.add("image", pipe(**call, latents=noise.clone(), output_type="pt").images)
    r.add("timesteps", pipe.scheduler.timesteps)
    r.add("model_timesteps", torch.cat(model_timesteps))
    r.add("sigmas", pipe.scheduler.sigmas)
    r.add("latents.final", r.tensors[f"step{step[0] - 1}.latents"])
    r.write(folder, {"seed_weights": seed, "seed_noise": 7, "call": call, "family": "pixart", "pipeline": pipeline.__name__})


# ---- autoencoders


def vaes(folder, o):
    from diffusers import AutoencoderKL

    r = Recorded()
    for name, c in o.items():
        vae = randomise(AutoencoderKL(
            block_out_channels=tuple(c["channels"]), down_block_types=("DownEncoderBlock2D",) * len(c["channels"]),
            up_block_types=("UpDecoderBlock2D",) * len(c["channels"]), latent_channels=c["latent"],
            layers_per_block=c.get("layers", 1), norm_num_groups=c["groups"], sample_size=c.get("sample", 32),
            use_quant_conv=c.get("quant", True), use_post_quant_conv=c.get("quant", True),
            mid_block_add_attention=c.get("attention", True)), 11)
        vae.save_pretrained(folder / "model" / name)
        vae = AutoencoderKL.from_pretrained(folder / "model" / name, torch_dtype=torch.float32)
        g = torch.Generator().manual_seed(7)
        spatial = 2 ** (len(c["channels"]) - 1)
        z = torch.randn((c.get("batch", 2), c["latent"], *c["size"]), generator=g)
        x = torch.rand((1, 3, c["size"][0] * spatial, c["size"][1] * spatial), generator=g) * 2 - 1
        first = {"on": True}

        def record(module_name, value):
            if first["on"]:
                r.add(f"{name}.block.{module_name}", value[:1])

        def is_wanted(n):
            parts = n.split(".")
            if parts[0] not in ("encoder", "decoder"):
                return len(parts) == 1
            if len(parts) < 2 or parts[-1] in ("conv_act", "down_blocks", "up_blocks", "resnets", "attentions"):
                return False
            return len(parts) == 2 or len(parts) == 3 or len(parts) == 4 and parts[1] == "mid_block"

        hook_modules(vae, record, is_wanted)
        with torch.no_grad():
            r.add(f"{name}.z", z), r.add(f"{name}.x", x)
            r.add(f"{name}.decode_slice0", vae.decode(z[:1])[0])
            posterior = vae.encode(x).latent_dist
            first["on"] = False
            r.add(f"{name}.decode", vae.decode(z)[0])
            r.add(f"{name}.encode.moments", posterior.parameters)
            r.add(f"{name}.encode.mean", posterior.mean)
            r.add(f"{name}.encode.logvar", posterior.logvar)
            vae.enable_tiling()
            r.add(f"{name}.decode_tiled", vae.decode(z)[0])
            r.add(f"{name}.encode_tiled.moments", vae.encode(x).latent_dist.parameters)
    r.write(folder, {"seed_weights": 11, "seed_noise": 7, "family": "vae"})


# ---- schedulers


def schedulers(folder, o):
    import diffusers
    import numpy as np

    r = Recorded()
    x0 = torch.randn(o["shape"], generator=torch.Generator().manual_seed(7))
    r.add("x0", x0)
    about = {}
    for name, c in o["schedulers"].items():
        scheduler = getattr(diffusers, c["class"])(**c["config"])
        scheduler.save_pretrained(folder / "model" / name)
        calls = {}
        for n in o["steps"]:
            kwargs = {}
            if c.get("linear"):
                kwargs["sigmas"] = np.linspace(1.0, 1 / n, n)
            else:
                kwargs["num_inference_steps"] = n
            if "mu" in c:
                kwargs["mu"] = c["mu"]
            scheduler.set_timesteps(**kwargs)
            calls[str(n)] = {k: "linspace(1, 1/n, n)" if k == "sigmas" else v for k, v in kwargs.items()}
            dot = f"{name}.{n}."
            r.add(dot + "timesteps", scheduler.timesteps), r.add(dot + "sigmas", scheduler.sigmas)
            r.add(dot + "init_noise_sigma", torch.tensor([float(getattr(scheduler, "init_noise_sigma", 1.0))]))
            x, path = x0 * float(getattr(scheduler, "init_noise_sigma", 1.0)), []
            for t in scheduler.timesteps:
                x_in = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
                out = o["model"](x, x_in, t.float())
                x = scheduler.step(out, t, x)[0]
                path.append(x)
            r.add(dot + "x", torch.stack(path))
        about[name] = {"scheduler_class": c["class"], "config": f"model/{name}/scheduler_config.json", "set_timesteps": calls}
    r.write(folder, {"family": "schedulers", "model_function": o["text"], "steps": o["steps"], "trajectories": o["steps"],
                     "schedulers": about})


# ---- text encoders


def encoders(folder, o):
    import transformers as tf

    r, about = Recorded(), {}
    for name, c in o["encoders"].items():
        config = getattr(tf, c["config_class"])(**c["config"])
        encoder = randomise(getattr(tf, c["class"])(config), c.get("seed", 3))
        encoder.save_pretrained(folder / "model" / name)
        encoder = getattr(tf, c["class"]).from_pretrained(folder / "model" / name, dtype=torch.float32)
        link_tokenizer(folder / "model", name + "_tokenizer", c["tokenizer"])
        tokenizer = getattr(tf, c["tokenizer_class"])
        tokenizer = tokenizer.from_pretrained(folder / "model" / (name + "_tokenizer"))
        ids = tokenizer(o["prompts"], padding="max_length", max_length=c["length"], truncation=True, return_tensors="pt")
        r.add(f"{name}.input_ids", ids.input_ids)
        if c["mask"]:
            r.add(f"{name}.mask", ids.attention_mask)
        with torch.no_grad():
            out = encoder(ids.input_ids, attention_mask=ids.attention_mask if c["mask"] else None, output_hidden_states=True)
            for i, h in enumerate(out.hidden_states):
                r.add(f"{name}.hidden_states.{i}", h)
            r.add(f"{name}.last_hidden_state", out.last_hidden_state)
            if "text_embeds" in out:
                r.add(f"{name}.text_embeds", out.text_embeds)
            elif "pooler_output" in out:
                r.add(f"{name}.pooler_output", out.pooler_output)
            if c["mask"]:
                r.add(f"{name}.last_hidden_state_no_mask", encoder(ids.input_ids).last_hidden_state)
            for skip in c.get("skips", []):
                r.add(f"{name}.skip{skip}_final_norm", encoder.text_model.final_layer_norm(out.hidden_states[-1 - skip]))
            if "long" in c:
                long = torch.randint(3, config.vocab_size, (1, c["long"]), generator=torch.Generator().manual_seed(5))
                r.add(f"{name}.long_ids", long)
                r.add(f"{name}.long_last_hidden_state", encoder(long).last_hidden_state[:, ::8])
        about[name] = {"model_class": c["class"], "tokenizer_class": c["tokenizer_class"], "max_length": c["length"],
                       "attention_mask_given": c["mask"]}
    r.write(folder, {"family": "text_encoders", "prompts": o["prompts"], "encoders": about})


DYNAMIC = dict(use_dynamic_shifting=True, shift=3.0, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
CLIP = dict(vocab_size=1014, max_position_embeddings=77)
CASES = {
    # two branches, a prompt of its own per encoder, several pictures of one prompt; committed
    "flux_two_branches": (flux, dict(
        pooled=8, text=8, latent=4, doubles=1, singles=2, axes=[2, 2, 4], heads=2, guidance_embeds=True, vae=[4, 4], groups=2,
        t5_layers=1, deep=False, scheduler=DYNAMIC, sample=16,
        call=dict(prompt=FOX, prompt_2=BOATS, negative_prompt="blurry, low quality", negative_prompt_2="extra fingers",
                  true_cfg_scale=2.5, guidance_scale=2.0, height=16, width=28, num_inference_steps=2, num_images_per_prompt=2,
                  max_sequence_length=12))),
    # no guidance embedding, lists of prompts with negatives, odd numbers of everything
    "flux_lists": (flux, dict(
        pooled=20, text=36, latent=8, doubles=3, singles=1, axes=[4, 6, 6], heads=5, guidance_embeds=False, vae=[8, 8, 12],
        groups=4, vae_layers=2, clip_heads=5, clip_act="gelu", t5_heads=3, d_kv=6, seed=40, vae_attention=False, shift=0.0, scale=0.5,
        scheduler=dict(shift=2.0),
        call=dict(prompt=[FOX, BOATS, ""], negative_prompt=["rain", "", "fog"], prompt_2=[BOATS, FOX, "cat"], true_cfg_scale=3.0,
                  guidance_scale=0.0, height=40, width=56, num_inference_steps=2, max_sequence_length=31))),
    # one prompt and almost no arguments
    "flux_plain": (flux, dict(
        pooled=16, text=24, latent=16, doubles=1, singles=1, axes=[8, 12, 12], heads=2, guidance_embeds=True, vae=[8, 8, 8, 16],
        groups=4, seed=80, scheduler=DYNAMIC, clip_layers=1,
        call=dict(prompt=BOATS, height=112, width=48, num_inference_steps=1, max_sequence_length=512))),
    "flux_one_negative": (flux, dict(
        pooled=16, text=24, latent=4, doubles=2, singles=2, axes=[4, 4, 8], heads=2, guidance_embeds=False, vae=[8, 8, 8, 16],
        groups=4, seed=81, scheduler=dict(), clip_layers=1,
        call=dict(prompt=FOX, negative_prompt="", true_cfg_scale=1.5, height=64, width=64, num_inference_steps=4,
                  max_sequence_length=9))),
    # odd numbers of heads and blocks, a prompt that is cut, a grid that is no square; committed
    "pixart_small": (pixart, dict(
        t5=dict(d_model=12, d_ff=20, num_heads=3), vae=[4, 4], groups=2,
        transformer=dict(num_attention_heads=5, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=3,
                         cross_attention_dim=20, caption_channels=12, sample_size=16, use_additional_conditions=False),
        call=dict(prompt=BOATS.title(), negative_prompt="Blurry", height=16, width=40, num_inference_steps=3,
                  guidance_scale=4.5, max_sequence_length=9, use_resolution_binning=False, clean_caption=False))),
    # sizes as conditions, no caption projection, no biases
    "pixart_alpha": (pixart, dict(
        pipeline="PixArtAlphaPipeline", t5=dict(d_model=48, d_ff=64, num_heads=4), vae=[8, 8, 8, 16], groups=4,
        scheduler=dict(use_karras_sigmas=True),
        transformer=dict(num_attention_heads=3, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=4,
                         cross_attention_dim=48, sample_size=128, interpolation_scale=2, attention_bias=False),
        call=dict(prompt=FOX, height=96, width=160, num_inference_steps=5, guidance_scale=3.0, num_images_per_prompt=2,
                  use_resolution_binning=False, clean_caption=False))),
    # three and five resolutions, without attention, odd sizes; committed
    "vae_sizes": (vaes, dict(
        vae_three=dict(channels=[4, 8, 8], groups=2, latent=3, size=[7, 5], sample=16, batch=1, layers=1),
        vae_plain=dict(channels=[4, 6], groups=2, latent=2, size=[7, 9], sample=8, layers=2, quant=False, attention=False))),
    "vae_wide": (vaes, dict(
        vae_one=dict(channels=[24], groups=3, latent=5, size=[17, 11], sample=8, batch=3, layers=3),
        vae_five=dict(channels=[8, 8, 16, 16, 32], groups=8, latent=16, size=[4, 6], sample=64, quant=False, layers=2))),
    # another model function; committed
    "scheduler_formulas": (schedulers, dict(
        shape=[2, 3, 4, 5], steps=[2, 3, 7],
        text="model(x, t) = -x_in**2 / (1.5 + abs(x)) + exp(-t / 250) * cos(0.02 * t), t the float timestep, all in float32",
        model=lambda x, x_in, t: -x_in**2 / (1.5 + abs(x)) + torch.exp(-t / 250) * torch.cos(0.02 * t),
        schedulers=dict(
            flow_shift=dict(**{"class": "FlowMatchEulerDiscreteScheduler"}, config=dict(shift=1.7)),
            flow_linear=dict(**{"class": "FlowMatchEulerDiscreteScheduler"}, config=dict(**DYNAMIC, time_shift_type="linear"), mu=0.8,
                             linear=True),
            flow_terminal=dict(**{"class": "FlowMatchEulerDiscreteScheduler"}, config=dict(**DYNAMIC, shift_terminal=0.1), mu=0.9,
                               linear=True)))),
    "scheduler_more": (schedulers, dict(
        shape=[6], steps=[2, 11], text="tanh(x) * 0.5 + sqrt(abs(x_in)) - sin(t) / 3",
        model=lambda x, x_in, t: torch.tanh(x) * 0.5 + torch.sqrt(torch.abs(x_in)) - torch.sin(t) / 3,
        schedulers=dict(flow_a=dict(**{"class": "FlowMatchEulerDiscreteScheduler"}, config=dict(shift=3.0, num_train_timesteps=500)),
                        flow_b=dict(**{"class": "FlowMatchEulerDiscreteScheduler"}, config=dict(), linear=True)))),
    "encoder_forms": (encoders, dict(
        prompts=[FOX, "", "cat"],
        encoders=dict(
            small=dict(config_class="CLIPTextConfig", **{"class": "CLIPTextModel"},
                       config=dict(**CLIP, hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=3,
                                   hidden_act="gelu", bos_token_id=0, eos_token_id=2, projection_dim=12),
                       tokenizer="tokenizer", tokenizer_class="CLIPTokenizer", length=33, mask=False, skips=[1, 2]),
            masked_eos=dict(config_class="CLIPTextConfig", **{"class": "CLIPTextModelWithProjection"},
                            config=dict(**CLIP, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                                        bos_token_id=1012, eos_token_id=1013, projection_dim=10),
                            tokenizer="tokenizer", tokenizer_class="CLIPTokenizer", length=40, mask=True, skips=[1]),
            words=dict(config_class="T5Config", **{"class": "T5EncoderModel"},
                       config=dict(vocab_size=1608, d_model=14, d_kv=6, d_ff=22, num_layers=2, num_heads=3,
                                   feed_forward_proj="gated-gelu", relative_attention_num_buckets=16, tie_word_embeddings=False),
                       tokenizer="tokenizer_2", tokenizer_class="T5TokenizerFast", length=19, mask=True, long=150)))),
}

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("cases: " + ", ".join(CASES))
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    make, options = CASES[sys.argv[1]]
    make(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else HERE / sys.argv[1]), options)
