"""A coarse map's channels as squares of pixels, added to a finer map: what a sub-pixel convolution gives, in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backend import unfold_kernel, use_kernels
from .residual import bias_gradient


def add_unfolded(x: Tensor, y: Tensor, bias: Tensor, patch: int, kept: int | None = None) -> Tensor:
    """``x + pixel_shuffle(y + bias, patch)``, differentiable, but for the order of ``y``'s channels: see below.

    PyTorch's ``pixel_shuffle`` leaves maps that are not channels-last, which the sum and the next layer then turn.

    Args:
        x: [N, C, H, W], channels-last.
        y: [N, patch * patch * C, H / patch, W / patch], channels-last; of the same dtype. Its channels are C for the upper
            left pixel of each square, C for the next one in its row, and so on: what :func:`by_pixels` makes of weights.
        bias: [patch * patch * C], in the same order.
        kept: channels that are wanted, the first ones; the others, which round C up, get no gradient. None for all.

    Returns:
        [N, kept, H, W], channels-last (``kept`` of C channels in memory), in the dtype of ``x``; sums are float32.
    """
    lies = all(t.is_contiguous(memory_format=torch.channels_last) for t in (x, y))
    if not use_kernels(x) or x.dtype != y.dtype or not lies:
        return add_unfolded_torch(x, y, bias, patch)[:, :kept]
    return add_unfolded_triton(x, y, bias, patch, kept)


def by_pixels(weight: Tensor, patch: int) -> Tensor:
    """Weights [C * patch * patch, ...] of a convolution before ``pixel_shuffle``, in the order of :func:`add_unfolded`."""
    return weight.unflatten(0, (-1, patch * patch)).transpose(0, 1).flatten(0, 1)


def add_unfolded_torch(x: Tensor, y: Tensor, bias: Tensor, patch: int) -> Tensor:
    """:func:`add_unfolded` in plain PyTorch."""
    n, c, h, w = x.shape
    y = y + bias.to(y.dtype)[:, None, None]
    y = y.reshape(n, patch * patch, c, h // patch, w // patch).transpose(1, 2)  # [N, C, patch * patch, h, w]
    return x + F.pixel_shuffle(y.flatten(1, 2), patch)


def add_unfolded_triton(x: Tensor, y: Tensor, bias: Tensor, patch: int, kept: int | None = None) -> Tensor:
    """:func:`add_unfolded` by the Triton kernel; maps must be channels-last and of one dtype."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, y, bias)):
        return _AddUnfolded.apply(x, y, bias, patch, kept)
    return unfold_kernel().add_unfolded(x, y, bias, patch)[:, :kept]


class _AddUnfolded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, bias, patch, kept):
        ctx.patch, ctx.bias, ctx.channels = patch, bias.dtype, x.shape[1]
        return unfold_kernel().add_unfolded(x, y, bias, patch)[:, :kept]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        n, kept, h, w = grad.shape
        c, p = ctx.channels, ctx.patch
        rows = grad.permute(0, 2, 3, 1)  # [N, H, W, kept]
        if kept < c:  # PyTorch's gradient of a slice would not be channels-last
            rows, narrow = rows.new_zeros((n, h, w, c)), rows
            rows[..., :kept] = narrow
        rows = rows.contiguous()
        squares = rows.view(n, h // p, p, w // p, p, c).transpose(2, 3)  # [N, h/p, w/p, p, p, C]
        folded = squares.reshape(n, h // p, w // p, p * p * c).permute(0, 3, 1, 2)  # copied once
        by_bias = bias_gradient(folded).to(ctx.bias) if ctx.needs_input_grad[2] else None
        return rows.permute(0, 3, 1, 2), folded, by_bias, None, None
