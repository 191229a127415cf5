"""TripoSR's network: a photo -> triplane features -> density and colour at any point.

Source: Tochilkin et al. 2024, "TripoSR: Fast 3D Object Reconstruction from a Single Image" (arXiv 2403.02151), after
Hong et al. 2023, "LRM" (arXiv 2311.04400). Module names equal the published checkpoint's keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import BackboneConfig, DecoderConfig, PostProcessorConfig, TokenizerConfig, TripoSRConfig
from .vit import ImageTokenizer


class TriplaneTokenizer(nn.Module):
    """Learned tokens, one per cell of the three planes."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        size, channels = config.plane_size, config.num_channels
        self.embeddings = nn.Parameter(torch.randn(3, channels, size, size) / channels**0.5)

    def forward(self, batch: int) -> Tensor:
        """[B, C, 3 * P * P], in the order plane, row, column."""
        tokens = self.embeddings.permute(1, 0, 2, 3).flatten(1)  # [3, C, P, P] -> [C, 3*P*P]
        return tokens.expand(batch, -1, -1)

    def detokenize(self, tokens: Tensor) -> Tensor:
        """[B, C, 3 * P * P] -> [B, 3, C, P, P]."""
        size = self.embeddings.shape[-1]
        return tokens.reshape(*tokens.shape[:2], 3, size, size).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention from tokens to a context; without biases but for the last projection."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # [B, N, C], [B, L, D] -> [B, N, C]
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # each [B, heads, ., d]
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GatedProjection(nn.Module):
    """value * gelu(gate); the projection's first half is the value."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Gated, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The entry between the two is dropout in the published code; it has no weights, but a place in the names.
        self.net = nn.ModuleList([GatedProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class Block(nn.Module):
    """Self-attention, attention to the image tokens, feed-forward; each normalised before and added."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width, heads = config.in_channels, config.num_attention_heads
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, config.cross_attention_dim, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # [B, N, C], [B, L, D] -> [B, N, C]
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer1D(nn.Module):
    """The backbone: blocks between two projections, added to the tokens that came in."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.in_channels
        self.norm = nn.GroupNorm(config.norm_num_groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.proj_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """tokens [B, C, N], context [B, L, D] -> [B, C, N]."""
        x = self.proj_in(self.norm(tokens).transpose(1, 2))  # [B, N, C]
        for block in self.transformer_blocks:
            x = block(x, context)
        return self.proj_out(x).transpose(1, 2) + tokens


class TriplaneUpsampler(nn.Module):
    """Twice the resolution, few channels, each plane by itself."""

    def __init__(self, config: PostProcessorConfig) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(config.in_channels, config.out_channels, 2, stride=2)

    def forward(self, planes: Tensor) -> Tensor:  # [B, 3, C, P, Q] -> [B, 3, C', 2P, 2Q]
        return self.upsample(planes.flatten(0, 1)).unflatten(0, planes.shape[:2])


class NeRFMLP(nn.Module):
    """Triplane features [..., C] -> (density, red, green, blue) before their activations [..., 4]."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        activation = {"silu": nn.SiLU, "relu": nn.ReLU}[config.activation]
        layers: list[nn.Module] = []
        width = config.in_channels
        for _ in range(config.n_hidden_layers):
            layers += [nn.Linear(width, config.n_neurons), activation()]
            width = config.n_neurons
        self.layers = nn.Sequential(*layers, nn.Linear(width, 4))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class TripoSR(nn.Module):
    """``forward`` makes the triplane; ``decoder`` reads it (:mod:`bozzetto.systems.triposr.field`)."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        self.config = config
        self.image_tokenizer = ImageTokenizer(config.vit)
        self.tokenizer = TriplaneTokenizer(config.tokenizer)
        self.backbone = Transformer1D(config.backbone)
        self.post_processor = TriplaneUpsampler(config.post_processor)
        self.decoder = NeRFMLP(config.decoder)

    def forward(self, images: Tensor) -> Tensor:
        """Photos [B, 3, S, S] on grey, rgb 0..1, S = ``config.cond_image_size`` -> triplanes [B, 3, C, 2P, 2P]."""
        size = self.config.cond_image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(f"expected photos [B, 3, {size}, {size}], got {tuple(images.shape)}")
        images = images.to(self.tokenizer.embeddings)
        context = self.image_tokenizer(images)
        tokens = self.backbone(self.tokenizer(len(images)), context)
        return self.post_processor(self.tokenizer.detokenize(tokens))
