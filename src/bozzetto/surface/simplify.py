"""Fewer triangles, and none that meet wrongly: quadric decimation and manifold repair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import MeshError
from .clean import unique_edges


def decimate(vertices: Tensor, faces: Tensor, max_faces: int) -> tuple[Tensor, Tensor]:
    """Quadric edge collapse (fast-simplification) to at most about ``max_faces`` faces; a smaller mesh is left alone."""
    if len(faces) <= max_faces:
        return vertices, faces
    import fast_simplification

    # Work at unit size: the library's thresholds are absolute.
    centre = vertices.mean(dim=0)
    size = (vertices - centre).abs().amax().clamp_min(1e-30)
    v = ((vertices - centre) / size).numpy()
    f = faces.numpy().astype(np.int32)
    # A low aggressiveness gives better triangles but may stop above the target; then the next one finishes.
    for aggressiveness in (5, 7, 9):
        v, f = fast_simplification.simplify(v, f, target_count=max_faces, agg=aggressiveness)
        if len(f) <= max_faces:
            break
    return torch.from_numpy(v).float() * size + centre, torch.from_numpy(f.astype(np.int64))


def make_manifold(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Remove collapsed and doubled faces, then cut the mesh apart where sheets merely touch in an edge or a vertex.

    Each fan of faces around a vertex gets a vertex of its own, moved a little into its fan so that readers which merge
    equal positions do not glue the sheets together again.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b, c = faces.unbind(dim=1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    low, middle, high = faces.sort(dim=1).values.unbind(dim=1)
    pair = torch.unique(low * len(vertices) + middle, return_inverse=True)[1]
    _, index, count = torch.unique(pair * len(vertices) + high, return_inverse=True, return_counts=True)
    faces = faces[count[index] == 1]  # a pair of opposite faces is a folded flap without volume
    if len(faces) == 0:
        raise MeshError("no faces are left after cleaning; raise the resolution or crop the Gaussians to the object")
    _, count, edge = unique_edges(faces)
    # Join the corners of the two faces at every proper edge, end by end.
    corner = torch.arange(faces.numel()).reshape(-1, 3)
    flat_edge = edge.reshape(-1)
    order = flat_edge[count[flat_edge] == 2].argsort()
    slot = (count[flat_edge] == 2).nonzero()[:, 0][order].reshape(-1, 2)  # [E', 2]: the two half-edges of a proper edge
    start, end = corner.reshape(-1), corner.roll(-1, dims=1).reshape(-1)
    first, second = slot[:, 0], slot[:, 1]
    same = faces.reshape(-1)[start[first]] == faces.reshape(-1)[start[second]]
    pairs_a = torch.cat([start[first], end[first]])
    pairs_b = torch.cat([torch.where(same, start[second], end[second]), torch.where(same, end[second], start[second])])
    n = faces.numel()
    graph = coo_matrix((np.ones(len(pairs_a), dtype=np.int8), (pairs_a.numpy(), pairs_b.numpy())), shape=(n, n))
    fan = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    owner = torch.zeros(int(fan.max()) + 1, dtype=torch.long)
    owner[fan] = faces.reshape(-1)
    fans_at = torch.bincount(owner, minlength=len(vertices))
    moved = vertices[owner]
    touching = fans_at[owner] > 1
    if bool(touching.any()):
        centres = vertices[faces].mean(dim=1).repeat_interleave(3, dim=0)  # [3F, 3]
        number = torch.zeros(len(owner)).index_add_(0, fan, torch.ones(n))
        mean = torch.zeros(len(owner), 3).index_add_(0, fan, centres) / number[:, None]
        moved[touching] += 0.02 * (mean - moved)[touching]
    return moved, fan.reshape(-1, 3)
