"""Makers of cases of whole pipelines: the parts of each family, and what is recorded of a call."""
from parts import (TOKENIZERS, autoencoder, clip, derive_tokenizer, link_clip_tokenizers, link_tokenizer, noise_of, open_folder,
                   randomise, save_folder, t5)
from recorder import AnotherRun, Recorded, Run, hook_modules

NO_IMAGES = {"feature_extractor": [None, None], "image_encoder": [None, None]}


def write(recorded, folder, o, family, pipeline, **more):
    recorded.write(folder, {"seed_weights": o.get("seed", 1), "seed_noise": 7, "call": o["call"], "family": family,
                            "pipeline": pipeline, **more})


def is_outer(prefixes, others=()):
    """Blocks of the lists `prefixes`, and modules of the first level (or those of `others`)."""

    def wanted(name):
        parts = name.split(".")
        return len(parts) == 2 and parts[0] in prefixes or len(parts) == 1 and (not others or name in others)

    return wanted


def flux(folder, o):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    model, seed, latent, call, deep = folder / "model", o.get("seed", 1), o["latent"], o["call"], o.get("deep", True)
    for t in ("tokenizer", "tokenizer_2"):
        link_tokenizer(model, t)
    save_folder(model, "FluxPipeline", dict(
        text_encoder=clip(o["pooled"], seed, layers=o.get("clip_layers", 2), heads=o.get("clip_heads", 2),
                          act=o.get("clip_act", "quick_gelu")),
        text_encoder_2=t5(seed + 1, d_model=o["text"], d_kv=o.get("d_kv", 8), d_ff=2 * o["text"], num_layers=o.get("t5_layers", 2),
                          num_heads=o.get("t5_heads", 2), feed_forward_proj=o.get("t5_ff", "gated-gelu")),
        transformer=randomise(FluxTransformer2DModel(
            in_channels=4 * latent, num_layers=o["doubles"], num_single_layers=o["singles"], attention_head_dim=sum(o["axes"]),
            num_attention_heads=o["heads"], joint_attention_dim=o["text"], pooled_projection_dim=o["pooled"],
            guidance_embeds=o["guidance_embeds"], axes_dims_rope=tuple(o["axes"])), seed + 2),
        vae=autoencoder(o["vae"], o["groups"], latent, seed + 3, layers_per_block=o.get("vae_layers", 1),
                        sample_size=o.get("sample", 32), scaling_factor=o.get("scale", 0.3611), shift_factor=o.get("shift", 0.1159),
                        use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=o.get("vae_attention", True)),
        scheduler=FlowMatchEulerDiscreteScheduler(**o.get("scheduler", {}))),
        {"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"}, **NO_IMAGES)
    pipe, r = open_folder(model, "FluxPipeline"), Recorded()

    def is_wanted(name):
        parts = name.split(".")
        if parts[0] in ("transformer_blocks", "single_transformer_blocks"):
            return len(parts) == 2 or deep and len(parts) == 3 and parts[1] == "0"
        return len(parts) == 1 and name != "pos_embed" or deep and len(parts) == 2 and parts[0] == "time_text_embed"

    hook_modules(pipe.transformer, lambda name, value: r.add(f"block.{name}", value), lambda name: name == "pos_embed")
    spatial = 2 ** (len(o["vae"]) - 1)
    noise = noise_of(call, latent, spatial)
    packed = FluxPipeline._pack_latents(noise, *noise.shape)
    r.add("noise.packed", packed)
    Run(r, pipe, is_wanted, {"embeds": "encoder_hidden_states", "pooled": "pooled_projections"}).record(
        call, noise, packed, lambda x: FluxPipeline._unpack_latents(x, call["height"], call["width"], spatial))
    write(r, folder, o, "flux", "FluxPipeline")


