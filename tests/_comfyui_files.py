"""Small models of random weights in the published naming, which ComfyUI's own loaders take too: _comfyui_files.py COMFYUI MODELS"""

import sys

import torch

comfyui, models = sys.argv[1:3]
sys.path.insert(0, comfyui)
sys.argv = [sys.argv[0], "--cpu"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.ops  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper  # noqa: E402
from comfy.ldm.wan.model import VaceWanModel, WanModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


# Last layers, which say how large a prediction is.
OUTPUTS = ("head.head.weight", "final_layer.linear.weight")


def fill(network, seed):
    """Random weights that keep numbers at the size of one: the bound of the tests is an absolute one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in network.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() < 2:
            drawn = drawn * 0.02 + (1 if name.endswith(("ln_q.weight", "ln_k.weight", "norm_q.weight", "norm_k.weight")) else 0)
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


def wan(kind=WanModel, channels=16, **more):
    return kind(
        model_type="t2v",
        dim=256,
        ffn_dim=512,
        num_heads=2,
        num_layers=2,
        in_dim=channels,
        out_dim=16,
        text_dim=4096,
        device="cpu",
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        **more,
    )


save_file(fill(wan(), 1), f"{models}/diffusion_models/wan_mini_high.safetensors")
save_file(fill(wan(), 2), f"{models}/diffusion_models/wan_mini_low.safetensors")
save_file(fill(wan(channels=36), 3), f"{models}/diffusion_models/wan_mini_i2v.safetensors")
save_file(fill(wan(VaceWanModel, vace_layers=1, vace_in_dim=96), 4), f"{models}/diffusion_models/wan_mini_vace.safetensors")


def lora(seed, shapes, rank=4):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, (rows, columns) in shapes.items():
        tensors[f"diffusion_model.{layer}.lora_up.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
        tensors[f"diffusion_model.{layer}.lora_down.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
        tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(float(rank) / 2)
    return tensors


save_file(
    lora(1, {"joint_blocks.0.x_block.attn.qkv": (384, 128), "joint_blocks.1.x_block.mlp.fc1": (512, 128)}),
    f"{models}/loras/sd3_mini_lora.safetensors",
)
save_file(
    lora(2, {"blocks.0.self_attn.q": (256, 256), "blocks.1.ffn.0": (512, 256)}),
    f"{models}/loras/wan_mini_lora.safetensors",
)

# mini-video in the original naming; and once more for texts as wide as UNETLoader takes for granted, the added columns zero.
mini = {name: tensor.float() for name, tensor in load_file(f"{models}/diffusion_models/mini_video.safetensors").items()}
narrow = mini["text_embedding.0.weight"]
mini["text_embedding.0.weight"] = torch.nn.functional.pad(narrow, (0, 4096 - narrow.shape[1]))
save_file(mini, f"{models}/diffusion_models/mini_video_wide.safetensors")
