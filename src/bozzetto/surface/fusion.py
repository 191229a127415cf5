"""Depth maps → one signed volume whose zero level is the object's surface.

A truncated signed distance fusion (Curless and Levoy 1996) with three kinds of vote per voxel and view:

* **near** the seen surface: the signed distance along the view, weighted by how squarely the view faces the surface;
* **free**: clearly in front of the surface, or over background: +1;
* **hidden**: behind the surface: -1 with a small weight.

The small weight decides what holes mean. A voxel counts as outside once about one in twenty views sees it free: the
inside of a cup is emptied, while a gap in the splats does not hollow the object out, all the less because pixels that
show a layer of splats from within do not vote for free space (:func:`inner_faces`).
Networks also make fog: faint splats scattered in depth, through which opposite views see past each other. There depth is
a soft guess, and hidden votes count about as much as free ones, so that the majority decides and the fog becomes a body.

Voxels that no view says anything about are inside, so the zero level is always closed.

Last, the splats themselves: where they are dense (:mod:`.density`), what lies beside them is pushed out and they are pushed in.
Handles and wires, which all views see and no view faces, are put back (:mod:`.thin`). A splat's depth is that of its centre, so
that the views of a single one agree on no more than a point: where nothing is inside, a level of the density is the surface.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Cameras
from ..gaussians import Gaussians
from ..raster.threads import run_tasks, spans
from .density import splat_density
from .thin import ThinViews, thin_structures, with_balls

SHEET = 2.5  # voxels; surfaces seen from both sides within this distance are one layer of splats
TRUNCATION = 3.0  # voxels
# Pixels whose splats lie scattered in depth (fog): the surface is taken this many spreads before the mean depth, and
# hidden votes gain up to FOG_HIDDEN, half of it where the spread is FOG_SCALE voxels.
FOG_FRONT = 0.3
FOG_HIDDEN = 0.5
FOG_SCALE = 2.0
HIDDEN_WEIGHT = 0.05  # of a free vote
MIN_FACING = 0.15  # cosine under which a view's distance is worthless
EDGE_SLOPE = 12.0  # depth jump within 3x3 pixels, in pixel footprints, that counts as an occlusion edge
BLUR = 0.8  # voxels
# The splats' density has a say within DENSE_REACH voxels of where it exceeds DENSE[0], a full one where it exceeds DENSE[1].
DENSITY_WEIGHT = 1.2
SURFACE_DENSITY = 0.12  # a level of half a splat lies inside the outlines: rays gather opacity along a wall
DENSE = (0.5, 1.5)
DENSE_REACH = 3
# How far its say, and the room that views make for it, fade in and out (voxels): where they began at once, surfaces had cracks.
SAY_BLUR, FREE_BLUR = 1.5, 0.7
# It counts for nothing where less than FOGGY of the surface (values under NEAR_SURFACE) is near a density of SOLID_DENSITY, fully
# from SOLID on.
SOLID_DENSITY = 1.0
NEAR_SURFACE = 0.3
FOGGY, SOLID = 0.15, 0.35
LONE_DENSITY = 0.5  # of the surface where nothing but density says what is inside: a lone splat's outline at half alpha
LEAST_AHEAD = 0.1  # of the truncation; a view to which a point lies that far before the surface sees it free
FREE_VIEWS = 4  # so many make room for what density pushes out
POINTS_PER_CHUNK = 1 << 20
POINTS_PER_TASK = 4096
FAR = 100.0  # stands for infinite depth; the object lies within the unit sphere


def fuse_depth(
    depth: Tensor,
    spread: Tensor,
    cameras: Cameras,
    half_extent: Tensor,
    resolution: int,
    gaussians: Gaussians | None = None,
    thin: ThinViews | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Fuse depth maps of an object around the origin.

    Args:
        depth: [V, H, W], camera z, infinity for background.
        spread: [V, H, W], how far along the ray the depth may be off (standard deviation).
        cameras: batch (V,).
        half_extent: [3], half the sides of the box to fill.
        resolution: voxels along the longest side of the box (a margin is added around).
        gaussians: the splats that the depth is of, in the cameras' frame, whose density sharpens the volume.
        thin: what the views see of the splats' thin structures, which are kept (:mod:`.thin`); needs ``gaussians``.

    Returns:
        volume: [X, Y, Z], below 0 inside, above 0 outside, about -2 .. 2, float32.
        origin: [3], centre of voxel (0, 0, 0).
        voxel: edge length of a voxel.
    """
    voxel = float(2 * half_extent.amax() / resolution)
    blurred = (spread - voxel).clamp_min(0)
    maps = _DepthMaps(depth, blurred, voxel, cameras, ~inner_faces(depth, cameras, SHEET * voxel))
    half = half_extent.to(depth.device, torch.float32)
    margin = TRUNCATION + 1
    # Coarse to fine: each level has a point on every second voxel of the next, which is worked out only near surfaces.
    levels = 3
    step = 2 ** (levels - 1)
    shape = [int(torch.ceil((2 * h / voxel + 2 * margin) / step)) + 1 for h in half]
    origin = torch.tensor([-(s - 1) * step * voxel / 2 for s in shape], device=depth.device)
    points = _grid(shape, origin, step * voxel)
    volume, closest, free = (t.reshape(shape) for t in maps.votes(points, step * voxel, voxel))
    while step > 1:
        # A surface in a cell, or one voxel outside, is at most this far from the cell's nearest corner.
        near = (closest < (3**0.5 / 2 * step + 1) * voxel).float()[None, None]
        step //= 2
        shape = [2 * s - 1 for s in shape]
        finer = F.interpolate(volume[None, None], size=shape, mode="trilinear", align_corners=True)[0, 0]
        band = F.interpolate(near, size=shape, mode="trilinear", align_corners=True)[0, 0] > 0
        values, distances, past = maps.votes(band.nonzero() * (step * voxel) + origin, step * voxel, voxel)
        volume = finer
        volume[band] = values
        closest, free = torch.full_like(volume, torch.inf), torch.zeros_like(volume)
        closest[band], free[band] = distances, past
    # Votes differ in steps from voxel to voxel where few views see; a light blur takes the steps out.
    volume = blur(volume)
    if gaussians is not None:
        density = splat_density(gaussians, tuple(volume.shape), origin, voxel)
        volume = volume + _dense_votes(density, volume, free)
        if thin is not None:
            volume = with_balls(volume, thin_structures(volume, density, origin, voxel, thin))
        if not bool((volume < 0).any()):
            volume = (LONE_DENSITY - density).clamp(-1, 1)
    # A closed surface needs an outside all around.
    for axis in range(3):
        volume.select(axis, 0).fill_(1.0)
        volume.select(axis, -1).fill_(1.0)
    return volume, origin, voxel


