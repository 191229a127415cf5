"""Marching cubes on the CPU: compiled loops over words of 32 signs (see :mod:`.words`).

Each kernel handles a span of planes and writes to these alone, so spans go to threads without locks. Plane 0 of the packed
arrays is the last one of the slab before; plane i belongs to sample plane i - 1 of the slab, or to a lid. Work is three passes:
signs (reads every sample once), counts (a few operations per word), and vertices and faces (touches crossed words only).
Numbers are int64 throughout.
"""

from __future__ import annotations

import numpy as np

from ...raster.threads import compiled
from .words import BITS, STRIDE

COUNT = STRIDE - 1
LARGEST = np.float32(1e30)
HALF = np.float32(0.5)
ZERO, ONE = np.float32(0), np.float32(1)
FULL = 0xFFFFFFFF


@compiled
def pack_signs(samples, level, row0, bit0, signs, first, last):
    """Signs of sample planes first..last (exclusive) into ``signs`` [P, R, W + 1] uint32 at plane + 1; the number of NaN."""
    _, height, depth = samples.shape
    word0 = bit0 // BITS
    whole = depth // BITS
    nans = 0
    for plane in range(first, last):
        for y in range(height):
            row = samples[plane, y]
            out = signs[plane + 1, y + row0]
            for w in range(whole):
                word, missing = np.uint32(0), np.uint32(0)
                for b in range(BITS):
                    value = row[w * BITS + b]
                    word |= np.uint32(value > level) << np.uint32(b)
                    missing |= np.uint32(value != value) << np.uint32(b)
                out[word0 + w] = word
                if missing != np.uint32(0):
                    nans += _ones(np.int64(missing))
            if whole * BITS < depth:
                word = np.uint32(0)
                for z in range(whole * BITS, depth):
                    word |= np.uint32(row[z] > level) << np.uint32(z - whole * BITS)
                    nans += row[z] != row[z]
                out[word0 + whole] = word
    return nans


