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
LIFT = 2.0
NEWTON_STEPS = 12
UNCERTAIN = 0.15  # share of a pixel's light, about SURFACE_ALPHA
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


def capture_depth(
    gaussians: Gaussians, cameras: Cameras, size: int, progress: Callable[[float], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Depth maps and how far they can be trusted.

    The mean depth of a pixel that shows a leaf and the wall behind it lies in the air between them. So four moments of the
    depth are drawn, and :func:`front_layer` tells leaf from wall.

    Returns:
        depth: [V, size, size], camera z, normalised units; infinity where the object is not.
        spread: [V, size, size], standard deviation of the depth of the splats of that layer; 0 in the background.
    """
    cameras = cameras.to(gaussians.device)
    crisp = pixel_footprint(size)
    depths, spreads = [], []
    for start in range(0, len(cameras), VIEWS_PER_CALL):
        part = cameras[start : start + VIEWS_PER_CALL]
        # The colour carries powers of the depth (from the object's centre), so one pass gives four moments. It differs
        # from view to view: each view is a scene of its own. Colours are not negative, so the cube is lifted.
        z = (part.project(gaussians.means)[1] - DISTANCE).clamp(-1.2, 1.2)  # [v, N]
        v, n = z.shape
        coloured = Gaussians.from_rgb(
            gaussians.means.expand(v, n, 3),
            gaussians.scales.expand(v, n, 3),
            gaussians.quats.expand(v, n, 4),
            gaussians.opacities.expand(v, n),
            torch.stack([z**2, z**3 + LIFT, z**4], dim=-1),
        )
        r = rasterize(coloured, part.reshape(v, 1), size)
        alpha = r.alpha[:, 0]
        solid = alpha >= SURFACE_ALPHA
        alpha = alpha[solid]  # [P]
        square, cube, fourth = (r.rgb[:, 0][solid] / alpha[:, None]).unbind(dim=-1)
        mean = r.depth[:, 0][solid] / alpha - DISTANCE
        moved, inner = front_layer(alpha, mean, square, cube - LIFT, fourth, crisp)
        depth, spread = torch.full_like(r.alpha[:, 0], torch.inf), torch.zeros_like(r.alpha[:, 0])
        depth[solid], spread[solid] = moved + DISTANCE, inner
        depths.append(depth)
        spreads.append(spread)
        if progress:
            progress(min(1.0, (start + VIEWS_PER_CALL) / len(cameras)))
    return torch.cat(depths), torch.cat(spreads)


def front_layer(
    alpha: Tensor, mean: Tensor, square: Tensor, cube: Tensor, fourth: Tensor, crisp: float
) -> tuple[Tensor, Tensor]:
    """Depth of the layer of splats in which a ray loses half of its light, and the layer's standard deviation, both [P].

    A pixel's splats are taken for two layers of equal thickness (a mixture of two normal distributions of one variance),
    which four moments determine. With M the central moments and v the variance between the layers, the excess of the fourth
    gives 2 v^3 + (M4 - 3 M2^2) v - M3^2 = 0, which has one root that matters in 0..M2.

    Args:
        alpha: [P], opacity of the pixels.
        mean, square, cube, fourth: [P], weighted means of the depth and of its powers.
        crisp: standard deviation below which a pixel shows one layer.
    """
    depth, spread = mean.clone(), (square - mean.square()).clamp_min(0).sqrt()
    mixed = (spread > crisp).nonzero()[:, 0]
    m, square, cube, fourth = (t[mixed].double() for t in (mean, square, cube, fourth))
    variance = square - m.square()
    skew = (cube - 3 * m * square + 2 * m**3) / variance**1.5
    excess = (fourth - 4 * m * cube + 6 * m**2 * square - 3 * m**4) / variance**2 - 3
    share = torch.ones_like(m)  # of the variance that lies between the layers; Newton from above falls to the root
    for _ in range(NEWTON_STEPS):
        value = 2 * share**3 + excess * share - skew**2
        share = (share - value / (6 * share**2 + excess).clamp_min(1e-3)).clamp(1e-4, 1.0)
    # Two points with this mean, variance and third moment: positions about the mean, weight of the first.
    lean = (skew / share**1.5).clamp(-50, 50)
    root = (1 + lean.square() / 4).sqrt()
    near, far = lean / 2 - root, lean / 2 + root
    # The first layer stops half of the light, or does not; where that is uncertain (fog), the truth is in between.
    first = ((alpha[mixed] * far / (far - near) - SURFACE_ALPHA) / (2 * UNCERTAIN) + 0.5).clamp(0, 1)
    between = (share * variance).sqrt()
    depth[mixed] = (m + between * (first * near + (1 - first) * far)).float()
    unsure = first * (1 - first) * (far - near).square() * share
    spread[mixed] = ((1 - share + unsure) * variance).sqrt().float()
    return depth, spread


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
