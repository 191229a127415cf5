"""Triton kernel of a residual sum: each program adds one tile of rows (pixels or tokens) x channels, held in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

TILE_P, TILE_C = 64, 64


@triton.jit(do_not_specialize=["rows"])
def add_scaled_kernel(x, y, bias, out, rows, channels, scale, BIAS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (p[:, None] < rows) & (c[None, :] < channels)
    at = p[:, None].to(tl.int64) * channels + c[None, :]
    total = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) + tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        total += tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    tl.store(out + at, (total * scale).to(out.dtype.element_ty), mask=mask)


def add_scaled(x: Tensor, y: Tensor, bias: Tensor | None, channels: int, scale: float) -> Tensor:
    """``x``, ``y``: dense tensors of one layout whose memory runs over channels fastest; the same layout comes back."""
    out = torch.empty_like(x)
    rows = x.numel() // channels
    grid = (triton.cdiv(rows, TILE_P), triton.cdiv(channels, TILE_C), 1)
    args = (x, y, x if bias is None else bias, out, rows, channels, scale)
    launch(add_scaled_kernel, grid, args, (bias is not None, TILE_P, TILE_C), 4)
    return out
