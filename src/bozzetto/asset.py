"""What a pipeline returns: splats or a field, a mesh, what is known about how they were made; and how to write all of it."""

from __future__ import annotations

import dataclasses
import json
import platform
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .framing import FILM_FPS, RadianceField, preview, turntable
from .gaussians import Gaussians
from .job import Progress, silent, timed
from .mesh import Mesh


@dataclass
class Asset:
    """A reconstructed object in the world frame of :mod:`bozzetto.camera.cameras` (or the caller's, for posed views).

    Attributes:
        gaussians: the splats, unbatched; None for systems that make none.
        mesh: textured mesh, or None if it was not asked for.
        up: the world direction that is up, for films and the viewer page: +y, or what the given cameras hold as up.
        report: model, versions, seed, timings (seconds) and sizes; plain values, goes to ``report.json``.
        field: what film and preview show where there are no splats.
        pictures: file name -> [H, W, 3] in 0..1, intermediate results such as the views that a model imagined.
        mesh_format: "glb", "usdz", or "obj" (with .mtl and .png beside it).
    """

    gaussians: Gaussians | None = None
    mesh: Mesh | None = None
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    field: RadianceField | None = None
    mesh_format: str = "glb"
    pictures: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def save(self, folder: str | PathLike[str], progress: Progress | None = None) -> list[Path]:
        """Write ``splats.ply`` (if there are splats), ``mesh.glb`` (if there is a mesh), ``turntable.mp4``, ``preview.png``,
        ``viewer.html`` and ``report.json`` into ``folder``; all of them or none. Returns their paths.
        """
        from .files.atomic import output_folder
        from .files.film import write_film
        from .files.images import write_image
        from .files.viewer import write_viewer

        tell = progress or silent
        folder = Path(folder)
        timings = self.report.setdefault("timings", {})
        shown = self.gaussians if self.gaussians is not None else self.field
        earlier = earlier_files(folder)
        with output_folder(folder) as work:
            if self.gaussians is not None:
                with timed(timings, "splats"):
                    tell("writing splats", 0.0)
                    self.gaussians.save(work / "splats.ply")
                self.report["gaussians"] = len(self.gaussians)
            if self.mesh is not None:
                with timed(timings, "mesh_file"):
                    tell("writing mesh", 0.0)
                    self.mesh.save(work / f"mesh.{self.mesh_format}")
                self.report["mesh"] = {"vertices": len(self.mesh.vertices), "faces": len(self.mesh.faces)}
            for name, picture in self.pictures.items():
                write_image(work / name, picture)
            if shown is not None:
                with timed(timings, "preview"):
                    write_image(work / "preview.png", preview(shown, up=self.up))
                with timed(timings, "film"):
                    write_film(work / "turntable.mp4", turntable(shown, up=self.up, progress=progress), FILM_FPS)
            if self.gaussians is not None or self.mesh is not None:
                with timed(timings, "viewer"):
                    tell("writing viewer", 0.0)
                    mesh = self.mesh if self.gaussians is None else None
                    title = folder.resolve().name
                    write_viewer(work / "viewer.html", self.gaussians, title=title, mesh=mesh, up=self.up)
            self.report["files"] = {p.name: p.stat().st_size for p in sorted(work.iterdir())}
            timings["total"] = round(sum(v for k, v in timings.items() if k != "total"), 3)
            (work / "report.json").write_text(json.dumps(self.report, indent=2, sort_keys=True) + "\n")
        for name in earlier - self.report["files"].keys():
            (folder / name).unlink(missing_ok=True)  # an earlier result's files do not belong to this one
        return sorted(folder / name for name in (*self.report["files"], "report.json"))


_POSSIBLE = {"splats.ply", "views.png", "mesh.glb", "mesh.usdz", "mesh.obj", "mesh.mtl", "mesh.png", "viewer.html"}


def earlier_files(folder: Path) -> set[str]:
    """Which files of a result that is in ``folder`` already its ``report.json`` names; what else lies there is the user's."""
    try:
        return _POSSIBLE & set(json.loads((folder / "report.json").read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def versions() -> dict[str, str]:
    """Versions of what shaped a result."""
    from . import __version__

    return {"bozzetto": __version__, "torch": torch.__version__, "python": platform.python_version()}
