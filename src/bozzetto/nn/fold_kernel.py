"""Triton kernel that folds squares of pixels into channels, rounds them and pads them for convolutions.

A program owns a strip of squares in one row of one picture, with all of its channels. It reads the strip's rows of pixels as they
lie, turns the tile in shared memory, and writes each square's channels side by side. Programs share nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch

TILE = 8192  # numbers a program


@triton.jit(do_not_specialize=["squares", "n_stride"])
def fold_kernel(
    x, out, squares, channels, width, n_stride, plane, WIDE: tl.constexpr,
    BC: tl.constexpr, BS: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Grid (strips of a row, rows of squares, pictures). ``squares``, ``width``: of a row, in squares and in pixels."""
    strip, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    line = tl.arange(0, BC * PATCH)  # a row of pixels of a channel
    c, i = line // PATCH, line % PATCH
    pixel = strip * (BS * PATCH) + tl.arange(0, BS * PATCH)
    at = x + image.to(tl.int64) * n_stride + (row * PATCH) * width
    at += c[:, None].to(tl.int64) * plane + i[:, None] * width + pixel[None, :]
    value = tl.load(at, mask=(c[:, None] < channels) & (pixel[None, :] < width), other=0.0)
    one = ((c == channels) & (i == 0))[:, None] & (pixel % PATCH == 0)[None, :]
    value = tl.where(one, 1.0, value.to(tl.float32)).to(out.dtype.element_ty)
    value = tl.permute(tl.reshape(value, (BC, PATCH, BS, PATCH)), (2, 0, 1, 3))
    value = tl.reshape(value, (BS, BC * PATCH * PATCH))
    k = tl.arange(0, BC * PATCH * PATCH)
    square = strip * BS + tl.arange(0, BS)
    rows = tl.num_programs(1)
    to = ((image.to(tl.int64) * rows + row) * squares + square[:, None]) * WIDE + k[None, :]
    tl.store(out + to, value, mask=(square[:, None] < squares) & (k[None, :] < WIDE))


def fits(x: Tensor, patch: int) -> bool:
    """Whether rows of pixels of [N, C, H, W] lie densely, one after another, channel after channel, and squares suit tiles."""
    h, w = x.shape[2:]
    return x.stride()[1:] == (h * w, w, 1) and patch > 1 and patch & (patch - 1) == 0


def fold(x: Tensor, patch: int, wide: int, dtype: torch.dtype) -> Tensor:
    """[N, C, H, W] -> channels-last [N, wide, H / patch, W / patch]: folded pixels; where ``wide`` is more, a 1, then zeros."""
    n, c, h, w = x.shape
    out = torch.empty((n, h // patch, w // patch, wide), dtype=dtype, device=x.device)
    rounded = 1 << (cdiv(wide, patch * patch) - 1).bit_length()  # of channels
    strip = max(1, TILE // (rounded * patch * patch))
    grid = (cdiv(w // patch, strip), h // patch, n)
    launch(fold_kernel, grid, (x, out, w // patch, c, w, x.stride(0), h * w), (wide, rounded, strip, patch), 8)
    return out.permute(0, 3, 1, 2)