@compiled
def _ones(word):
    """Number of set bits of an int64 below 2^32."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) & FULL) >> 24


@compiled
def _word(row, w):
    """The word of 32 signs, and the signs one step further along z."""
    here = np.int64(row[w])
    return here, (here >> 1) | ((np.int64(row[w + 1]) & 1) << 31)


@compiled
def _along_z(w, bits):
    """The points of a word that have a neighbour along z."""
    left = bits - 1 - w * BITS
    return FULL if left >= BITS else (1 << max(left, 0)) - 1


@compiled
def _case(a, az, b, bz, c, cz, d, dz, bit):
    """Which corners of a cube are inside; the rows are (x, y) = a (0, 0), b (1, 0), c (0, 1), d (1, 1)."""
    low = (a >> bit & 1) | (b >> bit & 1) << 1 | (c >> bit & 1) << 2 | (d >> bit & 1) << 3
    return low | (az >> bit & 1) << 4 | (bz >> bit & 1) << 5 | (cz >> bit & 1) << 6 | (dz >> bit & 1) << 7


@compiled
def count(signs, bits, table, starts, before, totals, first, last):
    """For planes first..last: the crossings before each word and in all, and the number of triangles behind the plane.

    starts: uint8 [P], whether the plane has one before it.
    before: int32 [P, 2, R, W], crossings before a word: towards this plane (along x), and within it.
    totals: int64 [P, 3], of the same, and triangles of the cubes between the plane before and this one.
    """
    _, rows, words = signs.shape
    words -= 1
    for plane in range(first, last):
        ahead = within = triangles = 0
        back = starts[plane]
        for y in range(rows):
            here, behind = signs[plane, y], signs[plane - 1, y]
            below, under = here, behind  # the next row along y
            if y + 1 < rows:
                below, under = signs[plane, y + 1], signs[plane - 1, y + 1]
            for w in range(words):
                before[plane, 0, y, w], before[plane, 1, y, w] = ahead, within
                b, bz = _word(here, w)
                d, dz = _word(below, w)
                a, az = b, bz
                c, cz = d, dz
                if back:
                    a, az = _word(behind, w)
                    c, cz = _word(under, w)
                some = a | az | b | bz | c | cz | d | dz
                if some == 0 or (a & az & b & bz & c & cz & d & dz) == FULL:
                    continue
                along = _along_z(w, bits)
                within += _ones(b ^ d) + _ones((b ^ bz) & along)
                if back:
                    ahead += _ones(a ^ b)
                    if y + 1 < rows:
                        every = a & az & b & bz & c & cz & d & dz
                        cubes = some & ~every & along
                        while cubes != 0:
                            bit = _ones((cubes & -cubes) - 1)
                            cubes &= cubes - 1
                            triangles += table[_case(a, az, b, bz, c, cz, d, dz, bit), COUNT]
        totals[plane, 0], totals[plane, 1], totals[plane, 2] = ahead, within, triangles


@compiled
def _share(a, b, level):
    """Where between samples a and b the level lies, 0..1; midway if one is missing."""
    a = min(max(a, -LARGEST), LARGEST) if a == a else a
    b = min(max(b, -LARGEST), LARGEST) if b == b else b
    share = (level - a) / (b - a)
    return min(max(share, ZERO), ONE) if share == share else HALF


@compiled
def _sample(samples, previous, plane, y, z):
    """The sample of a plane of the packed arrays; NaN beyond the grid."""
    count, height, depth = samples.shape
    if y < 0 or y >= height or z < 0 or z >= depth or plane > count or (plane == 0 and previous.shape[0] == 0):
        return np.float32(np.nan)
    return previous[y, z] if plane == 0 else samples[plane - 1, y, z]


@compiled
def place(
    samples, previous, level, x, sides, row0, bit0, bits, signs, starts, base, origin, vertices, axes, first, last
):
    """Vertices of planes first..last.

    previous: sample plane 0 of the packed arrays, or [0, 0]. x: its position. sides: float32 [3], the last position of each
    axis. base: int64 [P, 2], number of the first crossing towards and within each plane. origin: number of vertex 0.
    """
    _, rows, words = signs.shape
    words -= 1
    for plane in range(first, last):
        for kind in range(2):  # along x towards this plane; within it
            if kind == 0 and not starts[plane]:
                continue
            at = base[plane, kind] - origin
            for y in range(rows):
                here = signs[plane, y]
                other = signs[plane - 1, y] if kind == 0 else signs[plane, min(y + 1, rows - 1)]
                for w in range(words):
                    b, bz = _word(here, w)
                    across = b ^ np.int64(other[w])
                    along = (b ^ bz) & _along_z(w, bits) if kind == 1 else 0
                    left = across | along
                    while left != 0:
                        bit = _ones((left & -left) - 1)
                        left &= left - 1
                        for turn in range(2):
                            crossed = across if turn == 0 else along
                            if not (crossed >> bit) & 1:
                                continue
                            axis = 2 if turn == 1 else (0 if kind == 0 else 1)
                            j, k = y - row0, w * BITS + bit - bit0
                            i = plane - 1 if axis == 0 else plane
                            start = _sample(samples, previous, i, j, k)
                            end = _sample(samples, previous, i + (axis == 0), j + (axis == 1), k + (axis == 2))
                            share = _share(start, end, level)
                            place = (x + i, j, k)
                            for n in range(3):
                                position = np.float32(place[n]) + (share if n == axis else ZERO)
                                vertices[at, n] = min(max(position, ZERO), sides[n])
                            axes[at] = axis
                            at += 1


@compiled
def connect(bits, table, signs, starts, before, base, triangles_before, faces, first, last):
    """Faces of the cubes between planes first..last and the ones before them, from triangles_before[plane] on."""
    _, rows, words = signs.shape
    words -= 1
    for plane in range(first, last):
        if not starts[plane]:
            continue
        at = triangles_before[plane]
        for y in range(rows - 1):
            for w in range(words):
                a, az = _word(signs[plane - 1, y], w)
                b, bz = _word(signs[plane, y], w)
                c, cz = _word(signs[plane - 1, y + 1], w)
                d, dz = _word(signs[plane, y + 1], w)
                every = a & az & b & bz & c & cz & d & dz
                cubes = (a | az | b | bz | c | cz | d | dz) & ~every & _along_z(w, bits)
                while cubes != 0:
                    bit = _ones((cubes & -cubes) - 1)
                    cubes &= cubes - 1
                    case = _case(a, az, b, bz, c, cz, d, dz, bit)
                    for t in range(table[case, COUNT]):
                        for corner in range(3):
                            edge = np.int64(table[case, 3 * t + corner])
                            row, point = y + (edge >> 3 & 1), w * BITS + bit + (edge >> 4 & 1)
                            faces[at, corner] = _number(
                                signs, bits, before, base, plane, edge & 3, edge >> 2 & 1, row, point
                            )
                        at += 1


@compiled
def _number(signs, bits, before, base, plane, axis, ahead, y, point):
    """Number of the vertex on the edge along ``axis`` from a point (bit ``point`` of row y) of the plane or the one before."""
    w, bit = point // BITS, point % BITS
    earlier = (1 << bit) - 1
    if axis == 0:
        crossed = np.int64(signs[plane - 1, y, w] ^ signs[plane, y, w])
        return base[plane, 0] + before[plane, 0, y, w] + _ones(crossed & earlier)
    plane = plane - 1 + ahead
    b, bz = _word(signs[plane, y], w)
    across = b ^ np.int64(signs[plane, min(y + 1, signs.shape[1] - 1), w])
    along = (b ^ bz) & _along_z(w, bits)
    rank = _ones(across & earlier) + _ones(along & earlier) + ((across >> bit) & 1 if axis == 2 else 0)
    return base[plane, 1] + before[plane, 1, y, w] + rank
