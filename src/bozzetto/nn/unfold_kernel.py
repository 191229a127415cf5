"""Triton kernel that adds a coarse map, whose channels are squares of pixels, to a finer map.

A program owns a tile of the fine map, pixels x channels; a thread has some of its numbers in registers. A pixel's channels lie
side by side in both maps, so that every load is of whole rows. Programs share nothing and never synchronise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch

TILE = 4096  # numbers a program


@triton.jit(do_not_specialize=["pixels", "height", "width"])
def add_unfolded_kernel(
    x, y, bias, out, pixels, height, width, channels, PATCH: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """Grid (blocks of pixels of all maps,). ``height`` and ``width`` are those of the fine map."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.arange(0, BC)
    mask = (p[:, None] < pixels) & (c[None, :] < channels)
    row = p // width  # of all maps: their heights are whole squares
    column = p - row * width
    square = row // PATCH * (width // PATCH) + column // PATCH
    part = row % PATCH * PATCH + column % PATCH
    fine = p[:, None].to(tl.int64) * channels + c[None, :]
    within = part[:, None] * channels + c[None, :]
    coarse = square[:, None].to(tl.int64) * (PATCH * PATCH * channels) + within
    total = tl.load(x + fine, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(y + coarse, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(bias + within, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + fine, total.to(out.dtype.element_ty), mask=mask)


def add_unfolded(x: Tensor, y: Tensor, bias: Tensor, patch: int) -> Tensor:
    """:func:`.unfold.add_unfolded` for channels-last maps."""
    n, c, h, w = x.shape
    out = torch.empty_like(x, memory_format=torch.channels_last)
    wide = 1 << (c - 1).bit_length()
    tile = max(TILE // wide, 1)
    args = (x, y, bias.contiguous(), out, n * h * w, h, w, c)
    launch(add_unfolded_kernel, (cdiv(n * h * w, tile), 1, 1), args, (patch, tile, wide), 4)
    return out
