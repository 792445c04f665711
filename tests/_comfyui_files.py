"""Small models of random weights in the published naming, which ComfyUI's own loaders take too: _comfyui_files.py COMFYUI MODELS"""

import importlib.util
import json
import pathlib
import shutil
import struct
import sys

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
comfyui, models = sys.argv[1:3]
sys.path.insert(0, comfyui)
sys.argv = [sys.argv[0], "--cpu"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.model_detection  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.utils  # noqa: E402
from comfy.ldm.hydit.models import HunYuanDiT  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.ldm.wan.model import VaceWanModel, WanModel  # noqa: E402
from comfy.ldm.wan.vae import WanVAE  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


# Last layers, which say how large a prediction is.
OUTPUTS = ("head.head.weight", "final_layer.linear.weight", "out.2.weight")


def fill(network, seed):
    """Random weights that keep numbers at the size of one: the bound of the tests is an absolute one."""
    generator = torch.Generator().manual_seed(seed)
    scales = {f"{name}.weight" for name, module in network.named_modules() if "Norm" in type(module).__name__}
    tensors = {}
    for name, tensor in network.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() < 2:
            drawn = drawn * 0.02 + (1 if name in scales else 0)
        else:
            drawn = drawn / tensor[0].numel() ** 0.5 * (0.1 if name in OUTPUTS else 1)
        tensors[name] = drawn.contiguous()
    return tensors


def sd3():
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}
    return OpenAISignatureMMDITWrapper(
        input_size=None,
        in_channels=16,
        patch_size=2,
        depth=2,
        pos_embed_max_size=64,
        num_patches=64 * 64,
        adm_in_channels=2048,
        context_embedder_config=embedder,
        qk_norm="rms",
        x_block_self_attn_layers=[0],
        pos_embed_scaling_factor=None,
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )


save_file(fill(sd3(), 0), f"{models}/diffusion_models/sd3_mini.safetensors")


def wan(kind=WanModel, channels=16, out=16, model_type="t2v", **more):
    return kind(
        model_type=model_type,
        dim=256,
        ffn_dim=512,
        num_heads=2,
        num_layers=2,
        in_dim=channels,
        out_dim=out,
        text_dim=4096,
        device="cpu",
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        **more,
    )


save_file(fill(wan(), 1), f"{models}/diffusion_models/wan_mini_high.safetensors")
save_file(fill(wan(), 2), f"{models}/diffusion_models/wan_mini_low.safetensors")
save_file(fill(wan(channels=36), 3), f"{models}/diffusion_models/wan_mini_i2v.safetensors")
save_file(fill(wan(channels=36), 14), f"{models}/diffusion_models/wan_mini_i2v_low.safetensors")
save_file(fill(wan(channels=36, model_type="i2v"), 5), f"{models}/diffusion_models/wan_mini_seeing.safetensors")
save_file(
    fill(wan(channels=36, model_type="i2v", flf_pos_embed_token_number=514), 6),
    f"{models}/diffusion_models/wan_mini_frames.safetensors",
)
save_file(fill(wan(channels=48, out=48), 7), f"{models}/diffusion_models/wan_mini_5b.safetensors")
save_file(fill(wan(VaceWanModel, vace_layers=1, vace_in_dim=96), 4), f"{models}/diffusion_models/wan_mini_vace.safetensors")


def wan_vae():
    """In the form that ComfyUI's own loader takes, which reads the width alone."""
    network = WanVAE(8, 16, [1, 2, 4, 4], 2, [], [False, True, True])
    save_file(fill(network, 15), f"{models}/vae/wan_mini_vae.safetensors")


wan_vae()


