"""Triangles → charts that lie almost flat: each is projected onto a plane later, so its faces must look the same way.

Neighbouring clusters of faces are merged, from single faces upwards, where that bends the least (Garland et al. 2001, with the
error of Cohen-Steiner et al. 2004). In each round all pairs merge that are each other's best partner, which gives nearly the
order of a priority queue and takes some forty rounds of whole-array operations. A chart is as bent as its projection is smaller
than itself: |sum of the faces' area vectors| / sum of their areas. Then borders are straightened, and faces that are too steep
for their chart become charts of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clean import unique_edges

FLATNESS = 0.94  # least share of a chart's area that its projection keeps: 0.94 is a cap of 28 degrees
SMALL_FLATNESS = 0.8  # for charts under SMALL of the whole area, which are mostly padding
SMALL = 0.001
EXTENT = (
    0.7  # largest diagonal of a chart's box; unit: root of the whole area. Larger charts leave the atlas half empty
)
STEEPEST = 0.3  # cosine between a face and its chart's plane
TURNED = 0.1  # the same; a face under it would lie almost edge-on or mirrored, and is a chart of its own
BALANCE = 0.02  # prefers small clusters where nothing bends
SWEEPS = 6  # of straightening borders


def chart_faces(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Chart number of each face, [F], and the charts' unit normals, [C, 3]. Charts are connected over edges."""
    corners = vertices[faces]
    vectors = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1) / 2  # [F, 3]
    first, second, length = dual_edges(vertices, faces)
    clusters = _Clusters(vectors, corners.amin(dim=1), corners.amax(dim=1), first, second, length)
    clusters.merge(FLATNESS, 1.0)
    clusters.merge(SMALL_FLATNESS, SMALL)
    chart = _straighten(clusters.chart, clusters.axes(), vectors, first, second, length)
    normals = F.normalize(vectors, dim=-1)
    steep = (normals * _axes(chart, vectors)[chart]).sum(dim=-1) < STEEPEST
    if bool(steep.any()):
        kept = steep[first] & steep[second]
        number = steep.cumsum(dim=0) - 1
        rest = _Clusters(
            vectors[steep], corners[steep].amin(dim=1), corners[steep].amax(dim=1),
            number[first[kept]], number[second[kept]], length[kept],
        )  # fmt: skip
        rest.merge(FLATNESS, 1.0)
        chart[steep] = rest.chart + int(chart.max()) + 1
    chart = connected_charts(chart, first, second)
    return _without_turned(chart, vectors, first, second)


