"""The cameras as the diffusion networks see them: 16 numbers per view."""

from __future__ import annotations

import torch
from torch import Tensor

from ...camera.cameras import orbit_poses
from ...camera.conventions import opengl_to_blender_world

AZIMUTHS = (0.0, 90.0, 180.0, 270.0)  # of the four views, in the networks' own count
# LGM counts azimuths from the network's second view: its 0, 90, 180 and 270 degrees are these views.
LGM_ORDER = (1, 2, 3, 0)


def diffusion_cameras(elevation: float = 0.0, image_view: bool = False) -> Tensor:
    """Camera-to-world matrices on the unit sphere in a z-up world, row by row: [4, 16] float32, azimuths ``AZIMUTHS``.

    Args:
        elevation: degrees, positive *above* the object (as everywhere here, in the original MVDream and in the standalone
            diffusers port; LGM's own copy counts the other way, which shows only where the elevation is not 0).
        image_view: append a fifth camera of zeros, that of ImageDream's own view of the picture: [5, 16].
    """
    poses = opengl_to_blender_world(orbit_poses(AZIMUTHS, elevation, 1.0)).reshape(4, 16)
    return torch.cat([poses, torch.zeros(1, 16)]) if image_view else poses
