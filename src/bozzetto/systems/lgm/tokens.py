"""A plain transformer as the trunk: each patch of each view is a token, and all tokens of an object attend to each other.

After Zhang et al. 2024, "GS-LRM" (arXiv 2404.19702): no position embedding, since the rays among the input channels say where
a patch is; normalisation before each branch. The patch is folded into channels before this module (``LGMConfig.patch``), and
the Gaussians of a token are unfolded from its channels behind it (``LGMConfig.unpatch``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import self_attention

if TYPE_CHECKING:
    from .network import LGMConfig

_WIDEN = 4  # hidden width of a token's own layers


class TokenBlock(nn.Module):
    """Attention among all tokens, then two layers for each token, both added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be split into {heads} attention heads")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, _WIDEN * width)
        self.narrow = nn.Linear(_WIDEN * width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C]
        b, length, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, length, 3, self.heads, c // self.heads)
        x = x + self.proj(self_attention(qkv).reshape(b, length, c))  # [B, L, heads, d] -> [B, L, C]
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class TokenTrunk(nn.Module):
    """Takes the place of the U-Net: [B*V, Cin*p*p, h, w] -> [B*V, Cout*u*u, h, w]."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        width = config.token_width
        self.conv_in = nn.Conv2d(config.in_channels * config.patch**2, width, 1)
        self.blocks = nn.ModuleList(
            [TokenBlock(width, config.num_heads or max(width // 64, 1)) for _ in range(config.token_layers)]
        )
        self.norm_out = nn.LayerNorm(width)
        self.conv_out = nn.Conv2d(width, config.out_channels * config.unpatch**2, 1)
        for block in self.blocks:  # the variance of the sum stays that of one branch
            for last in (block.proj, block.narrow):
                last.weight.data.mul_((2 * config.token_layers) ** -0.5)

    def forward(self, x: Tensor, views: int) -> Tensor:
        x = self.conv_in(x)
        n, c, h, w = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n // views, views * h * w, c)  # [B, V h w, C]
        for block in self.blocks:
            tokens = block(tokens)
        x = self.norm_out(tokens).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return self.conv_out(x)
