"""Times diffusers' pipelines of the other families with random weights: eager, and with their denoiser and decoder compiled.

python3 tools/bench/diffusers_families.py --out FILE [--only TEXT ...] [--steps 10] [--runs 3]
    [--video_size 832x480] [--video_steps 2]

Per family, in the sizes of the published model and bfloat16, on one GPU: milliseconds per step of the denoising loop (both
branches of guidance and the scheduler in it), milliseconds of decoding and of encoding (eager in both), seconds of a whole
picture or video, peak memory, seconds of compiling: medians, least and most of the runs after warm-ups.
Transformers are compiled block by block, the UNet whole with CUDA graphs, its weights channels last.
"""

import argparse
import json
import time

import diffusers
import torch
import transformers
from diffusers import (AutoencoderKL, AutoencoderKLWan, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
                       FlowMatchEulerDiscreteScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline, PixArtSigmaPipeline,
                       PixArtTransformer2DModel, SD3Transformer2DModel, StableDiffusion3Pipeline,
                       StableDiffusionXLPipeline, UNet2DConditionModel, UniPCMultistepScheduler, WanPipeline,
                       WanTransformer3DModel)
from transformers import (BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config,
                          T5EncoderModel, UMT5Config, UMT5EncoderModel)

from diffusers_parts import T5, time_calls

SDXL_UNET = dict(sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                 transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], cross_attention_dim=2048,
                 addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
                 use_linear_projection=True)
SD3 = dict(sample_size=128, patch_size=2, in_channels=16, out_channels=16, attention_head_dim=64,
           joint_attention_dim=4096, pooled_projection_dim=2048, pos_embed_max_size=192)
HUNYUAN = dict(num_attention_heads=16, attention_head_dim=88, in_channels=4, patch_size=2,
               activation_fn="gelu-approximate", sample_size=128, hidden_size=1408, num_layers=40, mlp_ratio=4.3637,
               learn_sigma=True, cross_attention_dim=1024, cross_attention_dim_t5=2048, pooled_projection_dim=1024,
               text_len=77, text_len_t5=256, use_style_cond_and_image_meta_size=False)
PIXART = dict(num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=28,
              cross_attention_dim=1152, sample_size=128, patch_size=2, caption_channels=4096,
              use_additional_conditions=False, interpolation_scale=2)
WAN = dict(attention_head_dim=128, cross_attn_norm=True, qk_norm="rms_norm_across_heads")
MT5_XL = dict(d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32, vocab_size=250112,
              feed_forward_proj="gated-gelu")
UMT5_XXL = T5 | dict(vocab_size=256384)
CLIP_L = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
CLIP_G = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
              projection_dim=1280, hidden_act="gelu")
CHINESE_BERT = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
                    vocab_size=47020)


def normal(*sizes):
    """Random numbers as the models take them."""
    return torch.randn(*sizes, device="cuda", dtype=torch.bfloat16)


def on_gpu(build):
    """A model in bfloat16 with small random weights, made on the GPU."""
    with torch.device("meta"):
        model = build()
    model = model.to(torch.bfloat16).to_empty(device="cuda").eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    for name, buffer in model.named_buffers():
        buffer.normal_(std=0.02) if buffer.is_floating_point() else buffer.zero_()
    return model


def picture_vae(channels: int):
    """The autoencoder of pictures; that of 4 channels has its two 1 x 1 convolutions."""
    return on_gpu(lambda: AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels, norm_num_groups=32,
        use_quant_conv=channels == 4, use_post_quant_conv=channels == 4, shift_factor=0.0 if channels == 4 else 0.0609,
        force_upcast=False))


def encoder(kind, config, tokens: int):
    """A call of a text encoder over one prompt and an empty one."""
    model = on_gpu(lambda: kind(config))
    ids = torch.randint(0, 20000, (2, tokens), device="cuda")
    return lambda: model(input_ids=ids)