def write_gguf(tensors, path):
    """Matrices as Q8_0 (32 numbers and their scale in 16 bits), the rest as float32. -> the numbers that are then in the file.

    What has more sides than the form knows is folded, and its own shape said beside it, as ComfyUI-GGUF does.
    """
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    entries, data, kept = b"", b"", {}
    facts = [text("general.architecture") + struct.pack("<I", 8) + text("wan")]
    for name, tensor in tensors.items():
        is_matrix = tensor.dim() == 2 and tensor.shape[1] % 32 == 0 and name != "head.modulation"
        packed, kept[name] = tensor.numpy().tobytes(), tensor
        if is_matrix:
            groups = tensor.view(-1, 32)
            scales = (groups.abs().amax(1, keepdim=True) / 127).half()
            whole = (groups / scales.float()).round().to(torch.int8)
            packed = b"".join(s.numpy().tobytes() + w.numpy().tobytes() for s, w in zip(scales, whole))
            kept[name] = (scales.float() * whole).view(tensor.shape)
        sides = list(tensor.shape)[::-1]
        if len(sides) > 4:
            own = struct.pack(f"<IIQ{len(sides)}i", 9, 5, len(sides), *tensor.shape)
            facts.append(text(f"comfy.gguf.orig_shape.{name}") + own)
            sides = [tensor[0].numel(), tensor.shape[0]]
        entries += text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, 8 if is_matrix else 0, len(data))
        data += packed + bytes(-len(packed) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)) + b"".join(facts) + entries
    pathlib.Path(path).write_bytes(head + bytes(-len(head) % 32) + data)
    return kept


def wan_forms():
    """Ways in which Wan's files are published: prefixes, 8-bit floats as they are, with scales in two namings."""
    # ComfyUI keeps the biases of scaled files in 8 bits, whatever the file has.
    tensors = {n: t.to(torch.float8_e4m3fn).float() if n.endswith(".bias") else t for n, t in fill(wan(), 1).items()}
    linear = [n.removesuffix(".weight") for n, t in tensors.items() if n.endswith(".weight") and t.dim() == 2]
    rest = {n: t for n, t in tensors.items() if n.removesuffix(".weight") not in linear}
    scales = {n: tensors[f"{n}.weight"].abs().max() / 448 for n in linear}
    scaled = {f"{n}.weight": (tensors[f"{n}.weight"] / scale).to(torch.float8_e4m3fn) for n, scale in scales.items()}

    def named(ending):
        return {**rest, **scaled, **{f"{n}.{ending}": scale for n, scale in scales.items()}}

    layer = {"format": "float8_e4m3fn"}
    said = json.dumps({"format_version": "1.0", "layers": dict.fromkeys(linear, layer)})
    said_by_layer = {f"{n}.comfy_quant": torch.tensor(list(json.dumps(layer).encode()), dtype=torch.uint8) for n in linear}
    forms = {
        "fp8": ({**rest, **{f"{n}.weight": tensors[f"{n}.weight"].to(torch.float8_e4m3fn) for n in linear}}, None),
        "scaled": ({"scaled_fp8": torch.ones(2).to(torch.float8_e4m3fn), **named("scale_weight")}, None),
        "quantised": (named("weight_scale"), {"_quantization_metadata": said}),
        "quantised_by_layer": ({**named("weight_scale"), **said_by_layer}, None),
        "prefixed": ({f"model.diffusion_model.{n}": t for n, t in tensors.items()}, None),
        "prefixed_by_trainers": ({f"diffusion_model.{n}": t for n, t in tensors.items()}, None),
        "bare": (tensors, None),
    }
    for name, (stored, metadata) in forms.items():
        save_file(stored, f"{models}/diffusion_models/wan_mini_{name}.safetensors", metadata)


wan_forms()
quantised = write_gguf(fill(wan(), 1), f"{models}/diffusion_models/wan_mini_q8.gguf")
save_file(quantised, f"{models}/diffusion_models/wan_mini_q8_as_read.safetensors")

def wan_published(tensors):
    """The names of diffusers, of a model with the layers of a recorded one."""
    spec = importlib.util.spec_from_file_location("wan_names", ROOT / "comfyui/atelier/wan_names.py")
    names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    known = load_file(ROOT / "tests/goldens/wan_experts/model/transformer/diffusion_pytorch_model.safetensors")
    return {name: tensors[original] for original, name in names.original({name: name for name in known}).items()}


def wan_experts(name, high, low, channels=16, **index):
    """A folder with two of the files above as its denoisers. index: of model_index.json."""
    folder = pathlib.Path(models, "diffusers", name)
    shutil.copytree(ROOT / "tests/goldens/wan_experts/model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    said = folder / "model_index.json"
    said.write_text(json.dumps({**json.loads(said.read_text()), **index}))
    for part, file in (("transformer", high), ("transformer_2", low)):
        config = json.loads((folder / part / "config.json").read_text())
        sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 512, "freq_dim": 256, "text_dim": 4096}
        (folder / part / "config.json").write_text(json.dumps({**config, **sizes, "in_channels": channels, "out_channels": 16}))
        tensors = load_file(f"{models}/diffusion_models/wan_mini_{file}.safetensors")
        save_file(wan_published(tensors), folder / part / "diffusion_pytorch_model.safetensors")


