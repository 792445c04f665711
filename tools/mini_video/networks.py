"""Wan 2.1's transformer and umT5 in plain PyTorch under diffusers' and transformers' names; sizes; the reader."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pieces import FIELDS, PAD, TEXT_LENGTH

TRANSFORMER = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 64,
    "freq_dim": 256,
    "ffn_dim": 256,
    "num_layers": 4,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "rope_max_seq_len": 1024,
    "pos_embed_seq_len": None,
}
UMT5 = {
    "vocab_size": 160,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "use_cache": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
GRID = (5, 4, 4)  # latent frames, rows and columns of tokens
PATCH = 64  # numbers of a token: 2 x 2 cells of 16 channels
WIDTH = TRANSFORMER["num_attention_heads"] * TRANSFORMER["attention_head_dim"]
PIPELINE_TEXT = 512  # tokens that pipelines pad to


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def to_tokens(z: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B, T * H/2 * W/2, 4C], a token's numbers ordered (row, column, channel)."""
    b, c, t, h, w = z.shape
    return z.view(b, c, t, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 4, 6, 1).reshape(b, t * h * w // 4, 4 * c)


def from_tokens(x: Tensor) -> Tensor:
    """The inverse of to_tokens for clips of GRID."""
    t, h, w = GRID
    c = x.shape[-1] // 4
    return x.view(-1, t, h, w, 2, 2, c).permute(0, 6, 1, 2, 4, 3, 5).reshape(-1, c, t, 2 * h, 2 * w)


class Rms(nn.Module):
    """RMS norm over the last axis."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), 1e-6).to(x.dtype)


def rotary_tables(head: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [tokens, head / 2] of the positions of GRID."""
    side = 2 * (head // 6)
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in GRID], indexing="ij")
    angles = []
    for axis, width in zip(axes, (head - 2 * side, side, side)):
        rates = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles.append(axis.reshape(-1, 1) * rates)
    table = torch.cat(angles, 1)
    return table.cos().float(), table.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring pairs of x [B, heads, tokens, head] turned by their positions' angles."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(x.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Attention with a bias, for short texts."""
    weights = ((q @ k.transpose(-1, -2)).float() * scale + bias).softmax(-1)
    return weights.to(v.dtype) @ v


