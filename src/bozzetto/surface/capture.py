"""Pictures of a normalised object from all around: depth for fusion, colour for the texture."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Cameras
from ..camera.cameras import look_at
from ..gaussians import Gaussians
from ..raster import rasterize
from .fusion import facing_cosine

FOV = 40.0  # degrees
DISTANCE = 1.03 / math.sin(math.radians(FOV / 2))  # the unit sphere fills the picture but for a thin margin
VIEWS_PER_CALL = 4
SURFACE_ALPHA = 0.5  # a pixel at least this opaque shows the surface


def sphere_cameras(count: int) -> Cameras:
    """``count`` cameras spread evenly (Fibonacci spiral) on a sphere around the origin, looking at it."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * i / count
    turn = i * math.pi * (3 - math.sqrt(5))
    ring = (1 - y * y).sqrt()
    position = torch.stack([ring * turn.sin(), y, ring * turn.cos()], dim=-1) * DISTANCE
    return Cameras.from_fov(look_at(position).float(), FOV)


def pixel_footprint(size: int) -> float:
    """Width of a pixel at the object's centre, in normalised units."""
    return 2 * DISTANCE * math.tan(math.radians(FOV / 2)) / size


def capture_depth(
    gaussians: Gaussians, cameras: Cameras, size: int, progress: Callable[[float], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Depth maps and how far they can be trusted.

    The expected depth of half-transparent splats lies between the near and the far wall. Raising the opacities first
    makes the first layer carry nearly all the weight, so the map follows the front wall. Where fog is all there is, the
    splats of a pixel lie far apart, which the second map tells.

    Returns:
        depth: [V, size, size], camera z, normalised units; infinity where the object is not.
        spread: [V, size, size], standard deviation of the depth of a pixel's splats; 0 in the background.
    """
    opacities = 1 - (1 - gaussians.opacities.clamp(0, 0.999)) ** 4
    cameras = cameras.to(gaussians.device)
    depths, spreads = [], []
    for start in range(0, len(cameras), VIEWS_PER_CALL):
        part = cameras[start : start + VIEWS_PER_CALL]
        # The colour carries the squared depth (from the object's centre), so one pass gives mean and variance. It
        # differs from view to view: each view is a scene of its own.
        z = part.project(gaussians.means)[1] - DISTANCE  # [v, N]
        v, n = z.shape
        g = Gaussians.from_rgb(
            gaussians.means.expand(v, n, 3),
            gaussians.scales.expand(v, n, 3),
            gaussians.quats.expand(v, n, 4),
            opacities.expand(v, n),
            z.square()[..., None].expand(v, n, 3),
        )
        r = rasterize(g, part.reshape(v, 1), size)
        weight = r.alpha[:, 0].clamp_min(1e-6)
        depth = r.depth[:, 0] / weight
        variance = r.rgb[:, 0, ..., 0] / weight - (depth - DISTANCE).square()
        solid = r.alpha[:, 0] >= SURFACE_ALPHA
        depths.append(torch.where(solid, depth, torch.inf))
        spreads.append(torch.where(solid, variance.clamp_min(0).sqrt(), 0.0))
        if progress:
            progress(min(1.0, (start + VIEWS_PER_CALL) / len(cameras)))
    return torch.cat(depths), torch.cat(spreads)


def depth_lag(depth: Tensor, gaussians: Gaussians, cameras: Cameras, reach: float) -> float:
    """Median distance of the visible splats' centres behind the depth maps [V, H, W], along the surface normal, >= 0.

    Where splats overlap on a slanted or noisy surface, the one that happens to be in front wins the pixel, so depth maps
    lie in front of the surface by about a splat's size, everywhere alike. Visible are the centres within ``reach``.
    """
    facing = facing_cosine(depth, cameras)
    cameras = cameras.to(depth.device)
    lags, weights = [], []
    for i in range(0, len(cameras), 4):  # a quarter of the views is plenty for one number
        position, z = cameras[i].project(gaussians.means)
        grid = (position * 2 - 1)[None, None]
        maps = torch.stack([depth[i].clamp_max(1e6), facing[i]])[None]
        seen, cosine = F.grid_sample(maps, grid, align_corners=False)[0, :, 0]
        lag = (z - seen) * cosine
        use = (lag.abs() < reach) & (cosine > 0.4)
        lags.append(lag[use])
        weights.append((gaussians.opacities * cosine)[use])
    lag, weight = torch.cat(lags), torch.cat(weights)
    if len(lag) == 0:
        return 0.0
    order = lag.argsort()
    cumulative = weight[order].cumsum(dim=0)
    middle = torch.searchsorted(cumulative, cumulative[-1] / 2).clamp_max(len(order) - 1)
    return max(0.0, float(lag[order[middle]]))


def capture_colour(
    gaussians: Gaussians, cameras: Cameras, size: int, progress: Callable[[float], None] | None = None
) -> Tensor:
    """Premultiplied rgb and alpha, [V, 4, size, size]."""
    pictures = []
    for start in range(0, len(cameras), VIEWS_PER_CALL):
        r = rasterize(gaussians, cameras[start : start + VIEWS_PER_CALL], size)
        pictures.append(torch.cat([r.rgb, r.alpha[..., None]], dim=-1).movedim(-1, 1))
        if progress:
            progress(min(1.0, (start + VIEWS_PER_CALL) / len(cameras)))
    return torch.cat(pictures)
