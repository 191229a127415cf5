"""Raw channels of the U-Net -> Gaussians. Two heads: LGM's own, and one along the pixel's ray that trains faster."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...gaussians import Gaussians
from ...nn.backend import use_kernels

# Channels, in this order: position 0:3, opacity 3, scale 4:7, quaternion (w, x, y, z) 7:11, rgb 11:14.


def _per_gaussian(x: Tensor) -> Tensor:  # [B, V, C, h, w] -> [B, V*h*w, C], view-major, then rows
    b, v, c, h, w = x.shape
    return x.permute(0, 1, 3, 4, 2).reshape(b, v * h * w, c)


def activate_lgm(raw: Tensor, rotation: str = "fixed") -> Tensor:
    """LGM's activations: raw [B, V, 14, h, w] -> [B, N, 14] with N = V*h*w, world units, in the channel order above.

    ``rotation="legacy"`` divides each quaternion component by its norm over all Gaussians, as the code before April 2024
    did by mistake; the checkpoints of that time were trained with it and need it.
    """
    x = _per_gaussian(raw).float()
    position = x[..., 0:3].clamp(-1, 1)
    opacity = torch.sigmoid(x[..., 3:4])
    scale = 0.1 * F.softplus(x[..., 4:7])
    if rotation == "legacy":
        quaternion = F.normalize(x[..., 7:11], dim=1)
    elif rotation == "fixed":
        quaternion = F.normalize(x[..., 7:11], dim=-1)
    else:
        raise ValueError(f"rotation must be 'fixed' or 'legacy', got {rotation!r}")
    rgb = 0.5 * torch.tanh(x[..., 11:14]) + 0.5
    return torch.cat([position, opacity, scale, quaternion, rgb], dim=-1)


def lgm_head(raw: Tensor, rotation: str = "fixed") -> Gaussians:
    """Gaussians [B, N] of :func:`activate_lgm`.

    Legacy quaternions are tiny, and the rasterizer they were trained with does not normalise: their rotation is the
    identity plus a small term 2 w (x, y, z) x. The unit quaternion of that rotation is (1, w x, w y, w z), up to second
    order, which every rasterizer draws alike.
    """
    x = activate_lgm(raw, rotation)
    quats = x[..., 7:11]
    if rotation == "legacy":
        quats = torch.cat([torch.ones_like(quats[..., :1]), quats[..., :1] * quats[..., 1:]], dim=-1)
        quats = F.normalize(quats, dim=-1)
    return Gaussians.from_rgb(x[..., 0:3], x[..., 4:7], quats, x[..., 3], x[..., 11:14])


# The ray head's ranges.
DEPTH_RANGE = 0.9  # world units before and behind the object's centre; objects have radius up to 0.85
OFFSET_RANGE = 4.0  # pixel footprints sideways
SCALE_BIAS, SCALE_RANGE = -0.7, 2.5  # log of the scale in pixel footprints: bias +- range
MASK_GAIN = 6.0  # logits by which a known view's own mask opens or closes its Gaussians
UNSEEN_OPACITY = -2.0  # opacity logit where there is no picture, before training
RANGES = (DEPTH_RANGE, OFFSET_RANGE, SCALE_BIAS, SCALE_RANGE, MASK_GAIN, UNSEEN_OPACITY)


def ray_depth(raw: Tensor, cameras: Cameras) -> Tensor:
    """Distance from the camera along each pixel's ray, world units: raw [B, V, 14, h, w] -> [B, V, h, w]."""
    return _distance(raw[:, :, 0].float(), cameras)


def _distance(raw: Tensor, cameras: Cameras) -> Tensor:
    """:func:`ray_depth` from its channel alone, [B, V, h, w]."""
    return cameras.positions.norm(dim=-1)[..., None, None] + DEPTH_RANGE * torch.tanh(raw)


