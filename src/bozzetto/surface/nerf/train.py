"""First stage: the field is trained on pictures of the Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...data.render.api import camera_table
from ...gaussians import Gaussians
from ...raster import rasterize
from ..capture import depth_moments
from .adam import Adam
from .field import NerfField
from .march import Occupancy, render_rays, visual_hull
from .settings import OBJECT_RADIUS, NerfSettings

VIEWS_PER_CALL = 16
WARM_UP = 256  # steps in which the whole occupancy grid is asked for
UPDATE_EVERY = 8
GRID_RATE, NETWORK_RATE = 1e-2, 1e-3
ALPHA_WEIGHT = 0.1
VARIATION_WEIGHT = 1e-8  # with a million points
LEVEL = (15.0, 5.0)  # the published cameras of the texture, which stand before the front alone
WHITE = (1.0, 1.0, 1.0)


def random_cameras(
    count: int,
    generator: torch.Generator,
    elevation: float = 45.0,
    radius: tuple[float, float] = (1.5, 3.0),
    level: float = 0.0,
) -> Cameras:
    """``count`` cameras (CPU) that look at the origin from all around, at elevations of at most ``elevation`` degrees.

    Args:
        level: share of those that stand near the front, right, back or left: within :data:`LEVEL` degrees of azimuth and
            elevation.
    """
    azimuths = torch.rand(count, generator=generator) * 360
    elevations = (torch.rand(count, generator=generator) * 2 - 1) * elevation
    if level > 0:
        near = torch.rand(count, generator=generator) < level
        straight = (azimuths / 90).floor() * 90
        # The place within a quarter turn becomes that within the narrow window.
        azimuths = torch.where(near, straight + ((azimuths - straight) / 45 - 1) * LEVEL[0], azimuths)
        elevations = torch.where(near, elevations * (LEVEL[1] / max(elevation, LEVEL[1])), elevations)
    radii = radius[0] + torch.rand(count, generator=generator) * (radius[1] - radius[0])
    return Cameras.orbit(azimuths, elevations, radii)


@dataclass
class View:
    """One picture of the Gaussians.

    Attributes:
        cameras: the camera, batch (1,), on the Gaussians' device. row: [20], the same as ``camera_table`` has it.
        rgb: [H, W, 3] on white, 0..1. alpha: [H, W].
        origins, directions: [H * W, 3] of the rays, or None. spread: [H, W], standard deviation of the depth of a pixel's
            splats, or None.
    """

    cameras: Cameras
    row: Tensor
    rgb: Tensor
    alpha: Tensor
    origins: Tensor | None = None
    directions: Tensor | None = None
    spread: Tensor | None = None


def hardened(rgb: Tensor, alpha: Tensor, hardness: float) -> tuple[Tensor, Tensor]:
    """Pictures [..., 3] on white and alpha [...], the latter steeper by ``hardness`` around one half; colours stay.

    What is half transparent has no surface that explains it from all sides: a field that must show it becomes a heap of torn
    sheets. So fog is either there or not, as it is for the fast route.
    """
    steep = ((alpha - 0.5) * hardness + 0.5).clamp(0, 1)
    own = rgb - (1 - alpha[..., None])  # without the white behind it
    own = own * (steep / alpha.clamp_min(1e-3))[..., None]
    return (own + (1 - steep[..., None])).clamp(0, 1), steep


def stream_views(
    gaussians: Gaussians,
    count: int,
    size: int,
    generator: torch.Generator,
    elevation: float = 45.0,
    radius: tuple[float, float] = (1.5, 3.0),
    hardness: float = 1.0,
    rays: bool = False,
    spread: bool = False,
    level: float = 0.0,
) -> Iterator[View]:
    """``count`` pictures from random cameras (:func:`random_cameras`), ``size`` pixels wide, drawn a few at a time.

    Args:
        hardness: see :func:`hardened`. rays, spread: whether the views have these. level: see :func:`random_cameras`.
    """
    for start in range(0, count, VIEWS_PER_CALL):
        cameras = random_cameras(min(VIEWS_PER_CALL, count - start), generator, elevation, radius, level)
        cameras = cameras.to(device=gaussians.device, dtype=torch.float32)
        with torch.no_grad():
            drawn = rasterize(gaussians, cameras, size, WHITE)
            deviation = depth_moments(gaussians, cameras, size)[2] if spread else [None] * len(drawn.rgb)
        rows = camera_table(cameras, 1, (size, size), gaussians.device)[0]
        rgb, alpha = hardened(drawn.rgb, drawn.alpha, hardness)
        # [V, H, W, 3] -> [V, H * W, 3]
        origins, directions = (
            (x.flatten(1, 2).contiguous() for x in cameras.rays(size)) if rays else ([None] * len(rgb),) * 2
        )
        for k in range(len(cameras)):
            yield View(cameras[k : k + 1], rows[k], rgb[k], alpha[k], origins[k], directions[k], deviation[k])


def train_field(
    gaussians: Gaussians, settings: NerfSettings, generator: torch.Generator, progress: Callable[[float], None]
) -> tuple[NerfField, Occupancy]:
    """A field that looks like the Gaussians (inside the sphere of radius ``settings.OBJECT_RADIUS``), on their device.

    Args:
        generator: on the CPU; everything random comes from it.
    """
    device, s = gaussians.device, settings
    field = NerfField(s, generator).to(device)
    occupancy = Occupancy(s.occupancy, device, visual_hull(gaussians, s.occupancy, OBJECT_RADIUS, s.hardness))
    local = torch.Generator(device).manual_seed(int(torch.randint(1 << 62, (1,), generator=generator)))
    faster = s.rate_scale("field")
    optimizer = Adam((field.grids(), GRID_RATE * faster), (field.networks(), NETWORK_RATE * faster))
    for i, view in enumerate(
        stream_views(gaussians, s.field_steps, s.field_size, generator, hardness=s.hardness, rays=True)
    ):
        if i % UPDATE_EVERY == 0:
            occupancy.update(field.density, s.step, local, everywhere=i < WARM_UP)
        jitter = torch.rand(len(view.origins), generator=local, device=device)
        made, made_alpha = render_rays(
            field.density, field.colour, view.origins, view.directions, occupancy, s.step, jitter
        )
        loss = F.mse_loss(made, view.rgb.reshape(-1, 3)) + ALPHA_WEIGHT * F.mse_loss(made_alpha, view.alpha.reshape(-1))
        optimizer.clear()
        loss.backward()
        points = torch.rand(s.variation_points, 3, generator=local, device=device)
        field.density_grid.add_variation_gradient(points, VARIATION_WEIGHT * 1e6 / s.variation_points)
        optimizer.step()
        progress((i + 1) / s.field_steps)
    occupancy.update(field.density, s.step, local, everywhere=True)
    return field, occupancy
