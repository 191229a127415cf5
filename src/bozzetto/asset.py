"""What a pipeline returns: splats, perhaps a mesh, what is known about how they were made, and how to write all of it."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .camera import Cameras
from .errors import ForegroundError, InputError
from .gaussians import Gaussians
from .mesh import Mesh

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)

FILM_FRAMES, FILM_FPS, FILM_SIZE = 120, 30, 512
PREVIEW_VIEWS = 4
VISIBLE_ALPHA = 0.08  # what a person still sees on white
WHITE = (1.0, 1.0, 1.0)


@dataclass
class Asset:
    """A reconstructed object in the world frame of :mod:`bozzetto.camera.cameras` (or the caller's, for posed views).

    Attributes:
        gaussians: the splats, unbatched.
        mesh: textured mesh, or None if it was not asked for.
        up: the world direction that is up, for films and the viewer page: +y, or what the given cameras hold as up.
        report: model, versions, seed, timings (seconds) and sizes; plain values, goes to ``report.json``.
    """

    gaussians: Gaussians
    mesh: Mesh | None = None
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    report: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | PathLike[str], progress: Progress | None = None) -> list[Path]:
        """Write ``splats.ply``, ``mesh.glb`` (if there is a mesh), ``turntable.mp4``, ``preview.png``, ``viewer.html``
        and ``report.json`` into ``folder``; all of them or none. Returns their paths.
        """
        from .files.atomic import output_folder
        from .files.film import write_film
        from .files.images import write_image
        from .files.viewer import write_viewer

        tell = progress or (lambda what, share: None)
        folder = Path(folder)
        timings = self.report.setdefault("timings", {})
        with output_folder(folder) as work:
            with timed(timings, "splats"):
                tell("writing splats", 0.0)
                self.gaussians.save(work / "splats.ply")
            if self.mesh is not None:
                with timed(timings, "mesh_file"):
                    tell("writing mesh", 0.0)
                    self.mesh.save(work / "mesh.glb")
            with timed(timings, "preview"):
                write_image(work / "preview.png", preview(self.gaussians, up=self.up))
            with timed(timings, "film"):
                write_film(work / "turntable.mp4", turntable(self.gaussians, up=self.up, progress=progress), FILM_FPS)
            with timed(timings, "viewer"):
                tell("writing viewer", 0.0)
                write_viewer(work / "viewer.html", self.gaussians, title=folder.resolve().name, up=self.up)
            self.report["gaussians"] = len(self.gaussians)
            if self.mesh is not None:
                self.report["mesh"] = {"vertices": len(self.mesh.vertices), "faces": len(self.mesh.faces)}
            self.report["files"] = {p.name: p.stat().st_size for p in sorted(work.iterdir())}
            timings["total"] = round(sum(v for k, v in timings.items() if k != "total"), 3)
            (work / "report.json").write_text(json.dumps(self.report, indent=2, sort_keys=True) + "\n")
        if self.mesh is None:
            (folder / "mesh.glb").unlink(missing_ok=True)  # an earlier result's mesh does not belong to these splats
        return sorted(folder / name for name in (*self.report["files"], "report.json"))


class timed:
    """``with timed(timings, "stage"):`` adds the block's seconds to ``timings["stage"]``."""

    def __init__(self, timings: dict[str, float], stage: str) -> None:
        self.timings, self.stage = timings, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.timings[self.stage] = round(self.timings.get(self.stage, 0.0) + time.perf_counter() - self.start, 3)


def versions() -> dict[str, str]:
    """Versions of what shaped a result."""
    from . import __version__

    return {"bozzetto": __version__, "torch": torch.__version__, "python": platform.python_version()}


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


def near_plane(gaussians: Gaussians) -> float:
    """A near plane that suits the object's size, in world units."""
    return 0.01 * framing(gaussians)[1]


def framing_cameras(
    gaussians: Gaussians,
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
    centre, radius = framing(gaussians)
    turn = _turn_to(up)

    def orbit(around: Sequence[float], distance: float) -> Cameras:
        cameras = Cameras.orbit(around, elevation, distance, fov_y)
        pose = (turn @ cameras.camera_to_world.double()).float()
        pose[:, :3, 3] += torch.tensor(centre, dtype=torch.float32)
        return Cameras(pose, cameras.intrinsics)

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


def preview(
    gaussians: Gaussians, size: int = FILM_SIZE, views: int = PREVIEW_VIEWS, up: Sequence[float] = (0.0, 1.0, 0.0)
) -> Tensor:
    """Pictures from ``views`` sides in a row, on white: [size, views * size, 3], 0..1."""
    from .raster import rasterize

    azimuth = [360.0 * i / views for i in range(views)]
    cameras, near = framing_cameras(gaussians, azimuth, up=up), near_plane(gaussians)
    frames = [rasterize(gaussians, cameras[i : i + 1], size, WHITE, near=near).rgb[0] for i in range(views)]
    return torch.cat(frames, dim=1).clamp(0, 1).cpu()


def turntable(
    gaussians: Gaussians,
    frames: int = FILM_FRAMES,
    size: int = FILM_SIZE,
    elevation: float = 10.0,
    background: tuple[float, float, float] = WHITE,
    up: Sequence[float] = (0.0, 1.0, 0.0),
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Frames [size, size, 3] in 0..1 of one turn around the object, starting at the front."""
    from .raster import rasterize

    cameras = framing_cameras(gaussians, [360.0 * i / frames for i in range(frames)], elevation, up=up)
    near = near_plane(gaussians)
    for i in range(frames):
        if progress is not None:
            progress("rendering turntable", i / frames)
        yield rasterize(gaussians, cameras[i : i + 1], size, background, near=near).rgb[0].clamp(0, 1).cpu()
