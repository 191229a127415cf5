"""Cutting a closed solid by a plane and closing the cut: a stand-in for mesh booleans."""

from __future__ import annotations

import numpy as np

from .solid import Solid


def slice_solid(solid: Solid, normal: np.ndarray, offset: float) -> Solid:
    """The part of a closed ``solid`` where normal . x <= offset, closed by a flat cap.

    The cap is a fan around the middle of the cut, which suits solids whose cut is star-shaped (convex ones surely).
    Returns the solid itself when the plane misses it or would leave nothing.
    """
    normal = np.asarray(normal, dtype=np.float64) / np.linalg.norm(normal)
    distance = solid.vertices @ normal - offset
    distance = np.where(np.abs(distance) < 1e-7, -1e-7, distance)  # no vertex lies on the plane itself
    outside = distance > 0
    if not outside.any() or outside.all():
        return solid
    corner_out = outside[solid.faces]
    count = corner_out.sum(1)
    kept = count == 0
    crossing = (count == 1) | (count == 2)

    # Turn every crossing face so that its single odd corner comes first.
    faces, uvs, groups, out = solid.faces[crossing], solid.uvs[crossing], solid.groups[crossing], corner_out[crossing]
    odd = np.where(count[crossing] == 1, out.argmax(1), (~out).argmax(1))
    turn = (odd[:, None] + np.arange(3)) % 3
    row = np.arange(len(faces))[:, None]
    faces, uvs = faces[row, turn], uvs[row, turn]

    # New vertices on the edges (0, 1) and (0, 2), one per edge of the mesh.
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [0, 2]]])
    low, high = edges.min(1), edges.max(1)
    keys, index = np.unique(low * len(solid.vertices) + high, return_inverse=True)
    a, b = keys // len(solid.vertices), keys % len(solid.vertices)
    share = (distance[a] / (distance[a] - distance[b]))[:, None]
    created = solid.vertices[a] + share * (solid.vertices[b] - solid.vertices[a])
    first, second = (index.reshape(2, -1) + len(solid.vertices)).astype(np.int64)

    def edge_uv(other: int) -> np.ndarray:
        d0, d1 = distance[faces[:, 0]], distance[faces[:, other]]
        s = (d0 / (d0 - d1))[:, None]
        return uvs[:, 0] + s * (uvs[:, other] - uvs[:, 0])

    uv1, uv2 = edge_uv(1), edge_uv(2)
    lone = ~outside[faces[:, 0]]  # only the odd corner stays
    pair = ~lone  # the other two stay
    parts = [(solid.faces[kept], solid.uvs[kept], solid.groups[kept])]
    parts.append(
        (
            np.stack([faces[lone, 0], first[lone], second[lone]], 1),
            np.stack([uvs[lone, 0], uv1[lone], uv2[lone]], 1),
            groups[lone],
        )
    )
    parts.append(
        (
            np.stack([first[pair], faces[pair, 1], faces[pair, 2]], 1),
            np.stack([uv1[pair], uvs[pair, 1], uvs[pair, 2]], 1),
            groups[pair],
        )
    )
    parts.append(
        (
            np.stack([first[pair], faces[pair, 2], second[pair]], 1),
            np.stack([uv1[pair], uvs[pair, 2], uv2[pair]], 1),
            groups[pair],
        )
    )
    # The cap runs against the direction in which the kept faces pass their new edge.
    start = np.where(lone, second, first)
    end = np.where(lone, first, second)
    centre = created.mean(0)
    centre_index = len(solid.vertices) + len(created)
    cap = np.stack([start, end, np.full_like(start, centre_index)], 1)
    points = np.concatenate([solid.vertices, created, centre[None]])
    helper = np.eye(3)[np.argmin(np.abs(normal))]
    x = np.cross(helper, normal)
    x /= np.linalg.norm(x)
    plane = np.stack([x, np.cross(normal, x)], -1)  # [3, 2]
    cap_uv = (points[cap] - centre) @ plane * 0.3 + 0.5
    parts.append((cap, cap_uv, np.full(len(cap), solid.groups.max() + 1)))

    new_faces, new_uvs, new_groups = (np.concatenate(x) for x in zip(*parts, strict=True))
    used = np.zeros(len(points), bool)
    used[new_faces] = True
    renumber = np.cumsum(used) - 1
    return Solid(points[used], renumber[new_faces], new_uvs, new_groups, solid.aspect)
