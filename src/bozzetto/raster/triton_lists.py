"""Lists of all cells: which Gaussians each cell of 8 x 8 pixels composites, in which order.

Projection (:mod:`.triton_project`) writes the pairs of a tile of 32 x 32 pixels and a Gaussian, grouped by tile within each
of its programs, and a table of where each group begins. Here one program a tile, of eight warps, brings its groups
together (a warp takes a group, so that neighbours are read by neighbours), sorts them by depth (:mod:`.triton_sort`), marks
which of the tile's cells each Gaussian meets and divides them among the cells (:mod:`.triton_bins`). What is too large for
registers passes through global memory, which stays in the caches. Barriers stand between the steps.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_bins import CELLS, DONE, ENTRIES, PLACES, cells_met, divide, two_by_two
from .triton_launch import Launcher
from .triton_layout import CELL, TILE, Layout
from .triton_numbers import INTERPRETED, unpack
from .triton_pairs import PAIRS
from .triton_room import Room
from .triton_sort import bucket_of, rank_among, sort_by_sample, sort_by_width
from .triton_words import WORDS, read, shared_words

if TYPE_CHECKING:
    from .triton_call import Kept, Work

PART, STEPS = (16, 4) if INTERPRETED else (512, 9)  # Gaussians of a sample, and log2 of it
TABLE_BLOCK = 128  # groups at once where they are counted
GROUP_BLOCK = 32  # where they are copied, 32 Gaussians of each at once
SORT_BLOCK = 1024  # Gaussians at once, where they are sorted
DIVIDE_BLOCK = 256  # where they are ranked, marked and divided
FULLEST = 32  # Gaussians of a bucket (and 1/64 of all more), above which a sample takes the place of equal widths
WARPS = 8
REGISTERS = 64  # of a thread, so that four programs fit a multiprocessor; few bytes are spilled
SHORTEST = tl.constexpr(0x7F800000)  # bits of infinity


@triton.jit
def count_pairs(row, groups, BLOCK: tl.constexpr):
    """How many pairs the groups of a tile hold."""
    index = tl.arange(0, BLOCK)
    length = tl.zeros([BLOCK], tl.int32)
    base = groups * 0
    while base < groups:
        length += (tl.load(row + base + index, mask=base + index < groups, other=0) & 0xFFFF).to(tl.int32)
        base += BLOCK
    return tl.sum(length, axis=0)


@triton.jit
def collect(row, groups, pairs, keys, BLOCK: tl.constexpr):
    """Copy the groups of a tile one behind the other; returns the bits of the nearest and farthest depth."""
    index = tl.arange(0, BLOCK)
    lane = tl.arange(0, 32)[None, :]
    nearest = tl.full([BLOCK, 32], SHORTEST, tl.int32)
    farthest = tl.zeros([BLOCK, 32], tl.int32)
    base = groups * 0
    written = base
    while base < groups:
        group = tl.load(row + base + index, mask=base + index < groups, other=0)
        count = (group & 0xFFFF).to(tl.int32)
        most = tl.max(count, axis=0)
        to = (written + tl.cumsum(count, axis=0) - count)[:, None] + lane
        start = (group >> 16)[:, None] + lane
        written += tl.sum(count, axis=0)
        left = count[:, None] - lane
        k = most * 0
        while k < most:
            key = tl.load(pairs + start + k, mask=left > k, other=0)
            tl.store(keys + to + k, key, mask=left > k)
            bits = (key >> 32).to(tl.int32)
            nearest = tl.where(left > k, tl.minimum(nearest, bits), nearest)
            farthest = tl.maximum(farthest, bits)
            k += 32
        base += BLOCK
    return tl.min(tl.min(nearest, axis=1), axis=0), tl.max(tl.max(farthest, axis=1), axis=0)


@triton.jit
def mark_cells(
    ordered, ids, cells, length, most, nearest, scale, by_width, words, records, x0, y0,
    RECORD: tl.constexpr, TILE: tl.constexpr, CELL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the Gaussians of the ``length`` keys, which are in order but for the insides of buckets of at most ``most``, in
    the order of these, and the bits of the cells of each; returns the numbers of entries of the first and the last 8 cells."""
    seen = tl.zeros([BLOCK, 8], tl.int32)
    base = length * 0
    while base < length:
        i = base + tl.arange(0, BLOCK)
        mask = i < length
        key = tl.load(ordered + i, mask=mask, other=0x7FFFFFFFFFFFFFFF)
        n = key.to(tl.int32)
        record = records + tl.where(mask, n, 0).to(tl.int64) * RECORD
        mx, my = unpack(tl.load(record + 0, mask=mask, other=0))
        a, b = unpack(tl.load(record + 1, mask=mask, other=0))
        c, bias = unpack(tl.load(record + 2, mask=mask, other=0))
        fullest = most
        if by_width:
            bucket = tl.where(mask, bucket_of(key, nearest, scale), 0)
            fullest = tl.max(read(words, bucket, mask) - read(words, bucket - 1, mask & (bucket > 0)), axis=0)
        rank = rank_among(ordered, i, key, length, fullest)
        met = cells_met(mx, my, a, b, c, bias, x0, y0, TILE, CELL)
        met = tl.where(mask, met, 0)
        tl.store(ids + rank, n.to(ids.dtype.element_ty), mask=mask)
        tl.store(cells + rank, met.to(cells.dtype.element_ty), mask=mask)
        seen += two_by_two(met)
        base += BLOCK
    return tl.sum(seen & 0xFFFF, axis=0), tl.sum((seen >> 16) & 0xFFFF, axis=0)


