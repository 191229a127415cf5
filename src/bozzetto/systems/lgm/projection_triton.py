"""What the kernels of both plane sweeps share: directions between frames, and where and what a picture shows of a point.

Poses are camera-to-world [4, 4], row by row; the camera looks along -z and its y points up. Everything stays in registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .plane_sweep import FAINT, NEAR

LEAST, FRONT = tl.constexpr(FAINT), tl.constexpr(NEAR)


@triton.jit
def turned(pose, x, y, z, ROW: tl.constexpr):
    """One world coordinate of a camera's direction: row ``ROW`` of the rotation times (x, y, z)."""
    return tl.load(pose + 4 * ROW) * x + tl.load(pose + 4 * ROW + 1) * y + tl.load(pose + 4 * ROW + 2) * z


@triton.jit
def turned_back(pose, x, y, z, COLUMN: tl.constexpr):
    """One camera coordinate of a world direction: column ``COLUMN`` of the rotation times (x, y, z)."""
    return tl.load(pose + COLUMN) * x + tl.load(pose + 4 + COLUMN) * y + tl.load(pose + 8 + COLUMN) * z


@triton.jit
def slopes(lens, row, column, side):
    """Of the ray through a pixel of ``side`` in a line: how far right and up it goes for one unit ahead."""
    right = ((column.to(tl.float32) + 0.5) / side - tl.load(lens + 2)) / tl.load(lens)
    up = (tl.load(lens + 3) - (row.to(tl.float32) + 0.5) / side) / tl.load(lens + 1)
    return right, up


@triton.jit
def place(x, y, z, look, side):
    """Where a camera sees (x, y, z) of its frame, z ahead: column and row of the pixel left above, and the shares beyond it."""
    near = side / tl.maximum(z, FRONT)
    x = x * near * tl.load(look) + (tl.load(look + 2) * side - 0.5)
    y = tl.load(look + 3) * side - 0.5 - y * near * tl.load(look + 1)  # the camera's y points up, rows go down
    x = tl.minimum(tl.maximum(x, -2.0), side + 1.0)
    y = tl.minimum(tl.maximum(y, -2.0), side + 1.0)
    left, top = tl.floor(x), tl.floor(y)
    return left.to(tl.int32), top.to(tl.int32), x - left, y - top


@triton.jit
def neighbours(i, j, side, front):
    """Which columns and rows of the four neighbours exist: west, east, and, of points that ``front`` admits, north, south."""
    west, east = (i >= 0) & (i < side), (i >= -1) & (i < side - 1)
    return west, east, front & (j >= 0) & (j < side), front & (j >= -1) & (j < side - 1)


@triton.jit
def _tap(picture, plane, at, weight, inside):
    """Four channels of one neighbour, times its weight; zeros outside."""
    r = weight * tl.load(picture + at, mask=inside, other=0.0)
    g = weight * tl.load(picture + plane + at, mask=inside, other=0.0)
    b = weight * tl.load(picture + 2 * plane + at, mask=inside, other=0.0)
    a = weight * tl.load(picture + 3 * plane + at, mask=inside, other=0.0)
    return r, g, b, a


@triton.jit
def shown(picture, plane, side, look, x, y, z, front):
    """Premultiplied rgb and alpha that a picture [4, side, side] has, bilinearly, where its camera sees (x, y, z)."""
    i, j, x, y = place(x, y, z, look, side)
    west, east, north, south = neighbours(i, j, side, front)
    at = j * side + i
    r, g, b, a = _tap(picture, plane, at, (1.0 - x) * (1.0 - y), north & west)
    r1, g1, b1, a1 = _tap(picture, plane, at + 1, x * (1.0 - y), north & east)
    r, g, b, a = r + r1, g + g1, b + b1, a + a1
    r1, g1, b1, a1 = _tap(picture, plane, at + side, (1.0 - x) * y, south & west)
    r, g, b, a = r + r1, g + g1, b + b1, a + a1
    r1, g1, b1, a1 = _tap(picture, plane, at + side + 1, x * y, south & east)
    return r + r1, g + g1, b + b1, a + a1


@triton.jit
def unlike(r, g, b, a, red, green, blue):
    """Summed difference of a premultiplied colour, alpha taken out, from a straight one."""
    scale = 1.0 / tl.maximum(a, LEAST)
    return tl.abs(r * scale - red) + tl.abs(g * scale - green) + tl.abs(b * scale - blue)
