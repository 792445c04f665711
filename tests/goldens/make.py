#!/usr/bin/env python3
"""Makes recorded cases with the reference libraries: small models of random weights and what diffusers and transformers compute with them.

    python tests/goldens/make.py CASE [FOLDER]      # without CASE: lists them

Needs torch 2.11.0, diffusers 0.39.0 and transformers 4.57.6 (CPU, float32, one thread); tokenizers are linked from the case flux_dev.
"""
import pathlib
import sys

import torch

from parts import HERE, link_tokenizer, randomise
from pipelines import flux, hunyuan_dit, pixart, sd3, sdxl
from recorder import Recorded, hook_modules
from videos import wan

FOX = "A red fox asleep on a mossy stone, soft morning light"
BOATS = "two paper boats, watercolor (high detail), 35mm"


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
WAN = dict(num_attention_heads=3, attention_head_dim=6, ffn_dim=28, freq_dim=12)
WAN_VAE = dict(base_dim=2, z_dim=4, dim_mult=[1, 1, 1, 2], num_res_blocks=1, temperal_downsample=[False, True, True])
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
    # attention over the picture alone in the first block, a last one without text behind it, three encoders; committed
    "sd3_small": (sd3, dict(
        clip=[6, 6], clip_2=[4, 8], t5=dict(d_model=12, d_kv=4, d_ff=20, num_layers=1, num_heads=3), vae=[4, 4], groups=2,
        scheduler=dict(shift=3.0),
        transformer=dict(sample_size=8, in_channels=4, num_layers=3, attention_head_dim=4, num_attention_heads=3,
                         pos_embed_max_size=12, dual_attention_layers=(0,), qk_norm="rms_norm"),
        call=dict(prompt=[FOX, BOATS], negative_prompt=["blurry, low quality", ""], height=16, width=20, num_inference_steps=3,
                  guidance_scale=4.0, max_sequence_length=9))),
    # sizes and style as conditions, two long skips, words and characters beside unknown ones; committed
    "hunyuan_small": (hunyuan_dit, dict(
        words=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"(),-0123456789abcdefghijklmnopqrstuvwxyz",
               *("##" + c for c in "abcdefghijklmnopqrstuvwxyz"), *"一上只在头狐狸的石睡红色", "oil", "paint", "##ing", "boats"],
        bert=dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2),
        t5=dict(d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=3), vae=[4, 4, 4, 4], groups=2,
        transformer=dict(num_attention_heads=2, attention_head_dim=4, in_channels=4, sample_size=16, num_layers=6, mlp_ratio=2.5,
                         pooled_projection_dim=6, use_style_cond_and_image_meta_size=True),
        call=dict(prompt="一只红色的狐狸 睡在石头上, oil painting 龘", negative_prompt="blurry", height=48, width=32,
                  num_inference_steps=3, guidance_scale=3.0, original_size=[512, 768], target_size=[640, 480],
                  crops_coords_top_left=[8, 24], use_resolution_binning=False))),
    # two levels that become odd, attention of one and two blocks, the last way up without; committed
    "sdxl_small": (sdxl, dict(
        clip=8, clip_2=[6, 10], vae=[4, 4, 4, 4], groups=2,
        unet=dict(sample_size=8, in_channels=4, down_block_types=("CrossAttnDownBlock2D",) * 2,
                  up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(8, 12), layers_per_block=1,
                  transformer_layers_per_block=(1, 2), attention_head_dim=(2, 3), norm_num_groups=4, addition_time_embed_dim=8,
                  use_linear_projection=True),
        call=dict(prompt=FOX, negative_prompt="blurry, low quality", height=40, width=24, num_inference_steps=3, guidance_scale=6.0),
        runs=dict(no_negative=dict(negative_prompt=None),
                  sizes=dict(prompt_2=BOATS, original_size=[70, 50], crops_coords_top_left=[3, 5], target_size=[64, 96],
                             guidance_rescale=0.7)))),
    # two experts with a scale each, an odd number of heads; committed
    "wan_experts": (wan, dict(
        t5=dict(d_model=8, d_kv=4, d_ff=12, num_heads=2), vae=WAN_VAE, shift=5.0, index=dict(boundary_ratio=0.8),
        transformer=dict(**WAN, num_layers=2, in_channels=4, out_channels=4),
        call=dict(prompt=" A red fox &amp;amp;  asleep", negative_prompt="blurry", height=16, width=48, num_frames=5,
                  num_inference_steps=4, guidance_scale=4.0, guidance_scale_2=2.5, max_sequence_length=20))),
    # first and last frame, seen by an image encoder as well; committed
    "wan_frames": (wan, dict(
        t5=dict(d_model=8, d_kv=4, d_ff=12, num_heads=2), vae=WAN_VAE, shift=3.0, pipeline="WanImageToVideoPipeline",
        transformer=dict(**WAN, num_layers=2, in_channels=12, out_channels=4, image_dim=8, added_kv_proj_dim=18, pos_embed_seq_len=10),
        vision=dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=12, patch_size=6,
                    hidden_act="gelu"),
        like="wan_experts", keeps_video=False, blocks=("blocks", "patch_embedding", "proj_out"),
        call=dict(prompt=FOX, height=32, width=16, num_frames=5, num_inference_steps=3, guidance_scale=3.0, image=(21, 45, 0.3),
                  last_image=(40, 33, 1.1)))),
    # a first frame in the place of latents, tokens of two times; committed
    "wan_first": (wan, dict(
        t5=dict(d_model=8, d_kv=4, d_ff=12, num_heads=2), vae=WAN_VAE, shift=5.0, index=dict(expand_timesteps=True),
        pipeline="WanImageToVideoPipeline", transformer=dict(**WAN, num_layers=2, in_channels=4, out_channels=4),
        like="wan_experts", keeps_video=False, blocks=("blocks", "patch_embedding", "proj_out"),
        call=dict(prompt=FOX, height=16, width=32, num_frames=9, num_inference_steps=3, guidance_scale=3.0, image=(37, 50, 0.7),
                  max_sequence_length=16))),
    # a control video with its mask and a reference picture; committed
    "wan_steered": (wan, dict(
        t5=dict(d_model=8, d_kv=4, d_ff=12, num_heads=2), vae=WAN_VAE, shift=3.0, pipeline="WanVACEPipeline",
        transformer=dict(**WAN, num_layers=3, in_channels=4, out_channels=4, vace_layers=[0, 2], vace_in_channels=72),
        like="wan_experts", keeps_video=False,
        call=dict(prompt=FOX, negative_prompt="blurry", height=32, width=32, num_frames=5, num_inference_steps=3, guidance_scale=3.0,
                  video=[(32, 32, 0.1 * i) for i in range(5)], mask=[(32, 32, 2 + 0.4 * i) for i in range(5)],
                  reference_images=(30, 41, 0.9), conditioning_scale=[1.0, 0.6], max_sequence_length=16))),
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
                               linear=True),
            # a last bit of the denoiser's input shows in single elements of the path
            heun_sample=dict(**{"class": "HeunDiscreteScheduler"},
                             config=dict(beta_schedule="squaredcos_cap_v2", prediction_type="sample", num_train_timesteps=700,
                                         timestep_spacing="trailing"))))),
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