def clips():
    return [encoder(CLIPTextModel, CLIPTextConfig(**CLIP_L), 77),
            encoder(CLIPTextModelWithProjection, CLIPTextConfig(**CLIP_G), 77)]


def pairs(**embeddings) -> dict:
    """What is given for the prompt, given for the negative prompt too."""
    return embeddings | {f"negative_{name}": value.clone() for name, value in embeddings.items()}


def sdxl():
    unet = on_gpu(lambda: UNet2DConditionModel(**SDXL_UNET)).to(memory_format=torch.channels_last)
    pipeline = StableDiffusionXLPipeline(
        vae=picture_vae(4), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False)
    call = pairs(prompt_embeds=normal(1, 77, 2048), pooled_prompt_embeds=normal(1, 1280))
    return pipeline, call | dict(guidance_scale=5.0), clips(), normal(1, 4, 128, 128)


def sd3(layers: int, heads: int, **more):
    transformer = on_gpu(lambda: SD3Transformer2DModel(
        num_layers=layers, num_attention_heads=heads, caption_projection_dim=64 * heads, **SD3, **more))
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=picture_vae(16),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None)
    call = pairs(prompt_embeds=normal(1, 333, 4096), pooled_prompt_embeds=normal(1, 2048))
    t5 = encoder(T5EncoderModel, T5Config(**T5), 256)
    return pipeline, call | dict(guidance_scale=7.0), [*clips(), t5], normal(1, 16, 128, 128)


def pixart():
    pipeline = PixArtSigmaPipeline(
        tokenizer=None, text_encoder=None, vae=picture_vae(4),
        transformer=on_gpu(lambda: PixArtTransformer2DModel(**PIXART)), scheduler=DPMSolverMultistepScheduler())
    call = pairs(prompt_embeds=normal(1, 300, 4096),
                 prompt_attention_mask=torch.ones(1, 300, device="cuda", dtype=torch.long))
    call |= dict(negative_prompt=None, guidance_scale=4.5)
    return pipeline, call, [encoder(T5EncoderModel, T5Config(**T5), 300)], normal(1, 4, 128, 128)


def hunyuan():
    pipeline = HunyuanDiTPipeline(
        vae=picture_vae(4), text_encoder=None, tokenizer=None,
        transformer=on_gpu(lambda: HunyuanDiT2DModel(**HUNYUAN)), scheduler=DDPMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False, text_encoder_2=None, tokenizer_2=None)
    ones = dict(device="cuda", dtype=torch.long)
    call = pairs(prompt_embeds=normal(1, 77, 1024), prompt_embeds_2=normal(1, 256, 2048),
                 prompt_attention_mask=torch.ones(1, 77, **ones), prompt_attention_mask_2=torch.ones(1, 256, **ones))
    encoders = [encoder(BertModel, BertConfig(**CHINESE_BERT), 77), encoder(T5EncoderModel, T5Config(**MT5_XL), 256)]
    return pipeline, call | dict(guidance_scale=5.0), encoders, normal(1, 4, 128, 128)


