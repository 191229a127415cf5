"""Signed distance grid -> triangles, with vertex positions and order as in Shap-E's own marching cubes.

One vertex lies on each grid edge that the surface crosses: first the edges along x, then y, then z, each in C order. On a face of
a cube with two inside corners in a diagonal the two stay apart. So the lines on the faces of the cubes are those of the
published code; only the diagonals inside a cube can differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import MeshError
from ...surface.marching_cubes import grid_surface
from .transmitter import ImplicitFields

BATCH = 1 << 18  # grid points evaluated at once
SRGB_KNEE = 0.04045


def marching_cubes(field: Tensor) -> tuple[Tensor, Tensor]:
    """Surface where ``field`` [X, Y, Z] crosses zero (inside: above zero), on the field's device.

    Returns:
        vertices [V, 3] float32 in grid steps (0 is the first sample) and faces [F, 3] int64, counter-clockwise from outside;
        both empty where nothing is crossed.
    """
    surface = grid_surface(field, joined=False)
    order = surface.axes.sort(stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return surface.vertices[order], rank[surface.faces]


def sdf_grid(fields: ImplicitFields, resolution: int = 128, progress: Callable[[float], None] | None = None) -> Tensor:
    """Signed distances [R + 2, R + 2, R + 2] on the grid i / (R - 1) * 2 - 1, x slowest, in a border of -1 (outside).

    ``progress`` is called with the share done.
    """
    if resolution < 2:
        raise ValueError(f"the resolution must be at least 2, got {resolution}")
    axis = torch.arange(resolution, device=fields.device, dtype=torch.float32) / (resolution - 1) * 2 - 1
    grid = torch.full((resolution + 2,) * 3, -1.0, device=fields.device)
    slab = max(1, BATCH // resolution**2)
    for start in range(0, resolution, slab):
        if progress is not None:
            progress(start / resolution)
        x, y, z = torch.meshgrid(axis[start : start + slab], axis, axis, indexing="ij")
        grid[1 + start : 1 + start + len(x), 1:-1, 1:-1] = fields.sdf(torch.stack([x, y, z], dim=-1))
    return grid


def extract(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Mesh of a padded grid [N, N, N] stretched over [-1, 1]^3: vertices [V, 3], faces [F, 3].

    The published code stretches the grid *with* its border, which shrinks the object by (N - 3) / (N - 1); what was built on
    its output (colours, point clouds) expects that, so it is kept.

    Raises:
        MeshError: there is no surface, or the grid holds NaN.
    """
    if not bool(torch.isfinite(grid).all()):
        raise MeshError("the signed distances hold NaN or infinity; the weights may be damaged")
    vertices, faces = marching_cubes(grid)
    if len(faces) == 0:
        raise MeshError("the sampled shape is empty (it has no surface); try another seed, prompt or photo")
    return vertices / (grid.shape[0] - 1) * 2 - 1, faces


def linear_from_srgb(rgb: Tensor) -> Tensor:
    """sRGB 0..1 -> linear light 0..1."""
    return torch.where(rgb <= SRGB_KNEE, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def decode_mesh(fields: ImplicitFields, resolution: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices [V, 3] (Shap-E's frame, z up), faces [F, 3] int64 and linear-light vertex colours [V, 3], on the device.

    Raises:
        MeshError: the shape has no surface.
    """
    vertices, faces = extract(sdf_grid(fields, resolution))
    return vertices, faces, linear_from_srgb(fields.stf_rgb(vertices))