@triton.jit(do_not_specialize=["groups", "pair_room", "entry_room", "N", "tiles_x", "tiles"])
def tile_kernel(
    table, pairs, keys, ordered, records, needed, counts, ends, entries, scratch, report,
    groups, pair_room, entry_room, N, tiles_x, tiles,
    RECORD: tl.constexpr, TILE: tl.constexpr, CELL: tl.constexpr, CELLS: tl.constexpr, PART: tl.constexpr, STEPS: tl.constexpr,
    FULLEST: tl.constexpr, TABLE_BLOCK: tl.constexpr, GROUP_BLOCK: tl.constexpr, SORT_BLOCK: tl.constexpr,
    DIVIDE_BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one tile. All lists are empty if there was no room for the pairs. The program that ends last writes to
    ``report``, where there is one, what the call needed."""
    tile = tl.program_id(0)
    words = shared_words(scratch)
    camera = tile // tiles
    place = tile - camera * tiles
    row = table + tile.to(tl.int64) * groups
    groups = tl.where(tl.load(needed + PAIRS) <= pair_room, groups, 0)
    length = count_pairs(row, groups, TABLE_BLOCK)
    upper = tl.zeros([CELLS // 2], tl.int32)
    lower = tl.zeros([CELLS // 2], tl.int32)
    if length > 0:
        start = tl.atomic_add(needed + PLACES, length.to(tl.int64), sem="relaxed")
        keys += start
        ordered += start
        nearest, farthest = collect(row, groups, pairs, keys, GROUP_BLOCK)
        scale = (WORDS - 1) / tl.maximum(farthest - nearest, 1).to(tl.float32)
        most = sort_by_width(keys, ordered, length, nearest, scale, words, SORT_BLOCK)
        by_width = most <= FULLEST + length // 64
        tl.debug_barrier()
        if most > FULLEST + length // 64:
            most = sort_by_sample(keys, ordered, length, words, PART, STEPS, SORT_BLOCK)
            tl.debug_barrier()
        y = place // tiles_x
        x0 = ((place - y * tiles_x) * TILE).to(tl.float32) + 0.5
        y0 = (y * TILE).to(tl.float32) + 0.5
        # The keys are sorted; their memory takes the indices, and behind them the bits of cells.
        upper, lower = mark_cells(
            ordered, keys.to(entries.dtype), keys.to(tl.pointer_type(tl.int16)) + length * 2, length, most, nearest, scale,
            by_width, words, records + camera.to(tl.int64) * N * RECORD, x0, y0, RECORD, TILE, CELL, DIVIDE_BLOCK,
        )  # fmt: skip
        tl.debug_barrier()
    ids = keys.to(entries.dtype)
    cells = keys.to(tl.pointer_type(tl.int16)) + length * 2
    divide(ids, cells, length, upper, lower, tile, counts, ends, entries, needed, entry_room, CELLS, DIVIDE_BLOCK)
    if report is not None:
        before = tl.atomic_add(needed + DONE, 1)
        if before == tl.num_programs(0) - 1:
            tl.store(report, tl.atomic_add(needed + PAIRS, 0))
            tl.store(report + 1, tl.atomic_add(needed + ENTRIES, 0))


@cache
def _launcher(index: torch.dtype, record: int, report: bool) -> Launcher:
    """One for each dtype of indices and length of records, and whether numbers are reported."""
    sizes = {"RECORD": record, "TILE": TILE, "CELL": CELL, "CELLS": CELLS}
    sample = {"PART": PART, "STEPS": STEPS, "FULLEST": FULLEST}
    blocks = {"TABLE_BLOCK": TABLE_BLOCK, "GROUP_BLOCK": GROUP_BLOCK, "SORT_BLOCK": SORT_BLOCK}
    return Launcher(
        tile_kernel, sizes | sample | blocks | {"DIVIDE_BLOCK": DIVIDE_BLOCK}, num_warps=WARPS, maxnreg=REGISTERS
    )


def list_cells(
    kept: Kept, work: Work, needed: Tensor, layout: Layout, room: Room, report: Tensor | None = None
) -> None:
    """Sorted lists of all cells, from what :func:`.triton_project.project` wrote, if they fit in ``room``.

    It writes ``kept.entries``, ``counts`` and ``ends`` (see :class:`.triton_call.Kept`), and to ``needed`` how many entries
    there are, without which the lists are wrong; to ``report`` [2] int64, if any, how many pairs and entries.
    """
    programs = layout.cameras * layout.tiles
    scratch = torch.empty(programs * WORDS.value, dtype=torch.int32) if INTERPRETED else needed
    _launcher(layout.index, layout.record, report is not None)(
        programs, work.table, work.pairs, work.keys, work.ordered, kept.records, needed,
        kept.counts, kept.ends, kept.entries, scratch, report,
        layout.groups, room.pairs, room.entries, layout.n, layout.tiles_x, layout.tiles,
    )  # fmt: skip
