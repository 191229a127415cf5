"""A branch as fine as the Gaussians, beside a U-Net whose features are coarser: what decides outlines.

The U-Net of the small networks folds 4 x 4 pixels into channels, and unfolds 2 x 2 Gaussians from each of its features. This
branch sees the inputs folded only as far as the Gaussians are apart, and the U-Net's last features, and adds to the raw channels.
Of the plane sweep's depths each of its cells holds a quarter; without them it gains nothing.
It may be told, besides, what the pictures say around the depth that the U-Net gives each Gaussian (``cascade.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.bias import convolve_with_bias
from ...nn.convolution import convolve_padded
from ...nn.fold import convolve_folded
from ...nn.unfold import add_unfolded, by_pixels
from .blocks import ResnetBlock, lean, make_norm
from .cascade import cascade_planes

if TYPE_CHECKING:
    from .network import LGMConfig

BLOCKS = 2


class DetailBranch(nn.Module):
    """Inputs [N, Cin, S, S] and features [N, C, S/p, S/p] -> raw channels [N, Cout, h, h] that are zero before training."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        width = config.detail
        self.fold, self.unfold = config.input_size // config.splat_size, config.unpatch
        self.conv_in = nn.Conv2d(config.in_channels * self.fold**2, width, 3, padding=1)
        self.features = nn.Conv2d(config.up_channels[-1], width * config.unpatch**2, 1)
        self.near = nn.Conv2d(cascade_planes(config.cascade), width, 3, padding=1) if config.cascade else None
        self.blocks = nn.ModuleList([ResnetBlock(width, width) for _ in range(BLOCKS)])
        self.norm_out = make_norm(width, silu=True)
        self.conv_out = nn.Conv2d(width, config.out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(
        self, inputs: Tensor, features: Tensor, dtype: torch.dtype | None = None, near: Tensor | None = None
    ) -> Tensor:
        """``dtype``: what the first layer is given; None for that of ``inputs``. ``near``: see ``cascade_channels``."""
        return convolve_with_bias(self.hidden(inputs, features, dtype, near), self.conv_out)

    def hidden(
        self, inputs: Tensor, features: Tensor, dtype: torch.dtype | None = None, near: Tensor | None = None
    ) -> Tensor:
        """What the last layer reads: [N, w, h, h]."""
        x = convolve_folded(inputs, self.fold, self.conv_in, dtype)  # [N, w, h, h]
        if lean(x):
            y = F.conv2d(features, by_pixels(self.features.weight, self.unfold))  # [N, u*u*w, h/u, h/u]
            x = add_unfolded(x, y.to(x.dtype), by_pixels(self.features.bias, self.unfold), self.unfold)
        else:
            x = x + F.pixel_shuffle(self.features(features), self.unfold)
            x = x.contiguous(memory_format=torch.channels_last)
        if near is not None:  # [N, cascade_planes(...), h, h]
            x = x + (convolve_padded(near, self.near) if lean(near) else self.near(near))
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x)
