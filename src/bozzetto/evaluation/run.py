"""Run the protocol: every object through the model, its pictures and its mesh compared with the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..camera import Cameras
from ..data.objects import TexturedObject
from ..data.render import Lights, SceneBatch, render_objects
from ..gaussians import Gaussians
from ..raster import rasterize
from .meshes import TruthSurface, score_mesh
from .models import Measured
from .objects import Sample
from .pictures import Distance, on_white, score_pictures
from .protocol import (
    GRID_AZIMUTHS,
    INPUT_AZIMUTHS,
    SIZE,
    TASKS,
    around_cameras,
    grid_cameras,
    novel_by_elevation,
    novel_of_grid,
)

SHOWN = (
    18,
    22,
    42,
    46,
)  # cameras of the grid that the contact sheet shows: 45 and 135 degrees at 20, 225 and 315 at 40
THUMBNAIL = 128
_DRAWN_AT_ONCE = 16
Tell = Callable[[str, float], None]


@dataclass
class ObjectResult:
    """One object.

    Attributes:
        source, name, caption: what it is.
        scores: task -> camera set ("grid", "around", "inputs", and the grid's parts "elevation_0" to "elevation_60") ->
            measure -> mean over the pictures.
        meshes: task -> measure -> value; empty where no mesh was made. A mesh that could not be made has {"failed": 1}.
        white: PSNR of an all-white picture on the grid.
        seconds: of the reconstruction, by task.
        pictures: [rows, columns, 128, 128, 3] uint8 for the sheet: truth, then one row a task; four cameras.
    """

    source: str
    name: str
    caption: str
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    meshes: dict[str, dict[str, float]] = field(default_factory=dict)
    white: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
        return {k: v for k, v in vars(self).items() if k != "pictures"}


def draw(gaussians: Gaussians, cameras: Cameras, size: int = SIZE) -> Tensor:
    """Pictures [V, size, size, 3] of Gaussians on white."""
    parts = [
        rasterize(gaussians, cameras[i : i + _DRAWN_AT_ONCE], size, (1.0, 1.0, 1.0)).rgb
        for i in range(0, len(cameras), _DRAWN_AT_ONCE)
    ]
    return torch.cat(parts).clamp(0, 1)


def true_pictures(
    obj: TexturedObject, cameras: Cameras, device: torch.device | str = "cpu", size: int = SIZE
) -> Tensor:
    """[V, size, size, 4] straight alpha, in the default light."""
    scene = SceneBatch.pack([obj]).to(device)
    return render_objects(scene, cameras.to(device), size, Lights.default(1).to(device), outputs=("rgba",)).rgba[0]


def _small(pictures: Tensor) -> np.ndarray:
    small = torch.nn.functional.interpolate(pictures.movedim(-1, 1).float(), (THUMBNAIL, THUMBNAIL), mode="area")
    return (small.movedim(1, -1).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


@torch.no_grad()
def measure_object(
    model: Measured,
    obj: TexturedObject,
    *,
    perceptual: Distance | None = None,
    mesh: bool = False,
    size: int = SIZE,
) -> ObjectResult:
    """One object through all the tasks that the model can do. Another ``size`` than the protocol's is for tests."""
    grid, around = grid_cameras(), around_cameras()
    cameras = Cameras.cat([grid, around]).to(model.device)
    truth = true_pictures(obj, cameras, model.device, size)
    count = len(grid)
    result = ObjectResult(obj.source, obj.name, str(obj.info.get("caption", "")))
    goal = on_white(truth)
    result.white = float((-10 * torch.log10((1 - goal[:count]).square().mean((1, 2, 3)).clamp_min(1e-10))).mean())
    rows = [_small(goal[list(SHOWN)])]
    surface = TruthSurface.of(obj, cameras) if mesh else None
    for task in model.tasks:
        inputs = [GRID_AZIMUTHS.index(a) for a in INPUT_AZIMUTHS[: TASKS[task]]]
        began = time.perf_counter()
        gaussians = model.reconstruct(truth[inputs], cameras[inputs])
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        result.seconds[task] = time.perf_counter() - began
        drawn = draw(gaussians, cameras, size)
        scores = score_pictures(drawn, truth, perceptual)
        result.scores[task] = {
            "grid": scores.select(novel_of_grid(TASKS[task])).means(),
            "around": scores.select(range(count, len(cameras))).means(),
            "inputs": scores.select(inputs).means(),
        } | {name: scores.select(numbers).means() for name, numbers in novel_by_elevation(TASKS[task]).items()}
        rows.append(_small(drawn[list(SHOWN)]))
        if surface is not None:
            result.meshes[task] = score_mesh(
                lambda g=gaussians: _mesh(g), surface, goal[count:].cpu(), around, posed=True
            )
    if model.photo_to_mesh is not None:
        surface = surface or TruthSurface.of(obj, cameras)
        result.meshes["photo"] = score_mesh(
            lambda: model.photo_to_mesh(truth[0].cpu()), surface, goal[count:].cpu(), around, posed=False
        )
    result.pictures = np.stack(rows)
    return result


def _mesh(gaussians: Gaussians):
    from ..surface import gaussians_to_mesh

    return gaussians_to_mesh(gaussians)


def measure(
    model: Measured,
    samples: Sequence[Sample],
    *,
    perceptual: Distance | None = None,
    mesh_objects: int = 0,
    tell: Tell | None = None,
) -> dict[str, list[ObjectResult]]:
    """Every sample through the model: source -> results in the sample's order.

    Args:
        perceptual: the distance of two batches of pictures; None leaves it out.
        mesh_objects: of the first so many objects of every source a mesh is made and measured, too.
    """
    total, done, out = sum(len(s) for s in samples), 0, {}
    for sample in samples:
        out[sample.name] = []
        for i, obj in enumerate(sample.objects()):
            if tell is not None:
                tell(f"measuring {sample.name}: {i + 1} of {len(sample)}", done / max(total, 1))
            result = measure_object(model, obj, perceptual=perceptual, mesh=i < mesh_objects)
            result.source = sample.name
            out[sample.name].append(result)
            done += 1
    return out
