"""Pictures of one object over time -> the network's input channels. Views are a level ring: front, 90, 180, 270 degrees."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ..lgm.inputs import normalize_rgb
from ..lgm.network import LGMConfig

RING = (0.0, 90.0, 180.0, 270.0)  # azimuths of the network's views in degrees; view 0 is the video's


def on_white(rgba: Tensor) -> Tensor:
    """Straight-alpha pictures [..., 4, H, W] -> [..., 3, H, W] on white."""
    return rgba[..., :3, :, :] * rgba[..., 3:, :, :] + 1 - rgba[..., 3:, :, :]


@lru_cache(maxsize=4)
def _ring_rays(size: int, radius: float, fov_y: float) -> Tensor:
    return Cameras.orbit(RING, 0.0, radius, fov_y).plucker(size)


def default_rays(config: LGMConfig) -> Tensor:
    """Plücker rays [4, 6, S, S] of the level ring of views (on the CPU)."""
    return _ring_rays(config.input_size, config.radius, config.fov_y)


def l4gm_inputs(rgb: Tensor, config: LGMConfig, rays: Tensor | None = None) -> Tensor:
    """The nine channels: pictures on white [B, T, 4, 3, S, S] in 0..1 -> [B, T, 4, 9, S, S], normalised, with rays.

    ``rays`` [4, 6, S, S] are those of the level ring unless given.
    """
    if rgb.shape[2] != len(RING) or rgb.shape[-2:] != (config.input_size, config.input_size):
        raise ValueError(
            f"expected [B, T, {len(RING)}, 3, {config.input_size}, {config.input_size}], got {tuple(rgb.shape)}"
        )
    rays = (default_rays(config) if rays is None else rays).to(rgb)
    return torch.cat([normalize_rgb(rgb), rays.expand(*rgb.shape[:2], *rays.shape)], dim=3)


def between(first: Tensor, last: Tensor, rate: int) -> Tensor:
    """Views of two moments [..., V, 3, S, S] -> the interpolation model's clip [..., rate + 1, V, 3, S, S].

    The moments between are mixtures of the two ends, in all views: the model was trained to make motion of them.
    """
    share = torch.arange(rate + 1, dtype=first.dtype, device=first.device) / rate
    share = share[:, None, None, None, None]
    return first.unsqueeze(-5) * (1 - share) + last.unsqueeze(-5) * share


def shrink(rgb: Tensor, size: int, nearest: bool = False) -> Tensor:
    """Renders [..., 3, R, R] -> [..., 3, size, size]: means of areas; ``nearest`` drops pixels, as the released script does."""
    if rgb.shape[-2:] == (size, size):
        return rgb
    flat = rgb.flatten(0, -4)
    small = F.interpolate(flat, (size, size), mode="nearest" if nearest else "area")
    return small.reshape(*rgb.shape[:-2], size, size)
