"""Compositing of sorted Gaussians (steps 5 and 6 of :mod:`bozzetto.raster.reference`): Triton kernel.

One warp composites one cell of 8 x 8 pixels, two per thread, and stops when all of them are finished.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_bins import LEAST
from .triton_numbers import power_of_2, unpack
from .triton_project import CELL, TILE

UNROLL = 2  # Gaussians whose records are fetched together
CHUNK = 16  # Gaussians between two looks at whether the whole cell is finished

MAX_ALPHA = tl.constexpr(0.99)
MIN_TRANSMITTANCE = tl.constexpr(1e-4)


@triton.jit
def cell_place(counts, ends, tiles_x, tiles, TILE: tl.constexpr, CELL: tl.constexpr):
    """Of this program's cell: camera, first column and row, where its list begins and how long that is."""
    side: tl.constexpr = TILE // CELL
    tile = tl.program_id(0) // (side * side)
    cell = tl.program_id(0) % (side * side)
    camera = tile // tiles
    place = tile % tiles
    left = (place % tiles_x) * TILE + (cell % side) * CELL
    top = (place // tiles_x) * TILE + (cell // side) * CELL
    length = tl.load(counts + tl.program_id(0))
    return camera, left, top, tl.load(ends + tl.program_id(0)) - length, length


@triton.jit
def cell_pixels(camera, left, top, width, height, CELL: tl.constexpr):
    """Flat indices of a cell's pixels, row by row [CELL * CELL], and whether they are inside the picture."""
    index = tl.arange(0, CELL * CELL)
    column = left + index % CELL
    row = top + index // CELL
    return (camera.to(tl.int64) * height + row) * width + column, (column < width) & (row < height)


@triton.jit(do_not_specialize=["N", "height", "width", "tiles_x", "tiles"])
def blend_kernel(
    records, ids, counts, ends, background, rgb, alpha, depth, transmittance, last,
    N, height, width, tiles_x, tiles,
    KEEP: tl.constexpr, TILE: tl.constexpr, CELL: tl.constexpr,
    UNROLL: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program: one cell of one view, front to back.

    Besides the pictures it keeps, for the gradient (KEEP), each pixel's final transmittance and the position in the
    cell's list after the last Gaussian that contributed to it.
    """
    camera, left, top, start, length = cell_place(counts, ends, tiles_x, tiles, TILE, CELL)
    pixel, inside = cell_pixels(camera, left, top, width, height, CELL)
    px = (left + tl.arange(0, CELL)[None, :]).to(tl.float32) + 0.5
    py = (top + tl.arange(0, CELL)[:, None]).to(tl.float32) + 0.5
    ids += start
    records += camera.to(tl.int64) * N * 5

    light = tl.zeros([CELL, CELL], tl.float32) + 1.0
    red = tl.zeros([CELL, CELL], tl.float32)
    green = tl.zeros([CELL, CELL], tl.float32)
    blue = tl.zeros([CELL, CELL], tl.float32)
    deep = tl.zeros([CELL, CELL], tl.float32)
    final = tl.zeros([CELL, CELL], tl.int32)
    # The least exponent that counts; out of reach once a pixel is finished.
    least = tl.where(inside, LEAST, float("inf")).reshape(CELL, CELL)
    position = length * 0
    unfinished = tl.min(tl.min(least, axis=1), axis=0) < 0.0
    while (position < length) & unfinished:
        stop = tl.minimum(position + CHUNK, length)
        while position < stop:
            for _ in tl.static_range(UNROLL):
                exists = position < length
                record = records + tl.load(ids + position, mask=exists, other=0) * 5
                mx, my = unpack(tl.load(record + 0))
                a, b = unpack(tl.load(record + 1))
                c, bias = unpack(tl.load(record + 2))
                if UNROLL > 1:
                    bias = tl.where(exists, bias, float("-inf"))
                r, g = unpack(tl.load(record + 3))
                bl, z = unpack(tl.load(record + 4))
                dx = px - mx
                dy = py - my
                power = (c * dy + b * dx) * dy + (a * dx * dx + bias)
                hit = (power >= least) & (power <= bias)
                opaque = tl.where(hit, tl.minimum(power_of_2(power), MAX_ALPHA), 0.0)
                remaining = light - light * opaque
                finished = remaining <= MIN_TRANSMITTANCE
                weight = tl.where(finished, 0.0, light * opaque)
                light = tl.where(finished, light, remaining)
                least = tl.where(finished, float("inf"), least)
                red += weight * r
                green += weight * g
                blue += weight * bl
                deep += weight * z
                position += 1
                if KEEP:
                    final = tl.where(weight > 0.0, position, final)
        unfinished = tl.min(tl.min(least, axis=1), axis=0) < 0.0

    background += camera.to(tl.int64) * 3
    area: tl.constexpr = CELL * CELL
    red = (red + light * tl.load(background + 0)).reshape(area)
    green = (green + light * tl.load(background + 1)).reshape(area)
    blue = (blue + light * tl.load(background + 2)).reshape(area)
    tl.store(rgb + pixel * 3 + 0, red, mask=inside)
    tl.store(rgb + pixel * 3 + 1, green, mask=inside)
    tl.store(rgb + pixel * 3 + 2, blue, mask=inside)
    tl.store(alpha + pixel, (1.0 - light).reshape(area), mask=inside)
    tl.store(depth + pixel, deep.reshape(area), mask=inside)
    if KEEP:
        tl.store(transmittance + pixel, light.reshape(area), mask=inside)
        tl.store(last + pixel, final.reshape(area), mask=inside)


def blend(
    records: Tensor,
    ids: Tensor,
    counts: Tensor,
    ends: Tensor,
    background: Tensor,
    height: int,
    width: int,
    keep: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Pictures (rgb [S * V, H, W, 3], alpha and depth [S * V, H, W]) and, if ``keep``, for the gradient
    (transmittance and last [S * V, H, W])."""
    cameras, n = records.shape[:2]
    device = records.device
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    rgb = torch.empty(cameras, height, width, 3, device=device)
    alpha, depth = torch.empty(2, cameras, height, width, device=device)
    transmittance = torch.empty_like(alpha) if keep else None
    last = torch.empty(cameras, height, width, dtype=torch.int32, device=device) if keep else None
    blend_kernel[(len(counts),)](
        records, ids, counts, ends, background, rgb, alpha, depth, transmittance, last,
        n, height, width, tiles_x, tiles_x * tiles_y,
        KEEP=keep, TILE=TILE, CELL=CELL, UNROLL=UNROLL, CHUNK=CHUNK, num_warps=1,
    )  # fmt: skip
    return (rgb, alpha, depth), ((transmittance, last) if keep else None)
