"""Marching cubes on the CPU: the slabs of :mod:`.reference` with the kernels of :mod:`.cpu_kernels`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...raster.threads import run_tasks
from . import cpu_kernels as kernels
from .reference import Piece
from .words import Words, packed_triangles

POINTS_AT_ONCE = 1 << 24  # of a slab: its packed planes stay in a cache
POINTS_PER_TASK = 1 << 18


class CpuSlabs:
    """Takes the planes of a grid [X, Y, Z] in order, a slab at a time, and gives the triangles that became known."""

    def __init__(self, shape: tuple[int, int, int], level: float, closed: bool, joined: bool, device: torch.device):
        self.shape, self.level, self.closed = shape, np.float32(level), closed
        self.grid = Words.of(shape, closed)
        self.table = packed_triangles(joined)
        self.sides = np.array(shape, np.float32) - 1
        self.planes = self.vertices = self.nans = 0  # seen so far
        self._previous = np.empty((0, 0), np.float32)  # samples of the last plane
        # Of the last plane: signs, crossings before each word, number of the first crossing within it.
        self._signs = np.zeros((self.grid.rows, self.grid.words + 1), np.uint32)
        self._before = np.zeros((2, self.grid.rows, self.grid.words), np.int32)
        self._base = 0

    def add(self, fresh: Tensor) -> list[Piece]:
        """Planes [n, Y, Z] -> vertices [V, 3] float32, the axis of each vertex's edge [V] uint8, faces [F, 3] int64."""
        planes = max(1, POINTS_AT_ONCE // (self.shape[1] * self.shape[2]))
        return [self._add(part.float().numpy()) for part in fresh.split(planes)]

    def _add(self, samples: np.ndarray) -> Piece:
        grid, bits = self.grid, self.grid.bits
        first = self.planes == 0
        self.planes += len(samples)
        count = 1 + len(samples) + int(self.closed and self.planes == self.shape[0])
        signs = np.zeros((count, grid.rows, grid.words + 1), np.uint32)
        before = np.empty((count, 2, grid.rows, grid.words), np.int32)
        signs[0], before[0] = self._signs, self._before
        starts = np.ones(count, np.uint8)
        starts[1] = self.closed or not first
        totals = np.zeros((count, 3), np.int64)
        each = max(1, POINTS_PER_TASK // (self.shape[1] * self.shape[2]))
        spans = [(i, min(i + each, count)) for i in range(1, count, each)]

        read = [(i - 1, min(j - 1, len(samples))) for i, j in spans]
        nans = run_tasks((kernels.pack_signs, samples, self.level, grid.row0, grid.bit0, signs, *s) for s in read)
        self.nans += sum(nans)
        run_tasks((kernels.count, signs, bits, self.table, starts, before, totals, *s) for s in spans)

        ends = self.vertices + totals[:, :2].reshape(-1).cumsum()
        base = np.concatenate([[self.vertices], ends[:-1]]).reshape(-1, 2)
        base[0, 1] = self._base
        behind = totals[:, 2].cumsum()
        vertices = np.empty((ends[-1] - self.vertices, 3), np.float32)
        axes = np.empty(len(vertices), np.uint8)
        faces = np.empty((behind[-1], 3), np.int64)
        x = self.planes - len(samples) - 1
        fixed = (samples, self._previous, self.level, x, self.sides, grid.row0, grid.bit0, bits, signs, starts, base)
        tasks = [(kernels.place, *fixed, self.vertices, vertices, axes, *s) for s in spans]
        fixed = (bits, self.table, signs, starts, before, base, behind - totals[:, 2], faces)
        run_tasks(tasks + [(kernels.connect, *fixed, *s) for s in spans])

        self.vertices = int(ends[-1])
        self._previous = samples[-1].copy()
        self._signs, self._before, self._base = signs[-1], before[-1], int(base[-1, 1])
        return torch.from_numpy(vertices), torch.from_numpy(axes), torch.from_numpy(faces)
