"""Which triangles a cube gets for each of the 256 ways in which its corners can lie inside: derived, not listed.

Corner (x, y, z) of a cube, each 0 or 1, has bit x + 2 y + 4 z. The 12 edges are numbered along x, then y, then z.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

MOST_TRIANGLES = 5  # of one cube

Triangles = tuple[tuple[int, int, int], ...]


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
def triangle_table(joined: bool = False) -> tuple[Triangles, ...]:
    """For each of 256 cases the triangles as triples of edge numbers, counter-clockwise seen from outside.

    On each face of the cube, line segments cut the inside corners off; walking round the face counter-clockwise, a segment
    leads from where one enters the inside to where one leaves it. Every crossed edge belongs to two faces, is entered on one
    and left on the other, so the segments close to loops, which are cut into fans. A face with two inside corners in a
    diagonal is ambiguous: the two stay apart, or with ``joined`` they are connected. As this depends on the face alone,
    neighbouring cubes agree and the surface is watertight.
    """
    if joined:  # joined inside corners are outside corners kept apart: the complement, seen from the other side
        return tuple(tuple((a, c, b) for a, b, c in triangles) for triangles in reversed(triangle_table()))
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
