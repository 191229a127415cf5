"""What LGM's U-Net is made of: residual blocks, attention across views, and the levels down and up that combine them.

Source: Tang et al. 2024, "LGM: Large Multi-View Gaussian Model" (arXiv 2402.05054). Module names equal the published
checkpoint's keys. Maps are [B*V, C, H, W], the views of an object one after another; where a kernel of ``bozzetto.nn`` can run,
biases, sums and concatenations are left to it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import self_attention
from ...nn.backend import use_kernels
from ...nn.bias import convolve_with_bias
from ...nn.convolution import convolve
from ...nn.group_norm import GroupNorm
from ...nn.residual import add_pointwise, add_scaled
from ...nn.turn import AS_THEY_ARE, turn_pictures
from ...nn.upsample import UpsampleConv

SKIP_SCALE = 0.5**0.5  # keeps the variance of a sum of two branches
GROUPS = 32
EPS = 1e-5


def make_norm(channels: int, silu: bool = False) -> GroupNorm:
    """The networks' normalisation, with the nonlinearity behind it where ``silu``."""
    return GroupNorm(GROUPS, channels, eps=EPS, silu=silu)


def lean(x: Tensor) -> bool:
    """Whether sums, biases and concatenations are left to the kernels of ``bozzetto.nn``: the same result, fewer passes."""
    return use_kernels(x) and x.is_contiguous(memory_format=torch.channels_last)


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions and a shortcut; ``resample`` "up" or "down" changes the resolution by two."""

    def __init__(self, in_channels: int, out_channels: int, resample: str | None = None) -> None:
        super().__init__()
        if resample not in (None, "up", "down"):
            raise ValueError(f"resample must be None, 'up' or 'down', got {resample!r}")
        self.resample = resample
        self.norm1 = make_norm(in_channels, silu=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = make_norm(out_channels, silu=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return x

    def forward(self, x: Tensor, skip: Tensor | None = None, missing: Tensor | None = None) -> Tensor:
        """[B*V, C1, H, W], and [B*V, C2, H, W] to be concatenated behind it -> [B*V, Cout, H', W'].

        ``missing`` [C1] is first added to every pixel of ``x``: the bias of the convolution that made it.
        """
        if lean(x) and self.resample is None and (missing is None or not isinstance(self.shortcut, nn.Identity)):
            return self._lean(x, skip, missing)
        if missing is not None:
            x = x + missing.to(x.dtype)[:, None, None]
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        h = self._resampled(self.norm1(x))
        h = self.conv2(self.norm2(self.conv1(h)))
        return (h + self.shortcut(self._resampled(x))) * SKIP_SCALE

    def _lean(self, x: Tensor, skip: Tensor | None, missing: Tensor | None) -> Tensor:
        shift = missing if missing is None or skip is None else F.pad(missing, (0, skip.shape[1]))
        h = convolve(self.norm1(x, skip, shift), self.conv1)
        h = convolve(self.norm2(h, shift=self.conv1.bias), self.conv2)
        if isinstance(self.shortcut, nn.Identity):
            return add_scaled(h, x, self.conv2.bias, SKIP_SCALE, moments=True)
        bias = self.conv2.bias + self.shortcut.bias
        if missing is not None:
            bias = bias + self.shortcut.weight.flatten(1)[:, : x.shape[1]] @ missing
        return add_pointwise(h, x.to(h.dtype), self.shortcut.weight, bias, SKIP_SCALE, skip, moments=True)


class Attention(nn.Module):
    """Multi-head self-attention over tokens; one fused projection without bias for queries, keys and values.

    ``forward`` stops before the last projection, which :meth:`add_to` does together with the residual sum.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be split into {num_heads} attention heads")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C]
        b, length, c = x.shape
        qkv = self.qkv(x).reshape(b, length, 3, self.num_heads, c // self.num_heads)
        return self_attention(qkv).reshape(b, length, c)  # [B, L, heads, d] -> [B, L, C]

    def add_to(self, x: Tensor, y: Tensor, turn: tuple[int, int] = AS_THEY_ARE) -> Tensor:
        """``(proj(y) + x) * SKIP_SCALE`` for maps ``x`` [N, C, H, W] and as many tokens ``y`` [..., C].

        ``y`` is in the order of ``x``, or its pictures are ordered (batch, V, T) where those of ``x`` are (batch, T, V), for
        ``turn`` (V, T).
        """
        n, c, h, w = x.shape
        if lean(x):
            y = y.reshape(n, h, w, c).permute(0, 3, 1, 2)
            by = (self.proj.weight, self.proj.bias, SKIP_SCALE)
            return add_pointwise(x.to(y.dtype), y, *by, turn=turn, moments=True)
        y = turn_pictures(self.proj(y).reshape(n, h, w, c), turn)
        return (y.permute(0, 3, 1, 2) + x) * SKIP_SCALE


class MVAttention(nn.Module):
    """Self-attention over the tokens of all views of an object (view-major, then row-major)."""

    def __init__(self, dim: int, num_heads: int | None = 16) -> None:
        super().__init__()
        self.norm = make_norm(dim)
        self.attn = Attention(dim, num_heads or max(dim // 64, 1))

    def forward(self, x: Tensor, views: int) -> Tensor:  # [B*V, C, H, W]
        bv, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(bv // views, views * h * w, c)  # [B, V*H*W, C]
        return self.attn.add_to(x, self.attn(tokens))  # [B*V, C, H, W]


def _attentions(channels: int, count: int, enabled: bool, num_heads: int | None) -> nn.ModuleList:
    return nn.ModuleList([MVAttention(channels, num_heads) if enabled else None for _ in range(count)])


class DownBlock(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_layers: int = 2,
        downsample: bool = True,
        attention: bool = True,
        num_heads: int | None = 16,
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            [ResnetBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(num_layers)]
        )
        self.attns = _attentions(out_channels, num_layers, attention, num_heads)
        self.downsample = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) if downsample else None

    def forward(self, x: Tensor, views: int) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for net, attn in zip(self.nets, self.attns):
            x = net(x)
            if attn is not None:
                x = attn(x, views)
            skips.append(x)
        if self.downsample is not None:
            x = convolve_with_bias(x, self.downsample)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    def __init__(self, channels: int, num_layers: int = 1, attention: bool = True, num_heads: int | None = 16) -> None:
        super().__init__()
        self.nets = nn.ModuleList([ResnetBlock(channels, channels) for _ in range(num_layers + 1)])
        self.attns = _attentions(channels, num_layers, attention, num_heads)

    def forward(self, x: Tensor, views: int) -> Tensor:
        x = self.nets[0](x)
        for net, attn in zip(self.nets[1:], self.attns):
            if attn is not None:
                x = attn(x, views)
            x = net(x)
        return x


class UpBlock(nn.Module):
    """Consumes one skip per layer, newest first."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,  # channels of the skip of the last layer, which comes from one level up
        out_channels: int,
        num_layers: int = 3,
        upsample: bool = True,
        attention: bool = True,
        num_heads: int | None = 16,
    ) -> None:
        super().__init__()
        nets = []
        for i in range(num_layers):
            trunk = in_channels if i == 0 else out_channels
            skip = skip_channels if i == num_layers - 1 else out_channels
            nets.append(ResnetBlock(trunk + skip, out_channels))
        self.nets = nn.ModuleList(nets)
        self.attns = _attentions(out_channels, num_layers, attention, num_heads)
        self.upsample = UpsampleConv(out_channels, out_channels) if upsample else None

    def forward(self, x: Tensor, skips: list[Tensor], views: int) -> Tensor:
        for net, attn in zip(self.nets, self.attns):
            x = net(x, skips.pop())
            if attn is not None:
                x = attn(x, views)
        if self.upsample is not None:
            x = self.upsample(x)
        return x