def wan(layers: int, heads: int, inner: int, width: int, height: int):
    """A video of 81 frames."""
    transformer = on_gpu(lambda: WanTransformer3DModel(num_layers=layers, num_attention_heads=heads, ffn_dim=inner, **WAN))
    rope = type(transformer.rope)(128, transformer.config.patch_size, transformer.config.rope_max_seq_len)
    transformer.rope = rope.to("cuda")  # its tables are buffers, which were made of random numbers
    vae = on_gpu(AutoencoderKLWan)
    pipeline = WanPipeline(tokenizer=None, text_encoder=None, vae=vae, transformer=transformer,
                           scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                                             flow_shift=3.0))
    call = pairs(prompt_embeds=normal(1, 512, 4096)) | dict(height=height, width=width, num_frames=81, guidance_scale=5.0)
    return pipeline, call, [encoder(UMT5EncoderModel, UMT5Config(**UMT5_XXL), 512)], normal(1, 16, 21, height // 8, width // 8)


FAMILIES = {
    "stable-diffusion-xl-base-1.0": sdxl,
    "stable-diffusion-3-medium": lambda: sd3(24, 24),
    "stable-diffusion-3.5-large": lambda: sd3(38, 38, qk_norm="rms_norm"),
    "PixArt-Sigma-XL-2-1024-MS": pixart,
    "HunyuanDiT-v1.2-Diffusers": hunyuan,
    "Wan2.1-T2V-1.3B-Diffusers": lambda *size: wan(30, 12, 8960, *size),
    "Wan2.1-T2V-14B-Diffusers": lambda *size: wan(40, 40, 13824, *size),
}


def scaled(times: dict, factor: float) -> dict:
    return {key: value if key == "runs" else value * factor for key, value in times.items()}


def compile_denoiser(pipeline) -> None:
    """As each model's authors show it."""
    if hasattr(pipeline, "unet"):
        pipeline.unet = torch.compile(pipeline.unet, mode="reduce-overhead", fullgraph=True)
    else:
        for name in ("transformer_blocks", "blocks"):
            for block in getattr(pipeline.transformer, name, ()):
                block.compile(fullgraph=True)


def time_pipeline(pipeline, call: dict, latents, steps: int, runs: int) -> dict:
    """The denoising loop, the decoder, and both with all that is around them. One run: as few calls as there can be."""
    warmups = min(2, runs)

    def draw(output: str):
        return lambda: pipeline(**call, num_inference_steps=steps, output_type=output)

    row = dict(ms_per_step=scaled(time_calls(draw("latent"), runs, warmups), 1 / steps),
               decode_ms=time_calls(lambda: pipeline.vae.decode(latents, return_dict=False), runs, warmups))
    torch.cuda.reset_peak_memory_stats()
    row["picture_s"] = scaled(time_calls(draw("pt"), runs, warmups - 1), 1e-3)
    row["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def time_family(name: str, steps: int, runs: int, *size: int) -> dict:
    """All of one family; its encoders are measured alone and then freed. size: width and height of a video."""
    pipeline, call, encoders, latents = FAMILIES[name](*size)
    pipeline.set_progress_bar_config(disable=True)
    encode = time_calls(lambda: [each() for each in encoders], runs, 2)
    encoders.clear()
    row = dict(steps=steps, encode_ms=encode, eager=time_pipeline(pipeline, call, latents, steps, runs))
    print(name, row, flush=True)
    started = time.perf_counter()
    compile_denoiser(pipeline)
    if isinstance(pipeline.vae, AutoencoderKL):
        pipeline.vae.to(memory_format=torch.channels_last)
        pipeline.vae.decoder = torch.compile(pipeline.vae.decoder, mode="reduce-overhead", fullgraph=True)
    else:  # frame by frame with caches in Python: blocks one by one
        for block in (pipeline.vae.decoder.mid_block, *pipeline.vae.decoder.up_blocks):
            block.compile()
    try:
        row["compiled"] = time_pipeline(pipeline, call, latents, steps, runs)
        row["compiled"]["seconds_with_compiling"] = time.perf_counter() - started
    except Exception as error:  # that something cannot be compiled is a result too
        row["compiled"] = dict(error=str(error)[:300])
    print(name, "compiled", row["compiled"], flush=True)
    return row


def main() -> None:
    """Times the families and writes the result file after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--video_size", default="832x480")
    parser.add_argument("--video_steps", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    result = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, diffusers=diffusers.__version__,
                  transformers=transformers.__version__, families={})
    for name in FAMILIES:
        if not any(text in name for text in args.only):
            continue
        try:
            if name.startswith("Wan"):
                row = time_family(name, args.video_steps, 1, *map(int, args.video_size.split("x")))
            else:
                row = time_family(name, args.steps, args.runs)
        except Exception as error:
            row = dict(error=str(error)[:300])
            print(name, row, flush=True)
        result["families"][name] = row
        torch.compiler.reset()
        torch.cuda.empty_cache()
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
