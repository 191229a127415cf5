"""How large a training object is in its pictures: as large as a recentred photo shows it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...camera import Cameras
from ...data.library.pose import boxes
from ...data.render import SceneBatch
from .cameras import SLOTS, ViewSet

PLACED_RADIUS = 0.6  # of objects that are placed, not fitted to their pictures; LGM's camera sees such a sphere whole
MAX_RADIUS = 0.85  # of an object after zooming, world units: within the depth range of the ray head


def zoom(scene: SceneBatch, views: ViewSet, generator: torch.Generator) -> Tensor:
    """Scale of each vertex [V, 1] that makes its object fill the picture as a recentred photo does.

    The longest side of the object's outline becomes 65 to 90 % of the picture: of the largest outline among the four
    slots, or, for most single photos, of the photo alone (whose other sides nobody can measure). Objects of ``views.placed`` get
    their radius instead.
    """
    batch = len(scene)
    cameras = views.world()[:, :SLOTS]
    world_to_view, focal = cameras.view_matrices(), cameras.intrinsics[..., None, :2]  # [B, 4, 4, 4], [B, 4, 1, 2]
    extent = torch.empty(batch, SLOTS)
    radius = torch.empty(batch)
    for b in range(batch):
        points = scene.vertices[scene.vertex_start[b] : scene.vertex_start[b + 1]]
        local = points @ world_to_view[b, :, :3, :3].transpose(-1, -2) + world_to_view[b, :, None, :3, 3]  # [4, P, 3]
        projected = local[..., :2] / local[..., 2:] * focal[b]
        extent[b] = (projected.amax(1) - projected.amin(1)).amax(-1)
        radius[b] = points.norm(dim=-1).max()
    fill, photo = draw_fill(views.known, generator)
    return _scales(extent, radius, fill, photo, views.placed).repeat_interleave(scene.vertex_start.diff())[:, None]


def draw_fill(known: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Share of the picture [B] that each object is to fill, and whether [B] only its photo is measured; see :func:`zoom`."""
    batch = len(known)
    fill = 0.65 + 0.25 * torch.rand(batch, generator=generator)
    return fill, (known.sum(1) == 1) & (torch.rand(batch, generator=generator) < 0.7)


def _scales(extent: Tensor, radius: Tensor, fill: Tensor, photo: Tensor, placed: Tensor) -> Tensor:
    """Scale [B] from the outline's longest side [B, 4] in each slot (share of the picture) and the object's radius [B]."""
    radius = radius.clamp_min(1e-3)
    measured = torch.where(photo, torch.maximum(extent[:, 0], 0.65 * extent.amax(1)), extent.amax(1))
    fitted = torch.minimum(fill / measured.clamp_min(1e-3), MAX_RADIUS / radius).clamp(0.5, 2.0)
    return torch.where(placed, PLACED_RADIUS / radius, fitted)


def zoom_of(scene: SceneBatch, slots: Cameras, fill: Tensor, photo: Tensor, placed: Tensor) -> Tensor:
    """:func:`zoom` on the scene's device, without a wait: slots (B, 4) in the world, fill and photo of :func:`draw_fill`, and
    ``placed`` [B] of the :class:`~.cameras.ViewSet`."""
    batch, points = len(scene), scene.vertices
    counts = scene.vertex_start.diff()
    owner = torch.repeat_interleave(torch.arange(batch, device=points.device), counts, output_size=len(points))
    view = slots.view_matrices()[owner]  # [V, 4, 4, 4]
    local = (view[..., :3, :3] * points[:, None, None]).sum(-1) + view[..., :3, 3]  # [V, 4, 3]
    projected = local[..., :2] / local[..., 2:] * slots.intrinsics[owner][..., :2]
    low, high = boxes(projected.flatten(1), owner, batch)
    extent = (high - low).view(batch, SLOTS, 2).amax(-1)
    _, radius = boxes(points.norm(dim=-1, keepdim=True), owner, batch)
    return _scales(extent, radius[:, 0], fill, photo, placed)[owner][:, None]
