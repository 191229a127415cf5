"""Which Gaussians each tile composites, in which order: (tile, Gaussian) pairs, sorted by tile and then by depth.

Two stable sorts: the Gaussians of every view by depth (few, 64-bit keys), then their pairs, written in that order, by tile
(many, 32-bit keys).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_project import TILE

BLOCK = 128


@triton.jit(do_not_specialize=["rows", "N", "tiles_x", "tiles"])
def pair_kernel(order, corners, spans, counts, ends, pairs, ids, rows, N, tiles_x, tiles, BLOCK: tl.constexpr):
    """Write the tile and the Gaussian of every pair. One program: BLOCK Gaussians, consecutive in depth.

    Tiles are numbered row by row, view after view.
    """
    rank = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = rank < rows
    slot = tl.load(order + rank, mask=mask, other=0)
    count = tl.load(counts + slot, mask=mask, other=0)
    start = tl.load(ends + rank, mask=mask, other=0) - count
    corner = tl.load(corners + slot, mask=mask, other=0)
    across = tl.maximum(tl.load(spans + slot, mask=mask, other=0) & 0xFFFF, 1)
    camera = slot // N
    n = (slot - camera * N).to(tl.int32)
    first = camera.to(tl.int32) * tiles + (corner >> 16) * tiles_x + (corner & 0xFFFF)
    most = tl.max(count, axis=0)
    t = most * 0
    while t < most:
        active = t < count
        down = t // across
        tl.store(pairs + start + t, first + down * tiles_x + (t - down * across), mask=active)
        tl.store(ids + start + t, n, mask=active)
        t += 1


def bin_tiles(
    records: Tensor, keys: Tensor, corners: Tensor, spans: Tensor, counts: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Sorted lists of all tiles, from what :func:`.triton_project.project` returns.

    Returns:
        ids [M] int32: Gaussian indices within their scene, tile after tile, nearest first, equal depths by lower index.
        starts [S * V * tiles + 1] int64: where each tile's list begins; tiles are numbered row by row, view after view.
    """
    cameras, n = records.shape[:2]
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    tiles = tiles_x * tiles_y
    order = torch.sort(keys, stable=True).indices
    ends = torch.cumsum(counts[order], 0, dtype=torch.int64)
    total = int(ends[-1])  # the only point where the host waits for the device
    pairs, ids = (torch.empty(total, dtype=torch.int32, device=records.device) for _ in range(2))
    if total:
        pair_kernel[(triton.cdiv(cameras * n, BLOCK),)](
            order, corners, spans, counts, ends, pairs, ids,
            cameras * n, n, tiles_x, tiles, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    del order, ends
    pairs, by_tile = torch.sort(pairs, stable=True)
    borders = torch.arange(cameras * tiles + 1, dtype=torch.int32, device=records.device)
    return ids[by_tile], torch.searchsorted(pairs, borders)