def _dense_votes(density: Tensor, volume: Tensor, free: Tensor) -> Tensor:
    """What the splats' density says: below 0 in splats, above 0 before them, 0 behind them, in fog, and where nothing is.

    Args:
        density, volume, free: [X, Y, Z]; ``free`` is the number of views that see past a voxel.
    """
    window = 2 * DENSE_REACH + 1
    most = density[None, None]
    for axis in range(3):  # the largest around, one axis after another
        size = [window if i == axis else 1 for i in range(3)]
        most = F.max_pool3d(most, size, 1, [s // 2 for s in size])
    most = most[0, 0]
    surface = most[volume.abs() < NEAR_SURFACE]
    solid = float((surface > SOLID_DENSITY).float().mean()) if len(surface) else 0.0
    weight = DENSITY_WEIGHT * min(max((solid - FOGGY) / (SOLID - FOGGY), 0.0), 1.0)
    if weight == 0:
        return torch.zeros_like(volume)
    say = blur(((most - DENSE[0]) / (DENSE[1] - DENSE[0])).clamp(0, 1), SAY_BLUR)
    room = blur((free / FREE_VIEWS).clamp(0, 1), FREE_BLUR)
    outward = 1 - density / SURFACE_DENSITY
    return weight * say * torch.where(outward > 0, outward * room, outward.clamp_min(-1))


def _grid(shape: list[int], origin: Tensor, step: float) -> Tensor:
    axes = [torch.arange(s, device=origin.device) * step + o for s, o in zip(shape, origin, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)  # [X*Y*Z, 3]


def blur(volume: Tensor, sigma: float = BLUR) -> Tensor:
    """A volume [X, Y, Z] under a Gaussian of ``sigma`` voxels."""
    if volume.device.type == "cpu":
        from scipy import ndimage

        return torch.from_numpy(ndimage.gaussian_filter(volume.numpy(), sigma))
    radius = int(4 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=volume.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(3):
        padded = F.pad(volume.movedim(axis, -1), (radius, radius), mode="replicate")
        volume = sum(w * padded[..., i : i + volume.shape[axis]] for i, w in enumerate(kernel)).movedim(-1, axis)
    return volume.contiguous()


def inner_faces(depth: Tensor, cameras: Cameras, thickness: float) -> Tensor:
    """Pixels [V, H, W] that show a single layer of splats from its inside, through a gap in the surface.

    Splats have no front and back. A layer that views on both sides see at one place (within ``thickness``) has no body;
    its inside is the side that less than half as many views see. What such pixels call free is the object's inside.
    """
    _, height, width = depth.shape
    cameras = cameras.to(depth.device)
    stride = 2  # gaps are larger than pixels
    coarse = depth[:, stride // 2 :: stride, stride // 2 :: stride]
    hit = torch.isfinite(coarse)
    origins, directions = cameras.rays((height, width))
    axis = -cameras.camera_to_world[:, None, None, :3, 2]
    along = depth.clamp_max(FAR) / (directions * axis).sum(dim=-1)
    surface = origins + directions * along[..., None]  # [V, H, W, 3]
    padded = F.pad(surface.movedim(-1, 1), (1, 1, 1, 1), mode="replicate").movedim(1, -1)
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    normal = F.normalize(torch.linalg.cross(down, across, dim=-1), dim=-1)  # towards the camera
    part = (slice(None), slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    points, normals = surface[part][hit], normal[part][hit]  # [P, 3]
    count = _count_sides_cpu if depth.device.type == "cpu" else count_sides
    same, opposite = count(points, normals, depth.clamp_max(FAR), cameras, thickness)
    inner = torch.zeros_like(coarse)
    inner[hit] = (opposite > 2 * same).float()
    # Normals are rough in a gap's ragged surroundings: let the neighbours vote.
    shares = F.avg_pool2d(torch.stack([inner, hit.float()], dim=1), 7, stride=1, padding=3)
    inner = shares[:, :1] > 0.25 * shares[:, 1:].clamp_min(1e-6)
    return F.interpolate(inner.float(), size=(height, width), mode="nearest")[:, 0] > 0.5


def count_sides(
    points: Tensor, normals: Tensor, depth: Tensor, cameras: Cameras, thickness: float
) -> tuple[Tensor, Tensor]:
    """How many views see each of the ``points`` [P, 3] from the side of its normal, and how many from the other, both [P]."""
    same, opposite = points.new_zeros(len(points)), points.new_zeros(len(points))
    for i in range(len(depth)):
        position, z = cameras[i].project(points)
        grid = (position * 2 - 1)[None, :, None, :]
        seen = F.grid_sample(depth[i][None, None], grid, mode="nearest", align_corners=False)[0, 0, :, 0]
        cosine = (F.normalize(cameras.positions[i] - points, dim=-1) * normals).sum(dim=-1)
        touches = (z - seen).abs() * cosine.abs() < thickness
        same += touches & (cosine > 0.2)
        opposite += touches & (cosine < -0.2)
    return same, opposite


def _count_sides_cpu(
    points: Tensor, normals: Tensor, depth: Tensor, cameras: Cameras, thickness: float
) -> tuple[Tensor, Tensor]:
    """:func:`count_sides` by compiled loops."""
    from .fusion_kernels import count_sides as loop

    rows = [cameras.positions, cameras.view_matrices()[:, :3].flatten(1), cameras.intrinsics]
    known = [points, normals, depth, torch.cat(rows, dim=1)]
    arrays = [t.float().contiguous().numpy() for t in known]
    same, opposite = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
    fixed = (*arrays, np.float32(thickness))
    run_tasks((loop, *fixed, *span, same, opposite) for span in spans(len(points), POINTS_PER_TASK))
    return torch.from_numpy(same), torch.from_numpy(opposite)


def facing_cosine(depth: Tensor, cameras: Cameras) -> Tensor:
    """How squarely the surface of each pixel faces the camera: cosine in 0..1, [V, H, W], from differences of the depth."""
    depth = depth.clamp_max(FAR)[:, None]
    focal = cameras.to(depth.device).pixel_intrinsics(tuple(depth.shape[-2:]))[:, 1].reshape(-1, 1, 1, 1)
    padded = F.pad(depth, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * focal / (2 * depth)
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * focal / (2 * depth)
    return (1 + across * across + down * down).rsqrt()[:, 0]


class _DepthMaps:
    """Depth maps prepared for look-up: depth, facing, and the nearest and farthest depth around each pixel."""

    def __init__(self, depth: Tensor, spread: Tensor, voxel: float, cameras: Cameras, trusted: Tensor):
        v, h, w = depth.shape
        depth = depth.clamp_max(FAR)[:, None]  # [V, 1, H, W]
        cameras = cameras.to(depth.device)
        focal = cameras.pixel_intrinsics((h, w))[:, 1].reshape(v, 1, 1, 1)
        highest = F.max_pool2d(depth, 3, 1, 1)
        lowest = -F.max_pool2d(-depth, 3, 1, 1)
        edge = (highest - lowest) > EDGE_SLOPE * lowest / focal
        facing = facing_cosine(depth[:, 0], cameras)[:, None]
        # On an edge the depth is unknown between the two walls; away from it both bounds are the surface.
        spread = spread[:, None]
        front = depth - FOG_FRONT * spread
        near_wall = torch.where(edge, lowest, front)
        far_wall = torch.where(edge, highest, front)
        self.maps = torch.cat(
            [near_wall, far_wall, facing * ~edge, trusted[:, None].float(), spread], dim=1
        )  # [V, 5, H, W]
        self.voxel = voxel
        self.by_pixel: Tensor | None = None  # the maps with channels last
        # World -> (image x times z, image y times z, z) with image positions in -1..1, in one product.
        view = cameras.view_matrices()
        fx, fy, cx, cy = cameras.intrinsics.unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        rows = [2 * fx, zero, 2 * cx - 1, zero, 2 * fy, 2 * cy - 1, zero, zero, one]
        lens = torch.stack(rows, dim=-1).reshape(v, 3, 3)
        self.rotation = (lens @ view[:, :3, :3]).transpose(1, 2).contiguous()  # [V, 3, 3]
        self.shift = (lens @ view[:, :3, 3:])[..., 0]  # [V, 3]

    def votes(self, points: Tensor, step: float, voxel: float) -> tuple[Tensor, Tensor, Tensor]:
        """Fused value (-1..1) of points [P, 3], the distance to the closest surface that a view sees, and how many see past, [P].

        ``step`` is the distance between the points; the truncation is TRUNCATION times the larger of it and ``voxel``.
        """
        reach = TRUNCATION * max(step, voxel)
        if points.device.type == "cpu":
            return self._votes_cpu(points, reach)
        parts = [self.plain_votes(chunk, reach) for chunk in points.split(POINTS_PER_CHUNK) if len(chunk)]
        if not parts:
            return points.new_zeros(0), points.new_zeros(0), points.new_zeros(0)
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _votes_cpu(self, points: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`plain_votes` by compiled loops."""
        from .fusion_kernels import vote

        if self.by_pixel is None:
            self.by_pixel = self.maps.movedim(1, -1).contiguous()
        arrays = [t.contiguous().numpy() for t in (points, self.by_pixel, self.rotation, self.shift)]
        settings = (reach, MIN_FACING, HIDDEN_WEIGHT, FOG_HIDDEN, FOG_SCALE * self.voxel, LEAST_AHEAD)
        fixed = (*arrays, tuple(np.float32(x) for x in settings))
        value, closest, free = (np.empty(len(points), np.float32) for _ in range(3))
        run_tasks((vote, *fixed, *span, value, closest, free) for span in spans(len(points), POINTS_PER_TASK))
        return torch.from_numpy(value), torch.from_numpy(closest), torch.from_numpy(free)

    def plain_votes(self, points: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`votes`, of points [P, 3] whose votes fade within ``reach``."""
        total = points.new_zeros(len(points))
        weight = points.new_zeros(len(points))
        free = points.new_zeros(len(points))
        closest = points.new_full((len(points),), torch.inf)
        for i in range(len(self.maps)):
            local = points @ self.rotation[i] + self.shift[i]  # [P, 3]: image x, y (-1..1, times z) and z
            z = local[:, 2]
            grid = (local[:, :2] / z[:, None])[None, :, None, :]
            sampled = F.grid_sample(self.maps[i : i + 1], grid, padding_mode="border", align_corners=False)
            near_wall, far_wall, facing, trust, spread = sampled[0, :, :, 0]  # each [P]
            soft = reach + spread  # a scattered depth makes a soft border
            ahead = (near_wall - z) / soft  # > 0: in front of everything seen here
            behind = (far_wall - z) / soft
            hidden = HIDDEN_WEIGHT + FOG_HIDDEN * spread / (spread + FOG_SCALE * self.voxel)
            # Behind the surface confidence fades towards the hidden vote, so that thin walls keep their other side.
            w = torch.where(facing > MIN_FACING, facing * (1 + ahead.clamp(-1, 0)) + hidden, 0.0)
            w = torch.where(ahead >= 1, 1.0, w) * trust
            free += torch.where(ahead > LEAST_AHEAD, trust, 0.0)
            w = torch.where(behind <= -1, hidden, w)
            total += w * ahead.clamp(-1, 1)
            weight += w
            closest = torch.minimum(closest, torch.where(facing > MIN_FACING, (near_wall - z).abs(), torch.inf))
        value = torch.where(weight > 0, total / weight.clamp_min(1e-6), -1.0)
        return value, closest, free
