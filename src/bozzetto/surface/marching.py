"""Volume of signed distances → triangles in its frame."""

from __future__ import annotations

from torch import Tensor

from ..errors import MeshError
from .marching_cubes import grid_surface


def marching_cubes(volume: Tensor, origin: Tensor, voxel: float, level: float = 0.0) -> tuple[Tensor, Tensor]:
    """Triangles of the ``level`` set of ``volume`` [X, Y, Z] (below: inside; above: outside).

    Args:
        origin: [3], position of the centre of voxel (0, 0, 0).
        voxel: edge length of a voxel.

    Returns:
        vertices [V, 3] float32 and faces [F, 3] int64 on the CPU, counter-clockwise seen from outside.

    Raises:
        MeshError: the level is never crossed.
    """
    surface = grid_surface(lambda start, stop: -volume[start:stop], -level, shape=tuple(volume.shape))
    if len(surface.faces) == 0:
        raise MeshError(
            "no surface was found in the volume: the object is too transparent, or too small for this resolution, as parts "
            "far apart are; raise the resolution or crop the Gaussians to the object (or to one part of it)"
        )
    return surface.vertices.cpu() * voxel + origin.cpu().float(), surface.faces.cpu()
