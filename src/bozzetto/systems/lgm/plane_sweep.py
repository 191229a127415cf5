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

CELL = 4  # pixels of the network's input along a side for each ray
REACH = 0.8  # world units before and behind the object's centre in which candidates lie
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

    The first half of these: the least alpha among the known pictures at each candidate, minus a half. The second half: for
    slots with a picture, how well the best of the other pictures agrees with the ray's own colour (0..1, times the first);
    for slots without one, how bright the known pictures are there (0..1, times the first).

    Args:
        rgba: [B, V, 4, S, S] straight alpha. cameras: (B, V), object at the origin. known: [B, V] in {0, 1}.
        candidates: points on a ray, at equal distances around the one nearest to the object's centre.
    """
    b, v, _, size, _ = rgba.shape
    side = size // CELL
    rgba, known = rgba.float(), known.float()
    with torch.autocast(rgba.device.type, enabled=False):
        alpha = rgba[:, :, 3:] * known[:, :, None, None, None]
        pictures = torch.cat([rgba[:, :, :3] * alpha, alpha], dim=2)  # premultiplied
        pictures = F.avg_pool2d(pictures.flatten(0, 1), 2).unflatten(0, (b, v))  # [B, V, 4, S/2, S/2]
        own = F.avg_pool2d(pictures.flatten(0, 1), CELL // 2).unflatten(0, (b, v))  # [B, V, 4, side, side]
        own = own[:, :, :3] / own[:, :, 3:].clamp_min(1e-2)
        origins, directions = cameras.rays(side)  # [B, V, side, side, 3]
        steps = REACH * torch.linspace(-1, 1, candidates, device=rgba.device)
        distance = (cameras.positions.norm(dim=-1)[..., None] + steps)[..., None, None]  # [B, V, D, 1, 1]
        view = cameras.view_matrices()
        hull = rgba.new_ones(b, v, candidates, side, side)
        agreement, light, count = torch.zeros_like(hull), torch.zeros_like(hull), known.sum(1).clamp_min(1)
        for u in range(v):
            if known.device.type == "cpu" and not bool(known[:, u].any()):
                continue  # nothing to be seen; on a GPU, looking would make the host wait
            rotation = view[:, u, None, :3, :3]  # [B, 1, 3, 3]
            start = matvec(rotation, origins[:, :, 0, 0]) + view[:, u, None, :3, 3]  # [B, V, 3]
            along = matvec(rotation[:, :, None, None], directions)  # [B, V, side, side, 3]
            x, y, z = (
                start[..., k, None, None, None] + distance * along[:, :, None, ..., k] for k in range(3)
            )  # [B, V, D, side, side]
            fx, fy, cx, cy = (i[:, None, None, None, None] for i in cameras.intrinsics[:, u].unbind(-1))
            scale = 2 / z.clamp_min(1e-2)
            grid = torch.stack([x * scale * fx + (2 * cx - 1), y * scale * fy + (2 * cy - 1)], dim=-1)
            seen = F.grid_sample(
                pictures[:, u], grid.view(b, -1, side, 2), mode="bilinear", padding_mode="zeros", align_corners=False
            ).view(b, 4, v, candidates, side, side)
            there = known[:, u, None, None, None, None]
            hull = torch.minimum(hull, seen[:, 3] + (1 - there))
            colour = seen[:, :3] / seen[:, 3:].clamp_min(1e-2)
            difference = (colour - own.transpose(1, 2)[:, :, :, None]).abs().mean(1)  # [B, V, D, side, side]
            other = there * (torch.arange(v, device=rgba.device) != u).float()[:, None, None, None]
            agreement = torch.maximum(agreement, other * (1 - COLOUR_GAIN * difference).clamp_min(0))
            light = light + seen[:, :3].mean(1) / count[:, None, None, None, None]
        flag = known[:, :, None, None, None]
        second = (agreement * flag + light * (1 - flag)) * hull
        both = torch.cat([hull - 0.5, second], dim=2).flatten(0, 1)  # [B * V, 2 D, side, side]
        return F.pixel_shuffle(both, CELL).unflatten(0, (b, v)).to(rgba.dtype)
