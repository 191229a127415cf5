"""Facts about one surface: points spread over it, and whether it is closed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..camera import Cameras
from ..data.objects import TexturedObject
from ..data.render import SceneBatch, render_objects
from ..errors import MeshError
from ..mesh import Mesh

SAMPLES = 100_000
_MERGE = 1e-5  # of the longest side of the bounding box: vertices that close are one when seams are looked for


@dataclass
class SurfacePoints:
    """Points on a surface: ``points`` [N, 3] and the unit normals of their triangles ``normals`` [N, 3], float64."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]

    def select(self, chosen: NDArray) -> SurfacePoints:
        """Some of the points."""
        return SurfacePoints(self.points[chosen], self.normals[chosen])

    def moved(self, matrix: NDArray[np.float64]) -> SurfacePoints:
        """Moved by a similarity [4, 4]."""
        axes = matrix[:3, :3]
        scale = np.cbrt(np.linalg.det(axes))
        return SurfacePoints(self.points @ axes.T + matrix[:3, 3], self.normals @ (axes / scale).T)


def sample_surface(vertices: NDArray, faces: NDArray, count: int = SAMPLES, seed: int = 0) -> SurfacePoints:
    """``count`` points, uniform by area; the same for the same arguments.

    Triangles are drawn with probability proportional to their area, then a point in each with the square-root map, from
    NumPy's PCG64 generator: first all triangle numbers, then two numbers for each point.

    Raises:
        MeshError: the surface has no area.
    """
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)]  # [F, 3, 3]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    twice = np.linalg.norm(cross, axis=-1)
    total = twice.sum()
    if not np.isfinite(total) or total <= 0:
        raise MeshError("the mesh has no area (or NaN in it); there is nothing to measure")
    rng = np.random.Generator(np.random.PCG64(seed))
    at = np.searchsorted(np.cumsum(twice), rng.random(count) * total, side="right").clip(max=len(twice) - 1)
    u, v = rng.random((count, 2)).T
    root = np.sqrt(u)
    weights = np.stack([1 - root, root * (1 - v), root * v], -1)  # [N, 3]
    points = np.einsum("nk,nkc->nc", weights, corners[at])
    return SurfacePoints(points, cross[at] / np.maximum(twice[at, None], 1e-300))


def seen_from_outside(
    surface: SurfacePoints, obj: TexturedObject, cameras: Cameras, size: int = 256
) -> NDArray[np.bool_]:
    """Which points [N] any of ``cameras`` (V,) sees; the others are hidden inside the object and no model can know them.

    A point counts as seen when it lies at most 1 % of the object's radius behind the depth
    of any of the 3 x 3 pixels around its place.
    """
    depth = render_objects(SceneBatch.pack([obj]), cameras, size, supersample=1, outputs=("depth",)).depth[0]
    around = torch.nn.functional.max_pool2d(depth[:, None], 3, 1, 1)[:, 0].numpy()  # [V, H, W]; 0 where nothing is
    radius = float(np.linalg.norm(obj.vertices, axis=-1).max())
    points = torch.from_numpy(surface.points).float()
    seen = np.zeros(len(points), bool)
    for i in range(len(cameras)):
        place, z = (x.numpy() for x in cameras[i].project(points))
        column, row = (np.floor(place * size).astype(int)[:, k] for k in (0, 1))
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (z > 0)
        limit = around[i][row.clip(0, size - 1), column.clip(0, size - 1)] + 0.01 * radius
        seen |= inside & (z <= limit)
    return seen


def is_watertight(vertices: NDArray, faces: NDArray) -> bool:
    """Whether every edge belongs to exactly two triangles that run along it in opposite directions.

    Vertices at one place (to 1e-5 of the longest side) are one: UV seams are no holes. Triangles that vanish by that do not
    count.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    if len(faces) == 0 or not np.isfinite(vertices).all():
        return False
    used = vertices[np.unique(faces)]
    step = _MERGE * max(float(np.ptp(used, axis=0).max()), 1e-12)
    _, place = np.unique(np.rint((vertices - used.min(0)) / step).astype(np.int64), axis=0, return_inverse=True)
    tri = place.reshape(-1)[faces]
    tri = tri[(tri[:, 0] != tri[:, 1]) & (tri[:, 1] != tri[:, 2]) & (tri[:, 2] != tri[:, 0])]
    edges = np.concatenate([tri[:, [0, 1]], tri[:, [1, 2]], tri[:, [2, 0]]])
    count = int(place.max()) + 1
    forward, back = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    codes, times = np.unique(forward, return_counts=True)
    return bool(len(codes)) and bool((times == 1).all()) and bool(np.isin(back, codes).all())


def mesh_arrays(mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] and faces [F, 3] as NumPy arrays."""
    return mesh.vertices.detach().double().cpu().numpy(), mesh.faces.cpu().numpy()
