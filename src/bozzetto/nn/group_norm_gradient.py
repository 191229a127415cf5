"""Triton kernels of group normalisation's gradient on channels-last maps; built like :mod:`.group_norm_kernels`.

With xhat = (x - centre) * rstd, z = xhat * weight + bias and dz the gradient by z, the gradient by x is
rstd * (weight * dz - a - xhat * b), where a and b are the means over the group of weight * dz and of weight * dz * xhat.
The sums of dz and of dz * xhat over pixels, per picture and channel, give a and b, and, summed over pictures, the gradients
of bias and weight.

These kernels keep more in registers than those of the forward pass (x, dz, two sums, four numbers a channel), so programs are
of four warps, of which four fit on a multiprocessor. The sums' loop fetches the next two tiles while it adds one. On one H200,
64 pictures in bfloat16, us, before (eight warps, nothing fetched ahead) and now: 128 channels of 64 x 64 pixels 168 and 132, 320
in two maps 396 and 300; 192 of 32 x 32 87 and 64, 384 in two maps 166 and 110; 256 of them 87 and 71; 192 of 16 x 16 33 and 24.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .group_norm_kernels import SMALL, TILE_C, TILE_P, shapes, silu_slope, small_blocks
from .launch import cdiv, launch
from .tiles import load_channels, load_pair, pair_pointers, sum_groups, tile_offsets

FEW = 256  # pixels up to which one program does a whole group, whatever its number of channels
PROGRAMS, MOST_TILES = 2048, 16  # wanted for the sums over large maps; for one of them


@triton.jit
def _tile(x, skip, dy, image, p, c, mask, pixels, c1, c2, rstd, centre, w, b, silu):
    """(xhat, gradient by z) of a tile; the latter 0 outside the mask."""
    xhat = load_pair(x, skip, image, p, c, mask, pixels, c1, c2)
    xhat = (xhat - centre[None, :]) * rstd[None, :]
    dz = tl.load(dy + tile_offsets(image, p, c, pixels, c1 + c2), mask=mask, other=0.0).to(tl.float32)
    if silu != 0:
        dz = silu_slope(xhat * w[None, :] + b[None, :], dz)
    return xhat, dz


@triton.jit
def _parameters(rstds, centres, weight, bias, image, c, valid, channels):
    """1 / standard deviation, centre, weight and bias of a tile's channels."""
    rstd = load_channels(rstds + image * channels, c, valid)
    centre = load_channels(centres + image * channels, c, valid)
    return rstd, centre, load_channels(weight, c, valid), load_channels(bias, c, valid)


