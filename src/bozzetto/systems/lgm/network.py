"""LGM's network: a few posed views -> an asymmetric U-Net with attention across views -> one Gaussian per output pixel.

Source: Tang et al. 2024, "LGM: Large Multi-View Gaussian Model" (arXiv 2402.05054). Module names equal the published
checkpoint's keys, so state dicts load without renaming. The number of views is an argument of ``forward``, not a constant.

The same classes also build ``lgm-mini`` (see ``presets.py``), which differs in size, in folding pixels into channels at both
ends (``patch``, ``unpatch``) and in its head (``heads.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import self_attention
from ...nn.backend import use_kernels
from ...nn.bias import convolve_with_bias
from ...nn.convolution import convolve, convolve_padded
from ...nn.fold import fold_pixels
from ...nn.group_norm import GroupNorm
from ...nn.residual import add_pointwise, add_scaled
from ...nn.turn import AS_THEY_ARE, turn_pictures
from ...nn.upsample import UpsampleConv

SKIP_SCALE = 0.5**0.5  # keeps the variance of a sum of two branches
GROUPS = 32
EPS = 1e-5
PICTURE = 11  # input channels of a picture itself: rgb 3, alpha 1, known 1, rays 6; those of the plane sweep follow


@dataclass(frozen=True)
class LGMConfig:
    """Shape of one LGM network. The defaults are the class defaults of the paper's code ("lrm")."""

    input_size: int = 256  # pixels, square views
    in_channels: int = 9  # normalised rgb 3 + Plücker rays 6
    patch: int = 1  # input pixels folded into channels (space to depth) before the first convolution
    unpatch: int = 1  # output pixels unfolded from channels (depth to space) after the last convolution
    out_channels: int = 14  # position 3, opacity 1, scale 3, quaternion 4, rgb 3
    down_channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 1024)
    down_attention: tuple[bool, ...] = (False, False, False, True, True, True)
    mid_attention: bool = True
    up_channels: tuple[int, ...] = (1024, 1024, 512, 256)
    up_attention: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    num_heads: int | None = 16  # None: as many heads of 64 channels as fit
    splat_size: int = 64  # Gaussians per view = splat_size squared
    output_size: int = 256  # pixels of the training renders
    fov_y: float = 49.1  # degrees
    radius: float = 1.5  # camera distance, world units
    znear: float = 0.5
    zfar: float = 2.5
    candidates: int = 0  # depths along each ray whose evidence is put into the input channels (plane_sweep.py)
    head: str = "lgm"  # "lgm": free positions; "ray": depth along the ray (heads.py)
    trunk: str = (
        "unet"  # "tokens": a transformer over patches of all views (tokens.py); the channels above are then not used
    )
    token_width: int = 320
    token_layers: int = 8
    slots: int = 4  # lgm-mini: views given or imagined; a fifth looks at what the first camera has above it
    detail: int = 0  # channels of a branch as fine as the Gaussians (detail.py); 0: none
    rotation: str = "fixed"  # "legacy" for checkpoints trained before April 2024 (heads.py)

    @property
    def num_gaussians_per_view(self) -> int:
        return self.splat_size**2


def _norm(channels: int, silu: bool = False) -> GroupNorm:
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
        self.norm1 = _norm(in_channels, silu=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels, silu=True)
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
        self.norm = _norm(dim)
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


class UNet(nn.Module):
    """The asymmetric U-Net: fewer up levels than down levels, so that its output is smaller than its input."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        down, up, layers, heads = config.down_channels, config.up_channels, config.layers_per_block, config.num_heads
        if up[0] != down[-1]:
            raise ValueError(f"up_channels must start with the last of down_channels ({down[-1]}), got {up[0]}")
        self.conv_in = nn.Conv2d(config.in_channels * config.patch**2, down[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(down[max(i - 1, 0)], c, layers, i < len(down) - 1, config.down_attention[i], heads)
                for i, c in enumerate(down)
            ]
        )
        self.mid_block = MidBlock(down[-1], 1, config.mid_attention, heads)
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(
                    up[max(i - 1, 0)],
                    down[max(-2 - i, -len(down))],
                    c,
                    layers + 1,
                    i < len(up) - 1,
                    config.up_attention[i],
                    heads,
                )
                for i, c in enumerate(up)
            ]
        )
        self.norm_out = _norm(up[-1], silu=True)
        self.conv_out = nn.Conv2d(up[-1], config.out_channels * config.unpatch**2, 3, padding=1)
        # The last levels down are as fine as the output; what lies before them is never asked for.
        self.skips_used = len(up) * (layers + 1)
        self.gives_features = config.detail > 0

    def forward(self, x: Tensor, views: int) -> Tensor:  # [B*V, Cin, H, W] -> [B*V, Cout, h, h]
        padded = lean(x) and x.shape[1] % 16 != 0
        x = convolve_padded(x, self.conv_in) if padded else convolve_with_bias(x, self.conv_in)
        skips = [x]
        for block in self.down_blocks:
            x, new = block(x, views)
            skips = (skips + new)[-self.skips_used :]  # full-resolution maps are the largest
        x = self.mid_block(x, views)
        for block in self.up_blocks:
            x = block(x, skips, views)
        x = self.norm_out(x)
        raw = convolve_with_bias(x, self.conv_out)
        return (raw, x) if self.gives_features else raw


def _trunk(config: LGMConfig) -> nn.Module:
    if config.trunk == "unet":
        return UNet(config)
    if config.trunk == "tokens":
        from .tokens import TokenTrunk

        return TokenTrunk(config)
    raise ValueError(f"trunk must be 'unet' or 'tokens', got {config.trunk!r}")


class LGM(nn.Module):
    """U-Net plus the final 1x1 convolution. ``forward`` gives raw channels; ``heads.py`` turns them into Gaussians."""

    edge_layers = ("unet.conv_in", "unet.conv_out", "conv")  # first and last ones, for optimisers that treat them apart

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = _trunk(config)
        self.conv = nn.Conv2d(config.out_channels, config.out_channels, 1)
        self.detail = None
        if config.detail:
            from .detail import DetailBranch

            self.detail = DetailBranch(config)
            self.edge_layers = (*self.edge_layers, "detail.conv_in", "detail.conv_out")

    def forward(self, inputs: Tensor) -> Tensor:
        """Network input [B, V, Cin, S, S] -> raw channels [B, V, Cout, h, h], h = ``splat_size``; any V >= 1."""
        b, v, c, h, w = inputs.shape
        levels = len(self.config.down_channels) - 1 if self.config.trunk == "unet" else 0
        factor = self.config.patch * 2**levels
        if c != self.config.in_channels or h % factor or w % factor:
            raise ValueError(
                f"expected [B, V, {self.config.in_channels}, H, W] with H and W multiples of {factor}, got {tuple(inputs.shape)}"
            )
        x = inputs.reshape(b * v, c, h, w)
        half = x.is_cuda and torch.is_autocast_enabled("cuda")  # what the first layer does anyway
        dtype, pixels = torch.get_autocast_dtype("cuda") if half else None, x
        x = fold_pixels(x, self.config.patch, dtype)
        x = self.unet(x, v)
        x, features = x if self.detail is not None else (x, None)
        if self.config.unpatch > 1:
            x = F.pixel_shuffle(x, self.config.unpatch)  # [B*V, C*u*u, h/u, w/u] -> [B*V, C, h, w]
        raw = self.conv(x)
        if self.detail is not None:
            raw = raw + self.detail(pixels, features, dtype)
        return raw.reshape(b, v, *raw.shape[1:])
