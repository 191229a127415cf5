"""Pairs of tiles and Gaussians, grouped by tile within each program that projects Gaussians.

The program counts its pairs by tile in shared memory, takes as much of one array as they need, and then lets every
thread write its Gaussian's pairs behind those that came before in the same tile. Four barriers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_words import WORDS, fetch_add, read, shared_words, write

PAIRS = tl.constexpr(0)  # where a call counts its pairs of tiles and Gaussians


@triton.jit
def write_pairs(
    key, first, across, number, pairs, table, needed, scratch, groups, tiles_x, tiles, room, BLOCK: tl.constexpr
):
    """Write the keys of BLOCK Gaussians, each to ``number`` tiles from ``first`` on, ``across`` in a row, and for every tile
    where its keys begin << 16 | how many there are. Tiles are taken as many at a time as there are counters."""
    place = tl.atomic_add(needed + PAIRS, tl.sum(number.to(tl.int64), axis=0), sem="relaxed")
    words = shared_words(scratch)
    index = tl.arange(0, BLOCK)
    most = tl.max(number, axis=0)
    low = tiles * 0
    while low < tiles:
        base = tiles * 0
        while base < tl.minimum(tiles - low, WORDS):
            write(words, base + index, index * 0, base + index < WORDS)
            base += BLOCK
        tl.debug_barrier()
        t = most * 0
        while t < most:
            down = t // across
            tile = first + down * tiles_x + (t - down * across) - low
            fetch_add(words, tile, (t < number) & (tile >= 0) & (tile < WORDS))
            t += 1
        tl.debug_barrier()
        begin = place
        base = tiles * 0
        while base < tl.minimum(tiles - low, WORDS):
            mask = (base + index < WORDS) & (low + base + index < tiles)
            count = read(words, base + index, mask)
            before = begin - place + tl.cumsum(count, axis=0) - count
            tl.store(
                table + (low + base + index).to(tl.int64) * groups,
                ((place + before) << 16) | count.to(tl.int64),
                mask=mask,
            )
            write(words, base + index, before.to(tl.int32), mask)
            begin += tl.sum(count, axis=0)
            base += BLOCK
        tl.debug_barrier()
        t = most * 0
        while t < most:
            down = t // across
            tile = first + down * tiles_x + (t - down * across) - low
            active = (t < number) & (tile >= 0) & (tile < WORDS)
            to = place + fetch_add(words, tile, active)
            tl.store(pairs + to, key, mask=active & (to < room))
            t += 1
        tl.debug_barrier()
        place = begin
        low += WORDS
