"""From a tile's Gaussians, in the order of their depth, to lists of its cells.

Each Gaussian gets a bit for each of the tile's 16 cells of 8 x 8 pixels that its ellipse of alpha = 1/255 meets, and the
tile's list is divided into those of its cells.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_layout import CELL, TILE

LEAST = tl.constexpr(-7.994353436858858)  # log2(1/255)
CELLS = (TILE // CELL) ** 2  # of a tile
WORD = tl.constexpr(32)  # every list begins at a multiple of it

# Where a call counts what it needs, besides PAIRS
ENTRIES = tl.constexpr(1)  # of all cells' lists, each rounded up to a multiple of WORD
PLACES = tl.constexpr(2)  # pairs of the tiles that were sorted
DONE = tl.constexpr(3)  # tiles whose lists are made, where somebody waits for that


@triton.jit
def cells_met(mx, my, a, b, c, bias, x0, y0, TILE: tl.constexpr, CELL: tl.constexpr):
    """Bits of a tile's cells that the ellipse of alpha = 1/255 meets; the tile's first pixel centre is (x0, y0).

    Each row of cells cuts the ellipse down to a convex shape, which reaches from ``left`` to ``right``: to the ellipse's
    own ends where they lie inside the row, otherwise to the ends of the chords along the row's first and last pixels.
    Allows for rounding, and takes what it cannot decide (NaN) as met.
    """
    # Squares count a little less, as much as rounding may add to their sum with the product.
    a = a * (1.0 - 4e-6)
    c = c * (1.0 - 4e-6)
    room = bias - LEAST + 3e-3
    d = b * b - 4.0 * a * c
    e = -4.0 * a * room
    half = -0.5 / a  # chord at y: (b y +- sqrt(d y^2 + e)) half
    reach = tl.sqrt(4.0 * c * room / d)
    low_end = b * reach * 0.5 / c  # y of the leftmost point; that of the rightmost one is its negative
    margin = 0.01 + 4e-6 * tl.abs(low_end)
    x0 -= mx
    y0 -= my
    met = tl.zeros_like(x0).to(tl.int32)
    for row in tl.static_range(TILE // CELL):
        ya = y0 + row * CELL
        yb = ya + (CELL - 1)
        sa = d * ya * ya + e
        sb = d * yb * yb + e
        ra = tl.sqrt(tl.maximum(sa, 0.0)) * half
        rb = tl.sqrt(tl.maximum(sb, 0.0)) * half
        ma = b * ya * half
        mb = b * yb * half
        slack = 0.01 + 2e-6 * (tl.abs(ma) + tl.abs(mb))
        left = tl.minimum(tl.where(sa < 0.0, float("inf"), ma - ra), tl.where(sb < 0.0, float("inf"), mb - rb))
        right = tl.maximum(tl.where(sa < 0.0, float("-inf"), ma + ra), tl.where(sb < 0.0, float("-inf"), mb + rb))
        left = tl.where((low_end >= ya - margin) & (low_end <= yb + margin), -reach, left) - slack
        right = tl.where((-low_end >= ya - margin) & (-low_end <= yb + margin), reach, right) + slack
        for column in tl.static_range(TILE // CELL):
            xa = x0 + column * CELL
            apart = (left > xa + (CELL - 1)) | (right < xa)
            met = met | tl.where(apart, 0, 1 << (row * (TILE // CELL) + column))
    return met


@triton.jit
def two_by_two(bits):
    """Of each Gaussian's 16 bits, [n], those of cells c and c + 8 as one int32 each, c < 8, with 16 bits between: [n, 8]."""
    shifted = bits[:, None] >> tl.arange(0, 8)[None, :]
    return (shifted & 1) | ((shifted & 0x100) << 8)


@triton.jit
def divide(
    ids,
    cells,
    length,
    upper,
    lower,
    tile,
    counts,
    ends,
    entries,
    needed,
    room,
    CELLS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the lists of a tile's cells, one after the other, where the tiles that came first left off.

    ``upper`` and ``lower``: numbers of entries of the first and the last 8 cells. Every list begins at a multiple of WORD. If
    there is no room for them, they are empty. Two cells are counted in one number, as a block has less than 2^16 Gaussians.
    """
    cell = tl.arange(0, CELLS // 2)
    index = tl.arange(0, BLOCK)
    padded_upper = (upper + (WORD - 1)) // WORD * WORD
    padded_lower = (lower + (WORD - 1)) // WORD * WORD
    half = tl.sum(padded_upper, axis=0)
    total = (half + tl.sum(padded_lower, axis=0)).to(tl.int64)
    first = tl.atomic_add(needed + ENTRIES, total, sem="relaxed")
    fits = first + total <= room
    next_upper = tl.cumsum(padded_upper, axis=0) - padded_upper
    next_lower = tl.cumsum(padded_lower, axis=0) - padded_lower + half
    upper = tl.where(fits, upper, 0)
    lower = tl.where(fits, lower, 0)
    counts += tile * CELLS
    ends += tile * CELLS
    tl.store(counts + cell, upper)
    tl.store(counts + CELLS // 2 + cell, lower)
    tl.store(ends + cell, tl.where(fits, first, 0) + next_upper + upper)
    tl.store(ends + CELLS // 2 + cell, tl.where(fits, first, 0) + next_lower + lower)
    entries += first
    length = tl.where(fits, length, 0)
    base = length * 0
    while base < length:
        mask = base + index < length
        here = two_by_two(tl.load(cells + base + index, mask=mask, other=0).to(tl.int32))
        n = tl.broadcast_to(tl.load(ids + base + index, mask=mask, other=0)[:, None], [BLOCK, CELLS // 2])
        upto = tl.cumsum(here, axis=0)
        tl.store(entries + next_upper[None, :] + (upto & 0xFFFF) - 1, n, mask=(here & 1) != 0)
        tl.store(entries + next_lower[None, :] + (upto >> 16) - 1, n, mask=here >= 1 << 16)
        all_here = tl.sum(here, axis=0)
        next_upper += all_here & 0xFFFF
        next_lower += all_here >> 16
        base += BLOCK
