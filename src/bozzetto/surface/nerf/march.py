"""Volume rendering: where on the rays to sample (a visual hull, an occupancy grid), and how samples become pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera import Cameras
from ...gaussians import Gaussians
from ...raster import rasterize
from .hash_grid import by_triton

DECAY = 0.95
THRESHOLD = 0.01  # of density x step, below which a cell is empty
EMPTY_ALPHA = 0.005  # pixels with less show that there is nothing
OPAQUE = 1e-4  # transmittance below which nothing more is seen


class Occupancy:
    """Which cells of the cube [-1, 1] hold density: a decaying maximum of what was found there.

    Attributes:
        values: [S^3], density x step. full: [S, S, S] bool (x, y, z). possible: the same, where anything may be at all.
    """

    def __init__(self, side: int, device: torch.device, possible: Tensor | None = None) -> None:
        self.side = side
        self.values = torch.zeros(side**3, device=device)
        every = torch.ones(side, side, side, dtype=torch.bool, device=device)
        self.possible = every if possible is None else possible
        self.full = self.possible

    @property
    def full(self) -> Tensor:
        return self._full

    @full.setter
    def full(self, cells: Tensor) -> None:
        self._full, self._box = cells, None

    @torch.no_grad()
    def update(
        self, density: Callable[[Tensor], Tensor], step: float, generator: torch.Generator, everywhere: bool
    ) -> None:
        """Ask for the density at a random point in each cell, or (not ``everywhere``) in the full ones and a random quarter."""
        device, s = self.values.device, self.side
        if everywhere:
            cells = self.possible.reshape(-1).nonzero()[:, 0]
        else:
            chosen = self.full | (torch.rand(s, s, s, generator=generator, device=device) < 0.25)
            cells = (chosen & self.possible).reshape(-1).nonzero()[:, 0]
        corner = torch.stack([cells // (s * s), cells // s % s, cells % s], dim=1)
        inside = torch.rand(len(cells), 3, generator=generator, device=device)
        found = density((corner + inside) * (2 / s) - 1) * step
        self.values[cells] = torch.maximum(self.values[cells] * DECAY, found)
        mean = self.values.sum() / self.possible.sum()
        self.full = (self.values > mean.clamp_max(THRESHOLD)).reshape(s, s, s) & self.possible

    def contains(self, points: Tensor) -> Tensor:
        """Whether points [..., 3] lie in full cells; bool [...]."""
        cell = ((points + 1) * (self.side / 2)).long().clamp_(0, self.side - 1)
        return self.full.reshape(-1)[(cell[..., 0] * self.side + cell[..., 1]) * self.side + cell[..., 2]]

    def box(self) -> tuple[Tensor, Tensor]:
        """Corners [3] of the smallest box around the full cells (of everything, if none is full); found once per change."""
        if self._box is not None:
            return self._box
        low, high = [], []
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            used = self.full.any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
            first, last = (int(used[0]), int(used[-1])) if len(used) else (0, self.side - 1)
            low.append(first * 2 / self.side - 1)
            high.append((last + 1) * 2 / self.side - 1)
        self._box = self.values.new_tensor(low), self.values.new_tensor(high)
        return self._box


@torch.no_grad()
def visual_hull(gaussians: Gaussians, side: int, radius: float, hardness: float = 1.0, size: int = 128) -> Tensor:
    """Cells [side, side, side] bool of the cube [-1, 1] in which density can be: those that no picture shows to be empty.

    The object lies inside the sphere of ``radius``. A cell around which one picture is transparent is empty in whatever field
    fits the pictures, so leaving it out changes no result, and spares most samples while the field knows nothing yet.

    Args:
        hardness: of the pictures that the field learns from, see :func:`.train.hardened`.
    """
    device = gaussians.device
    turns = [float(a) for a in range(0, 360, 45)]
    azimuths = [*turns, *turns, *turns, 0.0, 0.0]
    elevations = [*([0.0] * 8), *([40.0] * 8), *([-40.0] * 8), 89.0, -89.0]
    cameras = Cameras.orbit(azimuths, elevations)
    alpha = rasterize(gaussians, cameras, size).alpha
    cell = 2 / side
    # A cell's half diagonal in pixels where it is nearest to the camera.
    reach = math.ceil(0.87 * cell / (1.5 - radius) * float(cameras.intrinsics[0, 1]) * size)
    alpha = torch.nn.functional.max_pool2d(alpha[:, None], 2 * reach + 1, 1, reach)
    axis = (torch.arange(side, device=device) + 0.5) * cell - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    index = (points.norm(dim=1) < radius + cell).nonzero()[:, 0]
    for own, picture in zip(range(len(cameras)), alpha, strict=True):
        camera = cameras[own].to(device=device, dtype=torch.float32)
        grid = camera.project(points[index])[0] * 2 - 1
        seen = torch.nn.functional.grid_sample(picture[None], grid[None, None], mode="nearest", align_corners=False)
        index = index[((seen.reshape(-1) - 0.5) * hardness + 0.5) > EMPTY_ALPHA]
    possible = torch.zeros(side**3, dtype=torch.bool, device=device)
    possible[index] = True
    return possible.reshape(side, side, side)


@dataclass
class Samples:
    """P points on R rays, in order of ray and distance.

    Attributes:
        points: [P, 3]. ray: [P]. rank: [P], how many samples of its ray lie before it. longest: most samples of a ray.
    """

    points: Tensor
    ray: Tensor
    rank: Tensor
    longest: int

    def select(self, keep: Tensor) -> Samples:
        """Those marked in ``keep`` [P]; the ranks stay (what is left out counts as empty)."""
        return Samples(self.points[keep], self.ray[keep], self.rank[keep], self.longest)


@torch.no_grad()
def sample_rays(origins: Tensor, directions: Tensor, occupancy: Occupancy, step: float, jitter: Tensor) -> Samples:
    """Points every ``step`` along rays [R, 3] (unit directions), in full cells only; ``jitter`` [R] in 0..1 shifts a ray's."""
    low, high = occupancy.box()
    inverse = 1 / torch.where(directions.abs() < 1e-9, directions.new_tensor(1e-9), directions)
    a, b = (low - origins) * inverse, (high - origins) * inverse
    near = torch.minimum(a, b).amax(dim=1).clamp_min(0.01)
    far = torch.maximum(a, b).amin(dim=1)
    count = max(1, int(((far - near).amax() / step).ceil())) if len(origins) else 1
    t = near[:, None] + (torch.arange(count, device=near.device) + jitter[:, None]) * step  # [R, count]
    points = origins[:, None] + directions[:, None] * t[..., None]
    full = (t < far[:, None]) & occupancy.contains(points)
    rank = full.long().cumsum(dim=1) - 1
    ray = full.nonzero()[:, 0]
    rank = rank[full]
    return Samples(points[full], ray, rank, int(rank.amax()) + 1 if len(rank) else 1)


