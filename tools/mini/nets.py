"""The networks of mini: sizes, construction, the reader that teaches the text encoder, and how latents are packed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from text import IGNORE, SCENE_FIELDS, SLOTS, THING_FIELDS

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 8,
    "block_out_channels": [32, 48, 64, 64],
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "act_fn": "silu",
    "sample_size": 256,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": True,
}
TRANSFORMER = {
    "patch_size": 1,
    "in_channels": 32,
    "num_layers": 2,
    "num_single_layers": 6,
    "attention_head_dim": 16,
    "num_attention_heads": 12,
    "joint_attention_dim": 128,
    "pooled_projection_dim": 64,
    "guidance_embeds": False,
    "axes_dims_rope": [4, 6, 6],
}
T5 = {
    "vocab_size": 160,
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
CLIP = {
    "vocab_size": 776,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 64,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 774,
    "eos_token_id": 775,
    "pad_token_id": 775,
}
LATENT_SIDE = 32  # latents are [8, 32, 32]
TOKENS_SIDE = 16  # packed two by two: 16 x 16 tokens of 32 numbers


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def build_vae() -> AutoencoderKL:
    """The autoencoder, untrained."""
    return AutoencoderKL(**VAE)


def build_t5() -> T5EncoderModel:
    """The T5 encoder, untrained (queries start small, as T5's initialisation wants: its logits are not scaled)."""
    t5 = T5EncoderModel(T5Config(**T5))
    _start_position_biases(position_biases(t5))
    return t5


def position_biases(t5: nn.Module) -> Tensor:
    """T5's learned bias for each bucket of distances and each head: [32, 4]."""
    return t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight


@torch.no_grad()
def _start_position_biases(biases: Tensor) -> None:
    """One head looks back, one ahead, one both ways, nearest words first; the last looks everywhere.

    From T5's own start, near zero, the steps of Adam take thousands of updates to tell a neighbour from a far
    word, and until then nothing binds a colour to the shape beside it.
    """
    half = len(biases) // 2  # the first half: this word and those before it; the second half: those after it
    nearness = -0.7 * torch.arange(half)
    away = torch.full((half,), -6.0)
    both = torch.cat([nearness, nearness])
    back, ahead = torch.cat([nearness, away]), torch.cat([away, nearness])
    biases.copy_(torch.stack([back, ahead, both, torch.zeros(2 * half)], 1))


def build_denoiser() -> nn.ModuleDict:
    """Transformer, T5, CLIP and the reader, untrained."""
    modules = {
        "dit": FluxTransformer2DModel(**TRANSFORMER),
        "t5": build_t5(),
        "clip": CLIPTextModel(CLIPTextConfig(**CLIP)),
        "reader": Reader(T5["d_model"]),
    }
    _start_transformer(modules["dit"])
    return nn.ModuleDict(modules)


def _start_transformer(dit: nn.Module) -> None:
    """Xavier weights; modulations and the output start at zero, so that each block starts as the identity."""
    for name, p in dit.named_parameters():
        if p.ndim == 2:
            nn.init.xavier_uniform_(p)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    zeroed = ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear")
    for name, module in dit.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(zeroed) or name == "proj_out"):
            nn.init.zeros_(module.weight)


class Reader(nn.Module):
    """Reads each object's properties out of the text tokens with one attention per slot.

    It has no layer of its own between tokens and answers except one attention, so that a token can only be
    found and understood if the encoder has already bound it: "red" must know that it colours the upper circle.
    Used in training only.
    """

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(SLOTS + 1, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.thing_heads = nn.ModuleDict({k: nn.Linear(width, n) for k, n in THING_FIELDS.items()})
        self.scene_heads = nn.ModuleDict({k: nn.Linear(width, n) for k, n in SCENE_FIELDS.items()})

    def forward(self, text: Tensor) -> list[Tensor]:
        """Logits [B, classes] in the order of text.labels, from T5's output [B, tokens, width]."""
        queries = self.queries.expand(len(text), -1, -1)
        slots = self.attention(queries, text, text, need_weights=False)[0]
        out = [head(slots[:, s]) for s in range(SLOTS) for head in self.thing_heads.values()]
        return out + [head(slots[:, SLOTS]) for head in self.scene_heads.values()]


def reader_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Mean cross entropy over all fields; labels [B, LABELS]."""
    losses = []
    for field, answer in zip(logits, labels.unbind(1)):
        told = answer != IGNORE
        total = F.cross_entropy(field.float(), answer, ignore_index=IGNORE, reduction="sum")
        losses.append(total / told.sum().clamp(min=1))
    return torch.stack(losses).mean()


@torch.no_grad()
def reader_accuracy(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Share of captions of which every told object property (role, colour, shape) is read rightly."""
    fields = len(THING_FIELDS)
    right = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    for i in (s * fields + f for s in range(SLOTS) for f in range(3)):
        right &= (logits[i].argmax(-1) == labels[:, i]) | (labels[:, i] == IGNORE)
    return right.float().mean()


def pack_latents(z: Tensor) -> Tensor:
    """[B, C, H, W] -> FLUX's tokens [B, H/2 * W/2, 4C]."""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack_latents(tokens: Tensor) -> Tensor:
    """The inverse of pack_latents for square pictures."""
    b, n, c = tokens.shape
    side = int(n**0.5)
    return tokens.view(b, side, side, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * side, 2 * side)


def position_ids(text_length: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """FLUX's position ids: zeros for text [text_length, 3], (0, row, column) for picture tokens [256, 3]."""
    grid = torch.zeros(TOKENS_SIDE, TOKENS_SIDE, 3, device=device)
    line = torch.arange(TOKENS_SIDE, device=device, dtype=torch.float32)
    grid[..., 1] = line[:, None]
    grid[..., 2] = line[None, :]
    return torch.zeros(text_length, 3, device=device), grid.view(-1, 3)
