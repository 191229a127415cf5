"""The transformer inside of the multi-view UNet: feature maps as tokens that see all views, the text and the picture."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.group_norm import GroupNorm
from ...nn.residual import add_scaled
from ...nn.tokens import add_layer_norm, cross_attention, geglu


class KeysValues(NamedTuple):
    """What a cross-attention makes of its context, which no noise level changes: [R, M, C] each, R rows of text.

    The second pair is that of the image tokens, None where the network takes no picture.
    """

    k: Tensor
    v: Tensor
    k_ip: Tensor | None = None
    v_ip: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention to ``context`` (default: to itself); with ``ip_dim``, also to the image tokens at its end."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        context_dim: int | None = None,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.self_attention = context_dim is None
        self.heads, self.ip_dim, self.ip_weight = heads, ip_dim, ip_weight
        context_dim = context_dim or dim
        if ip_dim:
            self.to_k_ip = nn.Linear(context_dim, inner, bias=False)
            self.to_v_ip = nn.Linear(context_dim, inner, bias=False)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))
        self._qkv: Tensor | None = None  # [3 * inner, dim]: the three weights as one, see fold_weights

    def fold_weights(self) -> None:
        """Let queries, keys and values of self-attention share one matrix, of which their own weights are then parts."""
        if self.self_attention:
            parts = (self.to_q, self.to_k, self.to_v)
            self._qkv = torch.cat([part.weight.detach() for part in parts])
            for part, weight in zip(parts, self._qkv.chunk(3)):
                part.weight = nn.Parameter(weight, requires_grad=False)

    def _apply(self, fn, recurse: bool = True):  # moved or cast: the parts are tensors of their own again
        self._qkv = None
        return super()._apply(fn, recurse)

    def remember(self, context: Tensor) -> KeysValues:
        """Keys and values of a context [R, M, D]."""
        if not self.ip_dim:
            return KeysValues(self.to_k(context), self.to_v(context))
        text, image = context[:, : -self.ip_dim], context[:, -self.ip_dim :]
        return KeysValues(self.to_k(text), self.to_v(text), self.to_k_ip(image), self.to_v_ip(image))

    def forward(self, x: Tensor, context: Tensor | KeysValues | None = None) -> Tensor:
        """[B, L, C] -> [B, L, C]; ``context`` [R, M, D] or what :meth:`remember` makes of it, R a divisor of B."""
        if self.self_attention:
            return self.to_out(self._attend_itself(x))
        memory = context if isinstance(context, KeysValues) else self.remember(context)
        image = None if memory.k_ip is None else (memory.k_ip, memory.v_ip)
        return self.to_out(cross_attention(self.to_q(x), memory.k, memory.v, self.heads, image, self.ip_weight))

    def _attend_itself(self, x: Tensor) -> Tensor:
        parts = (self.to_q(x), self.to_k(x), self.to_v(x)) if self._qkv is None else F.linear(x, self._qkv).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in parts)  # [B, heads, L, d]
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, L, heads * d]


class GEGLU(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * out)

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., out]
        return geglu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, dim: int, mult: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, dim * mult), nn.Identity(), nn.Linear(dim * mult, dim))

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention over all views of a sample, cross-attention per view, feed-forward; each pre-normalised and residual."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, context_dim: int, ip_dim: int = 0, ip_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.attn1 = Attention(dim, heads, head_dim)
        self.ff = FeedForward(dim)
        self.attn2 = Attention(dim, heads, head_dim, context_dim, ip_dim, ip_weight)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor | KeysValues, views: int) -> Tensor:
        """[B*F, L, C] -> [B*F, L, C]; ``context`` as in :class:`Attention`."""
        bf, length, c = x.shape
        joined = self.norm1(x).reshape(bf // views, views * length, c)  # [B, F*L, C]
        x, h = add_layer_norm(x, self.attn1(joined).reshape(bf, length, c), self.norm2)
        x, h = add_layer_norm(x, self.attn2(h, context), self.norm3)
        return add_scaled(x, self.ff(h))


class SpatialTransformer3D(nn.Module):
    """Feature maps as tokens through transformer blocks that see all views."""

    def __init__(
        self,
        channels: int,
        heads: int,
        head_dim: int,
        context_dim: int,
        depth: int = 1,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(inner, heads, head_dim, context_dim, ip_dim, ip_weight) for _ in range(depth)]
        )
        self.proj_out = nn.Linear(inner, channels)

    def remember(self, context: Tensor) -> list[KeysValues]:
        """Keys and values of a context [R, M, D], one entry a block."""
        return [block.attn2.remember(context) for block in self.transformer_blocks]

    def forward(self, x: Tensor, context: Tensor | list[KeysValues], views: int) -> Tensor:
        """[B*F, C, H, W] -> [B*F, C, H, W]; ``context``: tokens [R, M, D], or :meth:`remember`'s list."""
        bf, c, h, w = x.shape
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(bf, h * w, c))  # [B*F, H*W, inner]
        for i, block in enumerate(self.transformer_blocks):
            tokens = block(tokens, context[i] if isinstance(context, list) else context, views)
        out = self.proj_out(tokens).reshape(bf, h, w, c).permute(0, 3, 1, 2)  # a channels-last map
        return add_scaled(x, out)
