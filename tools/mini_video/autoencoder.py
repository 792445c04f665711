"""Wan 2.1's causal autoencoder in plain PyTorch under diffusers' names, over whole clips in one pass.

The shipped model works in chunks of frames with a cache; over a whole clip of 4n + 1 frames the same numbers come out:
every convolution looks at two earlier frames only, and the first frame passes the changes of frame rate untouched.
Inside, tensors are [B, T, H, W, C], so that a 3-D convolution is a 2-D one over pictures of three stacked frames, which
GPUs do much faster for few channels, and convolutions of one pixel are products of matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normed import normed, rms_norm, stacked

CHANNELS = 16
VAE = {
    "base_dim": 16,
    "z_dim": CHANNELS,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}
LANES = 8  # tensor cores want channels in eights


def _fill(x: Tensor, axis: int) -> Tensor:
    """x with zeros behind its last entries along an axis (from the end), up to a multiple of LANES."""
    missing = -x.shape[axis] % LANES
    return F.pad(x, [0, 0] * (-axis - 1) + [0, missing]) if missing else x


def _pictures(x: Tensor) -> Tensor:
    """[B, T, H, W, C] -> [B * T, C, H, W], channels last in memory; no copy."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def _clips(x: Tensor, frames: int) -> Tensor:
    """The inverse of _pictures."""
    return x.permute(0, 2, 3, 1).unflatten(0, (-1, frames))


class Conv(nn.Module):
    """A causal 3-D convolution of kernel 3 or 1, or of kernel (3, 1, 1) for `only_time`."""

    def __init__(self, inside: int, outside: int, kernel: int = 3, only_time: bool = False):
        super().__init__()
        side = 1 if only_time else kernel
        made = nn.Conv3d(inside, outside, (kernel, side, side))
        self.weight, self.bias = made.weight, made.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.over(stacked(x) if self.weight.shape[2] > 1 else x)

    def over(self, x: Tensor) -> Tensor:
        """The convolution of what stacked() made: [B, T, H, W, 3C] -> [B, T, H, W, outside]."""
        weight = self.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        if weight.shape[-1] == 1:
            return F.linear(x, weight[..., 0, 0], self.bias)
        outside = len(self.bias)
        filled = _fill(_fill(weight, -3), -4)
        y = F.conv2d(_pictures(_fill(x, -1)), filled, _fill(self.bias, -1), padding=1)
        return _clips(y, x.shape[1])[..., :outside]


class Norm(nn.Module):
    """RMS norm over the channels; `image`: the shape that diffusers gives the parameter."""

    def __init__(self, width: int, image: bool = False):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, 1, 1) if image else torch.ones(width, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.gamma.flatten())

    def before(self, conv: Conv, x: Tensor) -> Tensor:
        """The convolution of SiLU of the norm."""
        return conv.over(normed(x, self.gamma.flatten()))


class Resnet(nn.Module):
    """Two normed convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.norm1, self.conv1 = Norm(inside), Conv(inside, outside)
        self.norm2, self.conv2 = Norm(outside), Conv(outside, outside)
        self.conv_shortcut = Conv(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2.before(self.conv2, self.norm1.before(self.conv1, x)) + self.conv_shortcut(x)


class Attention(nn.Module):
    """One head over the places of each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = Norm(width, image=True)
        self.to_qkv, self.proj = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x).flatten(0, 1).flatten(1, 2)
        q, k, v = F.linear(rows, self.to_qkv.weight.flatten(1), self.to_qkv.bias)[:, None].chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + F.linear(y, self.proj.weight.flatten(1), self.proj.bias).view(x.shape)


class Middle(nn.Module):
    """Resnet, attention, resnet."""

    def __init__(self, width: int):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(width, width), Resnet(width, width)])
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Downsample(nn.Module):
    """Half the side, and half the frames behind the first if `time`."""

    def __init__(self, width: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, 2))
        if time:
            self.time_conv = Conv(width, width, 3, only_time=True)

    def forward(self, x: Tensor) -> Tensor:
        x = _clips(self.resample(_pictures(x)), x.shape[1])
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
            first, second = self.time_conv(x[:, 1:]).chunk(2, -1)
            pairs = torch.stack([first, second], 2).flatten(1, 2)
            x = torch.cat([x[:, :1], pairs], 1)
        return _clips(self.resample(_pictures(x)), x.shape[1])


class Encoder(nn.Module):
    """Frames [B, T, H, W, 3] in -1..1 -> mean and log variance."""

    def __init__(self):
        super().__init__()
        widths = [VAE["base_dim"] * m for m in [1, *VAE["dim_mult"]]]
        self.conv_in = Conv(3, widths[0])
        layers: list[nn.Module] = []
        for i, (inside, outside) in enumerate(zip(widths, widths[1:])):
            layers += [Resnet(inside, outside), *(Resnet(outside, outside) for _ in range(VAE["num_res_blocks"] - 1))]
            if i < len(VAE["temperal_downsample"]):
                layers.append(Downsample(outside, VAE["temperal_downsample"][i]))
        self.down_blocks = nn.ModuleList(layers)
        self.mid_block = Middle(widths[-1])
        self.norm_out, self.conv_out = Norm(widths[-1]), Conv(widths[-1], 2 * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for layer in self.down_blocks:
            x = layer(x)
        return self.norm_out.before(self.conv_out, self.mid_block(x))


class UpBlock(nn.Module):
    """Resnets, then a larger side."""

    def __init__(self, inside: int, outside: int, time: bool | None):
        super().__init__()
        more = [Resnet(outside, outside) for _ in range(VAE["num_res_blocks"])]
        self.resnets = nn.ModuleList([Resnet(inside, outside), *more])
        self.upsamplers = nn.ModuleList() if time is None else nn.ModuleList([Upsample(outside, time)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in [*self.resnets, *self.upsamplers]:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """Latents -> frames [B, T, H, W, 3]."""

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
        return self.norm_out.before(self.conv_out, x)


class Autoencoder(nn.Module):
    """AutoencoderKLWan. Outside, frames and latents are [B, T, C, H, W]."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv, self.post_quant_conv = Conv(2 * CHANNELS, 2 * CHANNELS, 1), Conv(CHANNELS, CHANNELS, 1)
        for name, module in self.named_modules():
            if isinstance(module, (Conv, nn.Conv2d)):
                # PyTorch's own start shrinks what passes, and learns nothing for long; branches start quietly.
                quiet = 0.25 if name.endswith(("conv2", "proj")) else 1.0
                nn.init.normal_(module.weight, std=quiet * module.weight[0].numel() ** -0.5)
                nn.init.zeros_(module.bias)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [B, T', CHANNELS, H / 8, W / 8]."""
        both = self.quant_conv(self.encoder(frames.permute(0, 1, 3, 4, 2).contiguous()))
        return both.permute(0, 1, 4, 2, 3).chunk(2, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames [B, T, 3, H, W], not clamped."""
        return self.decoder(self.post_quant_conv(latents.permute(0, 1, 3, 4, 2))).permute(0, 1, 4, 2, 3)
