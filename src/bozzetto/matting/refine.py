"""Refine a matte: draw it along the picture's edges, and estimate the object's own colour where it mixes with background.

The guided filter is He et al., "Guided Image Filtering", ECCV 2010, with a colour guide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 * radius + 1 pixels, cut at the border; ``x`` [C, H, W]."""
    side = 2 * radius + 1
    x = F.avg_pool2d(x, (side, 1), stride=1, padding=(radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), stride=1, padding=(0, radius), count_include_pad=False)


def guided_filter(rgb: Tensor, alpha: Tensor, radius: int = 4, eps: float = 1e-3, working_side: int = 640) -> Tensor:
    """``alpha`` [H, W] redrawn along the edges of ``rgb`` [H, W, 3].

    In each window of ``radius`` pixels alpha is fitted as a linear function of the colour; colours that vary by more than
    sqrt(``eps``) steer it. Larger pictures are fitted at ``working_side`` pixels and the functions applied to the whole
    picture (He and Sun, "Fast Guided Filter", 2015): the windows then span the blur that the network's 320 pixels leave.
    """
    height, width = alpha.shape
    guide, target = rgb.permute(2, 0, 1), alpha[None]  # [H, W, 3] -> [3, H, W]; [1, H, W]
    scale = working_side / max(height, width)
    small, small_target = guide, target
    if scale < 1:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        both = torch.cat([guide, target])[None]
        both = F.interpolate(both, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        small, small_target = both[:3], both[3:]
    slope, offset = _linear_fit(small, small_target, radius, eps)
    fit = box_mean(torch.cat([slope, offset]), radius)
    if scale < 1:
        fit = F.interpolate(fit[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    return ((fit[:3] * guide).sum(0) + fit[3]).clamp(0, 1)


def _linear_fit(guide: Tensor, target: Tensor, radius: int, eps: float) -> tuple[Tensor, Tensor]:
    """Ridge regression target = slope . guide + offset in the window of every pixel: slope [3, H, W], offset [1, H, W]."""
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    mean_g, mean_t = box_mean(guide, radius), box_mean(target, radius)
    xx, xy, xz, yy, yz, zz = box_mean(guide[first] * guide[second], radius) - mean_g[first] * mean_g[second]
    x, y, z = box_mean(guide * target, radius) - mean_g * mean_t
    xx, yy, zz = xx + eps, yy + eps, zz + eps
    # Inverse of the symmetric 3x3 covariance by cofactors: far faster than a batched solver for a million tiny systems.
    c_xx, c_xy, c_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c_yy, c_yz, c_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = (xx * c_xx + xy * c_xy + xz * c_xz).clamp_min(eps**3 * 0.5)
    rows = (c_xx * x + c_xy * y + c_xz * z, c_xy * x + c_yy * y + c_yz * z, c_xz * x + c_yz * y + c_zz * z)
    slope = torch.stack(rows) / determinant
    return slope, mean_t - (slope * mean_g).sum(0, keepdim=True)


def edge_width(height: int, width: int) -> int:
    """Breadth in pixels of the silhouette's mixed band in a photo of this size: optics blur more of a larger one."""
    return max(1, round(max(height, width) / 700))


def clean_edges(rgb: Tensor, alpha: Tensor, width: int = 1) -> Tensor:
    """Colours [H, W, 3] of the object alone: at its edge, those of the nearest pixels that surely belong to it.

    ``width`` is the breadth in pixels of the band inside the silhouette that counts as mixed. Thin parts with no sure pixel
    nearby keep their own colour. Black where alpha is 0.
    """
    from scipy import ndimage

    visible = alpha > 0
    inside = (alpha > 0.95).cpu().numpy()
    sure = ndimage.binary_erosion(inside, iterations=width, border_value=1)
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
