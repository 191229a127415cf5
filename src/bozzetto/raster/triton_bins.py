"""Which Gaussians each tile composites, in which order: (tile, Gaussian) pairs, sorted by tile and then by depth.

Two stable sorts: all Gaussians of all views by depth, then their pairs, written in that order, by tile (of all views).
Then the list of each tile of 32 x 32 pixels is divided among its 16 *cells* of 8 x 8: a Gaussian goes to those that its
ellipse of alpha = 1/255 meets.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_numbers import unpack
from .triton_project import CELL, TILE

BLOCK = 128

LEAST = tl.constexpr(-7.994353436858858)  # log2(1/255)


@triton.jit(do_not_specialize=["rows", "N", "tiles_x", "tiles", "lowest"])
def pair_kernel(
    order, rectangles, ends, pairs, ids, rows, N, tiles_x, tiles, lowest,
    SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the tile and the Gaussian of every pair. One program: BLOCK Gaussians, consecutive in depth.

    Tiles are numbered row by row, view after view, beginning with ``lowest``.
    """
    rank = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = rank < rows
    slot = tl.load(order + rank, mask=mask, other=0).to(tl.int32)
    end = tl.load(ends + rank, mask=mask, other=0) & 0xFFFFFFFF
    rectangle = tl.load(rectangles + slot, mask=mask, other=0)
    x0 = (rectangle & 0xFFFF).to(tl.int32)
    y0 = ((rectangle >> 16) & 0xFFFF).to(tl.int32)
    x1 = (x0 + ((rectangle >> 32) & 0xFFFF).to(tl.int32) - 1) // SIDE
    y1 = (y0 + (rectangle >> 48).to(tl.int32) - 1) // SIDE
    x0 //= SIDE
    y0 //= SIDE
    across = tl.maximum(x1 - x0 + 1, 1)
    count = tl.where(rectangle != 0, across * (y1 - y0 + 1), 0)
    start = end - count
    camera = slot // N
    n = slot - camera * N
    first = lowest + camera * tiles + y0 * tiles_x + x0
    most = tl.max(count, axis=0)
    t = most * 0
    while t < most:
        active = t < count
        down = t // across
        tile = first + down * tiles_x + (t - down * across)
        tl.store(pairs + start + t, tile.to(pairs.dtype.element_ty), mask=active)
        tl.store(ids + start + t, n, mask=active)
        t += 1


@triton.jit
def touches(mx, my, a, b, c, bias, ratio_x, ratio_y, x0, y0, x1, y1):
    """Whether the ellipse of alpha = 1/255 meets the rectangle: the exponent is largest at the centre, or at a point of
    the side nearest to the centre in x or in y. Allows for rounding. The ratios are -b/2a and -b/2c."""
    x0 -= mx
    x1 -= mx
    y0 -= my
    y1 -= my
    ux = tl.minimum(tl.maximum(0.0, x0), x1)
    uy = tl.minimum(tl.maximum(ratio_y * ux, y0), y1)
    vy = tl.minimum(tl.maximum(0.0, y0), y1)
    vx = tl.minimum(tl.maximum(ratio_x * vy, x0), x1)
    # The squares count a little less, as much as rounding may have added to their sum.
    a = a * (1.0 - 4e-6)
    c = c * (1.0 - 4e-6)
    first = (a * ux + b * uy) * ux + c * uy * uy
    second = (a * vx + b * vy) * vx + c * vy * vy
    return tl.maximum(first, second) + bias >= LEAST - 3e-3


