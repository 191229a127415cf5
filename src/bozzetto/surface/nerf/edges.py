"""Differentiable triangles: visible faces -> pixels whose outlines move with the vertices.

What a pixel shows is decided by the nearest triangle at its centre, which has no derivative. Where two neighbouring pixels show
different surfaces, the outline between them crosses the line from one centre to the other at some point; blending the two pixels
by how far that point is from the middle smooths the edge, and ties it to the edge's two vertices (the antialiasing of Laine et
al. 2020). Only edges at which the surface turns away from the camera are blended.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clean import unique_edges


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
    width = face.shape[1]
    first, second, axis = _candidates(face, screen, topology)
    flat = face.reshape(-1)
    faces = topology.faces
    with torch.no_grad():
        depth = []
        for pixel in (first, second):
            corner = faces[flat[pixel].clamp_min(0)]
            near = barycentric(screen[corner], inverse[corner], centres(pixel, width))[1]
            depth.append(torch.where(flat[pixel] >= 0, near, 0))
        swap = depth[1] > depth[0]
        near, far = torch.where(swap, second, first), torch.where(swap, first, second)
        towards = torch.where(swap, -1.0, 1.0)
    owner = flat[near]
    position, found = _crossing(screen, owner, centres(near, width), axis, towards, _outline(screen, topology), faces)
    near, far, position = near[found], far[found], position[found]
    source = picture.reshape(-1, picture.shape[-1])
    own = position < 0.5
    # The edge lies in the near pixel (which then shows a bit of the far one), or in the far one.
    share = torch.where(own, 0.5 - position, position - 0.5)[:, None]
    change = share * torch.where(own[:, None], source[far] - source[near], source[near] - source[far])
    return source.index_add(0, torch.where(own, near, far), change).reshape(picture.shape)


def _outline(screen: Tensor, topology: Topology) -> Tensor:
    """Which edges [F, 3] are outlines: the face across looks the other way, or there is none."""
    with torch.no_grad():
        a, b, c = screen[topology.faces].unbind(dim=1)
        front = _cross(b - a, c - a) < 0
        across = front[topology.neighbour.clamp_min(0)]
        return (topology.neighbour < 0) | (across != front[:, None])


def _candidates(face: Tensor, screen: Tensor, topology: Topology) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring pixels that show different faces, one of them at an outline: two pixel numbers and the axis (0 columns)."""
    height, width = face.shape
    touches = torch.cat(
        [_outline(screen, topology).any(dim=1), screen.new_zeros(1, dtype=torch.bool)]
    )  # -1 is the last
    edge = touches[face]
    pixel = torch.arange(height * width, device=face.device).reshape(height, width)
    parts = []
    for axis in range(2):
        a = (slice(None), slice(None, -1)) if axis == 0 else (slice(None, -1), slice(None))
        b = (slice(None), slice(1, None)) if axis == 0 else (slice(1, None), slice(None))
        differ = (face[a] != face[b]) & (edge[a] | edge[b])
        parts.append((pixel[a][differ], pixel[b][differ], pixel.new_full((int(differ.sum()),), axis)))
    first, second, axes = (torch.cat(x) for x in zip(*parts, strict=True))
    return first, second, axes


def _crossing(
    screen: Tensor, owner: Tensor, centre: Tensor, axis: Tensor, towards: Tensor, outline: Tensor, faces: Tensor
) -> tuple[Tensor, Tensor]:
    """How far [P], 0..1, from ``centre`` [P, 2] to the next pixel an outline of the face ``owner`` [P] is crossed; found [P]."""
    visible = owner >= 0
    owner = owner.clamp_min(0)
    local = screen[faces[owner]] - centre[:, None]  # [P, 3, 2]
    sideways = axis[:, None] == 1
    along = torch.where(sideways, local[..., 1], local[..., 0]) * towards[:, None]
    across = torch.where(sideways, local[..., 0], local[..., 1])
    next_along, next_across = along.roll(-1, dims=1), across.roll(-1, dims=1)
    crosses = (across >= 0) != (next_across >= 0)
    slope = torch.where(crosses, next_across - across, 1.0)
    position = (along * next_across - next_along * across) / slope
    valid = crosses & outline[owner] & (position >= 0) & (position <= 1) & visible[:, None]
    chosen = torch.where(valid, position.detach(), -1.0).argmax(dim=1, keepdim=True)
    return position.gather(1, chosen)[:, 0], valid.any(dim=1)
