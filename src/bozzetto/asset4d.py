"""What a video becomes: Gaussians for every moment, and how to write and show them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .camera import Cameras
from .errors import InputError
from .framing import VISIBLE_ALPHA, WHITE, draw, framing_cameras
from .gaussians import Gaussians
from .job import Progress, silent, timed

FIXED_VIEWS, FIXED_SIZE = 4, 384
TURN_SIZE, TURN_SECONDS = 512, 4.0  # a shorter clip is repeated while the camera goes round once
SHEET_TIMES, SHEET_SIZE = 4, 256
FRAMED = 64  # frames at most that decide where the cameras stand
FOV_Y = 30.0


@dataclass
class Asset4D:
    """A moving object in the world frame of :mod:`bozzetto.camera.cameras`.

    Attributes:
        gaussians: [T, N]; a frame with fewer splats is filled with transparent ones.
        fps: frames per second.
        up: the world direction that is up.
        report: model, versions, seed, timings (seconds) and sizes; plain values, goes to ``report.json``.
        pictures: file name -> [H, W, 3] in 0..1, intermediate results such as the views that a model imagined.
        device: where films and previews are drawn, frame by frame; ``gaussians`` may stay on the CPU.
    """

    gaussians: Gaussians
    fps: float
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    report: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if len(self.gaussians.batch_shape) != 1 or not self.gaussians.batch_shape[0]:
            raise ValueError(f"a moving object needs Gaussians [T, N] with T > 0, got {self.gaussians}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be positive, got {self.fps}")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Asset4D:
        """Read a ``.4dgs`` file; raises :class:`bozzetto.errors.SplatFileError` on a malformed one."""
        from .files.sequence import read_sequence

        sequence = read_sequence(path)
        report = {"notes": list(sequence.notes)} if sequence.notes else {}
        return cls(sequence.stack(), sequence.fps, sequence.up, report)

    def __len__(self) -> int:
        """Number of frames T."""
        return self.gaussians.batch_shape[0]

    def frame(self, index: int) -> Gaussians:
        """The Gaussians of one frame, unbatched, without those that cannot be seen (opacity below 0.5 %)."""
        return self.gaussians[index].prune()

    def draw(self, index: int, cameras: Cameras, size: int, near: float) -> Tensor:
        """Pictures [V, size, size, 3] of one frame on white, in 0..1, on the CPU."""
        return draw(self.frame(index).to(self.device), cameras, size, WHITE, near)

    def save(self, folder: str | PathLike[str], progress: Progress | None = None) -> list[Path]:
        """Write into ``folder``, all or nothing:

        ``frames/0000.ply``, ... (one per frame), ``splats.4dgs`` (all of them, compact), ``player.html`` (opens from disk),
        ``fixed.mp4`` (four still cameras side by side), ``turntable.mp4`` (the camera goes round while time runs),
        ``preview.png`` (four moments from four sides), ``pictures`` and ``report.json``. Returns their paths.
        """
        from .files.atomic import output_folder
        from .files.film import write_film
        from .files.images import write_image
        from .files.player import write_player
        from .files.sequence import write_sequence

        tell = progress or silent
        folder = Path(folder)
        title = folder.resolve().name
        timings = self.report.setdefault("timings", {})
        with output_folder(folder) as work:
            with timed(timings, "splats"):
                (work / "frames").mkdir()
                for k in range(len(self)):
                    tell("writing frames", k / len(self))
                    self.frame(k).save(work / "frames" / f"{k:04d}.ply")
                write_sequence(work / "splats.4dgs", self.gaussians, self.fps, self.up, title)
            for name, picture in self.pictures.items():
                write_image(work / name, picture)
            with timed(timings, "viewer"):
                tell("writing player", 0.0)
                left_out = write_player(work / "player.html", self.gaussians, self.fps, title, self.up)
            with timed(timings, "framing"):
                space = swept_space(self.gaussians, self.up, self.device)
            with timed(timings, "preview"):
                write_image(work / "preview.png", contact_sheet(self, space))
            with timed(timings, "film"):
                write_film(work / "fixed.mp4", fixed_views(self, space, progress=progress), self.fps)
                write_film(work / "turntable.mp4", moving_turntable(self, space, progress=progress), self.fps)
            self.report |= {"frames": len(self), "fps": self.fps, "gaussians": len(self.gaussians)}
            self.report["files"] = {p.name: p.stat().st_size for p in sorted(work.iterdir()) if p.is_file()}
            self.report["files"]["frames/*.ply"] = sum(p.stat().st_size for p in (work / "frames").iterdir())
            if left_out:
                self.report["player_shows"] = left_out
            timings["total"] = round(sum(v for k, v in timings.items() if k != "total"), 3)
            (work / "report.json").write_text(json.dumps(self.report, indent=2, sort_keys=True) + "\n")
        for path in (folder / "frames").iterdir():  # frames of an earlier, longer result
            if re.fullmatch(r"\d{4,}\.ply", path.name) and int(path.stem) >= len(self):
                path.unlink()
        names = [name for name in self.report["files"] if "*" not in name]
        return sorted(folder / name for name in (*names, "report.json")) + [folder / "frames"]


@dataclass(frozen=True)
class SweptSpace:
    """A sphere that holds all that can be seen of a moving object; stands in for an object where cameras are placed."""

    centre: tuple[float, float, float]
    radius: float
    up: tuple[float, float, float]

    def framing(self) -> tuple[tuple[float, float, float], float]:
        return self.centre, self.radius

    def cameras(self, azimuth: Sequence[float], elevation: float = 10.0) -> Cameras:
        """Cameras (V,) around the sphere, which fills their pictures."""
        return framing_cameras(self, azimuth, elevation, FOV_Y, self.up)

    @property
    def near(self) -> float:
        return 0.01 * self.radius


def swept_space(
    gaussians: Gaussians, up: Sequence[float] = (0.0, 1.0, 0.0), device: torch.device | str = "cpu"
) -> SweptSpace:
    """The space that an object [T, N] sweeps: of many frames ``FRAMED``, evenly spaced, are looked at, on ``device``.

    Raises :class:`bozzetto.errors.ForegroundError` when nothing is visible.
    """
    from .files.player import sequence_bounds
    from .files.sequence import time_frames
    from .raster import rasterize

    frames = time_frames(gaussians)
    frames = frames[:: math.ceil(len(frames) / FRAMED)]
    centre, radius = sequence_bounds(frames)
    around = SweptSpace(
        tuple(centre), 2 * radius, tuple(up)
    )  # from twice as far: fog reaches beyond the splats' centres
    cameras = around.cameras([45.0 * i for i in range(8)])
    half = math.radians(FOV_Y / 2)
    used = 0.1
    for frame in frames:
        alpha = rasterize(frame.to(device), cameras, 96, near=around.near).alpha
        seen = (alpha > VISIBLE_ALPHA).any(dim=0).cpu()  # [96, 96]
        for dim in (0, 1):
            filled = torch.where(seen.any(dim))[0]
            if len(filled):
                used = max(used, (float((filled - 47.5).abs().max()) + 0.5) / 48)  # share of the half picture
    distance = 1.04 * around.radius / math.sin(half)
    return SweptSpace(tuple(centre), distance * math.sin(math.atan(used * math.tan(half))), tuple(up))


def contact_sheet(asset: Asset4D, space: SweptSpace, size: int = SHEET_SIZE, times: int = SHEET_TIMES) -> Tensor:
    """Moments from top to bottom, sides (front, right, back, left) from left to right, on white: [R * size, 4 * size, 3]."""
    count = min(times, len(asset))
    cameras = space.cameras([0.0, 90.0, 180.0, 270.0])
    rows = []
    for i in range(count):
        moment = round(i * (len(asset) - 1) / max(1, count - 1))
        rows.append(_side_by_side(asset.draw(moment, cameras, size, space.near)))
    return torch.cat(rows)


def fixed_views(
    asset: Asset4D,
    space: SweptSpace,
    views: int = FIXED_VIEWS,
    size: int = FIXED_SIZE,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Every frame from ``views`` still cameras side by side, on white: [size, views * size, 3] in 0..1."""
    cameras = space.cameras([360.0 * i / views for i in range(views)])
    for k in range(len(asset)):
        if progress is not None:
            progress("rendering fixed views", k / len(asset))
        yield _side_by_side(asset.draw(k, cameras, size, space.near))


def moving_turntable(
    asset: Asset4D,
    space: SweptSpace,
    size: int = TURN_SIZE,
    seconds: float = TURN_SECONDS,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Frames [size, size, 3] of one turn around the object while it moves, on white.

    A clip shorter than ``seconds`` is shown several times, always to its end, so that the film can be looped.
    """
    if seconds <= 0:
        raise InputError(f"seconds must be positive, got {seconds}")
    count = len(asset) * max(1, math.ceil(seconds * asset.fps / len(asset)))
    cameras = space.cameras([360.0 * i / count for i in range(count)])
    for i in range(count):
        if progress is not None:
            progress("rendering turntable", i / count)
        yield asset.draw(i % len(asset), cameras[i : i + 1], size, space.near)[0]


def _side_by_side(pictures: Tensor) -> Tensor:
    """[V, H, W, 3] -> [H, V * W, 3]."""
    return torch.cat(list(pictures), dim=1)
