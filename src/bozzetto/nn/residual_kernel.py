"""Triton kernels of residual sums and of their biases' gradients, on rows (pixels or tokens) of channels.

A program of the sum adds one tile of rows x channels in registers. A program of the gradient goes over one chunk of rows for
64 channels, keeps their sums in registers and writes them; PyTorch adds the chunks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch
from .tiles import load_channels, turned
from .turn import AS_THEY_ARE

TILE_P, TILE_C = 64, 64
PROGRAMS = 1024  # wanted for a column sum


@triton.jit(do_not_specialize=["rows", "pixels", "outer", "inner"])
def add_scaled_kernel(
    x, y, bias, out, rows, channels, scale, pixels, outer, inner,
    BIAS: tl.constexpr, TURN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (p[:, None] < rows) & (c[None, :] < channels)
    at = p[:, None].to(tl.int64) * channels + c[None, :]
    other = at
    if TURN:  # y's pictures stand in another order
        source = turned(p // pixels, inner, outer) * pixels + p % pixels
        other = source[:, None].to(tl.int64) * channels + c[None, :]
    total = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(y + other, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        total += load_channels(bias, c, c < channels)[None, :]
    tl.store(out + at, (total * scale).to(out.dtype.element_ty), mask=mask)


def add_scaled(
    x: Tensor, y: Tensor, bias: Tensor | None, channels: int, scale: float, turn: tuple[int, int] = AS_THEY_ARE
) -> Tensor:
    """``x``, ``y``: dense tensors of one layout whose memory runs over channels fastest; the same layout comes back."""
    out = torch.empty_like(x)
    rows = x.numel() // channels
    grid = (cdiv(rows, TILE_P), cdiv(channels, TILE_C), 1)
    args = (x, y, x if bias is None else bias, out, rows, channels, scale, rows // len(x), *turn)
    launch(add_scaled_kernel, grid, args, (bias is not None, 1 not in turn, TILE_P, TILE_C), 4)
    return out


@triton.jit(do_not_specialize=["rows", "chunk"])
def column_sums_kernel(x, out, rows, channels, chunk, BP: tl.constexpr, BC: tl.constexpr):
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros([BP, BC], tl.float32)
    while first < end:
        p = first + tl.arange(0, BP)
        mask = (p[:, None] < end) & (c[None, :] < channels)
        total += tl.load(x + p[:, None].to(tl.int64) * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
        first += BP
    tl.store(out + tl.program_id(0) * channels + c, tl.sum(total, axis=0), mask=c < channels)


def column_sums(x: Tensor, channels: int) -> Tensor:
    """Sums over everything but channels of a dense tensor whose memory runs over channels fastest: [channels], float32."""
    rows, blocks = x.numel() // channels, cdiv(channels, TILE_C)
    chunk = cdiv(cdiv(rows * blocks, PROGRAMS), TILE_P) * TILE_P
    out = torch.empty((cdiv(rows, chunk), channels), dtype=torch.float32, device=x.device)
    launch(column_sums_kernel, (len(out), blocks, 1), (x, out, rows, channels, chunk), (TILE_P, TILE_C), 4)
    return out.sum(0)
