"""Pictures of a shape's radiance field as published: 64 stratified samples a ray, then 128 where they found something.

The second pass evaluates all of its 192 positions with the fine outputs. No viewing direction is given to the MLP. Film and
preview use the faster baked field of ``field.py``; this is the exact renderer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...camera import Cameras
from .transmitter import ImplicitFields

COARSE, FINE = 64, 128
FOV_Y = math.degrees(0.7)
PAN_RADIUS = 4.0
SLACK = 1e-6  # keeps the box test finite on rays along an axis
FLOOR = 1e-5  # weight of bins that the first pass found empty
RAYS = 4096  # marched at once


def pan_cameras(count: int = 20) -> Cameras:
    """The published preview cameras (count,) in Shap-E's frame: once around, seen from above, the first from -y.

    First and last stand in the same place, as published.
    """
    turn = torch.linspace(0, 2 * math.pi, count, dtype=torch.float64)
    forward = torch.stack([turn.sin(), turn.cos(), torch.full_like(turn, -0.5)], dim=-1)
    forward = forward / forward.norm(dim=-1, keepdim=True)
    right = torch.stack([turn.cos(), -turn.sin(), torch.zeros_like(turn)], dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    pose[:, :3, :3] = torch.stack([right, -down, -forward], dim=-1)  # OpenGL: columns right, up, backward
    pose[:, :3, 3] = -PAN_RADIUS * forward
    return Cameras.from_fov(pose.float(), FOV_Y)


def pan_rays(cameras: Cameras, size: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions [V, size, size, 3] as published: the first and last pixel lie *on* the picture's edges."""
    edge = torch.arange(size, dtype=torch.float32, device=cameras.device) / max(size - 1, 1) * 2 - 1
    pose = cameras.camera_to_world
    tan = 0.5 / cameras.intrinsics[:, :2]  # [V, 2] = (x, y)
    right, up, backward = pose[:, None, None, :3, 0], pose[:, None, None, :3, 1], pose[:, None, None, :3, 2]
    across = edge[None, None, :, None] * tan[:, None, None, :1]  # [V, 1, W, 1]
    along = edge[None, :, None, None] * tan[:, None, None, 1:]  # [V, H, 1, 1], downwards
    directions = torch.nn.functional.normalize(across * right - along * up - backward, dim=-1)
    return pose[:, None, None, :3, 3].expand_as(directions), directions


def box_range(origins: Tensor, directions: Tensor, low: float = -1.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Distances [N, 1] at which rays [N, 3] enter and leave a cube; entry > exit where a ray misses it."""
    slope = directions + torch.where(directions < 0, -SLACK, SLACK)
    a, b = (low - origins) / slope, (high - origins) / slope
    enter = torch.minimum(a, b).amax(dim=-1, keepdim=True).clamp_min(0)
    return enter, torch.maximum(a, b).amin(dim=-1, keepdim=True)


def _bins(ts: Tensor, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper ends [N, S] of the bins around sorted samples [N, S]: midpoints between neighbours."""
    middle = (ts[:, 1:] + ts[:, :-1]) / 2
    return torch.cat([t0, middle], dim=-1), torch.cat([middle, t1], dim=-1)


def _weights(density: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """What each bin adds to the picture [N, S], and what passes all of them [N]."""
    depth = density * (high - low)
    total = depth.cumsum(dim=-1)
    before = torch.exp(-(total - depth))
    return (1 - torch.exp(-depth)) * before, torch.exp(-total[:, -1])


def importance_samples(low: Tensor, high: Tensor, weights: Tensor, quantiles: Tensor, offsets: Tensor) -> Tensor:
    """Distances [N, K]: bins drawn in proportion to ``weights`` [N, S] at ``quantiles`` [N, K], ``offsets`` [N, K] within."""
    weights = weights + FLOOR
    cdf = (weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    index = torch.searchsorted(cdf, quantiles.contiguous()).clamp_max(weights.shape[-1] - 1)
    low, high = low.gather(-1, index), high.gather(-1, index)
    return low + (high - low) * offsets


@torch.no_grad()
def render_nerf(
    fields: ImplicitFields,
    origins: Tensor,
    directions: Tensor,
    *,
    coarse: int = COARSE,
    fine: int = FINE,
    generator: torch.Generator | None = None,
    uniform: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Colours [..., 3] in front of the published background, and transmittance [..., 1], of rays [..., 3].

    Args:
        origins, directions: in Shap-E's frame; directions of unit length.
        coarse, fine: samples of the first pass, and those added in the second.
        generator: CPU generator of the samples' places; None is one with seed 0.
        uniform: replaces every random number, for comparisons.
    """
    generator = torch.Generator().manual_seed(0) if generator is None and uniform is None else generator
    device, shape = fields.device, origins.shape[:-1]
    origins, directions = origins.reshape(-1, 3).to(device), directions.reshape(-1, 3).to(device)

    def draw(n: int, k: int) -> Tensor:
        if uniform is not None:
            return torch.full((n, k), uniform, device=device)
        return torch.rand(n, k, generator=generator).to(device)

    colours, passed = [], []
    for start in range(0, len(origins), RAYS):
        o, d = origins[start : start + RAYS], directions[start : start + RAYS]
        t0, t1 = box_range(o, d)
        hit = (t0 < t1)[:, 0]
        t1 = torch.maximum(t1, t0 + SLACK)
        u = torch.linspace(0, 1, coarse, device=device)
        low, high = _bins(t0 * (1 - u) + t1 * u, t0, t1)  # each [N, coarse]
        ts = low + (high - low) * draw(len(o), coarse)
        low, high = _bins(ts, t0, t1)
        density, _ = fields.nerf(o[:, None] + d[:, None] * ts[..., None], fine=False)
        weights, _ = _weights(density, low, high)
        more = importance_samples(low, high, weights, draw(len(o), fine), draw(len(o), fine))
        ts = torch.cat([ts, more], dim=-1).sort(dim=-1).values  # [N, coarse + fine]
        low, high = _bins(ts, t0, t1)
        density, rgb = fields.nerf(o[:, None] + d[:, None] * ts[..., None], fine=True)
        weights, left = _weights(density, low, high)
        left = torch.where(hit, left, 1.0)[:, None]
        colour = (weights[..., None] * rgb).sum(dim=1) * hit[:, None]
        colours.append(colour + left * fields.background)
        passed.append(left)
    return torch.cat(colours).reshape(*shape, 3), torch.cat(passed).reshape(*shape, 1)
