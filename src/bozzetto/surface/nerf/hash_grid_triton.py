"""The hash encoding in Triton.

A program owns a block of points on one level; the grid runs over the points first, so that programs that run at the same time
read the same level, whose table (4 MiB at most) then stays in the L2 cache. Position, cell and the eight corners' rows and
weights are in registers; nothing is shared.

* ``encode_kernel`` gathers the corners and writes two features a point.
* ``encode_gradient_kernel`` adds weight x gradient to the corners with relaxed atomics, both features in one on Hopper: the sums'
  order, and so their last bits, differ from run to run.
* ``variation_kernel`` reads a cell and its six neighbours and adds to the cell's gradient in the same way.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .hash_grid import FEATURES, GridLayout

BLOCK = 256


@triton.jit
def _row(x, y, z, side, start, size, dense):
    """Table row of lattice points; int32 products wrap, which leaves the low bits that the hash keeps."""
    plain = (z * side + y) * side + x
    mixed = (x ^ (y * -1640531535) ^ (z * 805459861)) & (size - 1)  # the first is 2654435761 as a signed number
    return start + tl.where(dense != 0, plain, mixed)


@triton.jit
def _place(points, scales, numbers, count, BLOCK: tl.constexpr):
    """A program's level and points, which of them exist, their places in the level's lattice, and its numbers."""
    level = tl.program_id(1)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    scale = tl.load(scales + level)
    x = tl.load(points + index * 3, mask=mask, other=0.0) * scale + 0.5
    y = tl.load(points + index * 3 + 1, mask=mask, other=0.0) * scale + 0.5
    z = tl.load(points + index * 3 + 2, mask=mask, other=0.0) * scale + 0.5
    numbers += level * 4
    side, start, size, dense = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2), tl.load(numbers + 3)
    return level, index, mask, x, y, z, side, start, size, dense


@triton.jit(do_not_specialize=["count"])
def encode_kernel(points, table, scales, numbers, out, count, LEVELS: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (blocks of points, levels)."""
    level, index, mask, x, y, z, side, start, size, dense = _place(points, scales, numbers, count, BLOCK)
    lx, ly, lz = tl.floor(x), tl.floor(y), tl.floor(z)
    fx, fy, fz = x - lx, y - ly, z - lz
    cx, cy, cz = lx.to(tl.int32), ly.to(tl.int32), lz.to(tl.int32)
    pair = tl.arange(0, 2)
    total = tl.zeros((BLOCK, 2), tl.float32)
    for corner in tl.static_range(8):
        wx = fx if corner & 1 else 1.0 - fx
        wy = fy if corner & 2 else 1.0 - fy
        wz = fz if corner & 4 else 1.0 - fz
        weight = wx * wy * wz
        row = _row(cx + (corner & 1), cy + ((corner >> 1) & 1), cz + (corner >> 2), side, start, size, dense)
        at = table + row.to(tl.int64)[:, None] * 2 + pair[None, :]
        total += weight[:, None] * tl.load(at, mask=mask[:, None], other=0.0)
    target = out + index[:, None] * (LEVELS * 2) + level * 2 + pair[None, :]
    tl.store(target, total, mask=mask[:, None])


