"""Which pixels do triangles cover?"""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 4_000_000


def covered_pixels(corners: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels whose centres lie in 2D triangles; vectorised over all triangles, on any device.

    Args:
        corners: [F, 3, 2], (x, y) in pixels, y down, pixel (i, j) has its centre at (i + 0.5, j + 0.5). Either winding.

    Returns:
        face: [P] triangle index, ascending; pixel: [P] row * width + column; weights: [P, 3] barycentric weights.
        A pixel on a shared edge is reported for both triangles.
    """
    size = corners.new_tensor([width, height])
    low = (corners.amin(dim=1) - 0.5).ceil().clamp_min(0)  # [F, 2], first and last pixel index of the bounding box
    high = torch.minimum((corners.amax(dim=1) - 0.5).floor(), size - 1)
    extent = (high - low + 1).clamp_min(0).long()  # [F, 2]
    a, b, c = corners.double().unbind(dim=1)
    area = _cross(b - a, c - a)
    pairs = torch.where(area.abs() > 1e-12, extent.prod(dim=1), 0)
    ends = pairs.cumsum(dim=0)
    out: list[tuple[Tensor, Tensor, Tensor]] = []
    start = 0
    while start < len(corners):
        before = int(ends[start - 1]) if start else 0
        stop = int(torch.searchsorted(ends, before + PAIRS_PER_CHUNK, right=True))
        stop = min(max(stop, start + 1), len(corners))
        face = torch.arange(start, stop, device=corners.device).repeat_interleave(pairs[start:stop])
        local = torch.arange(len(face), device=corners.device) - (ends - pairs)[face] + before
        column = local % extent[face, 0] + low[face, 0].long()
        row = local // extent[face, 0] + low[face, 1].long()
        p = torch.stack([column, row], dim=1).double() + 0.5
        wa = _cross(b[face] - p, c[face] - p) / area[face]
        wb = _cross(c[face] - p, a[face] - p) / area[face]
        weights = torch.stack([wa, wb, 1 - wa - wb], dim=1)
        inside = (weights >= -1e-9).all(dim=1)
        out.append((face[inside], (row * width + column)[inside], weights[inside].float()))
        start = stop
    if not out:
        empty = torch.zeros(0, dtype=torch.long, device=corners.device)
        return empty, empty, corners.new_zeros(0, 3)
    faces, pixels, weights = zip(*out, strict=True)
    return torch.cat(faces), torch.cat(pixels), torch.cat(weights)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def covered_texels(corners: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`covered_pixels` on a square, but each pixel once, with the last face that covers it; compiled on the CPU.

    Returns:
        texel: [T] row * size + column, ascending; face: [T]; weights: [T, 3].
    """
    if corners.device.type != "cpu":
        face, texel, weights = covered_pixels(corners, size, size)
        owner = torch.full((size * size,), -1, dtype=torch.long, device=corners.device)
        owner.scatter_reduce_(0, texel, torch.arange(len(texel), device=corners.device), "amax")
        texel = (owner >= 0).nonzero()[:, 0]
        return texel, face[owner[texel]], weights[owner[texel]]
    import numpy as np

    from ..raster.threads import run_tasks, spans
    from .bake_kernels import cover_texels

    owner, weights = np.full((size, size), -1, np.int32), np.empty((size, size, 3), np.float32)
    array = corners.float().contiguous().numpy()
    run_tasks((cover_texels, array, size, *span, owner, weights) for span in spans(size, max(32, size // 16)))
    owner, weights = torch.from_numpy(owner).reshape(-1), torch.from_numpy(weights).reshape(-1, 3)
    texel = (owner >= 0).nonzero()[:, 0]
    return texel, owner[texel].long(), weights[texel]
