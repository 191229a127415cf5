"""What a pipeline returns: splats, perhaps a mesh, what is known about how they were made, and how to write all of it."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .camera import Cameras
from .errors import ForegroundError
from .gaussians import Gaussians
from .mesh import Mesh

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)

FILM_FRAMES, FILM_FPS, FILM_SIZE = 120, 30, 512
PREVIEW_VIEWS = 4
WHITE = (1.0, 1.0, 1.0)


@dataclass
class Asset:
    """A reconstructed object in the world frame of :mod:`bozzetto.camera.cameras` (or the caller's, for posed views).

    Attributes:
        gaussians: the splats, unbatched.
        mesh: textured mesh, or None if it was not asked for.
        report: model, versions, seed, timings (seconds) and sizes; plain values, goes to ``report.json``.
    """

    gaussians: Gaussians
    mesh: Mesh | None = None
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
                write_image(work / "preview.png", preview(self.gaussians))
            with timed(timings, "film"):
                write_film(work / "turntable.mp4", turntable(self.gaussians, progress=progress), FILM_FPS)
            with timed(timings, "viewer"):
                tell("writing viewer", 0.0)
                write_viewer(work / "viewer.html", self.gaussians, title=folder.resolve().name)
            self.report["gaussians"] = len(self.gaussians)
            if self.mesh is not None:
                self.report["mesh"] = {"vertices": len(self.mesh.vertices), "faces": len(self.mesh.faces)}
            self.report["files"] = {p.name: p.stat().st_size for p in sorted(work.iterdir())}
            timings["total"] = round(sum(v for k, v in timings.items() if k != "total"), 3)
            (work / "report.json").write_text(json.dumps(self.report, indent=2, sort_keys=True) + "\n")
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
    """Centre and radius of the sphere that holds the visible object, ignoring faint and stray splats.

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


def framing_cameras(
    gaussians: Gaussians, azimuth: list[float], elevation: float | list[float], fov_y: float = 30.0
) -> Cameras:
    """Orbit cameras around the visible object, at the distance where it fills the picture. Angles in degrees."""
    centre, radius = framing(gaussians)
    distance = 1.05 * radius / math.sin(math.radians(fov_y / 2))
    return Cameras.orbit(azimuth, elevation, distance, fov_y, target=centre)


def preview(gaussians: Gaussians, size: int = FILM_SIZE, views: int = PREVIEW_VIEWS) -> Tensor:
    """Pictures from ``views`` sides in a row, on white: [size, views * size, 3], 0..1."""
    from .raster import rasterize

    azimuth = [360.0 * i / views for i in range(views)]
    cameras = framing_cameras(gaussians, azimuth, 10.0)
    frames = [
        rasterize(gaussians, cameras[i : i + 1], size, WHITE, near=1e-3 * _distance(cameras)).rgb[0]
        for i in range(views)
    ]
    return torch.cat(frames, dim=1).clamp(0, 1).cpu()


def turntable(
    gaussians: Gaussians,
    frames: int = FILM_FRAMES,
    size: int = FILM_SIZE,
    elevation: float = 10.0,
    background: tuple[float, float, float] = WHITE,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Frames [size, size, 3] in 0..1 of one turn around the object, starting at the front."""
    from .raster import rasterize

    cameras = framing_cameras(gaussians, [360.0 * i / frames for i in range(frames)], elevation)
    near = 1e-3 * _distance(cameras)
    for i in range(frames):
        if progress is not None:
            progress("rendering turntable", i / frames)
        yield rasterize(gaussians, cameras[i : i + 1], size, background, near=near).rgb[0].clamp(0, 1).cpu()


def _distance(cameras: Cameras) -> float:
    """A length in the scene's units, so that near planes suit objects of any size."""
    return float((cameras.positions[0] - cameras.positions.mean(0)).norm().clamp_min(1e-6))
