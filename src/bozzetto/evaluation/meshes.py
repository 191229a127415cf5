"""One made mesh against the true object: distances, closedness, and how its texture looks from new sides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera import Cameras
from ..data.objects import TexturedObject
from ..errors import BozzettoError
from ..mesh import Mesh
from ..training.losses import psnr
from .alignment import align
from .distances import bounding_box, compare_surfaces
from .geometry import SurfacePoints, is_watertight, mesh_arrays, sample_surface, seen_from_outside
from .mesh_pictures import draw_mesh


@dataclass
class TruthSurface:
    """Samples of the true surface, which of them can be seen from outside, and the length that counts as 1."""

    points: SurfacePoints
    seen: NDArray[np.bool_]
    unit: float

    @classmethod
    def of(cls, obj: TexturedObject, cameras: Cameras) -> TruthSurface:
        """Of an object, seen by ``cameras`` (V,)."""
        points = sample_surface(obj.vertices, obj.faces)
        used = obj.vertices[np.unique(obj.faces)]
        return cls(points, seen_from_outside(points, obj, cameras.to("cpu")), bounding_box(used)[1])


def score_mesh(
    make: Callable[[], Mesh], truth: TruthSurface, pictures: Tensor, cameras: Cameras, *, posed: bool
) -> dict[str, float]:
    """The measures of the mesh that ``make`` makes; {"failed": 1.0} where it raises an error of this package.

    Args:
        pictures: [V, S, S, 3], the true object on white from ``cameras`` (V,).
        posed: the mesh stands in the truth's frame: it is measured there ("chamfer"), too, and its texture is looked at;
            otherwise only after alignment ("aligned_chamfer").
    """
    began = time.perf_counter()
    try:
        mesh = make()
        seconds = time.perf_counter() - began
        vertices, faces = mesh_arrays(mesh)
        made = sample_surface(vertices, faces, seed=1)
    except BozzettoError:
        return {"failed": 1.0}
    out = {
        "failed": 0.0,
        "seconds": seconds,
        "faces": float(len(faces)),
        "watertight": float(is_watertight(vertices, faces)),
    }
    if posed:
        out |= compare_surfaces(made, truth.points, truth.unit, truth.seen).flat()
        drawn = draw_mesh(mesh, cameras, pictures.shape[-2])
        out["texture_psnr"] = float(psnr(drawn, pictures, dims=(-3, -2, -1)).mean())
    visible = truth.points.select(truth.seen) if truth.seen.any() else truth.points
    moved = made.moved(align(made, visible))
    out |= compare_surfaces(moved, truth.points, truth.unit, truth.seen).flat("aligned_")
    return {k: v for k, v in out.items() if math.isfinite(v)}


def mesh_of(obj: TexturedObject) -> Mesh:
    """The bare surface of an object (for tests and baselines)."""
    return Mesh(torch.from_numpy(obj.vertices).float(), torch.from_numpy(obj.faces).long())
