"""Lists of all cells: which Gaussians each cell of 8 x 8 pixels composites, in which order.

Projection (:mod:`.triton_project`) writes the pairs of a tile of 32 x 32 pixels and a Gaussian, grouped by tile within each
of its programs, and a table of where each group begins. Here one program a tile, of eight warps, brings its groups
together, sorts them by depth and divides them among the tile's cells.

It sorts by a sample: PART Gaussians at equal distances in the list are sorted in registers, every Gaussian looks up
between which two of them it lies, and is then compared with those few that lie there too. Counters of these buckets are
in shared memory; the rest passes through global memory, which stays in the caches. Barriers stand between the steps.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_bins import CELLS, PLACES, divide, mark_cells
from .triton_launch import Launcher
from .triton_numbers import INTERPRETED
from .triton_pairs import PAIRS
from .triton_project import CELL, TILE, Layout
from .triton_room import Room
from .triton_words import WORDS, fetch_add, read, shared_words, write

PART, STEPS = (16, 4) if INTERPRETED else (512, 9)  # Gaussians of a sample, and log2 of it
GROUP_BLOCK = 256  # groups at once
SORT_BLOCK = 1024  # Gaussians at once, where they are sorted
DIVIDE_BLOCK = 256  # where they are divided
WARPS = 8
NEVER = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # after every key


@triton.jit
def collect(table, groups, tiles, pairs, keys, fits, needed, BLOCK: tl.constexpr):
    """Copy the groups of a tile to a place of their own in ``keys``: that place, and how many pairs they hold."""
    index = tl.arange(0, BLOCK)
    length = tl.zeros([BLOCK], tl.int32)
    base = groups * 0
    while base < groups:
        mask = (base + index < groups) & fits
        group = tl.load(table + (base + index).to(tl.int64) * tiles, mask=mask, other=0)
        length += (group & 0xFFFF).to(tl.int32)
        base += BLOCK
    length = tl.sum(length, axis=0)
    place = tl.atomic_add(needed + PLACES, length.to(tl.int64), sem="relaxed")
    keys += place
    base = groups * 0
    written = length * 0
    while base < groups:
        mask = (base + index < groups) & fits
        group = tl.load(table + (base + index).to(tl.int64) * tiles, mask=mask, other=0)
        count = (group & 0xFFFF).to(tl.int32)
        start = group >> 16
        to = written + tl.cumsum(count, axis=0) - count
        most = tl.max(count, axis=0)
        k = most * 0
        while k < most:
            tl.store(keys + to + k, tl.load(pairs + start + k, mask=k < count, other=0), mask=k < count)
            k += 1
        written += tl.sum(count, axis=0)
        base += BLOCK
    return place, length


@triton.jit
def sort(keys, ordered, ids, buckets, length, words, PART: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the Gaussians of the ``length`` keys in the order of these. ``ordered`` and ``buckets`` are memory to work in."""
    part = tl.arange(0, PART)
    sampled = tl.where(length > PART, (part.to(tl.int64) * length // PART).to(tl.int32), part)
    sample = tl.sort(tl.load(keys + sampled, mask=sampled < length, other=NEVER))
    if length <= PART:
        tl.store(ids + part, sample.to(tl.int32), mask=part < length)
    else:
        tl.store(ordered + part, sample)
        bin = tl.arange(0, 2 * PART)  # there are PART + 1 buckets
        write(words, bin, bin * 0, bin >= 0)
        tl.debug_barrier()
        base = length * 0
        while base < length:
            i = base + tl.arange(0, BLOCK)
            key = tl.load(keys + i, mask=i < length, other=NEVER)
            bucket = tl.zeros([BLOCK], tl.int32)  # how many of the sample are not larger: bit by bit from the highest
            for step in tl.static_range(STEPS + 1):
                probe = bucket + (PART >> step)
                there = tl.load(ordered + probe - 1, mask=probe <= PART, other=NEVER)
                bucket = tl.where(there <= key, probe, bucket)
            tl.store(buckets + i, bucket.to(buckets.dtype.element_ty), mask=i < length)
            fetch_add(words, bucket, i < length)
            base += BLOCK
        tl.debug_barrier()
        size = read(words, bin, bin >= 0)
        write(words, bin, tl.cumsum(size, axis=0) - size, bin >= 0)
        tl.debug_barrier()
        base = length * 0
        while base < length:
            i = base + tl.arange(0, BLOCK)
            key = tl.load(keys + i, mask=i < length, other=NEVER)
            bucket = tl.load(buckets + i, mask=i < length, other=0).to(tl.int32)
            tl.store(ordered + fetch_add(words, bucket, i < length), key, mask=i < length)
            base += BLOCK
        tl.debug_barrier()
        base = length * 0
        while base < length:
            i = base + tl.arange(0, BLOCK)
            key = tl.load(keys + i, mask=i < length, other=NEVER)
            bucket = tl.load(buckets + i, mask=i < length, other=0).to(tl.int32)
            # The words now hold where the buckets end.
            rank = read(words, bucket - 1, (i < length) & (bucket > 0))
            others = ordered + rank
            count = read(words, bucket, i < length) - rank
            most = tl.max(count, axis=0)
            k = most * 0
            while k < most:
                rank += (tl.load(others + k, mask=k < count, other=NEVER) < key).to(tl.int32)
                k += 1
            tl.store(ids + rank, key.to(tl.int32), mask=i < length)
            base += BLOCK


@triton.jit(do_not_specialize=["groups", "pair_room", "entry_room", "N", "tiles_x", "tiles"])
def tile_kernel(
    table, pairs, keys, ordered, ids, cells, records, needed, counts, ends, entries, scratch,
    groups, pair_room, entry_room, N, tiles_x, tiles,
    TILE: tl.constexpr, CELL: tl.constexpr, CELLS: tl.constexpr, PART: tl.constexpr, STEPS: tl.constexpr,
    GROUP_BLOCK: tl.constexpr, SORT_BLOCK: tl.constexpr, DIVIDE_BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one tile. All lists are empty if there was no room for the pairs."""
    tile = tl.program_id(0)
    words = shared_words(scratch)
    camera = tile // tiles
    place = tile - camera * tiles
    table += camera.to(tl.int64) * groups * tiles + place
    fits = tl.load(needed + PAIRS) <= pair_room
    start, length = collect(table, groups, tiles, pairs, keys, fits, needed, GROUP_BLOCK)
    keys += start
    ordered += start
    ids += start
    cells += start
    if length > 0:
        tl.debug_barrier()
        sort(keys, ordered, ids, cells, length, words, PART, STEPS, SORT_BLOCK)
        tl.debug_barrier()
    y = place // tiles_x
    x0 = ((place - y * tiles_x) * TILE).to(tl.float32) + 0.5
    y0 = (y * TILE).to(tl.float32) + 0.5
    count = mark_cells(ids, cells, length, records + camera.to(tl.int64) * N * 5, x0, y0, TILE, CELL, DIVIDE_BLOCK)
    tl.debug_barrier()
    divide(ids, cells, length, count, tile, counts, ends, entries, needed, entry_room, CELLS, DIVIDE_BLOCK)


@cache
def _launcher() -> Launcher:
    constants = {"TILE": TILE, "CELL": CELL, "CELLS": CELLS, "PART": PART, "STEPS": STEPS}
    blocks = {"GROUP_BLOCK": GROUP_BLOCK, "SORT_BLOCK": SORT_BLOCK, "DIVIDE_BLOCK": DIVIDE_BLOCK}
    return Launcher(tile_kernel, constants | blocks, num_warps=WARPS)


def list_cells(
    records: Tensor, pairs: Tensor, table: Tensor, needed: Tensor, layout: Layout, room: Room
) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted lists of all cells, from what :func:`.triton_project.project` returns, if they fit in ``room``.

    Returns:
        entries [room] int32: Gaussian indices within their scene, cell after cell, nearest first, equal depths by lower
        index; counts [S * V * tiles * 16] int32, ends [S * V * tiles * 16] int64: how many each cell has and where its list
        ends. A list begins at a multiple of 32. Cells are numbered tile after tile; tiles and, inside, cells row by row,
        view after view. To ``needed`` it adds how many entries there are, without which the lists are wrong.
    """
    device = records.device
    end = layout.cameras * layout.tiles
    keys = torch.empty(room.pairs, dtype=torch.int64, device=device)
    ordered = torch.empty(room.pairs, dtype=torch.int64, device=device)
    ids = torch.empty(room.pairs, dtype=torch.int32, device=device)
    cells = torch.empty(room.pairs, dtype=torch.int16, device=device)
    counts = torch.empty(end * CELLS, dtype=torch.int32, device=device)
    ends = torch.empty(end * CELLS, dtype=torch.int64, device=device)
    entries = torch.empty(room.entries, dtype=torch.int32, device=device)
    scratch = torch.empty(end * WORDS.value, dtype=torch.int32) if INTERPRETED else ids
    _launcher()(
        end, table, pairs, keys, ordered, ids, cells, records, needed, counts, ends, entries, scratch,
        layout.groups, room.pairs, room.entries, layout.n, layout.tiles_x, layout.tiles,
    )  # fmt: skip
    return entries, counts, ends
