"""Side views of Gaussians, and from which side the video looks at the object that the multi-view diffusion made."""

from __future__ import annotations

import torch
from torch import Tensor

from ...camera import Cameras
from ...gaussians import Gaussians
from ...raster import rasterize
from ..lgm.network import LGMConfig
from .inputs import RING, shrink

WHITE = (1.0, 1.0, 1.0)
CALL = 30  # azimuths in one call of the rasterizer: 100 MB of pictures at 512 pixels
COARSE = 4  # degrees between the azimuths of the first look
BEST = 3  # of the first look, around which every degree is tried


def render(gaussians: Gaussians, cameras: Cameras, config: LGMConfig, nearest: bool = False) -> Tensor:
    """Pictures on white at the network's input size, channels first: Gaussians [*S] and cameras (V,) -> [*S, V, 3, s, s].

    Rendered at the resolution of the training renders and reduced (:func:`inputs.shrink`).
    """
    picture = rasterize(gaussians, cameras, config.output_size, WHITE, near=config.znear, far=config.zfar)
    return shrink(picture.rgb.clamp(0, 1).movedim(-1, -3), config.input_size, nearest)


def ring_cameras(config: LGMConfig, azimuth: float = 0.0, elevation: float = 0.0) -> Cameras:
    """The network's four cameras (4,), with the first at ``azimuth`` and ``elevation`` in degrees.

    The ring is level in the *first camera's* own frame, the only layout that the network knows: the others stand beside and
    behind it, around its up axis.
    """
    ring = Cameras.orbit(RING, 0.0, config.radius, config.fov_y)
    if azimuth == 0.0 and elevation == 0.0:
        return ring
    return ring.transformed(tilt(azimuth, elevation))


def tilt(azimuth: float, elevation: float) -> Tensor:
    """Rotation [4, 4] from the network's frame (first camera on +z, level) to the world where it stands at these angles."""
    matrix = torch.eye(4)
    matrix[:3, :3] = Cameras.orbit([azimuth], elevation).camera_to_world[0, :3, :3]
    return matrix


@torch.no_grad()
def azimuth_errors(
    gaussians: Gaussians, picture: Tensor, azimuths: list[int], elevation: float, config: LGMConfig
) -> Tensor:
    """Mean squared difference (on the CPU, one per azimuth) of ``picture`` [3, s, s] on white from renders at ``azimuths``."""
    errors = []
    for i in range(0, len(azimuths), CALL):
        cameras = Cameras.orbit([float(a) for a in azimuths[i : i + CALL]], elevation, config.radius, config.fov_y)
        views = render(gaussians, cameras, config)  # [A, 3, s, s]
        errors.append((views - picture.to(views)).square().flatten(1).mean(1))
    return torch.cat(errors).cpu()


def find_azimuth(
    gaussians: Gaussians, picture: Tensor, config: LGMConfig, elevation: float = 0.0, every_degree: bool = False
) -> int:
    """The azimuth in degrees (-180..179) from which ``gaussians`` (unbatched) look most like ``picture`` [3, s, s] on white.

    Args:
        elevation: of the camera, degrees above.
        every_degree: try all 360, as the released script does; by default every fourth, then all beside the best three.
    """
    if every_degree:
        tried = list(range(-180, 180))
        return tried[int(azimuth_errors(gaussians, picture, tried, elevation, config).argmin())]
    tried = list(range(-180, 180, COARSE))
    errors = azimuth_errors(gaussians, picture, tried, elevation, config).tolist()
    best = sorted(range(len(tried)), key=lambda i: errors[i])[:BEST]
    near = {(tried[i] + d + 180) % 360 - 180 for i in best for d in range(1 - COARSE, COARSE)} - set(tried)
    fine = sorted(near)
    errors += azimuth_errors(gaussians, picture, fine, elevation, config).tolist()
    tried += fine
    return tried[min(range(len(tried)), key=lambda i: errors[i])]
