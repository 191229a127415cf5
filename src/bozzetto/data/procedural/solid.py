"""The generator's working type: an indexed closed surface with corner UVs and smoothing groups, and how one is lofted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np


@dataclass
class Solid:
    """A closed surface in the part's own frame (y up, about [-1, 1] on each axis).

    Vertices are shared across UV seams and creases, so deforming them never opens a crack.

    Attributes:
        vertices: [V, 3] float64.
        faces: [F, 3] int64, counter-clockwise seen from outside.
        uvs: [F, 3, 2] float64, one turn of the surface is 0..1 ("fit" mapping); (0, 0) is the texture's top left.
        groups: [F] int64 smoothing groups: normals are averaged over faces of one group only; -1 shades flat.
        aspect: length of the v direction over that of the u direction; v times this gives square texels.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    groups: np.ndarray
    aspect: float = 1.0

    def moved(self, matrix: np.ndarray | float = 1.0, offset: Iterable[float] = (0.0, 0.0, 0.0)) -> Solid:
        """The solid under x -> matrix x + offset; ``matrix`` is [3, 3], [3] (scale per axis) or a number.

        A mirror (negative determinant) also turns the faces, so that they still point outwards.
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.ndim < 2:
            matrix = np.diag(np.broadcast_to(matrix, 3))
        vertices = self.vertices @ matrix.T + np.asarray(offset, dtype=np.float64)
        if np.linalg.det(matrix) > 0:
            return replace(self, vertices=vertices)
        return replace(self, vertices=vertices, faces=self.faces[:, ::-1], uvs=self.uvs[:, ::-1])

    def with_vertices(self, vertices: np.ndarray) -> Solid:
        """The same surface with other vertex positions [V, 3]."""
        return replace(self, vertices=vertices)

    def flat(self) -> Solid:
        """The same surface with every face shaded flat."""
        return replace(self, groups=np.full(len(self.faces), -1))

    def face_normals(self) -> np.ndarray:
        """Outward normals with length twice the face's area, [F, 3]."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    def corner_normals(self) -> np.ndarray:
        """Unit shading normals [F, 3, 3]: averaged over the faces around a vertex that share a smoothing group."""
        faces = self.face_normals()
        unit = _unit(faces)
        _, group = np.unique(self.groups, return_inverse=True)
        count = int(group.max()) + 1
        key = (self.faces * count + group[:, None]).reshape(-1)  # [F * 3]
        summed = _unit(_scatter(np.repeat(faces, 3, axis=0), key, len(self.vertices) * count))
        corner = summed[key].reshape(-1, 3, 3)
        # A corner whose average points away from its own face (a fold or spike of few triangles) shades flat.
        flat = (self.groups[:, None] < 0) | (np.einsum("fki,fi->fk", corner, unit) < 0.45)
        return np.where(flat[..., None], unit[:, None], corner)

    def volume(self) -> float:
        """Signed volume: positive when the surface is closed and its faces point outwards."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner of the bounding box, [3] each."""
        return self.vertices.min(0), self.vertices.max(0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)), 1e-30)[..., None]


