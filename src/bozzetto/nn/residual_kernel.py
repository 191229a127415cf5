"""Triton kernels of residual sums and of their biases' gradients, on rows (pixels or tokens) of channels.

A program of the sum adds one tile of rows x channels in registers, and may write the tile's moments per channel beside it, for
the group norm that reads the map next. A program of the gradient goes over one chunk of rows for 64 channels, keeps their sums
in registers and writes them; PyTorch adds the chunks. It may write the rows themselves, scaled, on the way.

64 pictures, float16, an H200, us: the sum alone, with moments, and what the next norm then saves: 512 channels of 32 x 32 40, 42,
27; 256 of 64 x 64 77, 78, 36; 128 of 128 x 128 141, 143, 72 (8 warps instead of 4: 58, 112, 214 with moments).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch
from .moments import CHUNK, LARGE, Moments, remember
from .tiles import chunk_moments, load_channels, turned
from .turn import AS_THEY_ARE

TILE_P, TILE_C = 64, 64
PROGRAMS = 1024  # wanted for a column sum; tiles from which moments are worth while


@triton.jit(do_not_specialize=["rows", "pixels", "outer", "inner"])
def add_scaled_kernel(
    x, y, bias, out, means, m2s, rows, channels, scale, pixels, outer, inner,
    BIAS: tl.constexpr, TURN: tl.constexpr, MOMENTS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
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
    result = (total * scale).to(out.dtype.element_ty)
    tl.store(out + at, result, mask=mask)
    if MOMENTS:  # rows are whole chunks
        mean, m2 = chunk_moments(result.to(tl.float32), BP)
        to = tl.program_id(0) * channels + c
        tl.store(means + to, mean, mask=c < channels)
        tl.store(m2s + to, m2, mask=c < channels)


def add_scaled(
    x: Tensor,
    y: Tensor,
    bias: Tensor | None,
    channels: int,
    scale: float,
    turn: tuple[int, int] = AS_THEY_ARE,
    moments: bool = False,
) -> Tensor:
    """``x``, ``y``: dense tensors of one layout whose memory runs over channels fastest; the same layout comes back.

    ``moments``: maps in half precision are given theirs, where that is worth while.
    """
    out = torch.empty_like(x)
    rows = x.numel() // channels
    pixels = rows // len(x)
    kept = Moments.empty(out) if moments and moments_fit(x) else None
    tile = TILE_P if kept is None else CHUNK
    args = (x, y, x if bias is None else bias, out, *(kept or (x, x)), rows, channels, scale, pixels, *turn)
    constants = (bias is not None, 1 not in turn, kept is not None, tile, TILE_C)
    launch(add_scaled_kernel, (cdiv(rows, tile), cdiv(channels, TILE_C), 1), args, constants, 4)
    return remember(out, kept)


def moments_fit(x: Tensor) -> bool:
    """Whether maps [N, C, H, W] are in half precision, of whole chunks of pixels, and large enough."""
    n, c, h, w = x.shape
    return (
        x.element_size() == 2
        and h * w % CHUNK == 0
        and h * w >= LARGE
        and n * (h * w // CHUNK) * cdiv(c, TILE_C) >= PROGRAMS
    )


@triton.jit(do_not_specialize=["rows"])
def add_bias_kernel(
    x, bias, means, m2s, rows, channels, MOMENTS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (p[:, None] < rows) & (c[None, :] < channels)
    at = x + p[:, None].to(tl.int64) * channels + c[None, :]
    total = tl.load(at, mask=mask, other=0.0).to(tl.float32) + load_channels(bias, c, c < channels)[None, :]
    result = total.to(x.dtype.element_ty)
    tl.store(at, result, mask=mask)
    if MOMENTS:  # rows are whole chunks
        mean, m2 = chunk_moments(result.to(tl.float32), BP)
        to = tl.program_id(0) * channels + c
        tl.store(means + to, mean, mask=c < channels)
        tl.store(m2s + to, m2, mask=c < channels)


def add_bias(x: Tensor, bias: Tensor, moments: bool = False) -> Tensor:
    """``x + bias`` in the memory of ``x``, a dense tensor whose memory runs over channels fastest; ``bias`` [channels].

    ``moments``: a map in half precision is given its own, where that is worth while.
    """
    channels = len(bias)
    rows = x.numel() // channels
    kept = Moments.empty(x) if moments and moments_fit(x) else None
    tile = TILE_P if kept is None else CHUNK
    grid = (cdiv(rows, tile), cdiv(channels, TILE_C), 1)
    args = (x, bias, *(kept or (x, x)), rows, channels)
    launch(add_bias_kernel, grid, args, (kept is not None, tile, TILE_C), 4)
    return remember(x, kept)


@triton.jit(do_not_specialize=["rows", "chunk"])
def column_sums_kernel(
    x, scaled, out, rows, channels, chunk, scale, SCALED: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros([BP, BC], tl.float32)
    while first < end:
        p = first + tl.arange(0, BP)
        mask = (p[:, None] < end) & (c[None, :] < channels)
        at = p[:, None].to(tl.int64) * channels + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        if SCALED:
            value *= scale
            tl.store(scaled + at, value.to(scaled.dtype.element_ty), mask=mask)
        total += value
        first += BP
    tl.store(out + tl.program_id(0) * channels + c, tl.sum(total, axis=0), mask=c < channels)


def column_sums(x: Tensor, channels: int) -> Tensor:
    """Sums over everything but channels of a dense tensor whose memory runs over channels fastest: [channels], float32."""
    return _sums(x, x, channels, 1.0)


def scaled_with_sums(x: Tensor, channels: int, scale: float) -> tuple[Tensor, Tensor]:
    """``x * scale``, laid out as ``x``, and its :func:`column_sums`, in one pass."""
    scaled = torch.empty_like(x)
    return scaled, _sums(x, scaled, channels, scale)


def _sums(x: Tensor, scaled: Tensor, channels: int, scale: float) -> Tensor:
    rows, blocks = x.numel() // channels, cdiv(channels, TILE_C)
    chunk = cdiv(cdiv(rows * blocks, PROGRAMS), TILE_P) * TILE_P
    out = torch.empty((cdiv(rows, chunk), channels), dtype=torch.float32, device=x.device)
    args = (x, scaled, out, rows, channels, chunk, scale)
    launch(column_sums_kernel, (len(out), blocks, 1), args, (scaled is not x, TILE_P, TILE_C), 4)
    return out.sum(0)
