"""The vision transformer that reads the photo: DINO's ViT-B/16 (Caron et al. 2021, arXiv 2104.14294).

Module names equal the published keys below ``image_tokenizer.model``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ViTConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The position embeddings are stretched by (grid + 0.1) / 14 instead of grid / 14. The offset once guarded against rounding
# in the interpolation's output size; the weights were trained with it, so it is part of the network.
GRID_OFFSET = 0.1


class Embeddings(nn.Module):
    """Patches -> tokens, a class token before them, positions added."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        grid = config.image_size // config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + grid * grid, config.hidden_size))
        self.patch_embeddings = nn.ModuleDict(
            {"projection": nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)}
        )

    def positions(self, height: int, width: int) -> Tensor:
        """Position embeddings [1, 1 + height * width, C] for a grid of patches."""
        grid = self.config.image_size // self.config.patch_size
        if height == width == grid:
            return self.position_embeddings
        first, patches = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        planes = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)  # [1, C, grid, grid]
        scale = ((height + GRID_OFFSET) / grid, (width + GRID_OFFSET) / grid)
        planes = F.interpolate(planes.float(), scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([first, planes.flatten(2).transpose(1, 2).to(first)], dim=1)

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, 1 + H*W / patch², C]
        patches = self.patch_embeddings["projection"](images)  # [B, C, h, w]
        tokens = patches.flatten(2).transpose(1, 2)  # [B, h*w, C]
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.positions(*patches.shape[2:])


class SelfAttention(nn.Module):
    """Queries, keys and values with biases."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, C]
        b, n, c = x.shape
        q, k, v = (
            f(x).reshape(b, n, self.heads, c // self.heads).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)  # [B, heads, N, d] -> [B, N, C]


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, hidden, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.attention = nn.ModuleDict({"attention": SelfAttention(config), "output": _dense(width, width)})
        self.intermediate = _dense(width, hidden)
        self.output = _dense(hidden, width)
        self.layernorm_before = nn.LayerNorm(width, eps=eps)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, C]
        x = x + self.attention["output"]["dense"](self.attention["attention"](self.layernorm_before(x)))
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))


class ViT(nn.Module):
    """Normalised images -> tokens. The pooler is in the published file and unused."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = _dense(config.hidden_size, config.hidden_size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], ImageNet-normalised -> [B, 1 + patches, C]: the class token, then patches row by row."""
        x = self.embeddings(images)
        for layer in self.encoder["layer"]:
            x = layer(x)
        return self.layernorm(x)


class ImageTokenizer(nn.Module):
    """Images in 0..1 -> tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.model = ViT(config)

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, S, S] in 0..1 -> [B, N, C]
        mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
        std = images.new_tensor(IMAGENET_STD)[:, None, None]
        return self.model((images - mean) / std)
