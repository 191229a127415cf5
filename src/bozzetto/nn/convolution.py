"""Convolutions on channels-last maps without what costs passes over memory: concatenated inputs, biases added on their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import pad_kernel, use_kernels


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """``conv`` without its bias, which the kernel that reads the result adds (``shift`` of ``group_norm``, ``add_scaled``)."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def pointwise(x: Tensor, weight: Tensor, skip: Tensor | None = None) -> Tensor:
    """A 1x1 convolution without bias as matrix products: ``conv2d(cat([x, skip], 1), weight)``, the concatenation unwritten.

    Args:
        x, skip: [N, C1, H, W], [N, C2, H, W], channels-last.
        weight: [D, C1 + C2, 1, 1] or [D, C1 + C2]; cast to ``x``'s dtype.

    Returns:
        [N, D, H, W], channels-last.
    """
    n, c1, h, w = x.shape
    weight = weight.flatten(1).to(x.dtype)  # [D, C, 1, 1] -> [D, C]
    y = torch.mm(rows(x), weight[:, :c1].t())  # of one dtype already: autocast has nothing to change
    if skip is not None:
        y = y.addmm_(rows(skip).to(x.dtype), weight[:, c1:].t())
    return y.view(n, h, w, -1).permute(0, 3, 1, 2)


MULTIPLE = 16  # of channels, that the tensor cores' convolutions want


def convolve_padded(x: Tensor, conv: nn.Conv2d, multiple: int = MULTIPLE) -> Tensor:
    """``conv`` with its bias, for maps [N, C, H, W] of few channels, such as a network's input of 9; the result is channels-last.

    The tensor cores' convolutions want whole multiples of channels. The first channel of the padding is a constant 1, whose
    weight is the bias.
    """
    c = x.shape[1]
    padding = -c % multiple
    if padding == 0 or conv.bias is None:
        return conv(x.contiguous(memory_format=torch.channels_last))
    if use_kernels(x) and not (torch.is_grad_enabled() and x.requires_grad) and pad_kernel().fits(x):
        wide = pad_kernel().pad(x, c + padding)
    else:
        wide = pad_torch(x, c + padding)
    return convolve_wide(wide, conv)


def convolve_wide(wide: Tensor, conv: nn.Conv2d) -> Tensor:
    """``conv`` with its bias for maps with more channels than it takes: the next one holds ones, those behind it zeros."""
    c = conv.in_channels
    weight = F.pad(conv.weight, (0, 0, 0, 0, 0, wide.shape[1] - c))
    weight[:, c, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = conv.bias
    return F.conv2d(wide, weight.contiguous(memory_format=torch.channels_last), None, conv.stride, conv.padding)


def pad_torch(x: Tensor, wide: int) -> Tensor:
    """[N, C, H, W] -> channels-last [N, wide, H, W], C < wide: channel C is 1, those behind it are 0."""
    n, c, h, w = x.shape
    out = torch.empty((n, wide, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out[:, :c] = x
    out[:, c] = 1.0
    out[:, c + 1 :] = 0.0
    return out


def rows(x: Tensor) -> Tensor:
    """Channels-last map [N, C, H, W] -> a row per pixel [N*H*W, C], a view."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