@triton.jit(do_not_specialize=["count"])
def encode_gradient_kernel(points, gradient, scales, numbers, out, count, LEVELS: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (blocks of points, levels)."""
    level, index, mask, x, y, z, side, start, size, dense = _place(points, scales, numbers, count, BLOCK)
    lx, ly, lz = tl.floor(x), tl.floor(y), tl.floor(z)
    fx, fy, fz = x - lx, y - ly, z - lz
    cx, cy, cz = lx.to(tl.int32), ly.to(tl.int32), lz.to(tl.int32)
    pair = tl.arange(0, 2)
    source = gradient + index[:, None] * (LEVELS * 2) + level * 2 + pair[None, :]
    value = tl.load(source, mask=mask[:, None], other=0.0)
    mask = mask & (tl.max(tl.abs(value), axis=1) != 0.0)
    for corner in tl.static_range(8):
        wx = fx if corner & 1 else 1.0 - fx
        wy = fy if corner & 2 else 1.0 - fy
        wz = fz if corner & 4 else 1.0 - fz
        weight = wx * wy * wz
        row = _row(cx + (corner & 1), cy + ((corner >> 1) & 1), cz + (corner >> 2), side, start, size, dense)
        at = out + row.to(tl.int64)[:, None] * 2 + pair[None, :]
        tl.atomic_add(at, weight[:, None] * value, mask=mask[:, None], sem="relaxed")


@triton.jit(do_not_specialize=["count"])
def variation_kernel(points, table, scales, numbers, out, count, weight, BLOCK: tl.constexpr):
    """Grid (blocks of points, levels)."""
    _level, _index, mask, x, y, z, side, start, size, dense = _place(points, scales, numbers, count, BLOCK)
    cx, cy, cz = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32), tl.floor(z).to(tl.int32)
    pair = tl.arange(0, 2)
    own = _row(cx, cy, cz, side, start, size, dense).to(tl.int64)[:, None] * 2 + pair[None, :]
    here = tl.load(table + own, mask=mask[:, None], other=0.0)
    total = tl.zeros((BLOCK, 2), tl.float32)
    squares = tl.zeros((BLOCK, 2), tl.float32)
    for neighbour in tl.static_range(6):
        # Neighbours 0 to 5: one lower and one higher along x, then y, then z.
        nx = cx + ((neighbour % 2) * 2 - 1) if neighbour // 2 == 0 else cx
        ny = cy + ((neighbour % 2) * 2 - 1) if neighbour // 2 == 1 else cy
        nz = cz + ((neighbour % 2) * 2 - 1) if neighbour // 2 == 2 else cz
        moved = nx if neighbour // 2 == 0 else (ny if neighbour // 2 == 1 else nz)
        inside = (mask & (moved >= 0) & (moved < side))[:, None]
        at = table + _row(nx, ny, nz, side, start, size, dense).to(tl.int64)[:, None] * 2 + pair[None, :]
        difference = tl.where(inside, here - tl.load(at, mask=inside, other=0.0), 0.0)
        total += difference
        squares += difference * difference
    tl.atomic_add(out + own, weight / 6.0 * total / tl.sqrt(squares + 1e-9), mask=mask[:, None], sem="relaxed")


@lru_cache(maxsize=8)
def _table(layout: GridLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    return layout.table(device)


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def encode(points: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """See :func:`.hash_grid.encode_reference`; float32, contiguous."""
    out = torch.empty(len(points), layout.levels * FEATURES, device=points.device)
    if len(points):
        with _on(points.device):
            encode_kernel[(triton.cdiv(len(points), BLOCK), layout.levels)](
                points, table, *_table(layout, points.device), out, len(points), layout.levels, BLOCK, num_warps=4
            )
    return out


def encode_gradient(points: Tensor, gradient: Tensor, layout: GridLayout, shape: torch.Size) -> Tensor:
    """The table's gradient [rows, 2] from the features' [P, L * 2]."""
    out = torch.zeros(shape, device=points.device)
    if len(points):
        with _on(points.device):
            encode_gradient_kernel[(triton.cdiv(len(points), BLOCK), layout.levels)](
                points, gradient, *_table(layout, points.device), out, len(points), layout.levels, BLOCK, num_warps=4
            )
    return out


def add_variation_gradient(points: Tensor, table: Tensor, gradient: Tensor, layout: GridLayout, weight: float) -> None:
    """See :func:`.hash_grid.variation_gradient_reference`; adds to ``gradient``."""
    if len(points):
        with _on(points.device):
            variation_kernel[(triton.cdiv(len(points), BLOCK), layout.levels)](
                points, table, *_table(layout, points.device), gradient, len(points), weight, BLOCK, num_warps=4
            )
