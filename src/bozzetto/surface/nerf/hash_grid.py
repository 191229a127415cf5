"""Multi-resolution hash encoding (Müller et al. 2022): positions -> features, with gradients to the tables.

Each level is a lattice over the unit cube with two numbers at every point, read with trilinear weights. Coarse lattices are
stored whole; fine ones share ``table`` rows by a spatial hash. This file holds the layout, the plain PyTorch form (the oracle
for values and gradients) and the dispatch: Triton on CUDA (:mod:`.hash_grid_triton`), numba on the CPU (:mod:`.hash_grid_cpu`).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...nn.triton_support import triton_usable

FEATURES = 2
PRIMES = (1, 2654435761, 805459861)


@dataclass(frozen=True)
class GridLayout:
    """Where each level's rows lie in the table.

    Attributes:
        scales: lattice cells per unit of position. sides: lattice points per axis.
        starts: first row of each level, and one past the last. dense: whether a level is stored whole.
    """

    scales: tuple[float, ...]
    sides: tuple[int, ...]
    starts: tuple[int, ...]
    dense: tuple[bool, ...]

    @classmethod
    def make(cls, levels: int = 12, base: int = 16, finest: int = 2048, table: int = 1 << 19) -> GridLayout:
        """``table``, the most rows of a level, must be a power of two."""
        if table & (table - 1) or levels < 1:
            raise ValueError(
                f"the table must have a power of two of rows and at least one level, got {table}, {levels}"
            )
        growth = math.exp(math.log(finest / base) / max(levels - 1, 1))
        scales, sides, starts, dense = [], [], [0], []
        for level in range(levels):
            # Rounded to float32, since that is what every implementation multiplies with.
            scale = float(torch.tensor(base * growth**level - 1, dtype=torch.float32))
            side = math.ceil(scale) + 2  # the last cell's far corner included
            scales.append(scale)
            sides.append(side)
            dense.append(side**3 <= table)
            starts.append(starts[-1] + min(side**3, table))
        return cls(tuple(scales), tuple(sides), tuple(starts), tuple(dense))

    @property
    def levels(self) -> int:
        return len(self.scales)

    @property
    def rows(self) -> int:
        return self.starts[-1]

    def table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """For the kernels: scales [L] float32; side, first row, rows, dense [L, 4] int32."""
        numbers = [
            (side, start, end - start, int(dense))
            for side, start, end, dense in zip(self.sides, self.starts[:-1], self.starts[1:], self.dense, strict=True)
        ]
        return (
            torch.tensor(self.scales, dtype=torch.float32, device=device),
            torch.tensor(numbers, dtype=torch.int32, device=device),
        )

    def row(self, level: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Table row of lattice points (int64 coordinates of any shape)."""
        side, start, size = self.sides[level], self.starts[level], self.starts[level + 1] - self.starts[level]
        if self.dense[level]:
            return start + (z * side + y) * side + x
        return start + ((x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) % size


def encode_reference(points: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Points [P, 3] in 0..1 and the table [rows, 2] -> features [P, L * 2]. Plain PyTorch, any dtype, differentiable."""
    features = []
    for level, scale in enumerate(layout.scales):
        position = points * scale + 0.5
        low = position.detach().floor()
        fraction = position - low
        cell = low.long()
        total = 0
        for corner in range(8):
            offset = [(corner >> axis) & 1 for axis in range(3)]
            weight = 1
            for axis, o in enumerate(offset):
                weight = weight * (fraction[:, axis] if o else 1 - fraction[:, axis])
            x, y, z = (cell[:, axis] + offset[axis] for axis in range(3))
            total = total + table[layout.row(level, x, y, z)] * weight[:, None]
        features.append(total)
    return torch.cat(features, dim=1)


def variation_gradient_reference(points: Tensor, table: Tensor, layout: GridLayout, weight: float) -> Tensor:
    """The gradient [rows, 2] of a total-variation penalty at the lattice cells that contain ``points`` [P, 3].

    For each point and level: the differences of the cell's value to its up to six neighbours along the axes, summed, divided
    by the root of the sum of their squares, times ``weight`` / 6.
    """
    gradient = torch.zeros_like(table)
    for level, scale in enumerate(layout.scales):
        cell = (points * scale + 0.5).floor().long()
        own = layout.row(level, *cell.unbind(dim=1))
        value = table[own]
        total, squares = torch.zeros_like(value), torch.zeros_like(value)
        for axis in range(3):
            for step in (-1, 1):
                other = cell.clone()
                other[:, axis] += step
                inside = (other[:, axis] >= 0) & (other[:, axis] < layout.sides[level])
                other = other.clamp(0, layout.sides[level] - 1)
                difference = (value - table[layout.row(level, *other.unbind(dim=1))]) * inside[:, None]
                total, squares = total + difference, squares + difference.square()
        gradient.index_add_(0, own, total * (squares + 1e-9).rsqrt() * (weight / 6))
    return gradient


class _Encode(torch.autograd.Function):
    """The kernels under autograd; points get no gradient (nothing that is trained moves them)."""

    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, layout: GridLayout, kernels) -> Tensor:
        ctx.save_for_backward(points)
        ctx.layout, ctx.kernels, ctx.rows = layout, kernels, table.shape
        return kernels.encode(points, table, layout)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        return None, ctx.kernels.encode_gradient(points, gradient.contiguous(), ctx.layout, ctx.rows), None, None


def _kernels(device: torch.device, backend: str):
    """The module that computes on ``device``, or None for the plain form."""
    if backend == "auto" and device.type == "cpu":
        backend = "cpu"
    if by_triton(device, backend):
        from . import hash_grid_triton

        return hash_grid_triton
    if backend == "cpu":
        from . import hash_grid_cpu

        return hash_grid_cpu
    if backend not in ("auto", "reference"):
        raise ValueError(f"unknown backend {backend!r}; known: auto, triton, cpu, reference")
    return None


def by_triton(device: torch.device, backend: str = "auto") -> bool:
    """Whether kernels in Triton do the work: "auto" on CUDA devices, where Triton is installed; "triton" asks for them."""
    if backend == "triton":
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError("the Triton kernels need CUDA tensors")
        return True
    return backend == "auto" and device.type == "cuda" and triton_usable()


class HashGrid(nn.Module):
    """The encoding with its table; starts near zero (uniform within 1e-4).

    Args:
        layout: sizes of the levels. generator: on the CPU; the same table on every device. backend: "auto" (by device),
            "triton", "cpu" or "reference".
    """

    def __init__(self, layout: GridLayout, generator: torch.Generator, backend: str = "auto") -> None:
        super().__init__()
        self.layout, self.backend = layout, backend
        self.table = nn.Parameter((torch.rand(layout.rows, FEATURES, generator=generator) * 2 - 1) * 1e-4)

    @property
    def width(self) -> int:
        return self.layout.levels * FEATURES

    def forward(self, points: Tensor) -> Tensor:
        """Points [P, 3] in 0..1 (clamped) -> features [P, L * 2]."""
        points = points.detach().clamp(0, 1).contiguous()
        kernels = _kernels(points.device, self.backend)
        if kernels is None:
            return encode_reference(points, self.table, self.layout)
        return _Encode.apply(points, self.table, self.layout, kernels)

    @torch.no_grad()
    def add_variation_gradient(self, points: Tensor, weight: float) -> None:
        """Add :func:`variation_gradient_reference`'s gradient at ``points`` [P, 3] in 0..1 to the table's."""
        if self.table.grad is None:
            self.table.grad = torch.zeros_like(self.table)
        kernels = _kernels(points.device, self.backend)
        if kernels is None:
            self.table.grad += variation_gradient_reference(points, self.table, self.layout, weight)
        else:
            kernels.add_variation_gradient(points.contiguous(), self.table, self.table.grad, self.layout, weight)