@triton.jit(do_not_specialize=["total", "N", "tiles_x", "tiles", "end", "lowest"])
def list_kernel(
    pairs, by_tile, unsorted, records, rectangles, ids, cells, starts, total, N, tiles_x, tiles, end, lowest,
    TILE: tl.constexpr, CELL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Bring ids into the order of the sorted pairs; find the cells of each pair; write where the tiles' lists begin."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < total
    tile = tl.load(pairs + i, mask=mask, other=0).to(tl.int32) - lowest
    n = tl.load(unsorted + tl.load(by_tile + i, mask=mask, other=0), mask=mask, other=0)
    tl.store(ids + i, n, mask=mask)

    camera = tile // tiles
    place = tile - camera * tiles
    y = place // tiles_x
    x0 = ((place - y * tiles_x) * TILE).to(tl.float32) + 0.5
    y0 = (y * TILE).to(tl.float32) + 0.5
    slot = camera.to(tl.int64) * N + n
    rectangle = tl.load(rectangles + slot, mask=mask, other=0)
    record = records + slot * 5
    mx, my = unpack(tl.load(record + 0, mask=mask, other=0))
    a, b = unpack(tl.load(record + 1, mask=mask, other=0))
    c, bias = unpack(tl.load(record + 2, mask=mask, other=0))
    side: tl.constexpr = TILE // CELL
    first_x = (rectangle & 0xFFFF).to(tl.int32) - (place - y * tiles_x) * side
    first_y = ((rectangle >> 16) & 0xFFFF).to(tl.int32) - y * side
    end_x = first_x + ((rectangle >> 32) & 0xFFFF).to(tl.int32)
    end_y = first_y + (rectangle >> 48).to(tl.int32)
    ratio_x = -0.5 * b / a
    ratio_y = -0.5 * b / c
    met = tile * 0
    for cell in tl.static_range(side * side):
        left = x0 + (cell % side) * CELL
        top = y0 + (cell // side) * CELL
        near = touches(mx, my, a, b, c, bias, ratio_x, ratio_y, left, top, left + (CELL - 1), top + (CELL - 1))
        near = near & (first_x <= cell % side) & (cell % side < end_x)
        near = near & (first_y <= cell // side) & (cell // side < end_y)
        met = met | tl.where(near, 1 << cell, 0)
    tl.store(cells + i, met.to(cells.dtype.element_ty), mask=mask)

    # Pair i begins the lists of all tiles after that of the pair before it, up to its own.
    tile = tl.where(mask, tile, end)
    before = tl.load(pairs + i - 1, mask=(i > 0) & (i <= total), other=0).to(tl.int32) - lowest
    before = tl.where(i > 0, before, -1)
    gap = tl.where(i <= total, tile - before, 0)
    most = tl.max(gap, axis=0)
    t = most * 0
    while t < most:
        tl.store(starts + tile - t, i, mask=t < gap)
        t += 1


@triton.jit
def count_kernel(cells, starts, counts, CELLS: tl.constexpr, BLOCK: tl.constexpr):
    """How many Gaussians each cell has. One program: one cell."""
    tile = tl.program_id(0) // CELLS
    cell = tl.program_id(0) % CELLS
    start = tl.load(starts + tile)
    length = (tl.load(starts + tile + 1) - start).to(tl.int32)
    total = tl.zeros([BLOCK], tl.int32)
    base = length * 0
    while base < length:
        i = base + tl.arange(0, BLOCK)
        total += (tl.load(cells + start + i, mask=i < length, other=0).to(tl.int32) >> cell) & 1
        base += BLOCK
    tl.store(counts + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def divide_kernel(ids, cells, starts, counts, ends, divided, CELLS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the list of each cell. One program: one cell."""
    tile = tl.program_id(0) // CELLS
    cell = tl.program_id(0) % CELLS
    start = tl.load(starts + tile)
    length = (tl.load(starts + tile + 1) - start).to(tl.int32)
    count = tl.load(counts + tl.program_id(0))
    divided += tl.load(ends + tl.program_id(0)) - count
    base = length * 0
    written = length * 0
    while written < count:
        i = base + tl.arange(0, BLOCK)
        bit = (tl.load(cells + start + i, mask=i < length, other=0).to(tl.int32) >> cell) & 1
        n = tl.load(ids + start + i, mask=bit > 0, other=0)
        rank = tl.cumsum(bit, axis=0)
        tl.store(divided + written + rank - 1, n, mask=bit > 0)
        written += tl.sum(bit, axis=0)
        base += BLOCK


def bin_tiles(
    records: Tensor, keys: Tensor, rectangles: Tensor, counts: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted lists of all cells, from what :func:`.triton_project.project` returns.

    Returns:
        ids [M] int32: Gaussian indices within their scene, cell after cell, nearest first, equal depths by lower index.
        counts [S * V * tiles * 16] int32, ends [S * V * tiles * 16] int64: how many each cell has and where its list ends.
            Cells are numbered tile after tile; tiles and, inside, cells row by row, view after view.
    """
    cameras, n = records.shape[:2]
    device = records.device
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    tiles = tiles_x * tiles_y
    order = torch.sort(keys, stable=True).indices
    ends = torch.cumsum(counts[order], 0, dtype=torch.int64)
    most = int(ends[-1])  # the only point where the host waits for the device
    total, most = most & 0xFFFFFFFF, most >> 32
    short = cameras * tiles <= 0xFFFF  # half as many bits to sort by
    lowest = -0x8000 if short else 0
    pairs = torch.empty(total, dtype=torch.int16 if short else torch.int32, device=device)
    unsorted = torch.empty(total, dtype=torch.int32, device=device)
    pair_kernel[(triton.cdiv(cameras * n, BLOCK),)](
        order, rectangles, ends, pairs, unsorted,
        cameras * n, n, tiles_x, tiles, lowest, SIDE=TILE // CELL, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    del order, ends
    pairs, by_tile = torch.sort(pairs, stable=True)
    ids = torch.empty_like(unsorted)
    cells = torch.empty(total, dtype=torch.int16, device=device)
    starts = torch.empty(cameras * tiles + 1, dtype=torch.int64, device=device)
    list_kernel[(triton.cdiv(total + 1, BLOCK),)](
        pairs, by_tile, unsorted, records, rectangles, ids, cells, starts,
        total, n, tiles_x, tiles, cameras * tiles, lowest, TILE=TILE, CELL=CELL, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    del pairs, by_tile, unsorted
    side = (TILE // CELL) ** 2
    counts = torch.empty(cameras * tiles * side, dtype=torch.int32, device=device)
    count_kernel[(len(counts),)](cells, starts, counts, CELLS=side, BLOCK=512, num_warps=1)
    ends = torch.cumsum(counts, 0, dtype=torch.int64)
    divided = torch.empty(most, dtype=torch.int32, device=device)
    divide_kernel[(len(counts),)](ids, cells, starts, counts, ends, divided, CELLS=side, BLOCK=512, num_warps=1)
    return divided, counts, ends
