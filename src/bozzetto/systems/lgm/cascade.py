"""The plane sweep once more, as fine as the Gaussians, around the depth at which the U-Net would put them.

The first sweep (``plane_sweep.py``) looks everywhere along a few rays; this one looks closely: what the other pictures show where
a splat is about to be placed, and a little before and behind it (after Gu et al. 2020, "Cascade cost volume for high-resolution
multi-view stereo and stereo matching"), and whether the surfaces that the U-Net gives the other slots pass through that place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...camera.cameras import matvec
from ...nn.backend import use_kernels
from .inputs import IMAGENET_MEAN, IMAGENET_STD
from .plane_sweep import COLOUR_GAIN, FAINT, projected

SPACING = 1.0  # of the depths, in footprints of a Gaussian's pixel at the object's centre
APART = 0.1  # world units between two surfaces that count as 1
CLOSE = 4.0  # surfaces agree the better the nearer they are, from one over this of APART on
COVERED = 0.25  # share of the four neighbours that must show the object where another slot's surface is looked up
SURFACES = 3  # channels about the other slots' surfaces


def cascade_planes(depths: int) -> int:
    """Channels of :func:`cascade_channels`."""
    return 2 * depths + SURFACES if depths else 0


def cascade_depths(planes: int) -> int:
    """Of how many depths :func:`cascade_planes` is ``planes``."""
    return max(int(planes) - SURFACES, 0) // 2


@torch.no_grad()
def small_pictures(inputs: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """The pictures that the network's input [B, V, Cin, S, S] begins with, made smaller: [B, V, 4, S/fold, S/fold] premultiplied,
    zeros where there is none; and which there are, [B, V]."""
    flag = inputs[:, :, 4, 0, 0].float()
    small = F.avg_pool2d(inputs[:, :, :4].flatten(0, 1).float(), fold).unflatten(0, flag.shape)
    alpha = small[:, :, 3]
    beside = alpha - flag[..., None, None]  # minus the white background's share
    planes = zip(small[:, :, :3].unbind(2), IMAGENET_MEAN, IMAGENET_STD)
    # Whether it is a picture's or all zeros, a colour's mean is taken off again by the flag.
    colours = [x * std + mean * flag[..., None, None] + beside for x, mean, std in planes]
    return torch.stack([*colours, alpha], dim=2), flag


@torch.no_grad()
def cascade_channels(
    pictures: Tensor, known: Tensor, cameras: Cameras, distance: Tensor, depths: int, dtype: torch.dtype
) -> Tensor:
    """Evidence [B * V, cascade_planes(depths), h, h], channels-last, about each Gaussian and points around it on its ray.

    The first ``depths``: the least alpha among the other known pictures at each point (0 beside a picture and behind a camera,
    1 where there is no other picture), minus a half. The next ``depths``: for slots with a picture, how well the best of the
    others agrees with the ray's own colour (0..1, times that alpha); for slots without one, how bright the known pictures are
    there. Then, of the distances by which the Gaussian lies behind the surfaces that the other slots with pictures have there,
    in ``APART`` within -1 and 1: the least, if below 0; that nearest to 0; and how many are close to 0 (1: three that are 0).

    Args:
        pictures: [B, V, 4, h, h] premultiplied, zeros where ``known`` is 0. known: [B, V] in {0, 1}.
        cameras: (B, V), object at the origin.
        distance: [B, V, h, h] of the Gaussians, world units along the ray. depths: a multiple of four.
        dtype: of the result.
    """
    if depths % 4:
        raise ValueError(f"depths must be a multiple of 4, got {depths}")
    if use_kernels(pictures):
        from .cascade_triton import cascade

        return cascade(pictures, known, cameras, distance, depths, dtype)
    return cascade_torch(pictures, known, cameras, distance, depths, dtype)


@torch.no_grad()
def cascade_torch(
    pictures: Tensor, known: Tensor, cameras: Cameras, distance: Tensor, depths: int, dtype: torch.dtype
) -> Tensor:
    """:func:`cascade_channels` in plain PyTorch: the model of the kernel, and the way without it."""
    b, v, _, size, _ = pictures.shape
    cpu = pictures.device.type == "cpu"  # flags are looked at only where that costs nothing
    with torch.autocast(pictures.device.type, enabled=False):
        pictures, known = pictures.float(), known.float()
        cameras = cameras.to(torch.float32)
        own = pictures[:, :, :3] / pictures[:, :, 3:].clamp_min(FAINT)
        own = own.transpose(1, 2)[:, :, :, None]  # [B, 3, V, 1, h, h]
        origins, directions = cameras.rays(size)  # [B, V, h, h, 3]
        centre = cameras.positions.norm(dim=-1)
        step = SPACING / size * centre / cameras.intrinsics[..., 1]  # [B, V]
        number = torch.arange(depths, device=pictures.device) - 0.5 * (depths - 1)
        along = distance.float()[:, :, None] + step[..., None, None, None] * number[:, None, None]  # [B, V, D, h, h]
        view = cameras.view_matrices()
        hull = torch.ones_like(along)
        agreement, light, count = torch.zeros_like(hull), torch.zeros_like(hull), torch.zeros_like(centre)
        for u in range(v):
            if cpu and not bool(known[:, u].any()):
                continue
            rotation = view[:, u, None, :3, :3]  # [B, 1, 3, 3]
            start = matvec(rotation, origins[:, :, 0, 0]) + view[:, u, None, :3, 3]  # [B, V, 3]
            ray = matvec(rotation[:, :, None, None], directions)  # [B, V, h, h, 3]
            grid = projected(start, ray, along, cameras.intrinsics[:, u])
            seen = F.grid_sample(
                pictures[:, u], grid.view(b, -1, size, 2), mode="bilinear", padding_mode="zeros", align_corners=False
            ).view(b, 4, v, depths, size, size)
            other = known[:, u, None] * (torch.arange(v, device=pictures.device) != u).float()  # [B, V]
            count = count + other
            other = other[:, :, None, None, None]
            hull = torch.minimum(hull, seen[:, 3] + (1 - other))
            light += other * seen[:, :3].sum(1)
            scale = 1 / seen[:, 3].clamp_min(FAINT)  # [B, V, D, h, h]
            difference = sum((seen[:, c] * scale - own[:, c]).abs_() for c in range(3))
            agreement = torch.maximum(agreement, other * (1 - COLOUR_GAIN / 3 * difference))
        flag = known[:, :, None, None, None]
        second = (agreement * flag + light * ((1 - flag) / (3 * count.clamp_min(1)[:, :, None, None, None]))) * hull
        surfaces = _surfaces(pictures[:, :, 3], known, cameras, distance.float())
        every = torch.cat([hull - 0.5, second, surfaces], dim=2).flatten(0, 1)  # [B * V, 2 D + 3, h, h]
        return every.to(dtype).contiguous(memory_format=torch.channels_last)


def _surfaces(alpha: Tensor, known: Tensor, cameras: Cameras, distance: Tensor) -> Tensor:
    """The last channels of :func:`cascade_channels`, [B, V, SURFACES, h, h]; ``alpha`` and ``distance`` [B, V, h, h]."""
    b, v, size, _ = distance.shape
    origins, directions = cameras.rays(size)
    view = cameras.view_matrices()
    shown = (alpha > 0.5).float()
    sheets = torch.stack([distance * shown, shown], dim=2)  # [B, V, 2, h, h]
    least = torch.zeros_like(distance)
    nearest, many = torch.full_like(distance, 2.0), torch.zeros_like(distance)
    for u in range(v):
        rotation = view[:, u, None, :3, :3]
        start = matvec(rotation, origins[:, :, 0, 0]) + view[:, u, None, :3, 3]  # [B, V, 3]
        ray = matvec(rotation[:, :, None, None], directions)  # [B, V, h, h, 3]
        grid = projected(start, ray, distance[:, :, None], cameras.intrinsics[:, u])
        sheet = F.grid_sample(
            sheets[:, u], grid.view(b, -1, size, 2), mode="bilinear", padding_mode="zeros", align_corners=False
        ).view(b, 2, v, size, size)
        away = (start[:, :, None, None] + ray * distance[..., None]).norm(dim=-1)  # [B, V, h, h] from the other camera
        behind = ((away - sheet[:, 0] / sheet[:, 1].clamp_min(COVERED)) / APART).clamp(-1, 1)
        other = known[:, u, None] * (torch.arange(v, device=known.device) != u).float()
        seen = (other[:, :, None, None] > 0) & (sheet[:, 1] > COVERED)
        least = torch.where(seen, torch.minimum(least, behind), least)
        nearest = torch.where(seen & (behind.abs() < nearest.abs()), behind, nearest)
        many = many + torch.where(seen, (1 - CLOSE * behind.abs()).clamp_min(0) / SURFACES, 0.0)
    return torch.stack([least, torch.where(nearest > 1, 0.0, nearest), many], dim=2)
