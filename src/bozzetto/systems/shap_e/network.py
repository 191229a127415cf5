"""Shap-E's diffusion transformers: they denoise a latent, a matrix of 1,024 rows whose rows become rows of an MLP's weights.

Source: Jun & Nichol 2023, "Shap-E: Generating Conditional 3D Implicit Functions" (arXiv 2305.02463). Text and image model
differ only in how the condition becomes tokens (one token of CLIP's text embedding; 256 tokens of CLIP's patch features) and
in the number of heads. Module names equal the published checkpoints' keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


@dataclass(frozen=True)
class DiffusionConfig:
    """Shape of one diffusion transformer. The defaults are the released text model (text300M)."""

    condition: str = "text"  # "text": one pooled CLIP embedding; "image": a grid of CLIP patch features
    context: int = 1024  # rows of the latent = latent tokens
    channels: int = 1024  # columns of the latent
    width: int = 1024
    layers: int = 24
    heads: int = 16
    embedding: int = 768  # channels of the condition

    @property
    def latent_size(self) -> int:
        """Numbers in a latent."""
        return self.context * self.channels


TEXT300M = DiffusionConfig()
IMAGE300M = DiffusionConfig(condition="image", heads=8, embedding=1024)


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal code [B, width] of diffusion times [B]: cosines, then sines, of t / 10000^(k / (width / 2))."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Attention(nn.Module):
    """Self-attention; queries, keys and values lie side by side *inside each head* of the fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be split into {heads} attention heads")
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C]
        b, length, c = x.shape
        qkv = self.c_qkv(x).reshape(b, length, self.heads, 3 * c // self.heads).transpose(1, 2)  # [B, heads, L, 3d]
        q, k, v = qkv.chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.c_proj(y.transpose(1, 2).reshape(b, length, c))  # [B, heads, L, d] -> [B, L, C]


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Pre-normalised attention and MLP, each with its shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width)
        self.ln_2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Backbone(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class Transformer(nn.Module):
    """Condition tokens, then latent tokens, through the blocks; the condition tokens are dropped at the end."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        if config.condition not in ("text", "image"):
            raise ValueError(f"condition must be 'text' or 'image', got {config.condition!r}")
        self.config = config
        width = config.width
        self.pos_emb = nn.Parameter(torch.zeros(config.context, width))
        self.time_embed = MLP(width)
        self.ln_pre = nn.LayerNorm(width, eps=EPS)
        self.backbone = Backbone(width, config.layers, config.heads)
        self.ln_post = nn.LayerNorm(width, eps=EPS)
        self.input_proj = nn.Linear(config.channels, width)
        self.output_proj = nn.Linear(width, 2 * config.channels)
        if config.condition == "text":
            self.clip_embed = nn.Linear(config.embedding, width)
        else:
            self.clip_embed = nn.Sequential(nn.LayerNorm(config.embedding, eps=EPS), nn.Linear(config.embedding, width))

    def condition_tokens(self, t: Tensor, condition: Tensor) -> Tensor:
        """[B, 1 + L, width]: the text model puts its one CLIP token before the time token, the image model 256 after it."""
        time = self.time_embed(time_embedding(t, self.config.width))[:, None]  # [B, 1, width]
        if self.config.condition == "text":
            clip = self.clip_embed(condition * math.sqrt(self.config.embedding))[:, None]  # [B, 1, width]
            return torch.cat([clip, time], dim=1)
        return torch.cat([time, self.clip_embed(condition.transpose(1, 2))], dim=1)  # [B, E, L] -> [B, L, E] -> tokens

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor
    ) -> Tensor:  # [B, context, channels] -> [.., 2 * channels]
        tokens = self.condition_tokens(t, condition)
        latent = self.input_proj(x) + self.pos_emb
        h = self.backbone(self.ln_pre(torch.cat([tokens.to(latent.dtype), latent], dim=1)))
        return self.output_proj(self.ln_post(h)[:, tokens.shape[1] :])


class LatentDiffusion(nn.Module):
    """The transformer as a function of flat latents, as in the published checkpoints (keys ``wrapped.*``)."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.wrapped = Transformer(config)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction of the clean latent, and the (unused) variance values: two [B, context * channels].

        Args:
            x: [B, context * channels] noisy latents, row by row, already scaled to unit variance.
            t: [B] diffusion times, 0..1023.
            condition: text [B, E], L2-normalised; image [B, E, L]. All zeros where the condition is dropped.
        """
        config = self.config
        if x.ndim != 2 or x.shape[1] != config.latent_size:
            raise ValueError(f"expected latents [B, {config.latent_size}], got {tuple(x.shape)}")
        y = self.wrapped(x.reshape(-1, config.context, config.channels), t, condition)
        clean, variance = y.chunk(2, dim=-1)  # each [B, context, channels]
        return clean.flatten(1), variance.flatten(1)