wan_experts("wan_mini_experts", "high", "low")
image = {"_class_name": "WanImageToVideoPipeline", "boundary_ratio": 0.9}
wan_experts("wan_mini_i2v_experts", "i2v", "i2v_low", channels=36, **image)


def unet():
    """SDXL's: two levels with transformers below one without, 32 groups and heads of 64 channels."""
    return UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_res_blocks=[2, 2, 2],
        channel_mult=[1, 2, 4],
        num_head_channels=64,
        use_spatial_transformer=True,
        transformer_depth=[0, 0, 1, 1, 2, 2],
        transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2],
        transformer_depth_middle=2,
        use_linear_in_transformer=True,
        context_dim=2048,
        adm_in_channels=2816,
        num_classes="sequential",
        device="cpu",
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )


drawn = fill(unet(), 8)
checkpoint = {f"model.diffusion_model.{name}": tensor for name, tensor in drawn.items()}
save_file(drawn, f"{models}/diffusion_models/sdxl_mini.safetensors")
for name, marks in (
    ("v", {"v_pred": torch.zeros(1)}),
    ("edm", {"edm_mean": torch.zeros(1, 4, 1, 1), "edm_std": torch.ones(1, 4, 1, 1)}),
    ("edm_v", {"edm_vpred.sigma_max": torch.tensor(90.0), "edm_vpred.sigma_min": torch.tensor(0.01)}),
):
    save_file(checkpoint | marks, f"{models}/checkpoints/sdxl_mini_{name}.safetensors")