def _without_turned(chart: Tensor, vectors: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """``chart`` [F] with a chart for every face that its chart's plane would show mirrored or edge-on; and the normals [C, 3]."""
    normals = F.normalize(vectors, dim=-1)
    while True:
        axes = _axes(chart, vectors)
        turned = (normals * axes[chart]).sum(dim=-1) < TURNED
        turned &= torch.bincount(chart)[chart] > 1  # a face alone lies in its plane, or has no area
        if not bool(turned.any()):
            return chart, axes
        # What is left of a chart may fall apart, and has another plane.
        alone = len(axes) + turned.cumsum(dim=0) - 1
        chart = connected_charts(torch.where(turned, alone, chart), first, second)


def dual_edges(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours over edges with two faces: (one face [E], the other [E], length of the edge [E])."""
    edges, count, edge = unique_edges(faces)
    flat = edge.reshape(-1)
    shared = (count == 2)[flat].nonzero()[:, 0]
    shared = shared[flat[shared].argsort(stable=True)].reshape(-1, 2)  # [E, 2], half-edges of one edge
    ends = edges[flat[shared[:, 0]]]
    length = (vertices[ends[:, 0]] - vertices[ends[:, 1]]).norm(dim=-1)
    return shared[:, 0] // 3, shared[:, 1] // 3, length


def connected_charts(chart: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``chart`` [F] with a number of its own for each part that hangs together over the edges (first, second)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    same = chart[first] == chart[second]
    a, b = first[same].numpy(), second[same].numpy()
    graph = coo_matrix((torch.ones(len(a), dtype=torch.int8).numpy(), (a, b)), shape=(len(chart), len(chart)))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()


def _axes(chart: Tensor, vectors: Tensor) -> Tensor:
    return F.normalize(vectors.new_zeros(int(chart.max()) + 1, 3).index_add_(0, chart, vectors), dim=-1, eps=1e-30)


class _Clusters:
    """Clusters of faces and the borders between them, merged in rounds."""

    def __init__(self, vectors: Tensor, low: Tensor, high: Tensor, first: Tensor, second: Tensor, length: Tensor):
        self.chart = torch.arange(len(vectors))
        self.vector, self.area = vectors.clone(), vectors.norm(dim=-1)
        self.low, self.high = low, high
        self.first, self.second, self.length = first, second, length
        self.border = torch.zeros(len(vectors)).index_add_(0, first, length).index_add_(0, second, length)
        self.total = float(self.area.sum())

    def axes(self) -> Tensor:
        return F.normalize(self.vector, dim=-1, eps=1e-30)

    def merge(self, flatness: float, small: float) -> None:
        """Merge while a pair stays as flat as ``flatness`` and one of it has less than ``small`` of the whole area."""
        while self._round(flatness, small):
            pass

    def _round(self, flatness: float, small: float) -> bool:
        a, b = self.first, self.second
        joined = (self.vector[a] + self.vector[b]).norm(dim=-1)
        lesser = torch.minimum(self.area[a], self.area[b])
        extent = (torch.maximum(self.high[a], self.high[b]) - torch.minimum(self.low[a], self.low[b])).norm(dim=-1)
        fits = (joined >= flatness * (self.area[a] + self.area[b])) & (extent <= EXTENT * self.total**0.5)
        pick = (fits & (lesser <= small * self.total)).nonzero()[:, 0]
        if len(pick) == 0:
            return False
        length = self.vector.norm(dim=-1)
        bend = (length[a] + length[b] - joined).clamp_min(0)
        contact = self.length / torch.minimum(self.border[a], self.border[b]).clamp_min(1e-30)
        cost = ((bend + BALANCE * lesser) / contact.clamp_min(1e-6))[pick]
        # Positive floats are ordered as their bits are; the pair's number below them makes every cost unique.
        key = (cost.float().contiguous().view(torch.int32).long() << 32) | pick
        best = torch.full((len(self.area),), torch.iinfo(torch.int64).max)
        best.scatter_reduce_(0, a[pick], key, "amin").scatter_reduce_(0, b[pick], key, "amin")
        self._join(pick[(best[a[pick]] == key) & (best[b[pick]] == key)])
        return True

    def _join(self, pairs: Tensor) -> None:
        keep, gone = self.first[pairs], self.second[pairs]  # no cluster is in two pairs
        self.border[keep] += self.border[gone] - 2 * self.length[pairs]
        self.vector[keep] += self.vector[gone]
        self.area[keep] += self.area[gone]
        self.low[keep] = torch.minimum(self.low[keep], self.low[gone])
        self.high[keep] = torch.maximum(self.high[keep], self.high[gone])
        stays = torch.ones(len(self.area), dtype=torch.bool)
        stays[gone] = False
        number = stays.cumsum(dim=0) - 1
        number[gone] = number[keep]
        self.chart = number[self.chart]
        for name in ("vector", "area", "low", "high", "border"):
            setattr(self, name, getattr(self, name)[stays])
        a, b = number[self.first], number[self.second]
        count = len(self.area)
        outer = a != b
        pair, index = torch.unique((torch.minimum(a, b) * count + torch.maximum(a, b))[outer], return_inverse=True)
        self.length = torch.zeros(len(pair)).index_add_(0, index, self.length[outer])
        self.first, self.second = pair // count, pair % count


def _straighten(chart: Tensor, axes: Tensor, vectors: Tensor, first: Tensor, second: Tensor, length: Tensor) -> Tensor:
    """Give faces to the neighbouring chart that they touch most, if it is not much steeper for them."""
    n = len(chart)
    normals = F.normalize(vectors, dim=-1)
    chart = chart.clone()
    turn = torch.arange(n) * 2654435761 % 4294967296 >> 16 & 1  # half of the faces at a time: no two swap for ever
    for sweep in range(SWEEPS):
        # Both directions of every border between charts.
        cut = chart[first] != chart[second]
        face = torch.cat([first[cut], second[cut]])
        other = chart[torch.cat([second[cut], first[cut]])]
        reach = torch.cat([length[cut], length[cut]])
        inside = torch.zeros(n).index_add_(0, first[~cut], length[~cut]).index_add_(0, second[~cut], length[~cut])
        # A face has three neighbours: what two of them have in common counts twice.
        touch = torch.zeros(n).index_add_(0, face, reach)
        pair, index = torch.unique(face * (len(axes) + 1) + other, return_inverse=True)
        support = torch.zeros(len(pair)).index_add_(0, index, reach)
        face, other = pair // (len(axes) + 1), pair % (len(axes) + 1)
        whole = (touch + inside)[face].clamp_min(1e-30)
        here = (normals[face] * axes[chart[face]]).sum(dim=-1)
        there = (normals[face] * axes[other]).sum(dim=-1)
        gain = (support - inside[face]) / whole + (there - here)
        better = (gain > 0.05) & ((there > 0.5) | (there > here)) & (turn[face] == sweep % 2)
        face, other, gain = face[better], other[better], gain[better]
        order = gain.argsort()  # the last of several wins
        chart[face[order]] = other[order]
    return chart
