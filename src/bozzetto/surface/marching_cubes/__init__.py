"""Samples on a regular grid -> triangles of a level set: marching cubes for CPU and GPU, slab by slab.

:mod:`.api` is the way in; :mod:`.table` derives the 256 cases of a cube. Three back ends give the same mesh to the last bit and
in the same order, whatever the height of the slabs: :mod:`.reference` (plain PyTorch, the oracle), :mod:`.cpu` (numba) and
:mod:`.triton`.
"""

from .api import GridSurface, Samples, grid_surface, marching_cubes

__all__ = ["GridSurface", "Samples", "grid_surface", "marching_cubes"]