class Attention(nn.Module):
    """Wan's attention: q and k normed over all heads together."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self._heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q, self.norm_k = Rms(width), Rms(width)

    def forward(self, x: Tensor, context: Tensor, rotary: tuple | None = None, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(context)), self.to_v(context)
        q, k, v = (y.unflatten(-1, (self._heads, -1)).transpose(1, 2) for y in (q, k, v))
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        v = v.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v) if bias is None else _attend(q, k, v, bias, q.shape[-1] ** -0.5)
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear, gelu by tanh, linear; named as in diffusers."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(width, inner)
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(inner, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](F.gelu(self.net[0].proj(x), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and the last modulated by the noise level."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.attn1, self.attn2 = Attention(width, heads), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.ffn = FeedForward(width, inner)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(self, x: Tensor, text: Tensor, bias: Tensor, level: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table.float() + level.float()).chunk(6, 1)
        half = text.dtype
        y = (F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1).to(half)
        x = x + self.attn1(y, y, (cos, sin)).float() * gate1
        x = x + self.attn2(self.norm2(x).to(half), text, None, bias).float()
        y = (F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2).to(half)
        return x + self.ffn(y).float() * gate2


class Embedder(nn.Module):
    """What the blocks are told: the noise level and the text."""

    def __init__(self):
        super().__init__()
        self.time_embedder = _pair(TRANSFORMER["freq_dim"], WIDTH)
        self.time_proj = nn.Linear(WIDTH, 6 * WIDTH)
        self.text_embedder = _pair(TRANSFORMER["text_dim"], WIDTH)


def _pair(narrow: int, wide: int) -> nn.Module:
    module = nn.Module()
    module.linear_1, module.linear_2 = nn.Linear(narrow, wide), nn.Linear(wide, wide)
    return module


class Transformer(nn.Module):
    """WanTransformer3DModel for clips of GRID, from tokens to tokens."""

    def __init__(self):
        super().__init__()
        t = TRANSFORMER
        self.patch_embedding = nn.Conv3d(t["in_channels"], WIDTH, (1, 2, 2), (1, 2, 2))
        self.condition_embedder = Embedder()
        self.blocks = nn.ModuleList(
            Block(WIDTH, t["num_attention_heads"], t["ffn_dim"]) for _ in range(t["num_layers"])
        )
        self.proj_out = nn.Linear(WIDTH, 4 * t["out_channels"])
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, WIDTH) / WIDTH**0.5)
        cos, sin = rotary_tables(t["attention_head_dim"])
        self.register_buffer("_cos", cos, persistent=False)
        self.register_buffer("_sin", sin, persistent=False)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        """Velocity [B, tokens, PATCH] of x at `time` (0..1000); text [B, L, text_dim], bias [B, 1, 1, L]."""
        e = self.condition_embedder
        rates = torch.exp(-math.log(10000) * torch.arange(128, device=x.device) / 128)
        angles = time.float()[:, None] * rates
        level = e.time_embedder.linear_1(torch.cat([angles.cos(), angles.sin()], 1))
        level = e.time_embedder.linear_2(F.silu(level))
        levels = e.time_proj(F.silu(level)).unflatten(1, (6, -1))
        text = e.text_embedder.linear_2(F.gelu(e.text_embedder.linear_1(text), approximate="tanh"))
        weight = self.patch_embedding.weight.permute(0, 2, 3, 4, 1).flatten(1)
        x = F.linear(x, weight, self.patch_embedding.bias).float()
        for block in self.blocks:
            x = block(x, text, bias, levels, self._cos, self._sin)
        shift, scale = (self.scale_shift_table.float() + level.float()[:, None]).chunk(2, 1)
        return self.proj_out((F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift).to(text.dtype))


def text_bias(tokens: Tensor, whole: Tensor | float) -> Tensor:
    """Bias [B, 1, 1, L] that makes the padding of L tokens weigh as much as that of `whole` tokens.

    States behind the text are zeros, all alike, and the transformer attends to them: a few stand for all.
    """
    told = (tokens != PAD).sum(1, keepdim=True)
    weight = torch.log((whole - told) / (tokens.shape[1] - told).clamp(min=1))
    return torch.where(tokens != PAD, torch.zeros_like(weight), weight)[:, None, None, :]


class _SelfAttention(nn.Module):
    """umT5's attention with its own table of position biases."""

    def __init__(self, d: int, heads: int, head: int, buckets: int):
        super().__init__()
        self._heads = heads
        self.q, self.k, self.v = (nn.Linear(d, heads * head, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * head, d, bias=False)
        self.relative_attention_bias = nn.Embedding(buckets, heads)

    def forward(self, x: Tensor, buckets: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self._heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        bias = self.relative_attention_bias(buckets).permute(2, 0, 1)[None].float() + mask
        out = _attend(q, k, v, bias, 1.0)
        return self.o(out.transpose(1, 2).flatten(2))


class _GatedGelu(nn.Module):
    def __init__(self, d: int, inner: int):
        super().__init__()
        self.wi_0, self.wi_1 = nn.Linear(d, inner, bias=False), nn.Linear(d, inner, bias=False)
        self.wo = nn.Linear(inner, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


def _named(**modules: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in modules.items():
        module.add_module(name, child)
    return module


def position_buckets(length: int) -> Tensor:
    """T5's bucket of each distance key - query: [length, length]."""
    half, most = UMT5["relative_attention_num_buckets"] // 2, UMT5["relative_attention_max_distance"]
    line = torch.arange(length)
    distance = line[None, :] - line[:, None]
    away, exact = distance.abs(), half // 2
    far = exact + (torch.log(away.clamp(min=1) / exact) / math.log(most / exact) * (half - exact)).long()
    return (distance > 0) * half + torch.where(away < exact, away, far.clamp(max=half - 1))


class TextEncoder(nn.Module):
    """UMT5EncoderModel; rows behind the text come out as zeros, as the pipeline makes them."""

    def __init__(self):
        super().__init__()
        u = UMT5
        self.shared = nn.Embedding(u["vocab_size"], u["d_model"])
        layers = []
        for _ in range(u["num_layers"]):
            attention = _SelfAttention(u["d_model"], u["num_heads"], u["d_kv"], u["relative_attention_num_buckets"])
            first = _named(SelfAttention=attention, layer_norm=Rms(u["d_model"]))
            second = _named(DenseReluDense=_GatedGelu(u["d_model"], u["d_ff"]), layer_norm=Rms(u["d_model"]))
            layers.append(_named(layer=nn.ModuleList([first, second])))
        self.encoder = _named(block=nn.ModuleList(layers), final_layer_norm=Rms(u["d_model"]))
        self.register_buffer("_buckets", position_buckets(TEXT_LENGTH), persistent=False)
        self._start()

    def _start(self) -> None:
        """T5's initialisation: logits are not scaled, so queries start small."""
        d, inner, head = UMT5["d_model"], UMT5["d_ff"], UMT5["d_kv"]
        for name, p in self.named_parameters():
            if p.ndim == 2:
                kind = name.split(".")[-2]
                std = {"q": (d * head) ** -0.5, "wo": inner**-0.5, "shared": 1.0, "relative_attention_bias": d**-0.5}
                nn.init.normal_(p, std=std.get(kind, d**-0.5))

    def forward(self, tokens: Tensor) -> Tensor:
        """States [B, TEXT_LENGTH, d_model] of tokens [B, TEXT_LENGTH]."""
        told = tokens != PAD
        mask = torch.where(told, 0.0, -1e4)[:, None, None, :]
        x = self.shared(tokens)
        for block in self.encoder.block:
            first, second = block.layer
            x = x + first.SelfAttention(first.layer_norm(x), self._buckets, mask)
            x = x + second.DenseReluDense(second.layer_norm(x))
        return self.encoder.final_layer_norm(x) * told[..., None]


class Reader(nn.Module):
    """Tells what a caption says from the text states, with one attention a field. Used in training only."""

    def __init__(self):
        super().__init__()
        width = UMT5["d_model"]
        self.queries = nn.Parameter(torch.randn(len(FIELDS), width) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in FIELDS.values())

    def forward(self, states: Tensor, tokens: Tensor) -> list[Tensor]:
        """Logits [B, classes] of each field."""
        weights = torch.einsum("fd,bld->bfl", self.queries, states)
        weights = weights.masked_fill((tokens == PAD)[:, None], -1e4).softmax(-1)
        read = torch.einsum("bfl,bld->bfd", weights, states)
        return [head(read[:, i]).float() for i, head in enumerate(self.heads)]


def reader_loss(logits: list[Tensor], told: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy over the fields, and the share of captions of which every field is read rightly.

    Rows of `told` that hold -100 are left out.
    """
    answers = told.unbind(1)
    losses = [F.cross_entropy(f, answer, ignore_index=-100) for f, answer in zip(logits, answers)]
    right = torch.stack([f.argmax(-1) == answer for f, answer in zip(logits, answers)]).all(0)
    return torch.stack(losses).mean(), right.sum() / (told[:, 0] >= 0).sum()


def build_denoiser() -> nn.ModuleDict:
    """Transformer, text encoder and reader, untrained; each block starts as nearly the identity."""
    net = nn.ModuleDict({"dit": Transformer(), "text": TextEncoder(), "reader": Reader()})
    for name, p in net["dit"].named_parameters():
        if p.ndim == 2:
            nn.init.xavier_uniform_(p)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    nn.init.zeros_(net["dit"].proj_out.weight)
    nn.init.zeros_(net["dit"].condition_embedder.time_proj.weight)
    return net
