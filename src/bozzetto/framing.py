"""Where to stand so that all of an object is in the picture, and the pictures taken from there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .camera import Cameras
from .camera.cameras import Size
from .errors import ForegroundError, InputError
from .gaussians import Gaussians
from .job import Progress

FILM_FRAMES, FILM_FPS, FILM_SIZE = 120, 30, 512
PREVIEW_VIEWS = 4
VISIBLE_ALPHA = 0.08  # what a person still sees on white
WHITE = (1.0, 1.0, 1.0)


class RadianceField(Protocol):
    """An object that is drawn by marching along rays, in the world of :mod:`bozzetto.camera.cameras`."""

    def render(self, cameras: Cameras, size: Size, background: Sequence[float] = WHITE) -> Tensor:
        """Pictures [V, H, W, 3] in 0..1 of cameras (V,)."""
        ...

    def framing(self) -> tuple[tuple[float, float, float], float]:
        """Centre and radius of a sphere that holds all that can be seen, world units."""
        ...


def framing(gaussians: Gaussians) -> tuple[tuple[float, float, float], float]:
    """Centre and radius of the sphere that holds the object's centre of mass, ignoring faint and stray splats.

    Raises :class:`ForegroundError` when nothing is visible.
    """
    visible = gaussians.prune(0.1)
    if len(visible) == 0:
        visible = gaussians.prune(0.005)
    if len(visible) == 0:
        raise ForegroundError("there is nothing to see: the file holds no splat of opacity above 0.5 %")
    points = visible.means.detach().double().cpu()
    if len(points) > 20_000:
        points = points[:: len(points) // 20_000]
    low, high = torch.quantile(points, 0.005, dim=0), torch.quantile(points, 0.995, dim=0)
    centre = (low + high) / 2
    radius = float(torch.quantile((points - centre).norm(dim=-1), 0.995)) + 2 * float(visible.scales.mean())
    return tuple(centre.tolist()), max(radius, 1e-6)


def near_plane(gaussians: Gaussians | RadianceField) -> float:
    """A near plane that suits the object's size, in world units."""
    return 0.01 * (framing(gaussians) if isinstance(gaussians, Gaussians) else gaussians.framing())[1]


def framing_cameras(
    gaussians: Gaussians | RadianceField,
    azimuth: Sequence[float],
    elevation: float = 10.0,
    fov_y: float = 30.0,
    up: Sequence[float] = (0.0, 1.0, 0.0),
) -> Cameras:
    """Orbit cameras around the object, at the distance from which all of what can be seen of it is in the picture.

    Angles in degrees; ``up`` is the world direction around which the orbit turns (azimuth 0 is +z turned along with it).

    Raises:
        InputError: elevation outside -90..90, or ``up`` is zero. ForegroundError: nothing is visible.
    """
    from .raster import rasterize

    if not -90 <= elevation <= 90:
        raise InputError(f"elevation must lie in -90..90 degrees, got {elevation}")
    centre, radius = framing(gaussians) if isinstance(gaussians, Gaussians) else gaussians.framing()
    turn = _turn_to(up)

    def orbit(around: Sequence[float], distance: float) -> Cameras:
        cameras = Cameras.orbit(around, elevation, distance, fov_y)
        pose = (turn @ cameras.camera_to_world.double()).float()
        pose[:, :3, 3] += torch.tensor(centre, dtype=torch.float32)
        return Cameras(pose, cameras.intrinsics)

    if not isinstance(gaussians, Gaussians):
        return orbit(azimuth, 1.04 * radius / math.sin(math.radians(fov_y / 2)))
    # Fog reaches further than the splats' centres: look from twice as far and see how much of the picture is used.
    distance = 2 * radius / math.sin(math.radians(fov_y / 2))
    alpha = rasterize(gaussians, orbit([45.0 * i for i in range(8)], distance), 96, near=0.01 * radius).alpha
    seen = (alpha > VISIBLE_ALPHA).any(dim=0).cpu()
    used = 0.25
    for dim in (0, 1):
        filled = torch.where(seen.any(dim))[0]
        if len(filled):
            used = max(used, (float((filled - 47.5).abs().max()) + 0.5) / 48)  # share of the half picture
    half = math.radians(fov_y / 2)
    reach = distance * math.sin(math.atan(used * math.tan(half)))  # radius of the sphere that fills that share
    return orbit(azimuth, 1.04 * reach / math.sin(half))


def _turn_to(up: Sequence[float]) -> Tensor:
    """The shortest rotation [4, 4] (float64) that takes +y to ``up``."""
    target = torch.tensor(up, dtype=torch.float64)
    if not bool(torch.isfinite(target).all()) or float(target.norm()) < 1e-9:
        raise InputError(f"up must be a direction, got {tuple(up)}")
    target = target / target.norm()
    x, y, z = target.tolist()
    matrix = torch.eye(4, dtype=torch.float64)
    if y < -1 + 1e-9:  # upside down: half a turn about x
        matrix[1, 1] = matrix[2, 2] = -1.0
        return matrix
    # Rodrigues' formula for the axis y x up = (z, 0, -x).
    skew = torch.tensor([[0.0, x, 0.0], [-x, 0.0, -z], [0.0, z, 0.0]], dtype=torch.float64)
    matrix[:3, :3] += skew + skew @ skew / (1 + y)
    return matrix


def draw(
    shape: Gaussians | RadianceField, cameras: Cameras, size: Size, background: Sequence[float], near: float = 0.01
) -> Tensor:
    """Pictures [V, H, W, 3] in 0..1 of Gaussians or of a field, on the CPU."""
    if isinstance(shape, Gaussians):
        from .raster import rasterize

        pictures = rasterize(shape, cameras, size, background, near=near).rgb
    else:
        pictures = shape.render(cameras, size, background)
    return pictures.clamp(0, 1).cpu()


def preview(
    gaussians: Gaussians | RadianceField,
    size: int = FILM_SIZE,
    views: int = PREVIEW_VIEWS,
    up: Sequence[float] = (0.0, 1.0, 0.0),
) -> Tensor:
    """Pictures from ``views`` sides in a row, on white: [size, views * size, 3], 0..1."""
    azimuth = [360.0 * i / views for i in range(views)]
    cameras, near = framing_cameras(gaussians, azimuth, up=up), near_plane(gaussians)
    return torch.cat([draw(gaussians, cameras[i : i + 1], size, WHITE, near)[0] for i in range(views)], dim=1)


def turntable(
    gaussians: Gaussians | RadianceField,
    frames: int = FILM_FRAMES,
    size: int = FILM_SIZE,
    elevation: float = 10.0,
    background: tuple[float, float, float] = WHITE,
    up: Sequence[float] = (0.0, 1.0, 0.0),
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Frames [size, size, 3] in 0..1 of one turn around the object, starting at the front."""
    cameras = framing_cameras(gaussians, [360.0 * i / frames for i in range(frames)], elevation, up=up)
    near = near_plane(gaussians)
    for i in range(frames):
        if progress is not None:
            progress("rendering turntable", i / frames)
        yield draw(gaussians, cameras[i : i + 1], size, background, near)[0]
