"""What the depth of the Gaussians says about their radiance field: where it is full.

Pictures leave a field free where they do not look. Behind opaque surfaces it holds nothing, so that marching cubes finds an inner
surface besides the outer one, joined to it by pits wherever a colour is so even that pictures do not tell how deep it lies.
The fast route's fused depth (:mod:`..fusion`) knows what is inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bounds import NormalisedObject
from ..capture import capture_depth, sphere_cameras
from ..clean import keep_large_components
from ..fusion import fuse_depth
from ..marching import marching_cubes
from .settings import OBJECT_RADIUS

VIEWS, SIZE, RESOLUTION = 36, 192, 96
# Of the fused volume, which goes from 1 to -1 within three voxels before and behind a surface. Nearer to it the field decides.
DEEP = 0.5
STEEP = 4.0  # by how much the filling grows over a unit of the volume, in levels of the surface


@dataclass
class DepthGuide:
    """Fused depth in the field's frame.

    Attributes:
        volume: [X, Y, Z], below 0 inside. origin: [3], centre of its first voxel. voxel: edge length.
    """

    volume: Tensor
    origin: Tensor
    voxel: float

    def at(self, points: Tensor) -> Tensor:
        """The volume [P] at points [P, 3], linear between voxels; as at the border outside of it, where nothing is."""
        sides = torch.tensor(self.volume.shape, device=points.device, dtype=points.dtype)
        place = (points - self.origin) / self.voxel / (sides - 1) * 2 - 1
        # grid_sample wants the volume's last axis first.
        grid = place.flip(-1)[None, None, None]
        return F.grid_sample(self.volume[None, None], grid, padding_mode="border", align_corners=True)[0, 0, 0, 0]

    def filling(self, points: Tensor) -> Tensor:
        """Density [P] in levels of the surface: 1 as deep inside as the field is overruled, rising to 2 within and 0 before."""
        return (1 - STEEP * (self.at(points) + DEEP)).clamp(0, 2)


@torch.no_grad()
def depth_guide(found: NormalisedObject, device: torch.device) -> DepthGuide:
    """The guide of an object; pictures and volume are made on ``device``.

    Raises:
        MeshError: there is no surface; in the fast route's words, and before minutes are spent.
    """
    cameras = sphere_cameras(VIEWS)
    depth, spread = capture_depth(found.gaussians.to(device), cameras, SIZE)
    volume, origin, voxel = fuse_depth(depth, spread, cameras, found.half_extent, RESOLUTION)
    keep_large_components(*marching_cubes(volume, origin, voxel))
    return DepthGuide(volume, origin * OBJECT_RADIUS, voxel * OBJECT_RADIUS)
