"""Compositing of sorted Gaussians (steps 5 and 6 of :mod:`bozzetto.raster.reference`): Triton kernel.

One warp composites one cell of 8 x 8 pixels: each thread owns two pixels of one column, four rows apart, and keeps them in
registers. The records of 32 Gaussians at a time come in one per thread, a round ahead of their use, and pass through
shared memory to all threads; the warp synchronises there and nowhere else. It stops when all of its pixels are finished.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_bins import CELLS, LEAST
from .triton_launch import Launcher
from .triton_layout import CELL, TILE, Layout
from .triton_numbers import (
    INTERPRETED,
    either,
    highest_bit,
    number_of_bits,
    power_of_2,
    share,
    shared,
    shared_memory,
    unpack,
    unsigned,
)

if TYPE_CHECKING:
    from .triton_call import Kept

UNROLL = 2  # Gaussians between two tests whether the list ends; a divisor of 32

MAX_ALPHA = tl.constexpr(0.99)
MIN_TRANSMITTANCE = tl.constexpr(1e-4)


@triton.jit
def cell_place(cell, tiles_x, tiles, TILE: tl.constexpr, CELL: tl.constexpr):
    """Camera, first column and first row of a cell."""
    side: tl.constexpr = TILE // CELL
    tile = cell // (side * side)
    cell = cell % (side * side)
    camera = tile // tiles
    place = tile % tiles
    left = (place % tiles_x) * TILE + (cell % side) * CELL
    top = (place // tiles_x) * TILE + (cell // side) * CELL
    return camera, left, top


@triton.jit
def load_record(records, depths, sh, n, exists, LEAN: tl.constexpr, DEEP: tl.constexpr):
    """Ten numbers of each Gaussian, 0 where none exists; those of the colour are yet to go through :func:`colour`. The
    last one is z, if DEEP or not LEAN."""
    record = records + n * (3 if LEAN else 5)
    mx, my = unpack(tl.load(record + 0, mask=exists, other=0))
    a, b = unpack(tl.load(record + 1, mask=exists, other=0))
    c, bias = unpack(tl.load(record + 2, mask=exists, other=0))
    if LEAN:
        r = tl.load(sh + n * 3 + 0, mask=exists, other=0.0)
        g = tl.load(sh + n * 3 + 1, mask=exists, other=0.0)
        bl = tl.load(sh + n * 3 + 2, mask=exists, other=0.0)
        z = r
        if DEEP:
            z = tl.load(depths + n, mask=exists, other=0.0)
    else:
        r, g = unpack(tl.load(record + 3, mask=exists, other=0))
        bl, z = unpack(tl.load(record + 4, mask=exists, other=0))
    return mx, my, a, b, c, bias, r, g, bl, z


@triton.jit
def colour(stored, LEAN: tl.constexpr):
    """Red, green or blue as drawn, of what :func:`load_record` read."""
    if LEAN:
        stored = tl.maximum(0.5 + 0.28209479177387814 * stored, 0.0)
    return stored


@triton.jit
def exponent(dx, dy, a, b, c, bias):
    """log2 of alpha, in the one order of operations that compositing and its gradient share."""
    return tl.fma(tl.fma(c, dy, b * dx), dy, tl.fma(a * dx, dx, bias))


@triton.jit
def opacity(power, bias, position, final):
    """Alpha, 0 for a Gaussian that does not show in the pixel or stands behind the last one (position >= final); 2^power."""
    if INTERPRETED:
        raw = power_of_2(power)
        hit = (power >= LEAST) & (power <= bias) & (position < final)
        return tl.where(hit, tl.minimum(raw, MAX_ALPHA), 0.0), raw
    else:  # the same; the compiler makes three selections of the three conditions
        return tl.inline_asm_elementwise(
            """{ .reg .pred p; .reg .f32 t;
            ex2.approx.ftz.f32 $1, $2; min.f32 t, $1, 0f3F7D70A4;
            setp.ge.f32 p, $2, 0fC0FFD1BE; setp.le.and.f32 p, $2, $3, p; setp.lt.and.s32 p, $4, $5, p;
            selp.f32 $0, t, 0f00000000, p; }""",
            "=&f,=&f,f,f,r,r", [power, bias, position, final], dtype=(tl.float32, tl.float32), is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit(do_not_specialize=["N", "V", "height", "width", "tiles_x", "tiles"])
def blend_kernel(
    records, depths, sh, ids, counts, ends, background, rgb, alpha, depth, rest, last, words, numbers, poison,
    N, V, height, width, tiles_x, tiles,
    KEEP: tl.constexpr, LANES: tl.constexpr, LEAN: tl.constexpr, TILE: tl.constexpr, CELL: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """One program: one cell of one view, front to back.

    What it keeps for the gradient (KEEP) is described at :class:`.triton_call.Kept`.
    """
    cell = tl.program_id(0)
    camera, left, top = cell_place(cell, tiles_x, tiles, TILE, CELL)
    length = tl.load(counts + cell)
    start = tl.load(ends + cell) - length
    lane = tl.arange(0, 32)
    half = tl.arange(0, 2)
    column = left + lane % CELL
    row = top + lane[None, :] // CELL + half[:, None] * (CELL // 2)  # [2, 32]
    inside = (column < width)[None, :] & (row < height)
    px = column.to(tl.float32) + 0.5
    py = row.to(tl.float32) + 0.5
    ids += start
    records += camera.to(tl.int64) * N * (3 if LEAN else 5)
    depths += camera.to(tl.int64) * N
    sh += (camera // V).to(tl.int64) * N * 3

    # The transmittance; negative once a pixel is finished.
    light = tl.where(inside, 1.0, -1.0)
    red = tl.zeros([2, 32], tl.float32)
    green = tl.zeros([2, 32], tl.float32)
    blue = tl.zeros([2, 32], tl.float32)
    deep = tl.zeros([2, 32], tl.float32)
    final = tl.zeros([2, 32], tl.int32)
    parts: tl.constexpr = 4 // LANES  # parts of the cell along x
    if KEEP:
        words += (start >> 5) * (2 * parts)
    number_left = tl.zeros([2], tl.int32)
    number_right = tl.zeros([2], tl.int32)

    base = length * 0
    if not INTERPRETED:
        memory = shared_memory()
        exists = lane < length
        n = unsigned(tl.load(ids + lane, mask=exists, other=0))
        mx, my, a, b, c, bias, r, g, bl, z = load_record(records, depths, sh, n, exists, LEAN, True)
    unfinished = tl.max(tl.max((light > 0.0).to(tl.int32), axis=0), axis=0)
    while (base < length) & (unfinished > 0):
        if not INTERPRETED:
            bias = tl.where(base + lane < length, bias, float("-inf"))
            share(memory, mx, my, a, b, c, bias, colour(r, LEAN), colour(g, LEAN), colour(bl, LEAN), z)
            exists = base + 32 + lane < length
            n = unsigned(tl.load(ids + base + 32 + lane, mask=exists, other=0))
            mx, my, a, b, c, bias, r, g, bl, z = load_record(records, depths, sh, n, exists, LEAN, True)
        drawn = tl.zeros([2, 32], tl.int32)  # one bit for each of 32 Gaussians
        k = length * 0
        stop = tl.minimum(length - base, 32)
        while k < stop:
            for u in tl.static_range(UNROLL):
                if INTERPRETED:
                    exists = base + k + u < length
                    n = unsigned(tl.load(ids + base + k + u, mask=exists, other=0))
                    gx, gy, ga, gb, gc, g_bias, gr, gg, gbl, gz = load_record(
                        records, depths, sh, n, exists, LEAN, True
                    )
                    g_bias = tl.where(exists, g_bias, float("-inf"))
                    gr, gg, gbl = colour(gr, LEAN), colour(gg, LEAN), colour(gbl, LEAN)
                else:
                    gx, gy, ga, gb, gc, g_bias, gr, gg, gbl, gz = shared(memory + (k + u) * 48)
                power = exponent((px - gx)[None, :], py - gy, ga, gb, gc, g_bias)
                opaque, _ = opacity(power, g_bias, 0, 1)
                weight = light * opaque
                remaining = light - weight
                finished = remaining <= MIN_TRANSMITTANCE
                weight = tl.where(finished, 0.0, weight)
                light = tl.where(finished, -tl.abs(light), remaining)
                red += weight * gr
                green += weight * gg
                blue += weight * gbl
                deep += weight * gz
                if KEEP:
                    drawn = tl.where(weight > 0.0, drawn | (1 << (k + u)), drawn)
            k += UNROLL
        if KEEP:
            final = tl.where(drawn != 0, base + 1 + highest_bit(drawn), final)
            where = words + (base >> 5) * (2 * parts) + half * parts
            if parts == 1:
                word = tl.reduce(drawn, 1, either)
                tl.store(where, word)
                number_left += number_of_bits(word)
            else:
                on_left = (lane % CELL < CELL // 2)[None, :]
                word = tl.reduce(tl.where(on_left, drawn, 0), 1, either)
                tl.store(where, word)
                number_left += number_of_bits(word)
                word = tl.reduce(tl.where(on_left, 0, drawn), 1, either)
                tl.store(where + 1, word)
                number_right += number_of_bits(word)
        base += 32
        unfinished = tl.max(tl.max((light > 0.0).to(tl.int32), axis=0), axis=0)

    light = tl.abs(light)
    shown = light
    opaque = 1.0 - light
    if poison is not None:
        spoilt = tl.load(poison)
        shown += spoilt
        deep += spoilt
    background += camera.to(tl.int64) * 3
    pixel = (camera.to(tl.int64) * height + row) * width + column[None, :]
    tl.store(rgb + pixel * 3 + 0, red + shown * tl.load(background + 0), mask=inside)
    tl.store(rgb + pixel * 3 + 1, green + shown * tl.load(background + 1), mask=inside)
    tl.store(rgb + pixel * 3 + 2, blue + shown * tl.load(background + 2), mask=inside)
    tl.store(alpha + pixel, opaque, mask=inside)
    tl.store(depth + pixel, deep, mask=inside)
    if KEEP:
        lost = tl.floor((light - (1.0 - opaque)) * 4294967296.0 + 0.5)  # -128 .. 128
        tl.store(rest + pixel, tl.minimum(lost, 127.0).to(tl.int8), mask=inside)
        tl.store(last + pixel, (final - 1).to(last.dtype.element_ty), mask=inside)
        numbers += (cell * 2 + half) * parts
        tl.store(numbers, number_left)
        if parts == 2:
            tl.store(numbers + 1, number_right)


@cache
def _launcher(keep: bool, lanes: int, lean: bool, index: torch.dtype, poison: bool) -> Launcher:
    """``index``: dtype of indices and positions; ``poison``: whether there is any."""
    constants = {"KEEP": keep, "LANES": lanes, "LEAN": lean, "TILE": TILE, "CELL": CELL, "UNROLL": UNROLL}
    return Launcher(blend_kernel, constants, num_warps=1)


def blend(
    kept: Kept, sh: Tensor, background: Tensor, layout: Layout, shape: tuple[int, ...], poison: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures: rgb [*shape, 3], alpha and depth [*shape], where ``shape`` ends with height and width.

    ``poison``, a number on the device, is added to every pixel of rgb and depth; alpha stays true, as the gradient finds the
    ends of the lists by it. Where ``kept`` has room for it, this also writes what else the gradient needs: rest, last, words
    and numbers.
    """
    device = background.device
    rgb = torch.empty((*shape, 3), device=device)
    alpha, depth = torch.empty(shape, device=device), torch.empty(shape, device=device)
    keep = kept.last is not None
    _launcher(keep, layout.lanes if keep else 2, layout.lean, layout.index, poison is not None)(
        layout.cameras * layout.tiles * CELLS,
        kept.records, kept.depths, sh, kept.entries, kept.counts, kept.ends, background, rgb, alpha, depth,
        kept.rest, kept.last, kept.words, kept.numbers, poison,
        layout.n, layout.views, layout.height, layout.width, layout.tiles_x, layout.tiles,
    )  # fmt: skip
    return rgb, alpha, depth
