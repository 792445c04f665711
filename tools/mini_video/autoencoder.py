"""Wan 2.1's causal autoencoder in plain PyTorch under diffusers' names, over whole clips.

The shipped model works in chunks of frames with a cache; over a whole clip of 4n + 1 frames the same numbers come out:
every convolution looks at two earlier frames only, and the first frame passes the changes of frame rate untouched.
3-D convolutions run as 2-D ones over three stacked frames, which GPUs do much faster for few channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 16
VAE = {
    "base_dim": 8,
    "z_dim": CHANNELS,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


def flat(x: Tensor) -> Tensor:
    """[B, T, C, H, W] -> [B * T, C, H, W]."""
    return x.flatten(0, 1)


def channels_last(x: Tensor) -> Tensor:
    """The same, its channels side by side in memory: what convolutions read fastest."""
    return flat(x).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


class Conv(nn.Module):
    """A causal 3-D convolution over [B, T, C, H, W] of kernel 3 or 1, or of kernel (3, 1, 1) for `only_time`."""

    def __init__(self, inside: int, outside: int, kernel: int = 3, only_time: bool = False):
        super().__init__()
        side = 1 if only_time else kernel
        made = nn.Conv3d(inside, outside, (kernel, side, side))
        self.weight, self.bias = made.weight, made.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.over(self.stacked(x))

    def stacked(self, x: Tensor) -> Tensor:
        """Each frame with the two before it, zeros before the first, one after another in the channels."""
        if self.weight.shape[2] == 1:
            return x
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 2, 0))
        t = x.shape[1]
        return torch.cat([padded[:, i : i + t] for i in range(3)], 2)

    def over(self, stacked: Tensor) -> Tensor:
        """The convolution of stacked frames."""
        weight = self.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        frames = flat(stacked).contiguous(memory_format=torch.channels_last)
        out = F.conv2d(frames, weight, self.bias, padding=weight.shape[-1] // 2)
        return out.unflatten(0, stacked.shape[:2])


class Norm(nn.Module):
    """RMS norm over the channels of [B, T, C, H, W]; `image`: the shape that diffusers gives the parameter."""

    def __init__(self, width: int, image: bool = False):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, 1, 1) if image else torch.ones(width, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=2, keepdim=True, dtype=torch.float32).clamp(min=1e-12)
        return x * (len(self.gamma) ** 0.5 / length).to(x.dtype) * self.gamma.view(-1, 1, 1).to(x.dtype)


class Resnet(nn.Module):
    """Two normed convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.norm1, self.conv1 = Norm(inside), Conv(inside, outside)
        self.norm2, self.conv2 = Norm(outside), Conv(outside, outside)
        self.conv_shortcut = Conv(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(y))) + self.conv_shortcut(x)


class Attention(nn.Module):
    """One head over the places of each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = Norm(width, image=True)
        self.to_qkv, self.proj = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(flat(self.norm(x))).flatten(2).transpose(1, 2).contiguous()
        q, k, v = qkv[:, None].chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.proj(y).unflatten(0, x.shape[:2])


class Middle(nn.Module):
    """Resnet, attention, resnet."""

    def __init__(self, width: int):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(width, width), Resnet(width, width)])
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](channels_last(self.attentions[0](self.resnets[0](channels_last(x)))))


class Downsample(nn.Module):
    """Half the side, and half the frames behind the first if `time`."""

    def __init__(self, width: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, 2))
        if time:
            self.time_conv = Conv(width, width, 3, only_time=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resample(flat(x)).unflatten(0, x.shape[:2])
        if not hasattr(self, "time_conv"):
            return x
        return torch.cat([x[:, :1], self.time_conv(x)[:, 2::2]], 1)


class Upsample(nn.Module):
    """Twice the side, half the channels, and twice the frames behind the first if `time`."""

    def __init__(self, width: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(width, width // 2, 3, padding=1))
        if time:
            self.time_conv = Conv(width, 2 * width, 3, only_time=True)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "time_conv"):
            pairs = self.time_conv(x[:, 1:]).unflatten(2, (2, -1)).flatten(1, 2)
            x = torch.cat([x[:, :1], pairs], 1)
        return self.resample(flat(x)).unflatten(0, x.shape[:2])


class Encoder(nn.Module):
    """Frames [B, T, 3, H, W] in -1..1 -> mean and log variance."""

    def __init__(self):
        super().__init__()
        widths = [VAE["base_dim"] * m for m in [1, *VAE["dim_mult"]]]
        self.conv_in = Conv(3, widths[0])
        layers: list[nn.Module] = []
        for i, (inside, outside) in enumerate(zip(widths, widths[1:])):
            layers += [Resnet(inside, outside), Resnet(outside, outside)]
            if i < len(VAE["temperal_downsample"]):
                layers.append(Downsample(outside, VAE["temperal_downsample"][i]))
        self.down_blocks = nn.ModuleList(layers)
        self.mid_block = Middle(widths[-1])
        self.norm_out, self.conv_out = Norm(widths[-1]), Conv(widths[-1], 2 * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for layer in self.down_blocks:
            x = layer(channels_last(x))
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class UpBlock(nn.Module):
    """Three resnets, then a larger side."""

    def __init__(self, inside: int, outside: int, time: bool | None):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(inside, outside), Resnet(outside, outside), Resnet(outside, outside)])
        self.upsamplers = nn.ModuleList() if time is None else nn.ModuleList([Upsample(outside, time)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in [*self.resnets, *self.upsamplers]:
            x = layer(channels_last(x))
        return x


class Decoder(nn.Module):
    """Latents -> frames."""

    def __init__(self):
        super().__init__()
        widths = [VAE["base_dim"] * m for m in VAE["dim_mult"][::-1]]
        times = [*VAE["temperal_downsample"][::-1], None]
        inside = [widths[0], *[w // 2 for w in widths[:-1]]]
        self.conv_in = Conv(CHANNELS, widths[0])
        self.mid_block = Middle(widths[0])
        self.up_blocks = nn.ModuleList(UpBlock(*sizes) for sizes in zip(inside, widths, times))
        self.norm_out, self.conv_out = Norm(widths[-1]), Conv(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """AutoencoderKLWan."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv, self.post_quant_conv = Conv(2 * CHANNELS, 2 * CHANNELS, 1), Conv(CHANNELS, CHANNELS, 1)
        for module in self.modules():  # PyTorch's own start shrinks what passes, and learns nothing for long
            if isinstance(module, (Conv, nn.Conv2d)):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                nn.init.zeros_(module.bias)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [B, T', CHANNELS, H / 8, W / 8]."""
        return self.quant_conv(self.encoder(frames)).chunk(2, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames [B, T, 3, H, W], not clamped."""
        return self.decoder(self.post_quant_conv(latents))
