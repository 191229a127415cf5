"""Where GaussianDreamer's training and test cameras stand.

The published world is z-up: azimuth 0 is a camera on -y, azimuth 90 on -x (objects), or on +x and -y (avatars, turned by
a quarter). The house world is y-up with the front on +z, so an object's point (x, y, z) becomes (x, z, -y) and an avatar's
(x, y, z) becomes (y, z, x); azimuth 0 is the front in both, and azimuths run the other way round than in the house.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera import Cameras

NEAR = 0.2  # the published renderer drops what is nearer
TEST_ELEVATION, TEST_DISTANCE, TEST_FOV = 15.0, 4.0, 70.0

# Published world -> house world, for the start of an object (Shap-E) and of an avatar.
OBJECT_TO_WORLD = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
AVATAR_TO_WORLD = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])


@dataclass(frozen=True)
class ViewRange:
    """What training views are drawn from: degrees; world units for the distance, or (``relative``) half the height of what
    is seen at the target, from which the distance follows for every field of view.
    """

    elevation: tuple[float, float] = (-10.0, 60.0)
    azimuth: tuple[float, float] = (-180.0, 180.0)
    distance: tuple[float, float] = (1.5, 4.0)
    fov: tuple[float, float] = (40.0, 70.0)
    relative: bool = False


@dataclass
class Views:
    """B views: elevation, azimuth (published sense) and vertical field of view in degrees, distance in world units; [B]."""

    elevation: Tensor
    azimuth: Tensor
    distance: Tensor
    fov_y: Tensor

    def cameras(self, avatar: bool = False) -> Cameras:
        """The same views as house cameras (B,)."""
        rotation = (AVATAR_TO_WORLD if avatar else OBJECT_TO_WORLD).double()
        view = world_to_camera(self.elevation, self.azimuth, self.distance, avatar)  # [B, 4, 4], published world
        pose = torch.linalg.inv(view)
        pose[:, :3, 1:3] *= -1  # OpenCV camera axes -> OpenGL
        pose[:, :3] = rotation @ pose[:, :3]
        return Cameras.from_fov(pose.float(), self.fov_y.float())


def world_to_camera(elevation: Tensor, azimuth: Tensor, distance: Tensor, avatar: bool = False) -> Tensor:
    """Published world -> camera (OpenCV axes) [B, 4, 4], float64; angles in degrees [B].

    An orbit pose turn(azimuth + 180) tilt(-elevation) shift(distance), inverted, with the camera's y and z flipped.
    """
    a = torch.deg2rad(azimuth.double() + (90.0 if avatar else 180.0))
    e = torch.deg2rad(-elevation.double())
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    tilt = _rows([one, zero, zero], [zero, e.cos(), -e.sin()], [zero, e.sin(), e.cos()])
    turn = _rows([a.cos(), zero, -a.sin()], [zero, one, zero], [a.sin(), zero, a.cos()])
    axes = torch.tensor([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.float64, device=a.device)
    rotation = axes @ turn @ tilt  # camera (OpenGL) to world
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64, device=a.device)
    view = torch.zeros(*a.shape, 4, 4, dtype=torch.float64, device=a.device)
    view[..., :3, :3] = (rotation * flip).transpose(-1, -2)
    view[..., 2, 3] = distance.double()  # the target is straight ahead
    view[..., 3, 3] = 1.0
    return view


def _rows(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def sample_views(batch: int, ranges: ViewRange, generator: torch.Generator) -> Views:
    """Training views, drawn on the CPU.

    Azimuths are stratified over the batch. Elevations are uniform in degrees for half of the batches; for the others
    they are asin(2 u - 1) with u uniform between the fractions (limit + 90) / 180: for -10..60 that is -6.4..41.8 degrees.
    """

    def uniform(span: tuple[float, float]) -> Tensor:
        return span[0] + (span[1] - span[0]) * torch.rand(batch, generator=generator)

    if float(torch.rand((), generator=generator)) < 0.5:
        elevation = uniform(ranges.elevation)
    else:
        low, high = ((x + 90.0) / 180.0 for x in ranges.elevation)
        elevation = torch.rad2deg(torch.asin((2 * uniform((low, high)) - 1).clamp(-1, 1)))
    share = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    azimuth = ranges.azimuth[0] + (ranges.azimuth[1] - ranges.azimuth[0]) * share
    distance, fov_y = uniform(ranges.distance), uniform(ranges.fov)
    if ranges.relative:
        distance = distance / torch.tan(torch.deg2rad(fov_y) / 2)
    return Views(elevation, azimuth, distance, fov_y)


def sample_ring(batch: int, ranges: ViewRange, generator: torch.Generator, together: int = 4) -> Views:
    """Training views for a model that sees ``together`` views at once: rings of one height, distance and lens,
    90 degrees apart for four (batch must be a multiple of ``together``).
    """
    rings = batch // together
    one = sample_views(rings, ranges, generator)
    step = 360.0 / together
    first = one.azimuth[:, None] + step * torch.arange(together)  # [rings, together]
    azimuth = (first + 180.0) % 360.0 - 180.0

    def each(x: Tensor) -> Tensor:
        return x.repeat_interleave(together)

    return Views(each(one.elevation), azimuth.reshape(batch), each(one.distance), each(one.fov_y))


def orbit_views(count: int, first: float = 0.0, last: float = 360.0) -> Views:
    """The published test orbit: elevation 15, distance 4, field of view 70, azimuths from ``first`` to ``last`` inclusive."""
    azimuth = torch.linspace(first, last, count)
    return Views(
        torch.full((count,), TEST_ELEVATION),
        azimuth,
        torch.full((count,), TEST_DISTANCE),
        torch.full((count,), TEST_FOV),
    )
