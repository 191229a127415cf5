"""The Resampler (``image_embed`` in the UNet's state dict): picture features -> a few tokens for cross-attention.

Learned queries attend to the features and to themselves, layer by layer (a Perceiver: Alayrac et al. 2022, "Flamingo",
arXiv 2204.14198; used for pictures by Ye et al. 2023, "IP-Adapter", arXiv 2308.06721). Module names equal the published keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PerceiverAttention(nn.Module):
    """Queries from the latents; keys and values from the features followed by the latents. No biases in the projections."""

    def __init__(self, dim: int, head_dim: int = 64, heads: int = 12) -> None:
        super().__init__()
        inner = head_dim * heads
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:  # [B, N, D], [B, Q, D] -> [B, Q, D]
        features, latents = self.norm1(features), self.norm2(latents)
        k, v = self.to_kv(torch.cat([features, latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(latents), k, v))
        out = F.scaled_dot_product_attention(q, k, v)  # [B, heads, Q, d]
        return self.to_out(out.transpose(1, 2).flatten(2))


def _feed_forward(dim: int, mult: int) -> nn.Sequential:
    inner = dim * mult
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, inner, bias=False), nn.GELU(), nn.Linear(inner, dim, bias=False)
    )


class Resampler(nn.Module):
    """Features [B, N, embedding_dim] -> tokens [B, num_queries, output_dim]. The defaults are ImageDream's."""

    def __init__(
        self,
        dim: int = 1024,
        depth: int = 4,
        head_dim: int = 64,
        heads: int = 12,
        num_queries: int = 16,
        embedding_dim: int = 1280,
        output_dim: int = 1024,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            [
                nn.ModuleList([PerceiverAttention(dim, head_dim, heads), _feed_forward(dim, ff_mult)])
                for _ in range(depth)
            ]
        )

    def forward(self, features: Tensor) -> Tensor:
        latents = self.latents.expand(len(features), -1, -1)
        features = self.proj_in(features)
        for attention, feed_forward in self.layers:
            latents = latents + attention(features, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))
