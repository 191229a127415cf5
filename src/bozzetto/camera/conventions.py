"""Conversions between the axis conventions of the field. Each is a fixed signed permutation, so each is exact.

The house convention (see :mod:`bozzetto.camera.cameras`) is a y-up, right-handed world and camera-to-world matrices with
OpenGL axes. Everything else is converted at the border by one of the functions below.

====================  =======================  =====================================
source                world                    camera axes (x, y, z)
====================  =======================  =====================================
bozzetto, glTF        y up, front looks to +z  right, up, backward   (OpenGL)
OpenCV, COLMAP        any                      right, down, forward
Blender, NeRF json    z up                     right, up, backward   (OpenGL)
TripoSR               z up, front looks to +x  right, up, backward   (OpenGL)
====================  =======================  =====================================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# World rotations, written as rows: new coordinate = signed old coordinate.
# Blender (x right, y away, z up) -> y-up world: (x, y, z) -> (x, z, -y).
_BLENDER_TO_WORLD = ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, -1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
# TripoSR (z up, the photo's camera on +x) -> y-up world with the photo's camera on +z: (x, y, z) -> (y, z, x).
_TRIPOSR_TO_WORLD = ((0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def _turned(rows: Sequence[Sequence[float]], matrix: Tensor) -> Tensor:
    """The signed permutation ``rows`` times ``matrix`` [..., 4, 4], without a tensor from the host, for which it would wait."""
    picked = []
    for row in rows:
        (column,) = (i for i, value in enumerate(row) if value)
        picked.append(matrix[..., column, :] if row[column] > 0 else -matrix[..., column, :])
    return torch.stack(picked, dim=-2)


def _transposed(rows: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    return tuple(zip(*rows))


def opengl_to_opencv(camera_to_world: Tensor) -> Tensor:
    """Camera axes OpenGL (x right, y up, z back) -> OpenCV (x right, y down, z forward). [..., 4, 4] -> same shape."""
    x, y, z, position = camera_to_world.unbind(-1)
    return torch.stack([x, -y, -z, position], dim=-1)


def opencv_to_opengl(camera_to_world: Tensor) -> Tensor:
    """Inverse of :func:`opengl_to_opencv` (the same sign change)."""
    return opengl_to_opencv(camera_to_world)


def blender_to_opengl_world(matrix: Tensor) -> Tensor:
    """Blender's z-up world -> our y-up world, camera axes kept. ``matrix`` [..., 4, 4] maps something to the world."""
    return _turned(_BLENDER_TO_WORLD, matrix)


def opengl_to_blender_world(matrix: Tensor) -> Tensor:
    """Inverse of :func:`blender_to_opengl_world`."""
    return _turned(_transposed(_BLENDER_TO_WORLD), matrix)


def triposr_to_world(matrix: Tensor) -> Tensor:
    """TripoSR's world (z up, photo camera on +x) -> ours (y up, photo camera on +z). ``matrix`` [..., 4, 4]."""
    return _turned(_TRIPOSR_TO_WORLD, matrix)


def world_to_triposr(matrix: Tensor) -> Tensor:
    """Inverse of :func:`triposr_to_world`."""
    return _turned(_transposed(_TRIPOSR_TO_WORLD), matrix)
