"""Refine a matte: draw it along the picture's edges, and estimate the object's own colour where it mixes with background.

The guided filter is He et al., "Guided Image Filtering", ECCV 2010 (grey guide per colour channel, averaged).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 * radius + 1, cut at the border; ``x`` [C, H, W], any radius, cost independent of it."""
    for dim in (1, 2):
        length = x.shape[dim]
        total = F.pad(x.double().cumsum(dim), (1, 0) if dim == 2 else (0, 0, 1, 0))
        index = torch.arange(length, device=x.device)
        low, high = (index - radius).clamp_min(0), (index + radius + 1).clamp_max(length)
        shape = [1, 1, 1]
        shape[dim] = length
        x = ((total.index_select(dim, high) - total.index_select(dim, low)) / (high - low).view(shape)).float()
    return x


def guided_filter(rgb: Tensor, alpha: Tensor, radius: int | None = None, eps: float = 1e-3) -> Tensor:
    """``alpha`` [H, W] redrawn along the edges of ``rgb`` [H, W, 3].

    ``radius`` is in pixels; by default the blur that the network's 320 pixels leave in a picture of this size. In each
    window alpha is fitted as a linear function of the colour: colours that vary by more than sqrt(eps) steer it.
    """
    height, width = alpha.shape
    radius = max(1, round(max(height, width) / 160)) if radius is None else radius
    guide = rgb.permute(2, 0, 1)  # [H, W, 3] -> [3, H, W]
    target = alpha[None]
    mean_g, mean_t = box_mean(guide, radius), box_mean(target, radius)
    covariance = _covariance(guide, mean_g, radius, eps)  # [H, W, 3, 3]
    cross = (box_mean(guide * target, radius) - mean_g * mean_t).permute(1, 2, 0)  # [H, W, 3]
    slope = torch.linalg.solve(covariance, cross).permute(2, 0, 1)  # [3, H, W]
    offset = mean_t - (slope * mean_g).sum(0, keepdim=True)
    return ((box_mean(slope, radius) * guide).sum(0) + box_mean(offset, radius)[0]).clamp(0, 1)


def _covariance(guide: Tensor, mean: Tensor, radius: int, eps: float) -> Tensor:
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    products = box_mean(guide[first] * guide[second], radius) - mean[first] * mean[second]
    xx, xy, xz, yy, yz, zz = products
    rows = [torch.stack(row, -1) for row in ((xx + eps, xy, xz), (xy, yy + eps, yz), (xz, yz, zz + eps))]
    return torch.stack(rows, -2)


def clean_edges(rgb: Tensor, alpha: Tensor, width: int | None = None) -> Tensor:
    """Colours [H, W, 3] of the object alone: at its edge, those of the nearest pixels that surely belong to it.

    ``width`` is the breadth in pixels of the band inside the silhouette that counts as mixed; by default 1 per 400
    pixels of the picture's longer side, at least 1. Thin parts with no sure pixel nearby keep their own colour. Black where
    alpha is 0.
    """
    from scipy import ndimage

    if width is None:
        width = max(1, round(max(alpha.shape) / 400))
    inside = (alpha > 0.95).cpu().numpy()
    sure = ndimage.binary_erosion(inside, iterations=width, border_value=1)
    visible = alpha > 0
    if not sure.any():
        return rgb * visible[..., None]
    distance, (rows, columns) = ndimage.distance_transform_edt(~sure, return_indices=True)
    distance = torch.from_numpy(distance).to(rgb)
    nearest = rgb[torch.from_numpy(rows).long().to(rgb.device), torch.from_numpy(columns).long().to(rgb.device)]
    # Averaged along the band, so that the nearest pixels do not leave streaks.
    band = (visible & (distance > 0)).to(rgb)[None]
    spread = box_mean(torch.cat([nearest.permute(2, 0, 1) * band, band]), width)
    nearest = (spread[:3] / spread[3:].clamp_min(1e-6)).permute(1, 2, 0)
    trust = (band[0] * ((4 * width + 2 - distance) / (2 * width)).clamp(0, 1))[..., None]
    return torch.lerp(rgb, nearest, trust) * visible[..., None]
