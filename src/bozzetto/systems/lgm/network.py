"""LGM's network: a few posed views -> an asymmetric U-Net with attention across views -> one Gaussian per output pixel.

Source: Tang et al. 2024, "LGM: Large Multi-View Gaussian Model" (arXiv 2402.05054). Module names equal the published
checkpoint's keys, so state dicts load without renaming. The number of views is an argument of ``forward``, not a constant.

Its parts are in ``blocks.py``. The same classes also build ``lgm-mini`` (see ``presets.py``), which differs in size, in folding
pixels into channels at both ends (``patch``, ``unpatch``) and in its head (``heads.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...camera import Cameras
from ...nn.bias import convolve_with_bias
from ...nn.convolution import convolve_padded
from ...nn.fold import fold_pixels
from .blocks import DownBlock, MidBlock, UpBlock, lean, make_norm
from .cascade import cascade_channels, small_pictures
from .detail import DetailBranch
from .ends import joined, joined_with
from .heads import ray_depth
from .tokens import TokenTrunk


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
    trunk: str = "unet"  # "tokens": a transformer over patches of all views (tokens.py), without the channels above
    token_width: int = 320
    token_layers: int = 8
    slots: int = 4  # lgm-mini: views given or imagined; a fifth looks at what the first camera has above it
    detail: int = 0  # channels of a branch as fine as the Gaussians (detail.py); 0: none
    cascade: int = 0  # depths around the U-Net's own for each Gaussian whose evidence that branch is told (cascade.py)
    rotation: str = "fixed"  # "legacy" for checkpoints trained before April 2024 (heads.py)

    @property
    def num_gaussians_per_view(self) -> int:
        return self.splat_size**2


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
        self.norm_out = make_norm(up[-1], silu=True)
        self.conv_out = nn.Conv2d(up[-1], config.out_channels * config.unpatch**2, 3, padding=1)
        # The last levels down are as fine as the output; what lies before them is never asked for.
        self.skips_used = len(up) * (layers + 1)

    def forward(self, x: Tensor, views: int, last: bool = True) -> Tensor:
        """[B*V, Cin, H, W] -> [B*V, Cout, h, h]; without the ``last`` convolution, what that reads."""
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
        return convolve_with_bias(x, self.conv_out) if last else x


def _trunk(config: LGMConfig) -> nn.Module:
    if config.trunk == "unet":
        return UNet(config)
    if config.trunk == "tokens":
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
            self.detail = DetailBranch(config)
            self.edge_layers = (*self.edge_layers, "detail.conv_in", "detail.conv_out")
            if config.cascade:
                self.edge_layers = (*self.edge_layers, "detail.near")

    def forward(self, inputs: Tensor, poses: Tensor | None = None, intrinsics: Tensor | None = None) -> Tensor:
        """Network input [B, V, Cin, S, S] -> raw channels [B, V, Cout, h, h], h = ``splat_size``; any V >= 1.

        ``poses`` [B, V, 4, 4] and ``intrinsics`` [B, V, 4] are those of the slots' cameras (``Cameras``); only networks that
        look again around their own depths need them (``inputs.arguments_of``).
        """
        b, v, c, h, w = inputs.shape
        levels = len(self.config.down_channels) - 1 if self.config.trunk == "unet" else 0
        factor = self.config.patch * 2**levels
        if c != self.config.in_channels or h % factor or w % factor:
            raise ValueError(
                f"expected [B, V, {self.config.in_channels}, H, W] with H and W multiples of {factor}, got {tuple(inputs.shape)}"
            )
        pixels = inputs.reshape(b * v, c, h, w)
        half = pixels.is_cuda and torch.is_autocast_enabled("cuda")  # what the first layers do anyway
        dtype = torch.get_autocast_dtype("cuda") if half else None
        if not self.config.cascade:
            raw = self._raw(pixels, dtype, v)
        elif poses is None or intrinsics is None:
            raise ValueError("this network looks at the pictures again: call it with what inputs.arguments_of gives")
        else:
            raw = self._raw_of_two_looks(inputs, dtype, Cameras(poses.float(), intrinsics.float()))
        return raw.reshape(b, v, *raw.shape[1:])

    def _raw(self, pixels: Tensor, dtype: torch.dtype | None, views: int) -> Tensor:
        """[B*V, Cin, S, S] -> [B*V, Cout, h, h]; ``dtype``: what the first layers are given, None for that of ``pixels``."""
        x = fold_pixels(pixels, self.config.patch, dtype)
        if not isinstance(self.unet, UNet):
            return self._mixed(self.unet(x, views))
        features = self.unet(x, views, last=False)
        if self.detail is None:
            return self._coarse(features)
        if self._joins(features):
            layers = (self.unet.conv_out, self.conv, self.config.unpatch)
            return joined_with(features, *layers, self.detail.hidden(pixels, features, dtype), self.detail.conv_out)
        return self._coarse(features) + self.detail(pixels, features, dtype)

    def _raw_of_two_looks(self, inputs: Tensor, dtype: torch.dtype | None, cameras: Cameras) -> Tensor:
        """The same for [B, V, Cin, S, S], with the pictures' evidence around the U-Net's own depths (no gradient through it)."""
        b, v = inputs.shape[:2]
        pixels = inputs.flatten(0, 1)
        x = fold_pixels(pixels, self.config.patch, dtype)
        features = self.unet(x, v, last=False)
        raw = self._coarse(features)
        distance = ray_depth(raw.detach().unflatten(0, (b, v)), cameras)
        near = cascade_channels(
            *small_pictures(inputs, self.detail.fold), cameras, distance, self.config.cascade, x.dtype
        )
        return raw + self.detail(pixels, features, dtype, near)

    def _joins(self, features: Tensor) -> bool:
        return self.config.unpatch > 1 and torch.is_grad_enabled() and lean(features)

    def _coarse(self, features: Tensor) -> Tensor:
        """The U-Net's last features -> its raw channels [B*V, Cout, h, h]."""
        if self._joins(features):
            return joined(features, self.unet.conv_out, self.conv, self.config.unpatch)
        return self._mixed(convolve_with_bias(features, self.unet.conv_out))

    def _mixed(self, x: Tensor) -> Tensor:
        """[B*V, C*u*u, h/u, w/u] -> [B*V, C, h, w], and the 1x1 convolution."""
        return self.conv(F.pixel_shuffle(x, self.config.unpatch) if self.config.unpatch > 1 else x)
