"""The cameras as the diffusion networks see them: 16 numbers per view."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera.cameras import orbit_poses
from ...camera.conventions import opengl_to_blender_world

AZIMUTHS = (0.0, 90.0, 180.0, 270.0)  # of the four views, in the networks' own count
# LGM counts azimuths from the network's second view: its 0, 90, 180 and 270 degrees are these views.
LGM_ORDER = (1, 2, 3, 0)


def camera_vectors(camera_to_world: Tensor) -> Tensor:
    """Any cameras [..., 4, 4] (OpenGL axes, y-up world, looking at the origin) as the networks see them: [..., 16].

    The networks were trained with cameras on the unit sphere, so the distance is divided out. They show an object's front at
    azimuth 90 of their own count: turn the poses by 90 degrees about y first where the front is to look along +z.
    """
    poses = opengl_to_blender_world(camera_to_world.float())
    position = F.normalize(poses[..., :3, 3:], dim=-2)
    top = torch.cat([poses[..., :3, :3], position], dim=-1)
    return torch.cat([top, poses[..., 3:, :]], dim=-2).flatten(-2)


def diffusion_cameras(elevation: float = 0.0, image_view: bool = False) -> Tensor:
    """Camera-to-world matrices on the unit sphere in a z-up world, row by row: [4, 16] float32, azimuths ``AZIMUTHS``.

    Args:
        elevation: degrees, positive *above* the object (as everywhere here, in the original MVDream and in the standalone
            diffusers port; LGM's own copy counts the other way, which shows only where the elevation is not 0).
        image_view: append a fifth camera of zeros, that of ImageDream's own view of the picture: [5, 16].
    """
    poses = camera_vectors(orbit_poses(AZIMUTHS, elevation, 1.0))
    return torch.cat([poses, torch.zeros(1, 16)]) if image_view else poses