def diffusers_folder(name, like, part, config, tensors, scheduler):
    """A denoiser with its config and scheduler; of the other parts the configs alone, those of a recorded model."""
    folder = f"{models}/diffusers/{name}"
    shutil.copytree(f"{ROOT}/tests/goldens/{like}/model", folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    with open(f"{folder}/model_index.json", encoding="utf-8") as file:
        index = json.load(file)
    files = {
        f"{part}/config.json": {"_class_name": index[part][1], **config},
        "scheduler/scheduler_config.json": scheduler,
    }
    for path, value in files.items():
        with open(f"{folder}/{path}", "w", encoding="utf-8") as file:
            json.dump(value, file)
    save_file(tensors, f"{folder}/{part}/diffusion_pytorch_model.safetensors")


SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction"}
table = comfy.utils.unet_to_diffusers(comfy.model_detection.detect_unet_config(drawn, ""))
published = {stock: name for name, stock in table.items() if not name.startswith("class_embedding")}
diffusers_folder(
    "sdxl_mini_v",
    "sdxl_small",
    "unet",
    {
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [1, 1, 2],
        "block_out_channels": [32, 64, 128],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2,
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": [1, 1, 2],
        "use_linear_projection": True,
        "sample_size": 16,
    },
    {published[name]: tensor for name, tensor in drawn.items()},
    {"_class_name": "EulerDiscreteScheduler", **SCHEDULER},
)


def hunyuan(**more):
    return HunYuanDiT(depth=6, device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init, **more)


# As ComfyUI's loader takes it: heads of a 16th of the width, texts of the published widths.
save_file(fill(hunyuan(hidden_size=128), 9), f"{models}/diffusion_models/hunyuan_mini.safetensors")
narrow = {"hidden_size": 96, "num_heads": 6, "text_states_dim": 32, "text_states_dim_t5": 48}
drawn = fill(hunyuan(size_cond=True, use_style_cond=True, **narrow), 10)
save_file(drawn, f"{models}/diffusion_models/hunyuan_mini_sizes.safetensors")

HUNYUAN = (
    ("x_embedder.proj.", "pos_embed.proj."),
    ("t_embedder.mlp.0.", "time_extra_emb.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "time_extra_emb.timestep_embedder.linear_2."),
    ("extra_embedder.0.", "time_extra_emb.extra_embedder.linear_1."),
    ("extra_embedder.2.", "time_extra_emb.extra_embedder.linear_2."),
    ("style_embedder.", "time_extra_emb.style_embedder."),
    ("pooler.", "time_extra_emb.pooler."),
    ("mlp_t5.0.", "text_embedder.linear_1."),
    ("mlp_t5.2.", "text_embedder.linear_2."),
    ("final_layer.linear.", "proj_out."),
    (".norm1.", ".norm1.norm."),
    (".default_modulation.1.", ".norm1.linear."),
    (".out_proj.", ".to_out.0."),
    (".q_norm.", ".norm_q."),
    (".k_norm.", ".norm_k."),
    (".attn2.q_proj.", ".attn2.to_q."),
    (".mlp.fc1.", ".ff.net.0.proj."),
    (".mlp.fc2.", ".ff.net.2."),
)


def hunyuan_published(tensors):
    """The names of diffusers: fused tensors are apart there, two norms change their names, scale comes before shift."""
    out = {}
    for name, tensor in tensors.items():
        if ".norm2." in name or ".norm3." in name:
            out[name.replace(".norm2.", ".norm#.").replace(".norm3.", ".norm2.").replace(".norm#.", ".norm3.")] = tensor
            continue
        if name.startswith("final_layer.adaLN_modulation.1."):
            shift, scale = tensor.chunk(2)
            out["norm_out.linear." + name.rpartition(".")[2]] = torch.cat([scale, shift])
            continue
        for fused, parts in ((".attn1.Wqkv.", "qkv"), (".attn2.kv_proj.", "kv")):
            if fused in name:
                for part, piece in zip(parts, tensor.chunk(len(parts))):
                    out[name.replace(fused, f"{fused[:7]}to_{part}.")] = piece.contiguous()
                break
        else:
            for stock, published in HUNYUAN:
                if name.startswith(stock) or stock[0] == "." and stock in name:
                    name = name.replace(stock, published, 1)
            out[name] = tensor
    return out


diffusers_folder(
    "hunyuan_mini",
    "hunyuan_small",
    "transformer",
    {
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "cross_attention_dim_t5": 48,
        "hidden_size": 96,
        "mlp_ratio": 4.0,
        "num_attention_heads": 6,
        "num_layers": 6,
        "pooled_projection_dim": 1024,
    },
    hunyuan_published(drawn),
    {"_class_name": "DDPMScheduler", **SCHEDULER, "beta_end": 0.03},
)


def lora(seed, shapes, rank=4, prefix="diffusion_model."):
    """shapes: of the weights, a convolution's windows behind its channels."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, (rows, columns, *window) in shapes.items():
        up, down = (rows, rank, *(1 for _ in window)), (rank, columns, *window)
        tensors[f"{prefix}{layer}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.1
        tensors[f"{prefix}{layer}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.1
        tensors[f"{prefix}{layer}.alpha"] = torch.tensor(float(rank) / 2)
    return tensors


save_file(
    lora(1, {"joint_blocks.0.x_block.attn.qkv": (384, 128), "joint_blocks.1.x_block.mlp.fc1": (512, 128)}),
    f"{models}/loras/sd3_mini_lora.safetensors",
)
save_file(
    lora(2, {"blocks.0.self_attn.q": (256, 256), "blocks.1.ffn.0": (512, 256)}),
    f"{models}/loras/wan_mini_lora.safetensors",
)
# Both spellings that trainers of SDXL write, of linear layers and of convolutions.
unet_layers = {
    "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q": (64, 64),
    "down_blocks_1_attentions_1_transformer_blocks_0_attn2_to_v": (64, 2048),
    "input_blocks_8_1_transformer_blocks_1_ff_net_0_proj": (1024, 128),
    "down_blocks_0_resnets_0_conv1": (32, 32, 3, 3),
    "up_blocks_0_resnets_0_conv2": (128, 128, 3, 3),
}
save_file(lora(3, unet_layers, prefix="lora_unet_"), f"{models}/loras/sdxl_mini_lora.safetensors")
save_file(lora(4, {"blocks.0.attn1.Wqkv": (288, 96), "blocks.4.skip_linear": (96, 192)}), f"{models}/loras/hunyuan_mini_lora.safetensors")

# mini-video in the original naming; and once more for texts as wide as UNETLoader takes for granted, the added columns zero.
mini = {name: tensor.float() for name, tensor in load_file(f"{models}/diffusion_models/mini_video.safetensors").items()}
narrow = mini["text_embedding.0.weight"]
mini["text_embedding.0.weight"] = torch.nn.functional.pad(narrow, (0, 4096 - narrow.shape[1]))
save_file(mini, f"{models}/diffusion_models/mini_video_wide.safetensors")
