"""Pictures from any cameras -> pictures as the network expects them: object at the origin, every camera looking at it.

A camera's own position is kept (up to the object's scale); its direction, roll and field of view are changed, which is an
exact re-projection of the picture, since the centre of projection stays. Only cameras so far away that the object would fill
less than a 20 degree view are brought nearer, with the picture scaled to match.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...errors import CameraError, ForegroundError

OBJECT_RADIUS = 0.57  # of the bounding sphere after normalisation; training objects have 0.45 to 0.6
MARGIN = 1.12  # picture half-height over object radius
MIN_FOV, MAX_FOV = 20.0, 75.0  # degrees
ROLL = 0.25  # mean sine of the roll up to which cameras count as held upright
FIXED_RADII = (0.3, 0.62)  # of the object, with which a network of one fixed camera can work


@dataclass
class NormalizedViews:
    """``rgba`` [V, 4, S, S] straight alpha; ``cameras`` (V,) in the normalised frame; ``matrix`` [4, 4] world -> that frame."""

    rgba: Tensor
    cameras: Cameras
    matrix: Tensor


def find_object(cameras: Cameras, alphas: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Centre [3] (float64) and radius of the object that masks [H, W] see, in world units.

    The centre is the point nearest to the rays through the middle of each mask's bounding box; the radius is that of the
    smallest sphere around it whose outline covers every mask. One camera alone cannot tell the distance: the object is then
    taken to lie beside the world's origin, or at unit distance for a camera that stands there. Warns of views in which the centre
    lies outside of the circle around the mask: not all cameras are true.
    """
    origins = cameras.positions.double()
    directions, spreads = [], []
    for i, alpha in enumerate(alphas):
        inside = alpha > 0.5
        if not bool(inside.any()):
            raise ForegroundError(f"view {i} shows no foreground; leave it out, or give it an alpha channel")
        h, w = alpha.shape
        rows, columns = torch.where(inside.any(1))[0], torch.where(inside.any(0))[0]
        middle = torch.tensor([[(columns[0] + columns[-1] + 1) / 2 / w, (rows[0] + rows[-1] + 1) / 2 / h]])
        directions.append(_directions(cameras, i, middle)[0])
        ys, xs = torch.where(inside & ~_eroded(inside))
        spreads.append(_directions(cameras, i, torch.stack([(xs + 0.5) / w, (ys + 0.5) / h], dim=-1)))
    d = torch.stack(directions)  # [V, 3] unit
    spread = torch.stack([_angle(rays, middle) for rays, middle in zip(spreads, d)])  # outline's half angle, [V]
    centre = _nearest_point(origins, d)
    if centre is None:
        centre = _along_the_ray(origins, d, spread)
    offsets = centre - origins
    if bool(((offsets * d).sum(-1) <= 0).any()):
        behind = [i for i, x in enumerate((offsets * d).sum(-1).tolist()) if x <= 0]
        raise CameraError(
            f"the cameras do not look at one object: it would lie behind view(s) {behind}. "
            "transform_matrix must be camera-to-world with OpenGL axes (the camera looks along -z)"
        )
    towards = offsets / offsets.norm(dim=-1, keepdim=True)
    astray = torch.acos((towards * d).sum(-1).clamp(-1, 1)) > spread
    if bool(astray.any()):
        which = torch.where(astray)[0].tolist()
        named = ", ".join(cameras.names[i] if cameras.names else f"view {i}" for i in which)
        warnings.warn(
            f"by its camera, the object stands elsewhere than the others say in: {named}. If the result is smeared, "
            "check the transform_matrix (camera-to-world, OpenGL axes), field of view and masks",
            stacklevel=2,
        )
    angles = torch.stack([_angle(rays, offset / offset.norm()) for offset, rays in zip(offsets, spreads)])
    radius = float((offsets.norm(dim=-1) * torch.sin(angles)).max())
    if radius <= 1e-9 * float(offsets.norm(dim=-1).mean()):
        raise ForegroundError("the foreground is a single point in every view; nothing to reconstruct")
    return centre, radius


