"""Fewer triangles, and none that meet wrongly: quadric decimation and manifold repair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import MeshError
from .clean import unique_edges

MOST_SWAPS = 100  # rounds; each adds fans to a mesh whose faces all wind the same way, so that a few are enough


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
    equal positions do not glue the sheets together again. A closed mesh stays closed.
    """
    faces = _without_flaps(faces, len(vertices))
    if len(faces) == 0:
        raise MeshError("no faces are left after cleaning; raise the resolution or crop the Gaussians to the object")
    _, count, edge = unique_edges(faces)
    # Join the corners of the two faces at every proper edge, end by end.
    flat_edge = edge.reshape(-1)
    uses = count[flat_edge]  # [3F]
    order = flat_edge[uses == 2].argsort()
    slot = (uses == 2).nonzero()[:, 0][order].reshape(-1, 2)  # [E', 2]: the two half-edges of a proper edge
    crowded = _pairs_at_crowded_edges(vertices, faces, flat_edge, (uses > 2).nonzero()[:, 0])
    fan = _fans(faces, torch.cat([slot, crowded]))
    for _ in range(MOST_SWAPS):
        if not _swap_pairs_between_the_same_fans(fan, crowded):
            break
        fan = _fans(faces, torch.cat([slot, crowded]))
    owner = torch.zeros(int(fan.max()) + 1, dtype=torch.long)
    owner[fan] = faces.reshape(-1)
    fans_at = torch.bincount(owner, minlength=len(vertices))
    moved = vertices[owner]
    touching = fans_at[owner] > 1
    if bool(touching.any()):
        centres = vertices[faces].mean(dim=1).repeat_interleave(3, dim=0)  # [3F, 3]
        number = torch.zeros(len(owner)).index_add_(0, fan, torch.ones(len(fan)))
        mean = torch.zeros(len(owner), 3).index_add_(0, fan, centres) / number[:, None]
        moved[touching] += 0.02 * (mean - moved)[touching]
    return moved, fan.reshape(-1, 3)


def _fans(faces: Tensor, pairs: Tensor) -> Tensor:
    """Which corners [3F] are one vertex, when faces hang together only along ``pairs`` [P, 2] of half-edges."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    corner = torch.arange(faces.numel()).reshape(-1, 3)
    start, end = corner.reshape(-1), corner.roll(-1, dims=1).reshape(-1)
    first, second = pairs.unbind(dim=1)
    same = faces.reshape(-1)[start[first]] == faces.reshape(-1)[start[second]]
    a = torch.cat([start[first], end[first]])
    b = torch.cat([torch.where(same, start[second], end[second]), torch.where(same, end[second], start[second])])
    n = faces.numel()
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a.numpy(), b.numpy())), shape=(n, n))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()


def _swap_pairs_between_the_same_fans(fan: Tensor, pairs: Tensor) -> bool:
    """Where two of ``pairs`` [P, 2] would be one edge, let them change partners, which splits the fans at both ends.

    Returns:
        whether there were any; changes ``pairs``. One swap a fan at a time, since a swap changes it.
    """
    if len(pairs) == 0:
        return False
    first = pairs[:, 0]
    ends = torch.stack([fan[first], fan[first // 3 * 3 + (first + 1) % 3]], dim=1).sort(dim=1).values
    _, index, count = torch.unique(ends, dim=0, return_inverse=True, return_counts=True)
    met: dict[int, int] = {}
    changed: set[int] = set()
    for i in (count[index] > 1).nonzero()[:, 0].tolist():
        j = met.setdefault(int(index[i]), i)
        if j != i and not changed & set(ends[i].tolist()):
            pairs[[i, j], 1] = pairs[[j, i], 1]
            changed |= set(ends[i].tolist())
    return bool(changed)


def _without_flaps(faces: Tensor, vertex_count: int) -> Tensor:
    """Faces of three different vertices, without pairs of opposite ones, which are folded flaps and enclose nothing."""
    a, b, c = faces.unbind(dim=1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    low, middle, high = faces.sort(dim=1).values.unbind(dim=1)
    pair = torch.unique(low * vertex_count + middle, return_inverse=True)[1]
    _, index, count = torch.unique(pair * vertex_count + high, return_inverse=True, return_counts=True)
    several = (count[index] > 1).nonzero()[:, 0]
    if len(several) == 0:
        return faces
    a, b, c = faces.unbind(dim=1)
    turn = torch.where(
        (a < b) == ((b < c) == (a < c)), 1, -1
    )  # whether the order of the numbers is that of the corners
    left = torch.zeros(len(count), dtype=torch.long).index_add_(0, index, turn)  # of each set of corners, with its sign
    keep = torch.ones(len(faces), dtype=torch.bool)
    for i in several.tolist():
        keep[i] = bool(turn[i] * left[index[i]] > 0)
        if keep[i]:
            left[index[i]] -= turn[i]
    return faces[keep]


def _pairs_at_crowded_edges(vertices: Tensor, faces: Tensor, edge: Tensor, crowd: Tensor) -> Tensor:
    """Which half-edges belong together where more than two faces meet in an edge: those with a body between them, [P, 2].

    Args:
        edge: [3F], the edge of each half-edge (corner i of a face to its next one). crowd: [K], half-edges to be paired.
    """
    if len(crowd) == 0:
        return crowd.reshape(0, 2)
    corner = torch.arange(3)
    ring = torch.stack([corner, (corner + 1) % 3, (corner + 2) % 3], dim=1)  # from, to, and the vertex beside them
    ends = faces[crowd // 3].gather(1, ring[crowd % 3])  # [K, 3]
    forward = ends[:, 0] < ends[:, 1]
    low, high = ends[:, :2].amin(dim=1), ends[:, :2].amax(dim=1)
    place = vertices.double()
    axis = torch.nn.functional.normalize(place[high] - place[low], dim=-1)
    # Two directions across the edge, the same for all of its faces; the second lies a quarter turn on.
    x = torch.linalg.cross(axis, torch.eye(3, dtype=axis.dtype)[axis.abs().argmin(dim=-1)], dim=-1)
    beside = place[ends[:, 2]] - place[low]
    angle = torch.atan2((beside * torch.linalg.cross(axis, x, dim=-1)).sum(-1), (beside * x).sum(-1))
    edge, angle, forward, pairs = edge[crowd].numpy(), angle.numpy(), forward.numpy(), []
    order = np.lexsort((-angle, edge))
    for group in np.split(order, np.flatnonzero(np.diff(edge[order])) + 1):
        if 2 * int(forward[group].sum()) != len(group):
            continue  # an open border, which stays one
        # Against the angle a body begins at a face that runs forward and ends at one that runs back, around and around.
        waiting, done = [], set()
        for i in [*group, *group]:
            if i in done:
                continue
            if forward[i]:
                done.add(i)
                waiting.append(i)
            elif waiting:
                done.add(i)
                pairs.append((waiting.pop(), i))
    return crowd[torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)]
