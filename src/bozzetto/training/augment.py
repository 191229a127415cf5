"""LGM's two augmentations: they imitate what a multi-view diffusion model gets wrong, views that do not quite agree.

Grid distortion bends the pictures of the input views; camera jitter turns the cameras that their ray maps are made of. Both
leave the first view alone, and neither touches the targets. (Tang et al., "LGM", 2024, section 3.4.)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_KNOTS, MAX_KNOTS = 8, 16


def uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform draws in [0, 1) on ``device``, the same for one seed whatever device the generator lives on."""
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source).to(device)


def distorted_axis(length: int, draws: Tensor, strength: float) -> Tensor:
    """Where each pixel of an axis looks, in -1..1: [N, length], from uniform ``draws`` [N, knots].

    Equally spaced knots are moved by at most half of ``strength`` knot spacings and rounded down to pixels; between two
    knots the undistorted coordinate runs linearly, both ends included.
    """
    n, knots = draws.shape
    device = draws.device
    place = torch.linspace(0, 1, knots, device=device) + strength * (draws.float() - 0.5) / (knots - 1)
    pixel = (place.clamp(0, 1) * length).long()  # [N, knots]
    pixel[:, 0], pixel[:, -1] = 0, length
    value = torch.linspace(-1, 1, knots, device=device)
    i = torch.arange(length, device=device).expand(n, length)
    segment = torch.searchsorted(pixel, i.contiguous(), right=True) - 1  # the last knot at or before the pixel
    start, end = pixel.gather(1, segment), pixel.gather(1, segment + 1)
    share = (i - start) / (end - start - 1).clamp_min(1)
    return torch.lerp(value[segment], value[segment + 1], share)


def grid_distortion(
    images: Tensor,
    strength: float = 0.5,
    *,
    draws: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Bend pictures [N, C, H, W] by a random grid; what is looked up outside of a picture is 0.

    Args:
        images: any float type; computed in float32.
        strength: 0..1, the share of a grid cell by which a knot may move.
        draws: (x [N, knots], y [N, knots]), uniform in [0, 1); by default drawn, 8 to 16 knots for the whole call.
        generator: source of the draws.
    """
    n, _, height, width = images.shape
    if not 0 <= strength <= 1:
        raise ValueError(f"grid distortion strength must be within 0 and 1, got {strength}")
    if draws is None:
        device = images.device if generator is None else generator.device
        knots = int(torch.randint(MIN_KNOTS, MAX_KNOTS + 1, (), generator=generator, device=device))
        draws = uniform((n, knots), generator, images.device), uniform((n, knots), generator, images.device)
    x, y = distorted_axis(width, draws[0], strength), distorted_axis(height, draws[1], strength)
    grid = torch.stack([x[:, None, :].expand(n, height, width), y[:, :, None].expand(n, height, width)], dim=-1)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False).to(images)


def rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] about unit ``axis`` [N, 3] by ``angle`` [N] radians (Rodrigues)."""
    zero = torch.zeros_like(angle)
    x, y, z = axis.unbind(-1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)  # [N, 9] -> [N, 3, 3]
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3, device=axis.device, dtype=axis.dtype) + sin * cross + (1 - cos) * (cross @ cross)


def camera_jitter(
    poses: Tensor,
    strength: float = 0.1,
    *,
    draws: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turn cameras [N, 4, 4] (camera to world) about the world's origin, position and orientation alike.

    Args:
        poses: camera-to-world matrices, OpenGL axes.
        strength: at most strength * 180 degrees about the camera's up axis and half of that about its right axis.
        draws: (up [N] or [N, 1], right [N] or [N, 1]), uniform in [0, 1); by default drawn.
        generator: source of the draws.
    """
    n = poses.shape[0]
    if draws is None:
        draws = uniform((n,), generator, poses.device), uniform((n,), generator, poses.device)
    up, right = (2 * draw.reshape(n).to(poses) - 1 for draw in draws)
    turn = rotation(poses[:, :3, 1], strength * math.pi * up) @ rotation(
        poses[:, :3, 0], 0.5 * strength * math.pi * right
    )
    result = poses.clone()
    result[:, :3] = turn @ poses[:, :3]
    return result


def augment_views(
    images: Tensor,
    poses: Tensor,
    *,
    distortion_probability: float = 0.5,
    jitter_probability: float = 0.5,
    distortion_strength: float = 0.5,
    jitter_strength: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Both augmentations on a batch of input views, each object by its own coin; the first view stays as it is.

    Args:
        images: [B, V, C, H, W], before normalisation. Composite them first: what enters from outside is 0.
        poses: [B, V, 4, 4] camera to world, for the ray maps only.

    Returns:
        New images and poses of the same shapes.
    """
    b, v = images.shape[:2]
    if v < 2:
        return images, poses
    images, poses = images.clone(), poses.clone()
    others = b * (v - 1)
    coins = uniform((2, b), generator, images.device)
    bent = grid_distortion(images[:, 1:].reshape(others, *images.shape[2:]), distortion_strength, generator=generator)
    turned = camera_jitter(poses[:, 1:].reshape(others, 4, 4), jitter_strength, generator=generator)
    bend = (coins[0] < distortion_probability).view(b, 1, 1, 1, 1)
    turn = (coins[1] < jitter_probability).to(poses.device).view(b, 1, 1, 1)
    images[:, 1:] = torch.where(bend, bent.reshape(images[:, 1:].shape), images[:, 1:])
    poses[:, 1:] = torch.where(turn, turned.reshape(poses[:, 1:].shape), poses[:, 1:])
    return images, poses
