"""Signed distance grid -> triangles, with vertex positions and order as in Shap-E's own marching cubes.

One vertex lies on each grid edge that the surface crosses: first the edges along x, then y, then z, each in C order. Faces
come from a table of all 256 ways in which a cube's corners can lie inside; the table is derived below. It draws the same lines on
the faces of the cubes as the published one; only the diagonals inside a cube can differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from ...errors import MeshError
from .transmitter import ImplicitFields

BATCH = 1 << 18  # grid points evaluated at once
SRGB_KNEE = 0.04045


@cache
def edge_table() -> tuple[tuple[int, tuple[int, int, int]], ...]:
    """The 12 edges of a cube: (axis it runs along, corner it starts from)."""
    edges = []
    for axis in range(3):
        for corner in range(8):
            start = (corner & 1, corner >> 1 & 1, corner >> 2 & 1)
            if start[axis] == 0:
                edges.append((axis, start))
    return tuple(edges)


def _faces_of_cube() -> list[list[tuple[int, int, int]]]:
    """The corners of the six faces, each counter-clockwise seen from outside the cube."""
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3  # axis, u, v is right-handed
        for side in (0, 1):
            ring = []
            for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
                corner = [0, 0, 0]
                corner[axis], corner[u], corner[v] = side, a, b
                ring.append(tuple(corner))
            faces.append(ring if side == 1 else ring[::-1])
    return faces


def _edge_between(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    axis = next(i for i in range(3) if a[i] != b[i])
    return edge_table().index((axis, min(a, b)))


@cache
def triangle_table() -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """For each of 256 cases (bit x + 2 y + 4 z set: that corner is inside) the triangles, as triples of edge numbers.

    On each face of the cube, line segments cut the inside corners off; walking round the face counter-clockwise, a segment
    leads from where one enters the inside to where one leaves it. Every crossed edge belongs to two faces, is entered on one
    and left on the other, so the segments close to loops, which are cut into fans. On a face with two inside corners in a
    diagonal the two stay apart; as this depends on the face alone, neighbouring cubes agree and the surface is watertight.
    """
    table = []
    for case in range(256):
        follow: dict[int, int] = {}
        for ring in _faces_of_cube():
            inside = [bool(case >> (x + 2 * y + 4 * z) & 1) for x, y, z in ring]
            for i in range(4):
                if inside[i] and not inside[i - 1]:  # the inside run that starts at corner i
                    j = i
                    while inside[(j + 1) % 4]:
                        j += 1
                    enter = _edge_between(ring[i - 1], ring[i])
                    follow[enter] = _edge_between(ring[j % 4], ring[(j + 1) % 4])
        triangles = []
        while follow:
            loop = [min(follow)]
            while follow[loop[-1]] != loop[0]:
                loop.append(follow.pop(loop[-1]))
            follow.pop(loop[-1])
            triangles += _fan(loop)
        table.append(tuple(triangles))
    return tuple(table)


def _fan(loop: list[int]) -> list[tuple[int, int, int]]:
    """A closed loop of crossed edges as a fan of triangles, none of whose diagonals lies in a face of the cube.

    Such a diagonal could be the neighbouring cube's diagonal too, and four triangles would meet in it.
    """
    faces = [{_edge_between(ring[i - 1], ring[i]) for i in range(4)} for ring in _faces_of_cube()]
    for turn in range(len(loop)):
        first, *rest = loop[turn:] + loop[:turn]
        if not any(first in face and other in face for other in rest[1:-1] for face in faces):
            return [(first, a, b) for a, b in pairwise(rest)]
    raise AssertionError(f"no fan cuts the loop {loop}")


def marching_cubes(field: Tensor) -> tuple[Tensor, Tensor]:
    """Surface where ``field`` [X, Y, Z] crosses zero (inside: above zero), on the field's device.

    Returns:
        vertices [V, 3] float32 in grid steps (0 is the first sample) and faces [F, 3] int64, counter-clockwise from outside;
        both empty where nothing is crossed.
    """
    field = field.float()
    inside = field > 0
    vertices, numbers, count = [], [], 0
    for axis in range(3):
        n = field.shape[axis] - 1
        low, high = field.narrow(axis, 0, n), field.narrow(axis, 1, n)
        crossed = inside.narrow(axis, 0, n) != inside.narrow(axis, 1, n)
        where = crossed.nonzero()  # [E, 3], C order
        a, b = low[crossed], high[crossed]
        points = where.float()
        points[:, axis] += a / (a - b)
        number = torch.full(crossed.shape, -1, dtype=torch.int32, device=field.device)
        number[crossed] = torch.arange(count, count + len(where), dtype=torch.int32, device=field.device)
        count += len(where)
        vertices.append(points)
        numbers.append(number)
    return torch.cat(vertices), _connect(inside, numbers)


def _connect(inside: Tensor, numbers: list[Tensor]) -> Tensor:
    """Faces [F, 3] from the table; ``numbers[axis]`` holds the vertex number of each edge along that axis."""
    x, y, z = (n - 1 for n in inside.shape)
    code = torch.zeros(x, y, z, dtype=torch.uint8, device=inside.device)
    for corner in range(8):
        i, j, k = corner & 1, corner >> 1 & 1, corner >> 2 & 1
        code |= inside[i : i + x, j : j + y, k : k + z].to(torch.uint8) << corner
    cells = ((code > 0) & (code < 255)).nonzero()  # [N, 3]
    table = triangle_table()
    most = max(map(len, table))
    rows = [list(t) + [(-1, -1, -1)] * (most - len(t)) for t in table]
    triangles = torch.tensor(rows, device=inside.device)[code[tuple(cells.T)].long()]  # [N, most, 3] edges of the cube
    at_edge = torch.stack(
        [_lookup(numbers[axis], cells + torch.tensor(start, device=inside.device)) for axis, start in edge_table()],
        dim=1,
    )  # [N, 12] vertex numbers
    faces = at_edge.gather(1, triangles.clamp_min(0).flatten(1)).reshape(-1, 3)  # [N, most * 3] -> [N * most, 3]
    return faces[(triangles[..., 0] >= 0).flatten()]


def _lookup(numbers: Tensor, at: Tensor) -> Tensor:
    return numbers[at[:, 0], at[:, 1], at[:, 2]].long()


def sdf_grid(fields: ImplicitFields, resolution: int = 128, progress: Callable[[float], None] | None = None) -> Tensor:
    """Signed distances [R + 2, R + 2, R + 2] on the grid i / (R - 1) * 2 - 1, x slowest, in a border of -1 (outside).

    ``progress`` is called with the share done.
    """
    if resolution < 2:
        raise ValueError(f"the resolution must be at least 2, got {resolution}")
    axis = torch.arange(resolution, device=fields.device, dtype=torch.float32) / (resolution - 1) * 2 - 1
    grid = torch.full((resolution + 2,) * 3, -1.0, device=fields.device)
    slab = max(1, BATCH // resolution**2)
    for start in range(0, resolution, slab):
        if progress is not None:
            progress(start / resolution)
        x, y, z = torch.meshgrid(axis[start : start + slab], axis, axis, indexing="ij")
        grid[1 + start : 1 + start + len(x), 1:-1, 1:-1] = fields.sdf(torch.stack([x, y, z], dim=-1))
    return grid


def extract(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Mesh of a padded grid [N, N, N] stretched over [-1, 1]^3: vertices [V, 3], faces [F, 3].

    The published code stretches the grid *with* its border, which shrinks the object by (N - 3) / (N - 1); what was built on
    its output (colours, point clouds) expects that, so it is kept.

    Raises:
        MeshError: there is no surface, or the grid holds NaN.
    """
    if not bool(torch.isfinite(grid).all()):
        raise MeshError("the signed distances hold NaN or infinity; the weights may be damaged")
    vertices, faces = marching_cubes(grid)
    if len(faces) == 0:
        raise MeshError("the sampled shape is empty (it has no surface); try another seed, prompt or photo")
    return vertices / (grid.shape[0] - 1) * 2 - 1, faces


def linear_from_srgb(rgb: Tensor) -> Tensor:
    """sRGB 0..1 -> linear light 0..1."""
    return torch.where(rgb <= SRGB_KNEE, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def decode_mesh(fields: ImplicitFields, resolution: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices [V, 3] (Shap-E's frame, z up), faces [F, 3] int64 and linear-light vertex colours [V, 3], on the device.

    Raises:
        MeshError: the shape has no surface.
    """
    vertices, faces = extract(sdf_grid(fields, resolution))
    return vertices, faces, linear_from_srgb(fields.stf_rgb(vertices))
