"""Which Gaussians each tile composites, in which order: (tile, Gaussian) pairs, sorted by tile and then by depth."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_project import TILE

BLOCK = 128


@triton.jit(do_not_specialize=["rows", "N", "tiles_x", "tiles"])
def pair_kernel(
    records, corners, spans, counts, ends, keys, ids, rows, N, tiles_x, tiles, BLOCK: tl.constexpr
):  # fmt: skip
    """Write one key and one Gaussian index for every tile that a Gaussian can reach. One program: BLOCK Gaussians.

    The key holds the tile (numbered through all views) in its upper and the depth in its lower 32 bits.
    """
    slot = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = slot < rows
    count = tl.load(counts + slot, mask=mask, other=0)
    drawn = count > 0
    start = tl.load(ends + slot, mask=mask, other=0) - count
    corner = tl.load(corners + slot, mask=mask, other=0)
    across = tl.maximum(tl.load(spans + slot, mask=mask, other=0) & 0xFFFF, 1)
    camera = slot // N
    n = (slot - camera * N).to(tl.int32)
    first = camera * tiles + (corner >> 16) * tiles_x + (corner & 0xFFFF)
    # The bits of positive floats, read as integers, are in the order of their values.
    depth = tl.load(records + slot * 10 + 9, mask=drawn, other=0.0).to(tl.int32, bitcast=True).to(tl.int64)
    most = tl.max(count, axis=0)
    t = most * 0
    while t < most:
        active = t < count
        down = t // across
        tile = first + down * tiles_x + (t - down * across)
        tl.store(keys + start + t, (tile << 32) | depth, mask=active)
        tl.store(ids + start + t, n, mask=active)
        t += 1


def bin_tiles(
    records: Tensor, corners: Tensor, spans: Tensor, counts: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Sorted lists of all tiles.

    Returns:
        ids [M] int32: Gaussian indices within their scene, tile after tile, nearest first, equal depths by lower index.
        starts [S * V * tiles + 1] int64: where each tile's list begins; tiles are numbered row by row, view after view.
    """
    cameras, n = records.shape[:2]
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    tiles = tiles_x * tiles_y
    ends = torch.cumsum(counts, 0, dtype=torch.int64)
    pairs = int(ends[-1])  # the only point where the host waits for the device
    keys = torch.empty(pairs, dtype=torch.int64, device=records.device)
    ids = torch.empty(pairs, dtype=torch.int32, device=records.device)
    if pairs:
        pair_kernel[(triton.cdiv(cameras * n, BLOCK),)](
            records, corners, spans, counts, ends, keys, ids,
            cameras * n, n, tiles_x, tiles, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    keys, order = torch.sort(keys, stable=True)
    ids = ids[order]
    borders = torch.arange(cameras * tiles + 1, dtype=torch.int64, device=records.device) << 32
    return ids, torch.searchsorted(keys, borders)
