"""What the depth of the Gaussians says about their radiance field: where it is full.

Pictures leave a field free where they do not look. Behind opaque surfaces it holds nothing, so that marching cubes finds an inner
surface besides the outer one, joined to it by pits wherever a colour is so even that pictures do not tell how deep it lies.
The fast route's fused depth (:mod:`..fusion`) knows what is inside; it is believed but where many views see something behind it,
as in hollows that it closes over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ..bounds import NormalisedObject
from ..capture import capture_depth, sphere_cameras
from ..clean import keep_large_components
from ..fusion import FAR, blur, fuse_depth
from ..marching import marching_cubes
from .settings import OBJECT_RADIUS

VIEWS, SIZE, RESOLUTION = 36, 192, 96
SIGHTS = 9  # views that must see a place for it to be no inside; through gaps between splats a few see anything
SIGHT_BLUR = 1.0  # voxels
REACH = 3.0  # voxels, within which the volumes go from 1 before a surface to -1 behind it
DEEP = 0.5  # behind it the field is overruled; nearer to the surface the field decides
STEEP = 4.0  # by how much the filling grows over a unit of the volume, in levels of the surface


@dataclass
class DepthGuide:
    """What is inside, in the field's frame.

    Attributes:
        volume: [X, Y, Z], -1 deep inside, 1 outside, about 0 on the surface.
        origin: [3], centre of the first voxel. voxel: edge length.
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
    splats = found.gaussians.to(device)
    depth, spread = capture_depth(splats, cameras, SIZE)
    known = depth, spread, cameras, found.half_extent, RESOLUTION
    volume, origin, voxel = fuse_depth(*known)
    if not bool((volume < 0).any()):  # as of a single splat
        volume, origin, voxel = fuse_depth(*known, splats)
    keep_large_components(*marching_cubes(volume, origin, voxel))
    axes = [torch.arange(n, device=device) * voxel + o for n, o in zip(volume.shape, origin, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    seen = sights(points, depth + spread, cameras.to(device), REACH * voxel).reshape(volume.shape)
    volume = torch.maximum(volume, blur(seen, SIGHT_BLUR))
    return DepthGuide(volume, origin * OBJECT_RADIUS, voxel * OBJECT_RADIUS)


def sights(points: Tensor, depth: Tensor, cameras: Cameras, reach: float) -> Tensor:
    """How far points [P, 3] lie before what a view sees, [P] in -1..1 (units of ``reach``): of all views the SIGHTS-th farthest.

    Args:
        depth: [V, H, W], camera z, infinity for background. cameras: batch (V,).
    """
    farthest = points.new_full((SIGHTS, len(points)), -1.0)  # in falling order
    for i, picture in enumerate(depth.clamp_max(FAR)):
        position, z = cameras[i].project(points)
        seen = F.grid_sample(picture[None, None], (position * 2 - 1)[None, None], mode="nearest", align_corners=False)
        ahead = ((seen[0, 0, 0] - z) / reach).clamp(-1, 1)
        for k in range(SIGHTS):
            farthest[k], ahead = torch.maximum(farthest[k], ahead), torch.minimum(farthest[k], ahead)
    return farthest[-1]
