"""What transformer blocks do to their tokens beside matrix products, each in one pass over memory.

The plain PyTorch twins are the model of the kernels (``tokens_kernels.py``) and the path on the CPU, under ``torch.compile``,
with gradients and without Triton.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import use_kernels


def geglu(x: Tensor) -> Tensor:
    """``value * gelu(gate)`` for tokens [..., 2 C] that hold (value, gate) -> [..., C]; exact GELU.

    Source: Shazeer 2020, "GLU Variants Improve Transformer" (arXiv 2002.05202).
    """
    if _fits(x):
        from .tokens_kernels import geglu as fused

        return fused(x)
    return geglu_torch(x)


def geglu_torch(x: Tensor) -> Tensor:
    """:func:`geglu` in plain PyTorch."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def add_layer_norm(x: Tensor, y: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """``(x + y, norm(x + y))`` for tokens [..., C] of one dtype: the end of one branch and the beginning of the next."""
    if _fits(x, y) and x.shape[-1] <= 8192:
        from .tokens_kernels import add_layer_norm as fused

        return fused(x, y, norm.weight, norm.bias, norm.eps)
    return add_layer_norm_torch(x, y, norm)


def add_layer_norm_torch(x: Tensor, y: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """:func:`add_layer_norm` in plain PyTorch."""
    x = x + y
    return x, norm(x)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    second: tuple[Tensor, Tensor] | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Multi-head attention of many tokens to few: ``attend(q, k, v) + weight * attend(q, *second)``, each with its own softmax.

    Args:
        q: [B, L, heads * d].
        k, v: [R, M, heads * d], R a divisor of B: each row serves B / R neighbours of ``q``.
        second: another pair [R, M2, heads * d] (the tokens of a picture beside those of a text).

    Returns:
        [B, L, heads * d].
    """
    if _fits(q) and q.dtype != torch.float32:
        from .tokens_kernels import attend, attends

        if attends(q.shape[-1] // heads, k.shape[1], second[0].shape[1] if second else 0):
            return attend(q, k, v, heads, second, weight)
    return cross_attention_torch(q, k, v, heads, second, weight)


def cross_attention_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    second: tuple[Tensor, Tensor] | None = None,
    weight: float = 1.0,
) -> Tensor:
    """:func:`cross_attention` in plain PyTorch."""
    b, length, c = q.shape

    def split(t: Tensor) -> Tensor:  # [R, n, heads * d] -> [R, heads, n, d]
        return t.unflatten(-1, (heads, -1)).transpose(1, 2)

    q = split(q.reshape(len(k), -1, c))  # neighbours of one row, one after another
    out = F.scaled_dot_product_attention(q, split(k), split(v))
    if second is not None:
        out = out + weight * F.scaled_dot_product_attention(q, split(second[0]), split(second[1]))
    return out.transpose(1, 2).reshape(b, length, c)


def _fits(*tensors: Tensor) -> bool:
    """Whether the kernels can take these: packed, without gradients, where kernels run at all."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return all(use_kernels(t) and t.is_contiguous() for t in tensors)
