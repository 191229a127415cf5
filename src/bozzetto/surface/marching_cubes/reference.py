"""Marching cubes in plain PyTorch operations, on any device: the model for the compiled back ends.

Dense: each slab holds the number of every edge of its grid. The vertices are numbered plane by plane: first the crossings of
edges within the plane, in C order of the points they start from, y before z; then those of the edges that lead to the next
plane, in C order. A slab thus knows every number on its last plane without a look at the next one, and numbers do not depend on
the height of the slabs. Faces come in C order of their cubes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .table import MOST_TRIANGLES, edge_table, triangle_table

LARGEST = 1e30  # samples are clamped to it before positions are worked out

POINTS_AT_ONCE = 1 << 22

Piece = tuple[Tensor, Tensor, Tensor]


class ReferenceSlabs:
    """Takes the planes of a grid [X, Y, Z] in order, a slab at a time, and gives the triangles that became known."""

    def __init__(self, shape: tuple[int, int, int], level: float, closed: bool, joined: bool, device: torch.device):
        self.shape, self.level, self.closed, self.joined, self.device = shape, level, closed, joined, device
        self.planes = self.vertices = 0  # seen so far
        self.nans = 0
        self._last: Tensor | None = None  # the last plane seen
        if closed:
            self._last = torch.full((1, shape[1] + 2, shape[2] + 2), torch.nan, device=device)

    def add(self, fresh: Tensor) -> list[Piece]:
        """Planes [n, Y, Z] -> vertices [V, 3] float32, the axis of each vertex's edge [V] uint8, faces [F, 3] int64."""
        planes = max(1, POINTS_AT_ONCE // (self.shape[1] * self.shape[2]))
        return [self._add(part) for part in fresh.split(planes)]

    def _add(self, fresh: Tensor) -> Piece:
        self.nans += int(torch.isnan(fresh).sum())
        values = fresh.float()
        if self.closed:  # what lies outside of the grid is NaN
            rear = int(self.planes + len(fresh) == self.shape[0])
            values = F.pad(values, (1, 1, 1, 1, 0, rear), value=torch.nan)
        first = self.planes
        carried = self._last is not None  # its crossings have their numbers already
        if carried:
            values, first = torch.cat([self._last, values]), first - 1
        self.planes += len(fresh)
        self._last = values[-1:].clone()
        inside = values > self.level
        flags = _crossings(inside)
        old = int(flags[0, : flags.shape[1] // 3 * 2].sum()) if carried else 0
        numbers = (flags.flatten().cumsum(0) - 1 + self.vertices - old).reshape(flags.shape)
        found = flags.flatten().nonzero()[old:, 0]
        self.vertices += len(found)
        vertices, axes = self._place(values, found, first)
        return vertices, axes, _faces(inside, numbers, triangle_table(self.joined))

    def _place(self, values: Tensor, found: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Positions of the crossings ``found``, indices into the flags."""
        _, y, z = values.shape
        plane, rest = found // (3 * y * z), found % (3 * y * z)
        ahead = rest >= 2 * y * z
        axis = torch.where(ahead, 0, 1 + rest % 2)
        point = torch.where(ahead, rest - 2 * y * z, rest // 2)
        start = torch.stack([plane, point // z, point % z], dim=-1)
        end = start + F.one_hot(axis, 3)
        values = values.clamp(-LARGEST, LARGEST)
        a, b = (values[tuple(p.T)] for p in (start, end))
        share = ((self.level - a) / (b - a)).nan_to_num(0.5).clamp(0, 1)
        pad = int(self.closed)
        origin = start.new_tensor([first, -pad, -pad])
        position = (start + origin).float() + F.one_hot(axis, 3) * share[:, None]
        if self.closed:  # lids lie on the border
            position = torch.minimum(position.clamp_min(0), position.new_tensor(self.shape) - 1)
        return position, axis.to(torch.uint8)


def _crossings(inside: Tensor) -> Tensor:
    """Flags [P, 3 Y Z] of crossed edges by planes: [Y, Z, 2] along y and z, then [Y, Z] to the next plane."""
    p, y, z = inside.shape
    within = inside.new_zeros(p, y, z, 2)
    within[:, :-1, :, 0] = inside[:, :-1] != inside[:, 1:]
    within[:, :, :-1, 1] = inside[:, :, :-1] != inside[:, :, 1:]
    ahead = inside.new_zeros(p, y, z)
    ahead[:-1] = inside[:-1] != inside[1:]
    return torch.cat([within.reshape(p, -1), ahead.reshape(p, -1)], dim=1)


def _faces(inside: Tensor, numbers: Tensor, table: tuple) -> Tensor:
    """Faces [F, 3] from the table; ``numbers`` has the layout of the flags."""
    x, y, z = inside.shape
    code = torch.zeros(x - 1, y - 1, z - 1, dtype=torch.uint8, device=inside.device)
    for corner in range(8):
        i, j, k = corner & 1, corner >> 1 & 1, corner >> 2 & 1
        code |= inside[i : i + x - 1, j : j + y - 1, k : k + z - 1].to(torch.uint8) << corner
    cells = ((code > 0) & (code < 255)).nonzero()  # [N, 3]
    rows = [list(t) + [(-1, -1, -1)] * (MOST_TRIANGLES - len(t)) for t in table]
    triangles = torch.tensor(rows, device=inside.device)[code[tuple(cells.T)].long()]  # [N, 5, 3] edges of the cube
    at_edge = []
    for axis, start in edge_table():
        plane, row, column = (cells + cells.new_tensor(start)).unbind(-1)
        point = row * z + column
        at_edge.append(numbers[plane, 2 * y * z + point if axis == 0 else 2 * point + axis - 1])
    faces = torch.stack(at_edge, dim=1).gather(1, triangles.clamp_min(0).flatten(1)).reshape(-1, 3)  # [N * 5, 3]
    return faces[(triangles[..., 0] >= 0).flatten()]
