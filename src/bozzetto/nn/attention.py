"""Self-attention over packed projections: PyTorch's kernels, and our own where theirs pad."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import attention_kernel, use_kernels

LONG = 2048  # tokens from which our kernel is worth its launch


def self_attention(qkv: Tensor) -> Tensor:
    """``softmax(q k' / sqrt(d)) v`` of every head.

    Args:
        qkv: [B, L, 3, heads, d], as one linear layer gives queries, keys and values.

    Returns:
        [B, L, heads, d], contiguous where it costs nothing.

    32 channels a head, half precision, no gradient and many tokens on CUDA: :mod:`.attention_kernel`; everything else is
    ``scaled_dot_product_attention``.
    """
    if (
        qkv.shape[-1] == 32
        and qkv.shape[1] % 128 == 0
        and qkv.shape[1] >= LONG
        and qkv.dtype in (torch.float16, torch.bfloat16)
        and qkv.stride(-1) == 1
        and not (torch.is_grad_enabled() and qkv.requires_grad)
        and use_kernels(qkv)
        and torch.cuda.get_device_capability(qkv.device) >= (9, 0)
    ):
        return attention_kernel().attention(qkv)
    return self_attention_torch(qkv)


def self_attention_torch(qkv: Tensor) -> Tensor:
    """:func:`self_attention` by PyTorch."""
    # Unbound where they lie, so that the gradient is put together in one pass.
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each [B, heads, L, d]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
