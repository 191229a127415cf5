"""Gaussians -> mesh by way of a neural radiance field: the slower route, after the converter that LGM was published with.

:mod:`.pipeline` is the way in; :mod:`.settings` holds the numbers and says where they differ from the published ones.
"""

from .pipeline import gaussians_to_mesh_by_nerf
from .settings import NerfSettings

__all__ = ["NerfSettings", "gaussians_to_mesh_by_nerf"]