def _angle(rays: Tensor, axis: Tensor) -> Tensor:
    """Largest angle, but for 0.1 % of outliers, between unit ``rays`` [N, 3] and a unit ``axis`` [3]; radians, at most pi / 2."""
    angle = torch.acos((rays @ axis).clamp(-1, 1))
    return torch.quantile(angle[:: max(len(angle) // 100_000, 1)], 0.999).clamp_max(math.pi / 2)


def _nearest_point(origins: Tensor, directions: Tensor) -> Tensor | None:
    """The point [3] nearest to all rays (least squares), or None where the rays are too parallel to say."""
    normal = (
        torch.eye(3, dtype=torch.float64) - directions[:, :, None] * directions[:, None, :]
    )  # projects off each ray
    system, right = normal.sum(0), (normal @ origins[..., None]).sum(0)[:, 0]
    if float(torch.linalg.eigvalsh(system)[0]) <= 1e-3 * len(directions):
        return None
    return torch.linalg.solve(system, right)


def _along_the_ray(origins: Tensor, directions: Tensor, spread: Tensor) -> Tensor:
    """The object's centre [3] on the first ray, for one camera or for cameras on nearly one line.

    Several cameras must see one size: the distance is taken at which their outlines (half angles ``spread``) belong to
    equal spheres that lie on all rays. One camera cannot tell: then beside the world's origin.
    """
    if len(origins) == 1:
        distance = -(origins[0] * directions[0]).sum()
        if float(distance) <= 1e-6:
            distance = origins[0].norm().clamp_min(1.0)
        return origins[0] + directions[0] * distance
    apart = (origins[1:] - origins[:1]).norm(dim=-1).max().clamp_min(1e-9)
    distance = apart * torch.logspace(-2, 3, 4000, dtype=torch.float64)
    points = origins[0] + distance[:, None] * directions[0]  # [T, 3]
    offset = points[:, None] - origins  # [T, V, 3]
    along = (offset * directions).sum(-1)
    beside = (offset - along[..., None] * directions).norm(dim=-1)
    sizes = offset.norm(dim=-1) * torch.sin(spread)
    mean = sizes.mean(dim=1, keepdim=True).clamp_min(1e-12)
    cost = (((sizes / mean - 1) ** 2) + (beside / mean) ** 2).sum(dim=1) + 1e6 * (along <= 0).any(dim=1)
    return points[int(cost.argmin())]


def common_up(cameras: Cameras) -> Tensor:
    """The world direction [3] (float64, unit) that the pictures have on top.

    The mean of the cameras' own up vectors if it is level with their horizons (it may be short only if all look down, or
    all up); else (cameras rolled against each other)
    the normal of the plane in which they stand around the object, turned towards that mean.
    """
    poses = cameras.camera_to_world.double()
    mean, right, back = poses[:, :3, 1].mean(0), poses[:, :3, 0], poses[:, :3, 2]
    if float(mean.norm()) > 1e-3:
        up = mean / mean.norm()
        height = back @ up
        plausible = float(mean.norm()) > 0.6 or bool((height > 0).all()) or bool((height < 0).all())
        if plausible and float((right @ up).abs().mean()) < ROLL:
            return up
    normal = torch.linalg.eigh(back.T @ back)[1][:, 0]
    return normal if float((normal * mean).sum()) >= 0 else -normal


def snap_to_axis(up: Tensor, tolerance: float = 25.0) -> tuple[float, float, float]:
    """The world axis within ``tolerance`` degrees of ``up`` [3], or ``up`` itself: people's worlds have y or z up."""
    k = int(up.abs().argmax())
    if float(up[k].abs()) < math.cos(math.radians(tolerance)):
        return tuple(round(x, 6) for x in up.tolist())
    return tuple(math.copysign(1.0, float(up[k])) if i == k else 0.0 for i in range(3))


def normalize_views(
    rgba: Sequence[Tensor], cameras: Cameras, size: int, fixed: tuple[float, float] | None = None
) -> NormalizedViews:
    """Pictures [H, W, 4] (sizes may differ) with world cameras (V,) -> :class:`NormalizedViews` of ``size`` pixels.

    Args:
        fixed: (distance, vertical field of view in degrees) of a network that knows no other camera, as LGM. The world is
            then scaled to that distance if the object gets a usable size by it; else the object gets its usual size and the
            cameras are moved to that distance.
    """
    cameras = cameras.to("cpu", torch.float32)
    centre, radius = find_object(cameras, [x[..., 3] for x in rgba])
    offsets = cameras.positions.double() - centre
    scale, moved = OBJECT_RADIUS / radius, False
    if fixed is not None:
        to_distance = fixed[0] / float(offsets.norm(dim=-1).mean())
        moved = not FIXED_RADII[0] <= radius * to_distance <= FIXED_RADII[1]
        scale = scale if moved else to_distance
    up = common_up(cameras)
    matrix = torch.eye(4, dtype=torch.float64) * scale
    matrix[3, 3] = 1.0
    matrix[:3, 3] = -centre * scale
    pictures, poses, fovs = [], [], []
    for i, picture in enumerate(rgba):
        position = offsets[i] * scale
        distance = float(position.norm())
        if fixed is None:
            fov, nearer = fitting_view(distance)
        else:
            fov, nearer = fixed[1], fixed[0] / distance if moved else 1.0
        source_axes = cameras.camera_to_world[i, :3, :3].double()
        back = position / distance
        right = torch.linalg.cross(up, back)
        if float(right.norm()) < 1e-3:  # straight from above or below
            right = torch.linalg.cross(source_axes[:, 1], back)
        right = F.normalize(right, dim=-1)
        axes = torch.stack([right, torch.linalg.cross(back, right), back], dim=-1)  # columns x, y, z
        pictures.append(_reproject(picture, cameras[i], source_axes, axes, fov, nearer, size))
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = axes, position * nearer
        poses.append(pose.float())
        fovs.append(fov)
    normalized = Cameras.from_fov(torch.stack(poses), torch.tensor(fovs))
    return NormalizedViews(torch.stack(pictures), normalized, matrix)


def fitting_view(distance: float) -> tuple[float, float]:
    """(field of view in degrees that shows the normalised object from ``distance``, factor by which to come nearer)."""
    half = math.degrees(math.asin(min(OBJECT_RADIUS * MARGIN / distance, math.sin(math.radians(MAX_FOV / 2)))))
    if 2 * half >= MIN_FOV:
        return 2 * half, 1.0
    return MIN_FOV, OBJECT_RADIUS * MARGIN / math.sin(math.radians(MIN_FOV / 2)) / distance


def spread_views(cameras: Cameras, count: int) -> list[int]:
    """Indices of ``count`` cameras that see the most different sides: the first, then always the farthest from those chosen."""
    directions = cameras.camera_to_world[:, :3, 2]  # from what the camera looks at to the camera
    chosen = [0]
    while len(chosen) < min(count, len(cameras)):
        nearest = (directions @ directions[chosen].T).amax(dim=1)
        nearest[chosen] = 2.0
        chosen.append(int(nearest.argmin()))
    return sorted(chosen)


def _eroded(mask: Tensor) -> Tensor:
    """Mask [H, W] without its one-pixel rim, so that only the outline need be measured."""
    padded = F.pad(mask.float()[None, None], (1, 1, 1, 1))
    return (-F.max_pool2d(-padded, 3, stride=1))[0, 0] > 0.5


def _directions(cameras: Cameras, index: int, points: Tensor) -> Tensor:
    """World unit directions [N, 3] (float64) through normalised picture positions [N, 2]."""
    fx, fy, cx, cy = cameras.intrinsics[index].double().tolist()
    points = points.double()
    local = torch.stack([(points[:, 0] - cx) / fx, -(points[:, 1] - cy) / fy, -torch.ones(len(points))], dim=-1)
    return F.normalize(local.double() @ cameras.camera_to_world[index, :3, :3].double().T, dim=-1)


def _reproject(
    picture: Tensor, camera: Cameras, source: Tensor, axes: Tensor, fov: float, nearer: float, size: int
) -> Tensor:
    """Picture [H, W, 4] seen with other axes [3, 3] from the same place: [4, size, size] straight alpha, antialiased."""
    h, w = picture.shape[:2]
    fx, fy, cx, cy = camera.intrinsics.double().tolist()
    half = math.tan(math.radians(fov / 2)) * nearer
    steps = ((torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1) * half
    x, y = torch.meshgrid(steps, -steps, indexing="xy")
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1) @ (source.T @ axes).T  # in the source camera's axes
    depth = (-local[..., 2]).clamp_min(1e-6)
    u, v = local[..., 0] / depth * fx + cx, -local[..., 1] / depth * fy + cy
    flat = torch.cat([picture[..., :3] * picture[..., 3:], picture[..., 3:]], dim=-1).permute(2, 0, 1)[None].float()
    shrink = fy * h * 2 * half / size  # source pixels per new pixel
    if shrink > 1.5:
        factor = round(shrink)
        flat = F.interpolate(flat, (max(h // factor, 1), max(w // factor, 1)), mode="area")
    grid = torch.stack([u * 2 - 1, v * 2 - 1], dim=-1).float()[None]
    behind = (local[..., 2] >= -1e-6)[None, ..., None]
    grid = torch.where(behind, torch.full_like(grid, 2.0), grid)
    out = F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return torch.cat([out[:3] / out[3:].clamp_min(1e-4), out[3:]], dim=0).clamp(0, 1)