def _scatter(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """Rows of ``values`` [N, 3] summed per index: [count, 3]."""
    return np.stack([np.bincount(index, values[:, k], count) for k in range(3)], axis=1)


def merge(solids: Iterable[Solid]) -> Solid:
    """Several solids as one; smoothing groups stay apart because no vertex is shared."""
    solids = list(solids)
    starts = np.cumsum([0] + [len(s.vertices) for s in solids])
    return Solid(
        np.concatenate([s.vertices for s in solids]),
        np.concatenate([s.faces + start for s, start in zip(solids, starts, strict=False)]),
        np.concatenate([s.uvs for s in solids]),
        np.concatenate([s.groups for s in solids]),
        float(np.mean([s.aspect for s in solids])),
    )


def repeated(solid: Solid, matrices: np.ndarray, offsets: np.ndarray) -> Solid:
    """Copies of one solid under matrices [K, 3, 3] (positive determinants) and offsets [K, 3], as one solid."""
    count, size = len(matrices), len(solid.vertices)
    vertices = np.einsum("kij,vj->kvi", matrices, solid.vertices) + offsets[:, None]  # [K, V, 3]
    faces = solid.faces[None] + (np.arange(count) * size)[:, None, None]  # [K, F, 3]
    return Solid(
        vertices.reshape(-1, 3),
        faces.reshape(-1, 3),
        np.tile(solid.uvs, (count, 1, 1)),
        np.tile(solid.groups, count),
        solid.aspect,
    )


def loft(
    rings: np.ndarray,
    row_bands: np.ndarray | None = None,
    column_bands: np.ndarray | None = None,
    planar_rows: np.ndarray | None = None,
    closed: bool = False,
) -> Solid:
    """A surface through rings of points.

    Args:
        rings: [R, N, 3]; rings go upwards while their points run counter-clockwise seen from above (+x after +z).
            A ring whose points coincide becomes one vertex (a pole). Without ``closed`` the first and last must be poles.
        row_bands: [R - 1] (or [R] when closed) smoothing band of each strip between rings; default one band.
        column_bands: [N] smoothing band of each strip between neighbouring points; default one band.
        planar_rows: like ``row_bands``, true where the strip is a cap whose texture is laid on flat (x and z).
        closed: join the last ring to the first (torus-like).
    """
    rows, columns, _ = rings.shape
    strips = rows if closed else rows - 1
    row_bands = np.zeros(strips, int) if row_bands is None else np.asarray(row_bands)
    column_bands = np.zeros(columns, int) if column_bands is None else np.asarray(column_bands)

    spread = np.abs(rings - rings[:, :1]).max(axis=(1, 2))
    pole = spread < 1e-9
    sizes = np.where(pole, 1, columns)
    starts = np.cumsum(sizes) - sizes
    index = starts[:, None] + np.where(pole[:, None], 0, np.arange(columns + 1) % columns)  # [R, N + 1]
    keep = ~pole[:, None] | (np.arange(columns) == 0)
    vertices = rings[keep]

    looped = np.concatenate([rings, rings[:, :1]], axis=1)  # [R, N + 1, 3]
    if closed:
        index, looped = np.concatenate([index, index[:1]]), np.concatenate([looped, looped[:1]])
    around = np.sqrt((np.diff(looped, axis=1) ** 2).sum(-1))  # [R, N]
    along = np.sqrt((np.diff(looped, axis=0) ** 2).sum(-1)).mean(1)  # [strips]
    widest = around[np.argmax(around.sum(1))]
    u = np.concatenate([[0.0], np.cumsum(widest)])
    v = np.concatenate([[0.0], np.cumsum(along)])
    aspect = float(np.clip(v[-1] / max(u[-1], 1e-9), 0.1, 10.0))
    uv = np.stack(np.broadcast_arrays(u[None] / u[-1], 1 - (v / max(v[-1], 1e-9))[:, None]), axis=-1)  # [R, N + 1, 2]
    flat_scale = 1 / max(u[-1], 1e-9)
    flat_uv = np.stack([looped[..., 0] * flat_scale + 0.5, looped[..., 2] * flat_scale / aspect + 0.5], axis=-1)

    def corners(grid: np.ndarray) -> list[np.ndarray]:
        return [grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]]

    def triangles(grid: np.ndarray) -> np.ndarray:
        a, b, c, d = corners(grid)
        return np.stack([np.stack([a, b, c], 2), np.stack([a, c, d], 2)], 2)  # [strips, N, 2, 3, ...]

    faces = triangles(index)
    uvs = triangles(uv)
    if planar_rows is not None and np.any(planar_rows):
        planar = np.asarray(planar_rows)
        uvs = np.where(planar[:, None, None, None, None], triangles(flat_uv), uvs)
    groups = np.broadcast_to((row_bands[:, None] * 4096 + column_bands[None])[..., None], faces.shape[:3])
    faces, uvs, groups = faces.reshape(-1, 3), uvs.reshape(-1, 3, 2), groups.reshape(-1)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return Solid(vertices, faces[whole], uvs[whole], groups[whole].copy(), aspect)
