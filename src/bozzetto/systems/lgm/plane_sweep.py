"""What the pictures say about depth before any network looks: for points along each pixel's ray, whether all silhouettes cover
them and whether the pictures agree there on a colour.

The first is the visual hull of the masks, the second plane-sweep stereo (Collins 1996), as learned multi-view methods take it
for a cost volume (Yao et al. 2018, "MVSNet"). A small network need not find out by attention alone where rays meet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...camera.cameras import matvec
from ...nn.backend import use_kernels

CELL = 4  # pixels of the network's input along a side for each ray
REACH = 0.8  # world units before and behind the object's centre in which candidates lie
NEAR = 1e-2  # depth from which on a camera sees points, world units
FAINT = 1e-2  # least alpha that a premultiplied colour is divided by
COLOUR_GAIN = 4.0  # mean difference of rgb at which two pictures no longer agree at all: one over this


def sweep_planes(candidates: int) -> int:
    """How many input channels ``candidates`` points on each ray take: two numbers for each, folded ``CELL`` x ``CELL``."""
    planes, rest = divmod(2 * candidates, CELL * CELL)
    if rest:
        raise ValueError(f"candidates must be a multiple of {CELL * CELL // 2}, got {candidates}")
    return planes


@torch.no_grad()
def sweep_channels(rgba: Tensor, cameras: Cameras, known: Tensor, candidates: int) -> Tensor:
    """Input channels [B, V, sweep_planes(candidates), S, S]; folded by ``CELL``, they are 2 * candidates numbers for each ray.

    The first half of these: the least alpha among the known pictures at each candidate (0 beside a picture and behind a
    camera), minus a half. The second half: for slots with a picture, how well the best of the other pictures agrees with the
    ray's own colour (0..1, times that alpha); for slots without one, how bright the known pictures are there (the same).

    Args:
        rgba: [B, V, 4, S, S] straight alpha, ignored where ``known`` is 0. cameras: (B, V), object at the origin.
        known: [B, V] in {0, 1}.
        candidates: points on a ray, at equal distances around the one nearest to the object's centre.
    """
    if use_kernels(rgba):
        from .plane_sweep_triton import sweep

        return sweep(rgba, cameras, known, candidates).to(rgba.dtype)
    return sweep_torch(rgba, cameras, known, candidates)


@torch.no_grad()
def sweep_torch(rgba: Tensor, cameras: Cameras, known: Tensor, candidates: int) -> Tensor:
    """:func:`sweep_channels` in plain PyTorch: the model of the kernels, and the way without them."""
    b, v, _, size, _ = rgba.shape
    side = size // CELL
    # Flags are looked at only where that costs nothing: for those on a GPU the host would wait.
    cpu = rgba.device.type == "cpu"
    with torch.autocast(rgba.device.type, enabled=False):
        known, cameras = known.float(), cameras.to(torch.float32)
        pictures = _half_size(rgba.float(), known)  # [B, V, 4, S/2, S/2]
        own = F.avg_pool2d(pictures.flatten(0, 1), CELL // 2).unflatten(0, (b, v))  # [B, V, 4, side, side]
        own = own[:, :, :3] / own[:, :, 3:].clamp_min(FAINT)
        own = own.transpose(1, 2)[:, :, :, None]  # [B, 3, V, 1, side, side]
        origins, directions = cameras.rays(side)  # [B, V, side, side, 3]
        steps = REACH * torch.linspace(-1, 1, candidates, device=rgba.device)
        distance = (cameras.positions.norm(dim=-1)[..., None] + steps)[..., None, None]  # [B, V, D, 1, 1]
        view = cameras.view_matrices()
        hull = torch.ones(b, v, candidates, side, side, device=rgba.device)
        agreement, light, count = torch.zeros_like(hull), torch.zeros_like(hull), known.sum(1).clamp_min(1)
        compare, imagine = not cpu or bool((known.sum(1) > 1).any()), not cpu or bool((known == 0).any())
        for u in range(v):
            if cpu and not bool(known[:, u].any()):
                continue
            rotation = view[:, u, None, :3, :3]  # [B, 1, 3, 3]
            start = matvec(rotation, origins[:, :, 0, 0]) + view[:, u, None, :3, 3]  # [B, V, 3]
            along = matvec(rotation[:, :, None, None], directions)  # [B, V, side, side, 3]
            grid = projected(start, along, distance, cameras.intrinsics[:, u])
            seen = F.grid_sample(
                pictures[:, u], grid.view(b, -1, side, 2), mode="bilinear", padding_mode="zeros", align_corners=False
            ).view(b, 4, v, candidates, side, side)
            there = known[:, u, None, None, None, None]
            hull = torch.minimum(hull, seen[:, 3] + (1 - there))
            if imagine:
                light += seen[:, :3].sum(1)
            if compare:
                scale = 1 / seen[:, 3].clamp_min(FAINT)  # [B, V, D, side, side]
                difference = sum((seen[:, c] * scale - own[:, c]).abs_() for c in range(3))
                other = there * (torch.arange(v, device=rgba.device) != u).float()[:, None, None, None]
                agreement = torch.maximum(agreement, other * (1 - COLOUR_GAIN / 3 * difference))
        flag = known[:, :, None, None, None]
        second = (agreement * flag + light * ((1 - flag) / (3 * count[:, None, None, None, None]))) * hull
        both = torch.cat([hull - 0.5, second], dim=2).flatten(0, 1)  # [B * V, 2 D, side, side]
        return F.pixel_shuffle(both, CELL).unflatten(0, (b, v)).to(rgba.dtype)


def _half_size(rgba: Tensor, known: Tensor) -> Tensor:
    """[B, V, 4, S, S] straight alpha -> [B, V, 4, S/2, S/2] premultiplied; zeros where there is no picture."""
    rgba = torch.where(known[:, :, None, None, None] > 0, rgba, 0.0)
    pictures = torch.cat([rgba[:, :, :3] * rgba[:, :, 3:], rgba[:, :, 3:]], dim=2)
    return F.avg_pool2d(pictures.flatten(0, 1), 2).unflatten(0, rgba.shape[:2])


def projected(start: Tensor, along: Tensor, distance: Tensor, intrinsics: Tensor) -> Tensor:
    """Where a camera sees points ``start`` + ``distance`` * ``along`` of its own frame (x right, y down, z forward).

    Args:
        start: [B, V, 3]. along: [B, V, h, w, 3]. distance: [B, V, D, h, w] or [B, V, D, 1, 1]. intrinsics: [B, 4].

    Returns:
        [B, V, D, h, w, 2] in -1..1 inside the picture; beside it for points that are not before the camera.
    """
    fx, fy, cx, cy = (2 * i[:, None, None, None, None] for i in intrinsics.unbind(-1))
    x, y, z = (torch.addcmul(start[..., k, None, None, None], distance, along[:, :, None, ..., k]) for k in range(3))
    near = z.clamp_min(NEAR).reciprocal_()
    x = torch.where(z > NEAR, x.mul_(near).mul_(fx).add_(cx - 1), -3.0)
    return torch.stack([x, y.mul_(near).mul_(fy).add_(cy - 1)], dim=-1)
