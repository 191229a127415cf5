"""Triton kernel that lays out a network's few input channels for convolutions: padded to a multiple, a constant 1 among them.

A program owns a tile of one picture's pixels with all channels of the result: it reads each channel of the picture along its
rows, in whatever layout, and writes the pixels' channels side by side. Nothing is synchronised.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch

TILE_P = 256


@triton.jit(do_not_specialize=["pixels", "channels", "n_stride"])
def pad_kernel(
    x, out, pixels, channels, n_stride, c_stride, p_stride, BP: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.arange(0, BC)
    at = image * n_stride + p[:, None].to(tl.int64) * p_stride + c[None, :] * c_stride
    inside = p[:, None] < pixels
    value = tl.load(x + at, mask=inside & (c[None, :] < channels), other=0.0)
    value = tl.where(c[None, :] == channels, 1.0, value.to(tl.float32)).to(out.dtype.element_ty)
    to = (image * pixels + p[:, None]) * WIDE + c[None, :]
    tl.store(out + to, value, mask=inside & (c[None, :] < WIDE))


def fits(x: Tensor) -> bool:
    """Whether rows of the pictures [N, C, H, W] follow one another at the stride of their pixels."""
    return x.stride(2) == x.shape[3] * x.stride(3)


def pad(x: Tensor, wide: int) -> Tensor:
    """[N, C, H, W] -> channels-last [N, wide, H, W], C < wide: channel C is 1, those behind it are 0."""
    n, c, h, w = x.shape
    out = torch.empty((n, wide, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    columns = 1 << (wide - 1).bit_length()
    args = (x, out, h * w, c, x.stride(0), x.stride(1), x.stride(3))
    launch(pad_kernel, (cdiv(h * w, TILE_P), n, 1), args, (TILE_P, columns, wide), 4)
    return out
