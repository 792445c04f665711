"""Parts of small pipelines: modules of random weights, tokenizers, and the folder that they make."""
import json
import os
import pathlib

import torch

HERE = pathlib.Path(__file__).resolve().parent
TOKENIZERS = pathlib.Path(os.environ.get("TOKENIZERS", HERE / "flux_dev" / "model"))


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


def derive_tokenizer(to, tokenizer, source):
    """Saves a tokenizer; files that are those of the linked one are links."""
    tokenizer.save_pretrained(to)
    for file in to.iterdir():
        same = TOKENIZERS / source / file.name
        if same.exists() and same.read_bytes() == file.read_bytes():
            file.unlink()
            file.symlink_to(os.path.relpath(same, to))


def link_clip_tokenizers(model):
    """The second pads with "!", as that of the wider encoder does."""
    from transformers import CLIPTokenizer

    link_tokenizer(model, "tokenizer")
    derive_tokenizer(model / "tokenizer_2", CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer", pad_token="!"), "tokenizer")


def clip(width, seed, projection=None, layers=2, heads=2, act="quick_gelu"):
    """`projection`: the width of a projected encoder."""
    import transformers as tf

    return randomise((tf.CLIPTextModelWithProjection if projection else tf.CLIPTextModel)(tf.CLIPTextConfig(
        vocab_size=1014, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=77, hidden_act=act, bos_token_id=0, eos_token_id=2, projection_dim=projection or width)), seed)


def t5(seed, **config):
    from transformers import T5Config, T5EncoderModel

    return randomise(T5EncoderModel(T5Config(**{"vocab_size": 1608, "d_kv": 8, "tie_word_embeddings": False, **config})), seed)


def autoencoder(channels, groups, latent, seed, **config):
    from diffusers import AutoencoderKL

    return randomise(AutoencoderKL(**{
        "block_out_channels": tuple(channels), "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels), "latent_channels": latent, "layers_per_block": 1,
        "norm_num_groups": groups, "sample_size": 32, **config}), seed)


def save_folder(model, pipeline, parts, tokenizers, **entries):
    """A pipeline's folder, but for its tokenizers, whose classes go into the index."""
    import diffusers

    index = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()}
    index |= {name: ["transformers", kind] for name, kind in tokenizers.items()} | entries
    for name, part in parts.items():
        part.save_pretrained(model / name)
    index = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__} | dict(sorted(index.items()))
    (model / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def open_folder(model, pipeline, **more):
    import diffusers

    pipe = getattr(diffusers, pipeline).from_pretrained(model, torch_dtype=torch.float32, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise_of(call, channels, spatial):
    prompts = len(call["prompt"]) if isinstance(call["prompt"], list) else 1
    size = (prompts * call.get("num_images_per_prompt", 1), channels, call["height"] // spatial, call["width"] // spatial)
    return torch.randn(size, generator=torch.Generator().manual_seed(7))