def transmittance(depth: Tensor, samples: Samples, rays: int) -> Tensor:
    """The share of light [P] that reaches each sample, from the optical depth [P] of each."""
    slot = samples.ray * samples.longest + samples.rank
    table = depth.new_zeros(rays * samples.longest).scatter(0, slot, depth).reshape(rays, samples.longest)
    before = table.cumsum(dim=1) - table
    return torch.exp(-before.reshape(-1).gather(0, slot))


def composite(depth: Tensor, colour: Tensor, samples: Samples, rays: int) -> tuple[Tensor, Tensor]:
    """Optical depths [P] and colours [P, 3] -> rgb [R, 3] on white and alpha [R]. Sums have one order on every device."""
    weight = transmittance(depth, samples, rays) * -torch.expm1(-depth)
    slot = (samples.ray * samples.longest + samples.rank)[:, None].expand(-1, 4)
    rgba = torch.cat([colour * weight[:, None], weight[:, None]], dim=1)
    table = rgba.new_zeros(rays * samples.longest, 4).scatter(0, slot, rgba)
    total = table.reshape(rays, samples.longest, 4).sum(dim=1)
    return total[:, :3] + (1 - total[:, 3:]), total[:, 3]


def render_rays(
    density: Callable[[Tensor], Tensor],
    colour: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """rgb [R, 3] on white and alpha [R] of rays [R, 3]; what lies behind an opaque part is found without gradients.

    Args:
        backend: "auto" (by device), "triton" or "reference".
    """
    if by_triton(origins.device, backend):
        from . import march_triton

        return march_triton.render_rays(density, colour, origins, directions, occupancy, step, jitter)
    rays = len(origins)
    samples = sample_rays(origins, directions, occupancy, step, jitter)
    with torch.no_grad():
        seen = transmittance(density(samples.points) * step, samples, rays) > OPAQUE
    samples = samples.select(seen)
    return composite(density(samples.points) * step, colour(samples.points), samples, rays)
