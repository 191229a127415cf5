"""A convolution whose bias gets its gradient from a kernel for channels-last maps: PyTorch's sum over them takes five times as
long.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import kernels, use_kernels
from .residual import bias_gradient


def convolve_with_bias(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """``conv(x)`` for a plain ``conv`` (no groups, no dilation): [N, C, H, W] -> [N, D, H', W']."""
    wanted = torch.is_grad_enabled() and conv.bias is not None and conv.bias.requires_grad
    if wanted and use_kernels(x) and x.is_contiguous(memory_format=torch.channels_last):
        return AddBias.apply(F.conv2d(x, conv.weight, None, conv.stride, conv.padding), conv.bias)
    return nn.Conv2d.forward(conv, x)


class AddBias(torch.autograd.Function):
    """``y + bias`` for maps [N, D, H, W] and [D], in the memory of ``y``."""

    @staticmethod
    def forward(ctx, y: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(y)
        ctx.dtype = bias.dtype
        if use_kernels(y) and y.is_contiguous(memory_format=torch.channels_last):
            return kernels()[2].add_bias(y, bias)  # PyTorch's addition of a broadcast takes nearly three times as long
        return y.add_(bias.to(y.dtype)[:, None, None])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, bias_gradient(grad).to(ctx.dtype)
