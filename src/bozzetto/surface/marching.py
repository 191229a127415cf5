"""Volume → triangles: scikit-image's marching cubes (Lewiner et al. 2003) with our frame, winding and errors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import MeshError


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
    from skimage.measure import marching_cubes as lewiner

    if min(volume.shape) < 2 or not bool((volume < level).any() & (volume > level).any()):
        raise MeshError(
            "no surface was found in the volume: the object is too transparent or too small for this resolution; "
            "raise the resolution or crop the Gaussians to the object"
        )
    vertices, faces, _, _ = lewiner(volume.float().cpu().numpy(), level, gradient_direction="descent")
    vertices = torch.from_numpy(vertices.copy()).float() * voxel + origin.cpu().float()
    return vertices, torch.from_numpy(faces.copy()).long()
