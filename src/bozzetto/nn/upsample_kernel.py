"""Triton kernel that joins the four convolutions of :mod:`.upsample`: a program gathers one tile of output pixels x channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch
from .tiles import load_channels

TILE_P, TILE_C = 64, 64


@triton.jit(do_not_specialize=["pixels", "height", "width"])
def interleave_kernel(
    z, bias, out, pixels, height, width, channels, BIAS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (p[:, None] < pixels) & (c[None, :] < channels)
    column = p % (2 * width)
    row = p // (2 * width) % (2 * height)
    image = p // (4 * width * height)
    a, b = row % 2, column % 2
    source = (image * (height + 1) + row // 2 + a) * (width + 1) + column // 2 + b
    at = (source.to(tl.int64) * 4 + a * 2 + b) * channels
    value = tl.load(z + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        value += load_channels(bias, c, c < channels)[None, :]
    to = p.to(tl.int64) * channels
    tl.store(out + to[:, None] + c[None, :], value.to(out.dtype.element_ty), mask=mask)


def interleave(z: Tensor, bias: Tensor | None) -> Tensor:
    """Channels-last [N, 4D, H + 1, W + 1] -> channels-last [N, D, 2H, 2W], with ``bias`` [D] added."""
    z = z.contiguous(memory_format=torch.channels_last)
    n, d, h, w = z.shape[0], z.shape[1] // 4, z.shape[2] - 1, z.shape[3] - 1
    out = torch.empty((n, d, 2 * h, 2 * w), dtype=z.dtype, device=z.device, memory_format=torch.channels_last)
    pixels = n * 4 * h * w
    grid = (cdiv(pixels, TILE_P), cdiv(d, TILE_C), 1)
    args = (z, z if bias is None else bias, out, pixels, h, w, d)
    launch(interleave_kernel, grid, args, (bias is not None, TILE_P, TILE_C), 4)
    return out
