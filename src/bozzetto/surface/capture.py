"""Pictures of a normalised object from all around: depth for fusion, colour for the texture."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..camera import Cameras
from ..camera.cameras import look_at
from ..gaussians import Gaussians
from ..raster import rasterize

FOV = 40.0  # degrees
DISTANCE = 1.03 / math.sin(math.radians(FOV / 2))  # the unit sphere fills the picture but for a thin margin
VIEWS_PER_CALL = 4
SURFACE_ALPHA = 0.5  # a pixel at least this opaque shows the surface


def sphere_cameras(count: int) -> Cameras:
    """``count`` > 4 cameras around the origin, looking at it: front, right, back, left, the rest spread evenly (Fibonacci).

    The four level ones stand where systems that predict Gaussians have their input views, which are the sharpest.
    """
    rest = count - 4
    i = torch.arange(rest, dtype=torch.float64) + 0.5
    y = 1 - 2 * i / rest
    turn = i * math.pi * (3 - math.sqrt(5))
    ring = (1 - y * y).sqrt()
    position = torch.stack([ring * turn.sin(), y, ring * turn.cos()], dim=-1) * DISTANCE
    level = Cameras.orbit([0.0, 90.0, 180.0, 270.0], radius=DISTANCE, fov_y=FOV)
    return Cameras.cat([level, Cameras.from_fov(look_at(position).float(), FOV)])


def pixel_footprint(size: int) -> float:
    """Width of a pixel at the object's centre, in normalised units."""
    return 2 * DISTANCE * math.tan(math.radians(FOV / 2)) / size


def depth_moments(gaussians: Gaussians, cameras: Cameras, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha, mean and standard deviation of the depth (camera z) of the splats that a pixel shows, each [V, size, size].

    ``cameras`` (V,) look at the origin; depths are measured from there before they are squared, which keeps digits.
    """
    centre = cameras.positions.norm(dim=-1)[:, None]
    z = cameras.project(gaussians.means)[1] - centre  # [V, N]
    v, n = z.shape
    # The colour carries the squared depth, so that one pass gives mean and variance; each view is a scene of its own.
    coloured = Gaussians.from_rgb(
        gaussians.means.expand(v, n, 3),
        gaussians.scales.expand(v, n, 3),
        gaussians.quats.expand(v, n, 4),
        gaussians.opacities.expand(v, n),
        z.square()[..., None].expand(v, n, 3),
    )
    drawn = rasterize(coloured, cameras.reshape(v, 1), size)
    weight = drawn.alpha[:, 0].clamp_min(1e-6)
    depth = drawn.depth[:, 0] / weight
    variance = drawn.rgb[:, 0, ..., 0] / weight - (depth - centre[..., None]).square()
    return drawn.alpha[:, 0], depth, variance.clamp_min(0).sqrt()


def capture_moments(
    gaussians: Gaussians, cameras: Cameras, size: int, progress: Callable[[float], None] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`depth_moments` of many views, a few at a time."""
    cameras = cameras.to(gaussians.device)
    parts = []
    for start in range(0, len(cameras), VIEWS_PER_CALL):
        parts.append(depth_moments(gaussians, cameras[start : start + VIEWS_PER_CALL], size))
        if progress:
            progress(min(1.0, (start + VIEWS_PER_CALL) / len(cameras)))
    alpha, depth, spread = (torch.cat(part) for part in zip(*parts, strict=True))
    return alpha, depth, spread


def solid_depth(alpha: Tensor, depth: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Depth and spread where pixels are opaque: infinity and 0 elsewhere."""
    solid = alpha >= SURFACE_ALPHA
    return torch.where(solid, depth, torch.inf), torch.where(solid, spread, 0.0)


def capture_depth(
    gaussians: Gaussians, cameras: Cameras, size: int, progress: Callable[[float], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Depth maps and how far they can be trusted.

    The expected depth of half-transparent splats lies somewhere between the first and the last; the second map tells how
    far apart they are.

    Returns:
        depth: [V, size, size], camera z, normalised units; infinity where the object is not.
        spread: [V, size, size], standard deviation of the depth of a pixel's splats; 0 in the background.
    """
    return solid_depth(*capture_moments(gaussians, cameras, size, progress))


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
