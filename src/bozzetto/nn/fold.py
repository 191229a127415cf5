"""Squares of pixels as channels, laid out and rounded as the next convolution wants them, in one pass over memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backend import fold_kernel, use_kernels
from .bias import convolve_with_bias
from .convolution import MULTIPLE, convolve_padded, convolve_wide


def fold_pixels(x: Tensor, patch: int, dtype: torch.dtype | None = None) -> Tensor:
    """``F.pixel_unshuffle(x, patch)`` in ``dtype`` (None: that of ``x``), channels-last.

    Args:
        x: [N, C, H, W], H and W multiples of ``patch``.

    Returns:
        [N, C * patch * patch, H / patch, W / patch].
    """
    n, c, h, w = x.shape
    if _kernel_fits(x, patch):
        return fold_kernel().fold(x, patch, c * patch * patch, dtype or x.dtype)
    squares = x.reshape(n, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 1, 3, 5)
    rows = squares.to(dtype or x.dtype, memory_format=torch.contiguous_format).contiguous()  # copied once
    return rows.reshape(n, h // patch, w // patch, c * patch * patch).permute(0, 3, 1, 2)


def convolve_folded(x: Tensor, patch: int, conv: nn.Conv2d, dtype: torch.dtype | None = None) -> Tensor:
    """``conv(fold_pixels(x, patch, dtype))``; the channels that convolutions want besides are written with the others.

    Args:
        x: [N, C, H, W]. conv: takes C * patch * patch channels.
    """
    c = x.shape[1] * patch * patch
    padding = -c % MULTIPLE
    if _kernel_fits(x, patch) and padding and conv.bias is not None:
        return convolve_wide(fold_kernel().fold(x, patch, c + padding, dtype or x.dtype), conv)
    x = fold_pixels(x, patch, dtype)
    return convolve_padded(x, conv) if use_kernels(x) and padding else convolve_with_bias(x, conv)


def _kernel_fits(x: Tensor, patch: int) -> bool:
    return use_kernels(x) and not (torch.is_grad_enabled() and x.requires_grad) and fold_kernel().fits(x, patch)
