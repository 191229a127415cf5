"""Differentiable triangles: visible faces -> pixels whose outlines move with the vertices.

What a pixel shows is decided by the nearest triangle at its centre, which has no derivative. Where an outline passes between two
neighbouring centres, the two pixels are blended by how far from the middle it does: that smooths the edge, and ties it to the
edge's two vertices (the antialiasing of Laine et al. 2020). There a pixel looks at the edges of its own triangle; here every
edge at which the surface turns away from the camera looks for the pixels it passes between, so that outlines are found whose
triangles are narrower than a pixel, as they are where a surface turns away. Steep edges blend along rows, flat ones along
columns: each piece of an outline counts once. This is the plain PyTorch form, the oracle of :mod:`.edges_triton`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clean import unique_edges

BULGE = 0.1  # share of the distance by which a surface may come nearer within a pixel of its outline
BEHIND = 1e-3  # share of the distance by which the other side must lie behind


@dataclass
class Topology:
    """What stays the same while vertices move.

    Attributes:
        faces: [F, 3]. neighbour: [F, 3], the face across the edge from corner i to corner i + 1, -1 where there is none.
        pairs: [E, 2], faces that share an edge.
    """

    faces: Tensor
    neighbour: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, faces: Tensor) -> Topology:
        """``faces`` [F, 3] on any device; edges with more than two faces count as borders."""
        host = faces.cpu()
        _, count, edge = unique_edges(host)
        edge = edge.reshape(-1)  # [F, 3] -> [3F]
        proper = (count[edge] == 2).nonzero()[:, 0]
        slots = proper[edge[proper].argsort(stable=True)].reshape(-1, 2)  # the two half-edges of an edge
        neighbour = torch.full((host.numel(),), -1, dtype=torch.long)
        neighbour[slots[:, 0]], neighbour[slots[:, 1]] = slots[:, 1] // 3, slots[:, 0] // 3
        device = faces.device
        return cls(faces, neighbour.reshape(-1, 3).to(device), (slots // 3).to(device))


def project(vertices: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """World points [N, 3] -> (column, row) in pixels [N, 2] and 1 / z [N]. ``camera``: a row of ``camera_table``, [20]."""
    view = camera[:12].reshape(3, 4)
    local = vertices @ view[:, :3].T + view[:, 3]
    inverse = 1 / local[:, 2]
    return local[:, :2] * inverse[:, None] * camera[12:14] + camera[14:16], inverse


def barycentric(corners: Tensor, inverse: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Perspective-correct weights [P, 3] and 1 / z [P] at pixel centres [P, 2] of triangles with screen corners [P, 3, 2]."""
    a, b, c = (corners - centre[:, None]).unbind(dim=1)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=1)
    total = weights.sum(dim=1, keepdim=True)
    # Centres in a triangle of hardly any area: any corner will do.
    weights = torch.where(total.abs() > 1e-9, weights / total, 1 / 3).clamp(0, 1)
    weights = weights * inverse
    near = weights.sum(dim=1)
    return weights / near[:, None], near


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def centres(pixel: Tensor, width: int) -> Tensor:
    """Pixel numbers [P] -> (column, row) of their centres [P, 2]."""
    return torch.stack([pixel % width, pixel // width], dim=1).float() + 0.5


def antialias(picture: Tensor, face: Tensor, screen: Tensor, inverse: Tensor, topology: Topology) -> Tensor:
    """Blend pixels across outlines.

    Args:
        picture: [H, W, C], what each pixel's own face shows (colour premultiplied, with alpha). face: [H, W], -1 for none.
        screen: [N, 2] vertices in pixels; gradients flow to it. inverse: [N], their 1 / z.

    Returns:
        [H, W, C]; gradients flow to ``picture``, too.
    """
    height, width = face.shape
    ends, area = _outlines(screen, topology)
    parts = [_crossings(screen, inverse.detach(), ends, area, axis, (height, width)) for axis in range(2)]
    near, far, position, depth = (torch.cat(x) for x in zip(*parts, strict=True))
    # The neighbour's side: 0 left, 1 right, 2 above, 3 below.
    side = (far > near).long() + 2 * (torch.arange(len(near), device=near.device) >= len(parts[0][0]))
    with torch.no_grad():
        shown = [_inverse_depth(face, pixel, screen, inverse, topology.faces) for pixel in (near, far)]
        # The edge is in sight: its own side is its surface or bulges a little before it, and the other side lies behind.
        good = (shown[0] > 0) & (shown[0] < depth * (1 + BULGE)) & (shown[1] < depth * (1 - BEHIND))
        # Of several edges between the same two pixels, the outermost.
        slot = near * 4 + side
        outermost = position.new_full((height * width * 4,), -1.0)
        outermost.scatter_reduce_(0, slot[good], position[good], "amax")
        good &= position >= outermost[slot]
        # Two edges may even cross at one point: the first of them.
        chosen = good.nonzero()[:, 0]
        first = slot.new_full((height * width * 4,), len(slot)).scatter_reduce_(0, slot[chosen], chosen, "amin")
        chosen = chosen[first[slot[chosen]] == chosen]
    near, far, position = near[chosen], far[chosen], position[chosen]
    source = picture.reshape(-1, picture.shape[-1])
    own = position < 0.5
    # The edge lies in the near pixel (which then shows a bit of the far one), or in the far one.
    share = torch.where(own, 0.5 - position, position - 0.5)[:, None]
    change = share * torch.where(own[:, None], source[far] - source[near], source[near] - source[far])
    return source.index_add(0, torch.where(own, near, far), change).reshape(picture.shape)


@torch.no_grad()
def _outlines(screen: Tensor, topology: Topology) -> tuple[Tensor, Tensor]:
    """Edges [E, 2] at which the surface turns away or ends, and the signed area [E] of the face that is seen beside each."""
    a, b, c = screen[topology.faces].unbind(dim=1)
    area = _cross(b - a, c - a)
    front = area < 0  # rows grow downwards
    border = topology.neighbour < 0
    outline = border | (front[:, None] & ~front[topology.neighbour.clamp_min(0)])
    face, corner = outline.nonzero(as_tuple=True)
    return torch.stack([topology.faces[face, corner], topology.faces[face, (corner + 1) % 3]], dim=1), area[face]


def _crossings(
    screen: Tensor, inverse: Tensor, ends: Tensor, area: Tensor, axis: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where edges pass between the centres of neighbouring pixels, along rows (axis 0) or columns (1).

    Returns:
        near, far: [P], the pixel on the face's side, and the other. position: [P], 0..1 from the near centre to the far one, with
        gradients. depth: [P], the edge's 1 / z there.
    """
    along, across = axis, 1 - axis
    limit = (size[1], size[0])  # columns, rows
    with torch.no_grad():
        start, stop = screen[ends[:, 0]], screen[ends[:, 1]]
        direction = stop - start
        steep = direction[:, across].abs() > direction[:, along].abs()
        if axis == 1:
            steep = direction[:, across].abs() >= direction[:, along].abs()
        low = (torch.minimum(start, stop)[:, across] - 0.5).ceil().clamp_min(0)
        high = ((torch.maximum(start, stop)[:, across] - 0.5).ceil() - 1).clamp_max(limit[across] - 1)
        count = torch.where(steep & torch.isfinite(direction).all(dim=1), (high - low + 1).clamp_min(0), 0).long()
        edge = torch.arange(len(ends), device=screen.device).repeat_interleave(count)
        first = count.cumsum(0) - count
        line = low[edge] + (torch.arange(len(edge), device=screen.device) - first[edge])
    a, b = screen[ends[edge, 0]], screen[ends[edge, 1]]
    share = (line + 0.5 - a[:, across]) / (b[:, across] - a[:, across])
    place = a[:, along] + share * (b[:, along] - a[:, along]) - 0.5  # in pixel centres
    with torch.no_grad():
        lower = place.floor()
        inside = ((lower >= 0) & (lower < limit[along] - 1)).nonzero()[:, 0]
        lower, line, edge = lower[inside].long(), line[inside].long(), edge[inside]
        pixel = line * limit[0] + lower if axis == 0 else lower * limit[0] + line
        step = 1 if axis == 0 else limit[0]
        turn = (direction[edge, across] > 0) == (area[edge] > 0)
        upwards = ~turn if axis == 0 else turn  # the face lies on the side of the larger coordinate
        near, far = torch.where(upwards, pixel + step, pixel), torch.where(upwards, pixel, pixel + step)
        i0, i1 = inverse[ends[edge, 0]], inverse[ends[edge, 1]]
        depth = i0 + share[inside] * (i1 - i0)
    position = place[inside] - lower
    return near, far, torch.where(upwards, 1 - position, position), depth


def _inverse_depth(face: Tensor, pixel: Tensor, screen: Tensor, inverse: Tensor, faces: Tensor) -> Tensor:
    """1 / z [P] of what pixels [P] show, 0 where they show nothing."""
    shown = face.reshape(-1)[pixel]
    if len(faces) == 0:
        return torch.zeros_like(pixel, dtype=inverse.dtype)
    corner = faces[shown.clamp_min(0)]
    near = barycentric(screen[corner], inverse[corner], centres(pixel, face.shape[1]))[1]
    return torch.where(shown >= 0, near, 0)