@triton.jit
def _store_gradient(dx, dskip, xhat, dz, plain, slope, rstd, w, image, p, c, mask, pixels, c1, c2):
    """The gradient by x of a tile, to where it belongs; ``plain``, ``slope``: the group's means a and b."""
    value = rstd[None, :] * (w[None, :] * dz - plain[None, :] - xhat * slope[None, :])
    tl.store(pair_pointers(dx, dskip, image, p, c, pixels, c1, c2), value.to(dx.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["pixels", "size", "width", "silu"])
def small_gradient_kernel(
    x, skip, dy, rstds, centres, weight, bias, dx, dskip, sums, xsums, pixels, c1, c2, size, width, silu,
    MANY: tl.constexpr, ALIGN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    block, image = tl.program_id(0), tl.program_id(1)
    channels = c1 + c2
    local = tl.arange(0, BC)
    width = width // ALIGN * ALIGN
    c = block * width + local
    valid = (local < width) & (c < channels)
    group = local // size
    rstd, centre, w, b = _parameters(rstds, centres, weight, bias, image, c, valid, channels)
    s = tl.zeros([BP, BC], tl.float32)
    t = tl.zeros([BP, BC], tl.float32)
    start = 0
    while start < pixels:
        p = start + tl.arange(0, BP)
        mask = (p[:, None] < pixels) & valid[None, :]
        xhat, dz = _tile(x, skip, dy, image, p, c, mask, pixels, c1, c2, rstd, centre, w, b, silu)
        s += dz
        t += dz * xhat
        start += BP
    total = tl.sum(s, axis=0)
    xtotal = tl.sum(t, axis=0)
    tl.store(sums + image * channels + c, total, mask=valid)
    tl.store(xsums + image * channels + c, xtotal, mask=valid)
    count = size * pixels
    plain = sum_groups(w * total, group, MANY) / count
    slope = sum_groups(w * xtotal, group, MANY) / count
    start = 0
    while start < pixels:
        p = start + tl.arange(0, BP)
        mask = (p[:, None] < pixels) & valid[None, :]
        xhat, dz = _tile(x, skip, dy, image, p, c, mask, pixels, c1, c2, rstd, centre, w, b, silu)
        _store_gradient(dx, dskip, xhat, dz, plain, slope, rstd, w, image, p, c, mask, pixels, c1, c2)
        start += BP


@triton.jit(do_not_specialize=["pixels", "silu"])
def sums_kernel(
    x, skip, dy, rstds, centres, weight, bias, partial, xpartial, pixels, c1, c2, silu,
    TILES: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    k, image = tl.program_id(0), tl.program_id(1)
    channels = c1 + c2
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    valid = c < channels
    rstd, centre, w, b = _parameters(rstds, centres, weight, bias, image, c, valid, channels)
    s = tl.zeros([BP, BC], tl.float32)
    t = tl.zeros([BP, BC], tl.float32)
    for i in tl.range(0, TILES, num_stages=3):
        p = (k * TILES + i) * BP + tl.arange(0, BP)
        mask = (p[:, None] < pixels) & valid[None, :]
        xhat, dz = _tile(x, skip, dy, image, p, c, mask, pixels, c1, c2, rstd, centre, w, b, silu)
        s += dz
        t += dz * xhat
    at = (image * tl.num_programs(0) + k) * channels + c
    tl.store(partial + at, tl.sum(s, axis=0), mask=valid)
    tl.store(xpartial + at, tl.sum(t, axis=0), mask=valid)


@triton.jit(do_not_specialize=["pixels", "size", "chunks"])
def join_sums_kernel(
    partial, xpartial, weight, sums, xsums, plains, slopes, pixels, chunks, channels, size,
    BK: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    group, image = tl.program_id(0), tl.program_id(1)
    local = tl.arange(0, BC)
    c = group * size + local
    valid = local < size
    s = tl.zeros([BK, BC], tl.float32)
    t = tl.zeros([BK, BC], tl.float32)
    start = 0
    while start < chunks:
        k = start + tl.arange(0, BK)
        mask = (k[:, None] < chunks) & valid[None, :]
        at = (image * chunks + k[:, None]) * channels + c[None, :]
        s += tl.load(partial + at, mask=mask, other=0.0)
        t += tl.load(xpartial + at, mask=mask, other=0.0)
        start += BK
    total = tl.sum(s, axis=0)
    xtotal = tl.sum(t, axis=0)
    w = load_channels(weight, c, valid)
    zeros = tl.zeros([BC], tl.float32)
    at = image * channels + c
    tl.store(sums + at, total, mask=valid)
    tl.store(xsums + at, xtotal, mask=valid)
    tl.store(plains + at, zeros + tl.sum(w * total, axis=0) / (size * pixels), mask=valid)
    tl.store(slopes + at, zeros + tl.sum(w * xtotal, axis=0) / (size * pixels), mask=valid)


@triton.jit(do_not_specialize=["pixels", "silu"])
def gradient_kernel(
    x, skip, dy, rstds, centres, weight, bias, plains, slopes, dx, dskip, pixels, c1, c2, silu,
    TILES: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1)
    channels = c1 + c2
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    valid = c < channels
    rstd, centre, w, b = _parameters(rstds, centres, weight, bias, image, c, valid, channels)
    plain = load_channels(plains + image * channels, c, valid)
    slope = load_channels(slopes + image * channels, c, valid)
    for i in tl.static_range(TILES):
        p = (tl.program_id(0) * TILES + i) * BP + tl.arange(0, BP)
        mask = (p[:, None] < pixels) & valid[None, :]
        xhat, dz = _tile(x, skip, dy, image, p, c, mask, pixels, c1, c2, rstd, centre, w, b, silu)
        _store_gradient(dx, dskip, xhat, dz, plain, slope, rstd, w, image, p, c, mask, pixels, c1, c2)


def tiles_each(n: int, pixels: int, blocks: int) -> int:
    """How many tiles of pixels a program of :func:`sums_kernel` adds up: a power of two, so that about :data:`PROGRAMS` run."""
    wanted = cdiv(cdiv(pixels, TILE_P), max(1, PROGRAMS // (n * blocks)))
    return min(1 << (wanted.bit_length() - 1), MOST_TILES)


def backward(
    dy: Tensor,
    x: Tensor,
    skip: Tensor | None,
    rstds: Tensor,
    centres: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients by x, skip, weight and bias (float32); ``rstds`` and ``centres`` are those of the forward pass."""
    n, pixels, c1, c2, size = shapes(x, skip, groups)
    channels = c1 + c2
    dy = dy.contiguous(memory_format=torch.channels_last)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    dskip = None if skip is None else torch.empty_like(skip, memory_format=torch.channels_last)
    other, dother = (x, dx) if skip is None else (skip, dskip)
    results = torch.empty((4, n, channels), dtype=torch.float32, device=x.device)
    sums, xsums, plains, slopes = results.unbind(0)
    maps = (x, other, dy, rstds, centres, weight, bias)
    gate = int(silu)
    programs, width, (many, align, columns) = small_blocks(size, channels, c1)
    if pixels <= FEW or (pixels <= SMALL and width == columns):  # else too much of each load would be left out
        args = (*maps, dx, dother, sums, xsums, pixels, c1, c2, size, width, gate)
        launch(small_gradient_kernel, (programs, n, 1), args, (many, align, max(2048 // columns, 1), columns), 4)
    else:
        blocks = cdiv(channels, TILE_C)
        tiles = tiles_each(n, pixels, blocks)
        chunks = cdiv(pixels, tiles * TILE_P)
        partial, xpartial = torch.empty((2, n, chunks, channels), dtype=torch.float32, device=x.device).unbind(0)
        tile = (TILE_P, TILE_C)
        launch(sums_kernel, (chunks, n, blocks), (*maps, partial, xpartial, pixels, c1, c2, gate), (tiles, *tile), 4)
        wide = 16 if size <= 16 else 128
        args = (partial, xpartial, weight, sums, xsums, plains, slopes, pixels, chunks, channels, size)
        launch(join_sums_kernel, (groups, n, 1), args, (1024 // wide, wide), 4)
        args = (*maps, plains, slopes, dx, dother, pixels, c1, c2, gate)
        launch(gradient_kernel, (cdiv(pixels, 2 * TILE_P), n, blocks), args, (2, *tile), 4)
    by_bias, by_weight = results[:2].sum(1)  # over pictures
    return dx, dskip, by_weight, by_bias
