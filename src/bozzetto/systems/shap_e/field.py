"""A sampled shape as a thing to look at: its radiance field, baked to a grid, in the house's axes.

The radiance field does not depend on the viewing direction here, so its densities and colours can be evaluated once on a grid
and interpolated in every frame of a film. Exact pictures, at a hundred times the cost, come from ``render.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...camera.cameras import Size
from ...camera.conventions import blender_to_opengl_world, opengl_to_blender_world
from ...errors import InputError
from .transmitter import ImplicitFields

COARSE_GRID, REFINE = 64, 3  # cells per side that are looked into; each that holds something is cut into 3^3
VISIBLE = 0.02  # opacity of a fine cell from which it counts as part of the object
RAYS = 1 << 16  # marched at once
BLOCK = 16  # samples of a ray between two looks at whether it goes on
FAINT = 1e-3  # share of light below which a ray ends, and weight below which a sample's colour is not looked up


def to_world(points: Tensor) -> Tensor:
    """Shap-E's frame (z up, the front looks to -y) -> the house's (y up, front +z): (x, y, z) -> (x, z, -y)."""
    return points @ blender_to_opengl_world(torch.eye(4, dtype=points.dtype, device=points.device))[:3, :3].T


def from_world(points: Tensor) -> Tensor:
    """Inverse of :func:`to_world`."""
    return points @ opengl_to_blender_world(torch.eye(4, dtype=points.dtype, device=points.device))[:3, :3].T


def _cell_centres(n: int, device: torch.device) -> Tensor:
    return (torch.arange(n, device=device) + 0.5) / n * 2 - 1


class ShapEField:
    """The radiance field of one latent; see :class:`bozzetto.framing.RadianceField`."""

    def __init__(self, fields: ImplicitFields) -> None:
        self.fields = fields
        self._baked: tuple[Tensor, Tensor] | None = None
        self._corners: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def baked(self) -> tuple[Tensor, Tensor]:
        """Density and density times rgb [4, G, G, G] at cell centres of [-1, 1]^3 in Shap-E's frame, and which coarse cells
        [C, C, C] are not empty; made on first use.

        Cells are only looked into where a coarser grid found density in or beside them.
        """
        if self._baked is None:
            device, n = self.fields.device, COARSE_GRID * REFINE
            axis = _cell_centres(COARSE_GRID, device)
            density, _ = self.fields.nerf(
                torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1), fine=True
            )
            held = F.max_pool3d((density > 0)[None, None].float(), 3, 1, padding=1)[0, 0]
            where = F.interpolate(held[None, None], scale_factor=REFINE, mode="nearest")[0, 0].nonzero()  # [M, 3]
            grid = torch.zeros(4, n, n, n, device=device)
            density, rgb = self.fields.nerf((where + 0.5) / n * 2 - 1, fine=True)
            if not bool(torch.isfinite(density).all() & torch.isfinite(rgb).all()):
                raise InputError("the radiance field holds NaN or infinity; the weights may be damaged")
            grid[:, where[:, 0], where[:, 1], where[:, 2]] = torch.cat(
                [density[:, None], density[:, None] * rgb], dim=-1
            ).T
            self._baked = grid, held > 0
        return self._baked

    def framing(self) -> tuple[tuple[float, float, float], float]:
        """Centre and radius of a sphere around everything visible, in the house's world; around the cube if nothing is."""
        cells = self._visible_cells()
        if len(cells) == 0:
            return (0.0, 0.0, 0.0), 3**0.5
        centre = (cells.amin(dim=0) + cells.amax(dim=0)) / 2
        radius = float((cells - centre).norm(dim=-1).amax()) + 3**0.5 / (COARSE_GRID * REFINE)
        return tuple(to_world(centre.cpu()).tolist()), radius

    def _visible_cells(self) -> Tensor:
        """Centres [N, 3] of the visible cells, in Shap-E's frame."""
        density = self.baked()[0][0]
        n = density.shape[0]
        return ((density > -math.log(1 - VISIBLE) / (2 / n)).nonzero() + 0.5) / n * 2 - 1

    def _box(self) -> tuple[Tensor, Tensor]:
        """Corners [3] of the box around all visible cells, one cell larger, in Shap-E's frame."""
        if self._corners is None:
            cells, margin = self._visible_cells(), 3 / (COARSE_GRID * REFINE)
            if len(cells):
                self._corners = cells.amin(dim=0) - margin, cells.amax(dim=0) + margin
            else:
                self._corners = cells.new_full((3,), -1.0), cells.new_full((3,), 1.0)
        return self._corners

    @torch.no_grad()
    def render(self, cameras: Cameras, size: Size, background: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
        """Pictures [V, H, W, 3] in 0..1 of cameras (V,) in the house's world, on the field's device."""
        (grid, held), (low, high) = self.baked(), self._box()
        cameras = cameras.to(grid.device, torch.float32)
        back = torch.tensor(background, dtype=torch.float32, device=grid.device)
        pictures = []
        for i in range(len(cameras)):
            origins, directions = cameras[i].rays(size)  # [H, W, 3]
            height, width = directions.shape[:2]
            origins, directions = (from_world(x.reshape(-1, 3)) for x in (origins, directions))
            slope = directions + torch.where(directions < 0, -1e-9, 1e-9)
            a, b = (low - origins) / slope, (high - origins) / slope
            enter = torch.minimum(a, b).amax(dim=-1).clamp_min(0)
            leave = torch.maximum(a, b).amin(dim=-1)
            picture = back.expand(len(origins), 3).clone()
            for rays in (enter < leave).nonzero()[:, 0].split(RAYS):
                picture[rays] = _march(grid, held, origins[rays], directions[rays], enter[rays], leave[rays], back)
            pictures.append(picture.reshape(height, width, 3))
        return torch.stack(pictures)


def _march(grid: Tensor, held: Tensor, o: Tensor, d: Tensor, enter: Tensor, leave: Tensor, back: Tensor) -> Tensor:
    """Colours [R, 3] of rays, one sample in the middle of every cell's length between ``enter`` and ``leave`` [R]."""
    step = 2 / grid.shape[-1]
    colour, passed = torch.zeros_like(o), torch.ones_like(enter)
    alive = torch.arange(len(o), device=o.device)
    offsets = (torch.arange(BLOCK, device=o.device) + 0.5) * step
    start = enter
    while len(alive):
        t = start[alive, None] + offsets  # [A, BLOCK]
        points = torch.addcmul(o[alive, None], d[alive, None], t[..., None])  # [A, BLOCK, 3]
        i, j, k = ((points + 1) * (0.5 * len(held))).long().clamp_(0, len(held) - 1).unbind(-1)
        worth = held[i, j, k] & (t < leave[alive, None])
        depth = torch.zeros_like(t)
        depth[worth] = _look_up(grid[:1], points[worth])[0] * step
        total = depth.cumsum(dim=-1)
        weights = (1 - torch.exp(-depth)) * torch.exp(depth - total) * passed[alive, None]
        seen = weights > FAINT
        found = _look_up(grid, points[seen])  # [4, K]
        rgb = (found[1:] / found[:1].clamp_min(1e-8)).T  # an interpolation of colours weighted by density
        colour.index_add_(0, alive[seen.nonzero()[:, 0]], weights[seen][:, None] * rgb)
        passed[alive] *= torch.exp(-total[:, -1])
        start = start + BLOCK * step
        alive = alive[(passed[alive] > FAINT) & (start[alive] < leave[alive])]
    return colour + passed[:, None] * back


def _look_up(grid: Tensor, points: Tensor) -> Tensor:
    """Trilinear values [C, N] of ``grid`` [C, X, Y, Z] over [-1, 1]^3 at ``points`` [N, 3]."""
    at = points.flip(-1)[None, :, None, None]  # grid_sample wants the last axis first
    return F.grid_sample(grid[None], at, align_corners=False, padding_mode="border")[0, :, :, 0, 0]
