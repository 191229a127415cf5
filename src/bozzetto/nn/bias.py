"""A convolution whose bias is added, and gets its gradient, by a kernel for channels-last maps: PyTorch's addition of it takes
nearly three times as long, its sum over them five times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import kernels, use_kernels
from .residual import bias_gradient


def convolve_with_bias(x: Tensor, conv: nn.Conv2d, moments: bool = False) -> Tensor:
    """``conv(x)`` for a plain ``conv`` (no groups, no dilation): [N, C, H, W] -> [N, D, H', W'].

    ``moments``: a group norm reads the result: where that saves a pass, its moments go along (:mod:`.moments`).
    """
    if conv.bias is None or not use_kernels(x) or not x.is_contiguous(memory_format=torch.channels_last):
        return nn.Conv2d.forward(conv, x)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, conv.weight, conv.bias)):
        if not conv.bias.requires_grad:
            return nn.Conv2d.forward(conv, x)
        return AddBias.apply(F.conv2d(x, conv.weight, None, conv.stride, conv.padding), conv.bias)
    return add_bias(F.conv2d(x, conv.weight, None, conv.stride, conv.padding), conv.bias, moments)


def add_bias(y: Tensor, bias: Tensor, moments: bool = False) -> Tensor:
    """``y + bias`` for maps [N, D, H, W] and [D], in the memory of ``y``, without gradients; ``moments`` as above."""
    if use_kernels(y) and y.is_contiguous(memory_format=torch.channels_last):
        return kernels()[2].add_bias(y, bias, moments)
    return y.add_(bias.to(y.dtype)[:, None, None])


class AddBias(torch.autograd.Function):
    """``y + bias`` for maps [N, D, H, W] and [D], in the memory of ``y``."""

    @staticmethod
    def forward(ctx, y: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(y)
        ctx.dtype = bias.dtype
        return add_bias(y, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, bias_gradient(grad).to(ctx.dtype)
