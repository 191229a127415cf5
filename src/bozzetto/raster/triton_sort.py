"""Sorting a tile's Gaussians by depth within one program.

First into WORDS buckets of equal width between the tile's nearest and farthest depth (the bits of positive floats, read as
integers, so that the widths grow with the distance). Counters of the buckets are in shared memory, the keys pass through
global memory, which stays in the caches. Keys of one bucket lie side by side then, in any order, so each finds its rank by
comparison with as many neighbours as the fullest bucket holds; neighbours of other buckets need no exception, as they
compare as they stand.

Where one bucket is too full for that (many Gaussians at nearly one depth and a few far away), a sample takes the place of
the equal widths: PART keys at equal distances in the list are sorted in registers and kept in shared memory, every key looks
up between which two of them it lies, and is then compared with those few that lie there too. Keys are unique, so that cannot
fail. Barriers stand between the steps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_words import WORDS, fetch_add, read, write

NEVER = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # after every key


@triton.jit
def bucket_of(key, nearest, scale):
    """Which of the buckets of equal width a key belongs to; rounding keeps the order."""
    place = ((key >> 32).to(tl.int32) - nearest).to(tl.float32) * scale
    return tl.minimum(place.to(tl.int32), WORDS - 1)


@triton.jit
def begin_buckets(words, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Turn the numbers of keys in the buckets into where these begin; returns the largest number."""
    most = tl.zeros([BLOCK], tl.int32)
    written = tl.program_id(0) * 0
    base = written
    while base < COUNT:
        bin = base + tl.arange(0, BLOCK)
        size = read(words, bin, bin < COUNT)
        write(words, bin, written + tl.cumsum(size, axis=0) - size, bin < COUNT)
        most = tl.maximum(most, size)
        written += tl.sum(size, axis=0)
        base += BLOCK
    return tl.max(most, axis=0)


@triton.jit
def sort_by_width(keys, ordered, length, nearest, scale, words, BLOCK: tl.constexpr):
    """Bring the keys into the order of their buckets; returns how many the fullest has. The words end as where the buckets
    end."""
    bin = tl.arange(0, WORDS)
    write(words, bin, bin * 0, bin >= 0)
    tl.debug_barrier()
    base = length * 0
    while base < length:
        i = base + tl.arange(0, BLOCK)
        key = tl.load(keys + i, mask=i < length, other=0)
        fetch_add(words, bucket_of(key, nearest, scale), i < length)
        base += BLOCK
    tl.debug_barrier()
    most = begin_buckets(words, WORDS, BLOCK)
    tl.debug_barrier()
    base = length * 0
    while base < length:
        i = base + tl.arange(0, BLOCK)
        key = tl.load(keys + i, mask=i < length, other=0)
        tl.store(ordered + fetch_add(words, bucket_of(key, nearest, scale), i < length), key, mask=i < length)
        base += BLOCK
    return most


@triton.jit
def rank_among(ordered, i, key, length, most):
    """Ranks of the keys at places ``i`` of a list that is in order but for the insides of buckets of at most ``most``."""
    rank = i
    d = most * 0 + 1
    while d < most:
        after = tl.load(ordered + i + d, mask=i + d < length, other=NEVER)
        before = tl.load(ordered + i - d, mask=(i >= d) & (i < length), other=-1)
        rank += (after < key).to(tl.int32) - (before > key).to(tl.int32)
        d += 1
    return rank


@triton.jit
def bucket_among(words, key, PART: tl.constexpr, STEPS: tl.constexpr):
    """How many of the sample, from word 2 PART on, are not larger: bit by bit from the highest."""
    bucket = (key >> 63).to(tl.int32)  # 0
    for step in tl.static_range(STEPS + 1):
        probe = bucket + (PART >> step)
        place = 2 * PART + tl.minimum(probe, PART) - 1
        low = read(words, place, probe <= PART).to(tl.int64) & 0xFFFFFFFF
        there = low | (read(words, place + PART, probe <= PART).to(tl.int64) << 32)
        bucket = tl.where((probe <= PART) & (there <= key), probe, bucket)
    return bucket


@triton.jit
def sort_by_sample(keys, ordered, length, words, PART: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """As :func:`sort_by_width`, with buckets between the keys of a sample."""
    part = tl.arange(0, PART)
    sampled = tl.where(length > PART, (part.to(tl.int64) * length // PART).to(tl.int32), part)
    sample = tl.sort(tl.load(keys + sampled, mask=sampled < length, other=NEVER))
    most = length * 0 + 1
    if length <= PART:
        tl.store(ordered + part, sample, mask=part < length)
    else:
        write(words, 2 * PART + part, sample.to(tl.int32), part >= 0)
        write(words, 3 * PART + part, (sample >> 32).to(tl.int32), part >= 0)
        bin = tl.arange(0, 2 * PART)  # there are PART + 1 buckets
        write(words, bin, bin * 0, bin >= 0)
        tl.debug_barrier()
        base = length * 0
        while base < length:
            i = base + tl.arange(0, BLOCK)
            key = tl.load(keys + i, mask=i < length, other=NEVER)
            fetch_add(words, bucket_among(words, key, PART, STEPS), i < length)
            base += BLOCK
        tl.debug_barrier()
        most = begin_buckets(words, 2 * PART, BLOCK)
        tl.debug_barrier()
        base = length * 0
        while base < length:
            i = base + tl.arange(0, BLOCK)
            key = tl.load(keys + i, mask=i < length, other=NEVER)
            bucket = bucket_among(words, key, PART, STEPS)
            tl.store(ordered + fetch_add(words, bucket, i < length), key, mask=i < length)
            base += BLOCK
    return most
