"""Volume rendering of a density and colour field in a cube (Mildenhall et al. 2020, arXiv 2003.08934), as TripoSR does it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MARGIN = 1e-3  # rays are cut a little inside of the cube
MIN_LENGTH = 0.01  # of the part of a ray inside of the cube
TINY = 1e-6

Query = Callable[[Tensor], tuple[Tensor, Tensor]]  # points [M, 3] -> densities [M], colours [M, 3]


def intersect_cube(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays [..., 3] enter and leave the cube [-radius, radius]³.

    Returns:
        near, far [...]: in multiples of the direction, not behind the origin; 0 for rays that miss. hits [...]: bool.
    """
    half = (1 - MARGIN) * radius
    safe = torch.where(directions.abs() < TINY, TINY, directions)
    first, second = (-half - origins) / safe, (half - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp_min(0)
    far = torch.maximum(first, second).amin(dim=-1)
    hits = far - near > MIN_LENGTH
    return torch.where(hits, near, 0.0), torch.where(hits, far, 0.0), hits


def render_rays(
    query: Query,
    origins: Tensor,
    directions: Tensor,
    radius: float,
    samples: int,
    background: Tensor,
    chunk: int,
    occupied: Callable[[Tensor, float], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Colours [R, 3] of rays [R, 3].

    Samples lie at the midpoints of equal parts of a ray's way through the cube. A part's length counts as 1 / samples whatever
    the way's length: so the densities were trained. Rays that miss the cube show the background and cost nothing.

    Args:
        background: [3].
        chunk: the most samples that are looked at in one step; bounds the memory.
        occupied: (points [M, 3], step) -> (worth asking for [M], a lower bound of the opacity there [M]), or None to ask for
            every sample.
    """
    near, far, hits = intersect_cube(origins, directions, radius)
    picture = background.expand(len(origins), 3).clone()
    index = hits.nonzero()[:, 0]
    t = (torch.arange(samples, device=origins.device, dtype=origins.dtype) + 0.5) / samples
    for rays in index.split(max(chunk // samples, 1)):
        depth = near[rays, None] * (1 - t) + far[rays, None] * t  # [r, samples]
        points = origins[rays, None] + depth[..., None] * directions[rays, None]  # [r, samples, 3]
        density, colour = _ask(query, points, 1.0 / samples, occupied)
        alpha = 1 - torch.exp(-density / samples)
        passed = torch.cumprod(1 - alpha + 1e-10, dim=1)
        weights = alpha * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
        rest = 1 - weights.sum(dim=1, keepdim=True)
        picture[rays] = (weights[..., None] * colour).sum(dim=1) + rest * background
    return picture


def _ask(query: Query, points: Tensor, step: float, occupied: Callable | None) -> tuple[Tensor, Tensor]:
    """Densities [r, s] and colours [r, s, 3] of samples [r, s, 3]; 0 where a sample cannot be seen."""
    shape = points.shape[:2]
    flat = points.reshape(-1, 3)
    if occupied is None:
        density, colour = query(flat)
        return density.reshape(shape), colour.reshape(*shape, 3)
    worth, opacity = occupied(flat, step)
    # What lies behind samples that are surely opaque is not asked for.
    passed = torch.cumprod(1 - opacity.reshape(shape), dim=1)
    before = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    wanted = (worth.reshape(shape) & (before > 1e-3)).reshape(-1).nonzero()[:, 0]
    density, colour = flat.new_zeros(len(flat)), torch.zeros_like(flat)
    if len(wanted):
        density[wanted], colour[wanted] = query(flat[wanted])
    return density.reshape(shape), colour.reshape(*shape, 3)
