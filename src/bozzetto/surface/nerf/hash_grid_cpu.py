"""The hash encoding in numba. A thread owns whole levels, so no two threads write the same row and sums have one order."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ...raster.threads import run_tasks
from .hash_grid import FEATURES, PRIMES, GridLayout

jit = njit(cache=True, nogil=True, error_model="numpy")
ONE, HALF = np.float32(1), np.float32(0.5)
PRIME_Y, PRIME_Z = PRIMES[1], PRIMES[2]


@jit
def _row(x, y, z, side, start, size, dense):
    if dense:
        return start + (z * side + y) * side + x
    return start + ((x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & (size - 1))


@jit
def _encode(points, table, scale, side, start, size, dense, column, out, gradient, backward):
    """One level. Forward fills out's columns; backward adds ``out``'s columns (the features' gradient) to ``gradient``."""
    for i in range(points.shape[0]):
        x, y, z = points[i, 0] * scale + HALF, points[i, 1] * scale + HALF, points[i, 2] * scale + HALF
        cx, cy, cz = int(x), int(y), int(z)  # never negative
        fx, fy, fz = x - np.float32(cx), y - np.float32(cy), z - np.float32(cz)
        first, second = np.float32(0), np.float32(0)
        if backward:
            first, second = out[i, column], out[i, column + 1]
            if first == 0 and second == 0:
                continue
        for corner in range(8):
            ox, oy, oz = corner & 1, (corner >> 1) & 1, corner >> 2
            weight = (fx if ox else ONE - fx) * (fy if oy else ONE - fy) * (fz if oz else ONE - fz)
            row = _row(cx + ox, cy + oy, cz + oz, side, start, size, dense)
            if backward:
                gradient[row, 0] += weight * first
                gradient[row, 1] += weight * second
            else:
                first += weight * table[row, 0]
                second += weight * table[row, 1]
        if not backward:
            out[i, column], out[i, column + 1] = first, second


@jit
def _variation(points, table, scale, side, start, size, dense, weight, gradient):
    for i in range(points.shape[0]):
        cell = (
            int(points[i, 0] * scale + HALF),
            int(points[i, 1] * scale + HALF),
            int(points[i, 2] * scale + HALF),
        )
        own = _row(cell[0], cell[1], cell[2], side, start, size, dense)
        for k in range(2):
            total, squares = np.float32(0), np.float32(1e-9)
            for neighbour in range(6):
                axis, step = neighbour // 2, (neighbour % 2) * 2 - 1
                if not 0 <= cell[axis] + step < side:
                    continue
                row = _row(
                    cell[0] + step * (axis == 0), cell[1] + step * (axis == 1), cell[2] + step * (axis == 2),
                    side, start, size, dense,
                )  # fmt: skip
                difference = table[own, k] - table[row, k]
                total += difference
                squares += difference * difference
            gradient[own, k] += weight * total / np.sqrt(squares)


def _each_level(layout: GridLayout, work) -> None:
    """Call ``work(level, scale, side, start, size, dense)`` for all levels on torch's number of threads."""
    sizes = [end - start for start, end in zip(layout.starts, layout.starts[1:])]
    columns = zip(map(np.float32, layout.scales), layout.sides, layout.starts, sizes, layout.dense)
    run_tasks((work, level, *numbers) for level, numbers in enumerate(columns))


def encode(points: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """See :func:`.hash_grid.encode_reference`; float32, contiguous."""
    out = torch.empty(len(points), layout.levels * FEATURES)
    p, t, o = points.numpy(), table.detach().numpy(), out.numpy()
    _each_level(layout, lambda level, *level_shape: _encode(p, t, *level_shape, 2 * level, o, t, False))
    return out


def encode_gradient(points: Tensor, gradient: Tensor, layout: GridLayout, shape: torch.Size) -> Tensor:
    """The table's gradient [rows, 2] from the features' [P, L * 2]."""
    out = torch.zeros(shape)
    p, g, o = points.numpy(), gradient.numpy(), out.numpy()
    _each_level(layout, lambda level, *level_shape: _encode(p, o, *level_shape, 2 * level, g, o, True))
    return out


def add_variation_gradient(points: Tensor, table: Tensor, gradient: Tensor, layout: GridLayout, weight: float) -> None:
    """See :func:`.hash_grid.variation_gradient_reference`; adds to ``gradient``."""
    p, t, g = points.numpy(), table.detach().numpy(), gradient.numpy()
    w = np.float32(weight / 6)
    _each_level(layout, lambda level, *level_shape: _variation(p, t, *level_shape, w, g))