def pixart(folder, o):
    import diffusers
    from transformers import T5Tokenizer

    pipeline, model, seed = o.get("pipeline", "PixArtSigmaPipeline"), folder / "model", o.get("seed", 1)
    link_tokenizer(model, "tokenizer", "tokenizer_2")
    latent = o["transformer"]["in_channels"]
    save_folder(model, pipeline, dict(
        text_encoder=t5(seed, num_layers=1, **o["t5"]),
        transformer=randomise(diffusers.PixArtTransformer2DModel(**o["transformer"]), seed + 1),
        vae=autoencoder(o["vae"], o["groups"], latent, seed + 2, scaling_factor=0.13025),
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, **o.get("scheduler", {}))),
        {"tokenizer": "T5Tokenizer"})
    pipe, r = open_folder(model, pipeline, tokenizer=T5Tokenizer.from_pretrained(model / "tokenizer")), Recorded()
    Run(r, pipe, is_outer(["transformer_blocks"], ("pos_embed", "adaln_single", "caption_projection", "proj_out"))).record(
        o["call"], noise_of(o["call"], latent, 2 ** (len(o["vae"]) - 1)))
    write(r, folder, o, "pixart", pipeline)


def sd3(folder, o):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    model, seed, latent = folder / "model", o.get("seed", 1), o["transformer"]["in_channels"]
    link_clip_tokenizers(model)
    link_tokenizer(model, "tokenizer_3", "tokenizer_2")
    (width, projection), (width_2, projection_2) = o["clip"], o["clip_2"]
    transformer = dict(joint_attention_dim=o["t5"]["d_model"], out_channels=latent, pooled_projection_dim=projection + projection_2,
                       caption_projection_dim=o["transformer"]["num_attention_heads"] * o["transformer"]["attention_head_dim"])
    save_folder(model, "StableDiffusion3Pipeline", dict(
        text_encoder=clip(width, seed, projection), text_encoder_2=clip(width_2, seed + 1, projection_2, layers=3, act="gelu"),
        text_encoder_3=t5(seed + 2, feed_forward_proj="gated-gelu", **o["t5"]),
        transformer=randomise(SD3Transformer2DModel(**transformer, **o["transformer"]), seed + 3),
        vae=autoencoder(o["vae"], o["groups"], latent, seed + 4, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
                        use_post_quant_conv=False),
        scheduler=FlowMatchEulerDiscreteScheduler(**o["scheduler"])),
        {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer", "tokenizer_3": "T5TokenizerFast"}, **NO_IMAGES)
    r = Recorded()
    Run(r, open_folder(model, "StableDiffusion3Pipeline"), is_outer(["transformer_blocks"]),
        {"embeds": "encoder_hidden_states", "pooled": "pooled_projections"}).record(
            o["call"], noise_of(o["call"], latent, 2 ** (len(o["vae"]) - 1)))
    write(r, folder, o, "sd3", "StableDiffusion3Pipeline", cfg="one call per step; first half of the batch negative")


def hunyuan_dit(folder, o):
    import torch
    from diffusers import DDPMScheduler, HunyuanDiT2DModel
    from transformers import BertConfig, BertModel, BertTokenizer, T5Tokenizer

    model, seed, latent = folder / "model", o.get("seed", 1), o["transformer"]["in_channels"]
    (model / "tokenizer").mkdir(parents=True, exist_ok=True)
    (model / "tokenizer" / "vocab.txt").write_text("\n".join(o["words"]) + "\n")
    BertTokenizer(str(model / "tokenizer" / "vocab.txt"), model_max_length=77).save_pretrained(model / "tokenizer")
    pieces = T5Tokenizer(str(TOKENIZERS / "tokenizer_2" / "spiece.model"), extra_ids=0, model_max_length=256, legacy=True)
    derive_tokenizer(model / "tokenizer_2", pieces, "tokenizer_2")
    save_folder(model, "HunyuanDiTPipeline", dict(
        text_encoder=randomise(BertModel(BertConfig(vocab_size=len(o["words"]), max_position_embeddings=80, **o["bert"])), seed),
        text_encoder_2=t5(seed + 1, vocab_size=len(pieces), feed_forward_proj="gated-gelu", **o["t5"]),
        transformer=randomise(HunyuanDiT2DModel(
            cross_attention_dim=o["bert"]["hidden_size"], cross_attention_dim_t5=o["t5"]["d_model"], patch_size=2,
            hidden_size=o["transformer"]["num_attention_heads"] * o["transformer"]["attention_head_dim"],
            **o["transformer"]), seed + 2),
        vae=autoencoder(o["vae"], o["groups"], latent, seed + 3, scaling_factor=0.13025),
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.03, beta_schedule="scaled_linear", prediction_type="v_prediction",
                                clip_sample=False, steps_offset=1, timestep_spacing="leading")),
        {"tokenizer": "BertTokenizer", "tokenizer_2": "T5Tokenizer"}, safety_checker=[None, None], feature_extractor=[None, None],
        requires_safety_checker=False)
    r = Recorded()
    inputs = {"embeds": "encoder_hidden_states", "mask": "text_embedding_mask", "embeds_2": "encoder_hidden_states_t5",
              "mask_2": "text_embedding_mask_t5"}

    def is_wanted(name):
        return is_outer(["blocks"])(name) or name == "time_extra_emb.pooler"

    Run(r, open_folder(model, "HunyuanDiTPipeline"), is_wanted, inputs, ("image_meta_size", "style", "image_rotary_emb")).record(
        {**o["call"], "generator": torch.Generator().manual_seed(7)}, noise_of(o["call"], latent, 2 ** (len(o["vae"]) - 1)))
    write(r, folder, o, "hunyuan_dit", "HunyuanDiTPipeline", generator_seed=7, cfg="one call per step; first half of the batch negative")


def sdxl(folder, o):
    """`runs`: what further calls have otherwise; those named no_... leave arguments out and are found by their name."""
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

    model, seed, latent, call = folder / "model", o.get("seed", 1), o["unet"]["in_channels"], o["call"]
    link_clip_tokenizers(model)
    width, (width_2, projection) = o["clip"], o["clip_2"]
    unet = dict(cross_attention_dim=width + width_2, out_channels=latent, addition_embed_type="text_time",
                projection_class_embeddings_input_dim=6 * o["unet"]["addition_time_embed_dim"] + projection)
    save_folder(model, "StableDiffusionXLPipeline", dict(
        text_encoder=clip(width, seed), text_encoder_2=clip(width_2, seed + 1, projection, layers=3, act="gelu"),
        unet=randomise(UNet2DConditionModel(**unet, **o["unet"]), seed + 2),
        vae=autoencoder(o["vae"], o["groups"], latent, seed + 3, scaling_factor=0.13025),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                                         timestep_spacing="leading")),
        {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"}, force_zeros_for_empty_prompt=True, **NO_IMAGES)
    pipe, r = open_folder(model, "StableDiffusionXLPipeline", add_watermarker=False), Recorded()
    noise = noise_of(call, latent, 2 ** (len(o["vae"]) - 1))
    inside = ("norm1", "norm2", "norm3", "proj_in", "proj_out", "conv1", "conv2", "conv_act", "conv_shortcut", "nonlinearity",
              "time_emb_proj", "time_proj", "add_time_proj")

    def is_wanted(name):
        parts = name.split(".")
        return parts[-1] not in inside and (len(parts) < 4 and parts[-1] != "norm" or parts[-2:-1] == ["transformer_blocks"])

    inputs = {"embeds": "encoder_hidden_states", "pooled": "text_embeds"}
    Run(r, pipe, is_wanted, inputs, ("added_cond_kwargs",), numbered=True).record(call, noise)
    for name, differs in o["runs"].items():
        Run(AnotherRun(r, name), pipe, lambda _: False, also=("added_cond_kwargs",), numbered=True).record({**call, **differs}, noise)
    about = {f"{name}_run": differs for name, differs in o["runs"].items() if not name.startswith("no_")}
    write(r, folder, o, "sdxl", "StableDiffusionXLPipeline", **about)
