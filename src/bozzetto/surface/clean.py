"""Raw triangles → tidy ones: components, areas, smoothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import MeshError


def face_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """Areas [F]."""
    a, b, c = vertices[faces].unbind(dim=1)
    return torch.linalg.cross(b - a, c - a, dim=-1).norm(dim=-1) / 2


def signed_volumes(vertices: Tensor, faces: Tensor) -> Tensor:
    """Signed volume [F] of each face with the origin; their sum is the volume of a closed mesh."""
    a, b, c = vertices[faces].unbind(dim=1)
    return (a * torch.linalg.cross(b, c, dim=-1)).sum(dim=-1) / 6


def face_components(faces: Tensor, vertex_count: int) -> Tensor:
    """Component number [F] of each face; faces that share a vertex are in one component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    f = faces.numpy()
    rows, columns = np.concatenate([f[:, 0], f[:, 1]]), np.concatenate([f[:, 1], f[:, 2]])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(vertex_count, vertex_count))
    return torch.from_numpy(connected_components(graph, directed=False)[1][f[:, 0]]).long()


def keep_large_components(vertices: Tensor, faces: Tensor, min_share: float = 0.01) -> tuple[Tensor, Tensor]:
    """Drop closed shells that are cavities (negative volume) or hold under ``min_share`` of the largest one's area."""
    component = face_components(faces, len(vertices))
    count = int(component.max()) + 1
    area = torch.zeros(count).index_add_(0, component, face_areas(vertices, faces))
    # Volumes of closed parts do not depend on the origin; float64 because they are sums of cancelling terms.
    volume = torch.zeros(count, dtype=torch.float64)
    volume.index_add_(0, component, signed_volumes(vertices.double(), faces))
    solid = volume > 0
    if not bool(solid.any()):
        raise MeshError("the surface encloses no volume; raise the resolution or crop the Gaussians to the object")
    keep = solid & (area >= min_share * area[solid].max())
    return compact(vertices, faces[keep[component]])


def compact(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Drop vertices that no face uses."""
    used, index = torch.unique(faces, return_inverse=True)
    return vertices[used], index


def taubin_smooth(
    vertices: Tensor, faces: Tensor, rounds: int = 10, shrink: float = 0.5, grow: float = -0.53
) -> Tensor:
    """Taubin's (1995) smoothing: alternating steps with opposite signs remove noise and keep the volume."""
    mean = _neighbour_mean(faces, len(vertices))
    v = vertices.numpy()
    for _ in range(rounds):
        for step in (shrink, grow):
            v = v + np.float32(step) * (mean @ v - v)
    return torch.from_numpy(v)


def broad_normals(normals: Tensor, faces: Tensor, rounds: int = 30, own: float = 0.2) -> Tensor:
    """Where the surface faces at large: normals [V, 3] averaged with their neighbours', ``rounds`` times.

    Averages all around a thin part cancel; then the vertex's own normal, which counts ``own``, says it.
    """
    mean = _neighbour_mean(faces, len(normals))
    n = normals.numpy()
    for _ in range(rounds):
        n = np.float32(0.5) * (n + mean @ n)
    return torch.nn.functional.normalize(torch.from_numpy(n) + own * normals, dim=-1)


def _neighbour_mean(faces: Tensor, count: int):
    """A sparse matrix [count, count] that replaces a vertex' row by the mean of its neighbours'."""
    from scipy.sparse import csr_matrix

    a, b = unique_edges(faces)[0].numpy().T
    ends = (np.concatenate([a, b]), np.concatenate([b, a]))
    degree = np.bincount(ends[0], minlength=count).clip(1).astype(np.float32)
    return csr_matrix(((1 / degree)[ends[0]], ends), shape=(count, count))


def unique_edges(faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Undirected edges [E, 2], how many faces use each [E], and the edge of each face corner (corner i → i+1) [F, 3]."""
    directed = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).reshape(-1, 2).sort(dim=1).values
    stride = int(faces.max()) + 1
    keys, index, count = torch.unique(directed[:, 0] * stride + directed[:, 1], return_inverse=True, return_counts=True)
    return torch.stack([keys // stride, keys % stride], dim=1), count, index.reshape(-1, 3)
