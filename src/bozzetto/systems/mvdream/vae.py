"""The variational autoencoder of Stable Diffusion: pictures <-> latents of an eighth of their side.

Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752). Module names
equal the keys of published files in the diffusers layout (``AutoencoderKL``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError
from ...nn.convolution import convolve_padded
from ...nn.group_norm import GroupNorm
from ...nn.residual import add_scaled
from ...nn.upsample import UpsampleConv

EPS = 1e-6
MOST_SCORES = 4096  # tokens up to which attention writes its table of scores

# Variants that the class behind the published files could be asked for and that none of these models has.
_FIXED = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "shift_factor": None,
    "latents_mean": None,
}


@dataclass(frozen=True)
class VAEConfig:
    """Shape of one autoencoder; the defaults are Stable Diffusion's."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215  # latents are multiplied by it for the diffusion model

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VAEConfig:
        """From ``vae/config.json``; raises :class:`CheckpointError` for autoencoders of another kind."""
        for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            if other := set(config.get(key, (kind,))) - {kind}:
                raise CheckpointError(f"vae/config.json asks for {', '.join(sorted(other))}; only {kind} is supported")
        for key, value in _FIXED.items():
            if config.get(key, value) != value:
                raise CheckpointError(f"vae/config.json asks for {key}={config[key]!r}; only {value!r} is supported")
        known = {f.name for f in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known})


def _linear(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution as a product with all pixels."""
    y = F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
    return y.permute(0, 3, 1, 2)


class ResnetBlock2D(nn.Module):
    """Two normalised convolutions beside a shortcut. The convolutions' biases are added where their results are next read."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels, EPS, silu=True)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels, EPS, silu=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C', H, W]
        h = F.conv2d(self.norm1(x), self.conv1.weight, padding=1)
        h = F.conv2d(self.norm2(h, shift=self.conv1.bias), self.conv2.weight, padding=1)
        return add_scaled(x if self.conv_shortcut is None else _linear(x, self.conv_shortcut), h, self.conv2.bias)


class Attention(nn.Module):
    """Self-attention of all pixels, one head of all channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, channels, EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W]
        n, c, h, w = x.shape
        tokens = self.group_norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        if x.is_cuda and h * w <= MOST_SCORES:
            # Fused attention is slow for a head of 512 channels, above all its gradient.
            out = torch.bmm(torch.softmax(torch.bmm(q * c**-0.5, k.transpose(1, 2)), dim=-1), v)
        else:
            out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return add_scaled(x, self.to_out[0](out).reshape(n, h, w, c).permute(0, 3, 1, 2))


class Downsample2D(nn.Module):
    """Half the size; the padding lies to the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample2D(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = UpsampleConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Level(nn.Module):
    """Residual blocks of one width; then, under the given name, a change of size."""

    def __init__(self, channels: int, out_channels: int, layers: int, groups: int, **resample: nn.Module) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * layers
        self.resnets = nn.ModuleList([ResnetBlock2D(a, b, groups) for a, b in pairwise(widths)])
        for name, module in resample.items():
            self.add_module(name, nn.ModuleList([module]))

    def forward(self, x: Tensor) -> Tensor:
        for children in self.children():
            for layer in children:
                x = layer(x)
        return x


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)])
        self.resnets = nn.ModuleList([ResnetBlock2D(channels, channels, groups) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    """Pictures [N, 3, H, W] -> [N, 2 * latent channels, h, w]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            resample = {"downsamplers": Downsample2D(width)} if i < len(widths) - 1 else {}
            self.down_blocks.append(Level(widths[max(i - 1, 0)], width, config.layers_per_block, groups, **resample))
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS, silu=True)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = convolve_padded(x, self.conv_in) if x.is_cuda else self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(self.conv_norm_out(self.mid_block(x)))


class Decoder(nn.Module):
    """Latents [N, latent channels, h, w] -> pictures [N, 3, H, W]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            resample = {"upsamplers": Upsample2D(width)} if i < len(widths) - 1 else {}
            self.up_blocks.append(Level(widths[max(i - 1, 0)], width, config.layers_per_block + 1, groups, **resample))
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS, silu=True)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(self.conv_norm_out(x))


class VAE(nn.Module):
    """Encoder and decoder; pictures are -1..1, latents are not scaled."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    @property
    def factor(self) -> int:
        """Picture pixels per latent pixel, along each axis."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures [N, 3, H, W] -> mean and standard deviation of the latents, [N, C, H / factor, W / factor] each."""
        mean, log_variance = self.quant_conv(self.encoder(self._laid_out(x))).chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))

    def decode(self, z: Tensor) -> Tensor:
        """Latents [N, C, h, w] -> pictures [N, 3, h * factor, w * factor]."""
        return self.decoder(self.post_quant_conv(self._laid_out(z)))

    def _laid_out(self, x: Tensor) -> Tensor:
        if self.encoder.conv_out.weight.is_contiguous(memory_format=torch.channels_last):
            return x.contiguous(memory_format=torch.channels_last)
        return x
