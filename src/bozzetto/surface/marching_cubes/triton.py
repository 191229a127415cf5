"""Marching cubes on the GPU: the slabs of :mod:`.reference` with the kernels of :mod:`.triton_kernels`.

The host waits for the device once a slab, for the numbers of vertices and faces.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import MeshError, MissingDependencyError
from .reference import Piece
from .words import BITS, Words, packed_triangles

try:
    import triton
except ImportError as error:
    raise MissingDependencyError(
        "marching cubes with Triton needs the package 'triton' (Linux): pip install 'bozzetto[gpu]', or use "
        "backend='reference'"
    ) from error

from . import triton_kernels as kernels

INTERPRETED = not isinstance(kernels.sign_kernel, triton.JITFunction)
POINTS_AT_ONCE = 1 << 25  # of a slab
MOST_POINTS = 1 << 30  # of a plane, for the same reason
SIGN_WORDS = 64  # of a program
BLOCK = 64  # words of a program that counts
SIGN_WARPS, COUNT_WARPS, LIST_WARPS = 4, 4, 4
LANES = 128


class TritonSlabs:
    """Takes the planes of a grid [X, Y, Z] in order, a slab at a time, and gives the triangles that became known."""

    def __init__(self, shape: tuple[int, int, int], level: float, closed: bool, joined: bool, device: torch.device):
        if device.type != "cuda" and not INTERPRETED:
            raise MeshError(f"marching cubes with Triton needs samples on a CUDA device, these are on {device}")
        self.shape, self.level, self.closed = shape, level, closed
        self.grid = Words.of(shape, closed)
        if self.grid.rows * (self.grid.words + 1) * BITS > MOST_POINTS:
            raise MeshError(f"a plane of the grid has at most 2^30 samples, these have {shape[1]} x {shape[2]}")
        self.table = torch.tensor(packed_triangles(joined), device=device)
        self.planes = self.vertices = 0  # seen so far
        self.nans = torch.zeros(1, dtype=torch.int64, device=device)
        # Of the last plane: samples, signs, crossings before each word, numbers of the first crossings within each block.
        self._blocks = triton.cdiv(self.grid.rows * self.grid.words, BLOCK)
        self._previous: Tensor | None = None
        self._carried: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, fresh: Tensor) -> list[Piece]:
        """Planes [n, Y, Z] -> vertices [V, 3] float32, the axis of each vertex's edge [V] uint8, faces [F, 3] int64."""
        planes = max(1, POINTS_AT_ONCE // (self.shape[1] * self.shape[2]))
        with torch.cuda.device_of(fresh):
            return [self._add(part.contiguous()) for part in fresh.split(planes)]

    def _add(self, samples: Tensor) -> Piece:
        grid, device, blocks = self.grid, samples.device, self._blocks
        size = (grid.rows, grid.words, grid.bits)
        n, y, z = samples.shape
        first = self._previous is None
        self.planes += n
        planes = 1 + n + int(self.closed and self.planes == self.shape[0])
        signs = torch.zeros(planes, grid.rows, grid.words + 1, dtype=torch.int32, device=device)
        before = torch.empty(planes, grid.rows * grid.words, dtype=torch.int32, device=device)
        totals = torch.zeros(4 * planes * blocks, dtype=torch.int32, device=device)
        if first:
            before[0] = 0
        else:
            signs[0], before[0] = self._carried[:2]
        open_ = int(first and not self.closed)

        count = n * y * triton.cdiv(z, BITS)
        kernels.sign_kernel[(triton.cdiv(count, SIGN_WORDS),)](
            samples, signs, self.nans, self.level, count, y, z, grid.rows, grid.words, grid.row0, grid.bit0 // BITS,
            BLOCK=SIGN_WORDS, num_warps=SIGN_WARPS,
        )  # fmt: skip
        programs = ((planes - 1) * blocks,)
        kernels.count_kernel[programs](
            signs, self.table, before, totals, open_, planes, *size, BLOCK=BLOCK, num_warps=COUNT_WARPS
        )  # fmt: skip
        ends = totals.cumsum(0)
        base = ends - totals
        new, cubes, triangles = ends.view(4, -1)[1:, -1].tolist()
        cubes, triangles = cubes - new, triangles - cubes
        if not first:  # numbers count from the slab's first vertex
            base[blocks : 2 * blocks] = self._carried[2]
        vertices = torch.empty(new, 3, device=device)
        axes = torch.empty(new, dtype=torch.uint8, device=device)
        faces = torch.empty(triangles, 3, dtype=torch.int64, device=device)
        if new:
            edges, corners, starts = torch.empty(new + 2 * cubes, dtype=torch.int64, device=device).split(
                [new, cubes, cubes]
            )
            kernels.list_kernel[programs](
                signs, self.table, before, totals, base, edges, corners, starts, open_, planes, new, cubes, *size,
                BLOCK=BLOCK, num_warps=LIST_WARPS,
            )  # fmt: skip
            previous = samples if first else self._previous
            kernels.place_kernel[(triton.cdiv(new, LANES),)](
                edges, samples, previous, vertices, axes, self.level, new, n, self.planes - n - 1, int(not first),
                *self.shape, grid.rows, grid.words, grid.row0, grid.bit0, BLOCK=LANES,
            )  # fmt: skip
        if cubes:
            kernels.face_kernel[(triton.cdiv(cubes, LANES),)](
                corners, starts, signs, self.table, before, base, faces, cubes, self.vertices, *size,
                BLOCK=BLOCK, LANES=LANES,
            )  # fmt: skip
        self.vertices += new
        if self.planes < self.shape[0]:
            self._previous = samples[-1].clone()
            within = base[(2 * planes - 1) * blocks : 2 * planes * blocks]
            self._carried = signs[-1], before[-1], within - new
        return vertices, axes, faces