def ray_head(raw: Tensor, cameras: Cameras, rgba: Tensor, known: Tensor) -> Gaussians:
    """One Gaussian per output pixel, on its ray near the object's centre (the world origin).

    Compared with LGM's free positions, every quantity starts where a photo puts it: the pixel's own colour, its mask, its
    ray and its footprint; the network predicts the difference. Slots without a picture start from the mean colour.

    Args:
        raw: [B, V, 14, h, w].
        cameras: batch shape (B, V), object centred at the origin.
        rgba: [B, V, 4, H, W] straight alpha, the pictures; ignored where ``known`` is 0.
        known: [B, V] 1 where a slot has a picture, 0 where its side is to be imagined.
    """
    alpha, colour = first_guess(rgba, known, raw.shape[-2:])
    given = (alpha, colour, cameras.camera_to_world, cameras.intrinsics)
    if use_kernels(raw) and not any(t.requires_grad for t in given):
        from .heads_triton import RayHead

        means, scales, quats, opacities, rgb = RayHead.apply(
            raw, alpha, colour, known, cameras.camera_to_world, cameras.intrinsics, RANGES
        )
        return Gaussians.from_rgb(means, scales, quats, opacities[..., 0], rgb)
    return ray_head_torch(raw, cameras, alpha, colour, known)


def first_guess(rgba: Tensor, known: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Alpha [B, V, 1, h, w] and straight colour [B, V, 3, h, w] that the Gaussians of ``size`` (h, w) start from."""
    b, v = known.shape
    known = known.float()[:, :, None, None, None]
    alpha = F.interpolate(rgba[:, :, 3:].flatten(0, 1).float(), tuple(size), mode="area").unflatten(0, (b, v)) * known
    colour = F.interpolate((rgba[:, :, :3] * rgba[:, :, 3:]).flatten(0, 1).float(), tuple(size), mode="area")
    colour = colour.unflatten(0, (b, v)) * known  # premultiplied, [B, V, 3, h, w]
    weight = alpha.sum((1, 3, 4), keepdim=True)
    mean = colour.sum((1, 3, 4), keepdim=True) / weight.clamp_min(1e-3)  # [B, 1, 3, 1, 1]
    colour = torch.where((known > 0) & (alpha > 1e-2), colour / alpha.clamp_min(1e-2), mean).clamp(0.02, 0.98)
    return alpha, colour


def ray_head_torch(raw: Tensor, cameras: Cameras, alpha: Tensor, colour: Tensor, known: Tensor) -> Gaussians:
    """:func:`ray_head` in plain PyTorch, from alpha and colour of each Gaussian's pixel."""
    b, v, _, h, w = raw.shape
    # Split once: the gradient of each slice of its own would be a pass over all channels.
    distance, offset, opacity, scale, quaternion, tint = raw.float().split((1, 2, 1, 3, 4, 3), dim=2)
    known = known.to(distance)[:, :, None, None, None]
    origins, directions = cameras.rays((h, w))  # [B, V, h, w, 3]
    depth = _distance(distance[:, :, 0], cameras)[..., None]  # [B, V, h, w, 1]
    footprint = depth / (cameras.intrinsics[..., 1] * h)[..., None, None, None]  # one pixel, world units
    axes = cameras.camera_to_world[..., None, None, :3, :2]  # right and up, [B, V, 1, 1, 3, 2]
    offset = OFFSET_RANGE * torch.tanh(offset / OFFSET_RANGE)
    offset = offset.permute(0, 1, 3, 4, 2)[..., None, :]  # [B, V, h, w, 1, 2]
    means = origins + directions * depth + footprint * (axes * offset).sum(-1)

    log_scale = SCALE_BIAS + SCALE_RANGE * torch.tanh(scale / SCALE_RANGE)
    scales = footprint * torch.exp(log_scale).permute(0, 1, 3, 4, 2)
    opacity = opacity + known * MASK_GAIN * (2 * alpha - 1) + (1 - known) * UNSEEN_OPACITY
    rgb = torch.sigmoid(torch.logit(colour) + tint)
    real, imaginary = quaternion.split((1, 3), dim=2)
    return Gaussians.from_rgb(
        means.reshape(b, v * h * w, 3),
        scales.reshape(b, v * h * w, 3),
        F.normalize(_per_gaussian(torch.cat([real + 1, imaginary], dim=2)), dim=-1),
        torch.sigmoid(_per_gaussian(opacity))[..., 0],
        _per_gaussian(rgb),
    )
