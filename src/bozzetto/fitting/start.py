"""Where an optimisation begins: points in space, and small Gaussians on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..camera import Cameras
from ..errors import ForegroundError, InputError
from ..gaussians import Gaussians

START_OPACITY = 0.1
LEAST_POINTS = 4  # the size of each is measured by its nearest three
_CANDIDATES = 40  # drawn for one that is kept, at most, when masks carve the volume
_ENOUGH = 50  # points in the masks that tell the box in which to draw the others


def viewed_sphere(cameras: Cameras) -> tuple[Tensor, float]:
    """Centre [3] and radius of the sphere that cameras (V,) look at together, world units, float64.

    The centre is the point nearest to all viewing axes (for parallel or diverging ones, a point before the cameras); the
    radius is what fits into the picture of the nearest camera.
    """
    pose = cameras.camera_to_world.double().cpu()
    origins, forward = pose[:, :3, 3], -pose[:, :3, 2]
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    system, right = across.sum(0), (across @ origins[..., None]).sum(0)[:, 0]
    distance = (origins - origins.mean(0)).norm(dim=-1).max().clamp_min(1e-3)
    if float(torch.linalg.eigvalsh(system)[0]) > 1e-3 * len(origins):
        centre = torch.linalg.solve(system, right)
        if bool((((centre - origins) * forward).sum(-1) > 0).float().mean() > 0.5):
            distance = (centre - origins).norm(dim=-1).min()
        else:  # they look outwards, as inside a room
            centre, distance = origins.mean(0), 2 * distance
    else:
        centre = origins.mean(0) + 2 * distance * forward.mean(0)
        distance = 2 * distance
    half = math.radians(float(cameras.fov_y.min()) / 2)
    return centre, float(distance) * math.sin(half)


def seen_in_pictures(points: Tensor, images: Sequence[Tensor], cameras: Cameras) -> tuple[Tensor, Tensor]:
    """For points [N, 3]: the share of the pictures that show them in which a mask covers them [N], and their mean colour there
    [N, 3]. Pictures [H, W, 3 or 4]; without alpha all of a picture is mask. What no picture shows has the share 1.
    """
    shown, inside = torch.zeros(len(points)), torch.zeros(len(points))
    colour = torch.zeros(len(points), 3)
    for i, image in enumerate(images):
        place, depth = cameras[i].project(points)
        height, width = image.shape[:2]
        column, row = (place[:, 0] * width).floor().long(), (place[:, 1] * height).floor().long()
        visible = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth > 0)
        pixel = image[row.clamp(0, height - 1), column.clamp(0, width - 1)].float()
        covered = visible & (pixel[:, 3] > 0.5) if image.shape[-1] == 4 else visible
        shown += visible
        inside += covered
        colour += torch.where(covered[:, None], pixel[:, :3], torch.zeros(3))
    share = torch.where(shown > 0, inside / shown.clamp_min(1), torch.ones(()))
    return share, torch.where(inside[:, None] > 0, colour / inside.clamp_min(1)[:, None], torch.tensor(0.5))


def random_points(images: Sequence[Tensor], cameras: Cameras, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``count`` points [N, 3] and colours [N, 3], uniform in the sphere that the cameras look at.

    Where pictures have alpha, only points count that at least 95 % of the pictures which show them have in their mask: the
    visual hull. A colour is the mean of the pixels that a point falls on.

    Raises:
        ForegroundError: the masks of the pictures have no place in common.
    """
    centre, radius = viewed_sphere(cameras)
    generator = torch.Generator().manual_seed(seed)
    points, colours, have = [], [], 0
    masked = any(image.shape[-1] == 4 and bool((image[..., 3] < 0.5).any()) for image in images)
    box = None  # of what was kept, once that is enough to tell
    for _ in range(_CANDIDATES if masked else 1):
        if box is None:
            direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
            drawn = direction * torch.rand(count, 1, generator=generator) ** (1 / 3) * radius + centre.float()
        else:
            drawn = box[0] + (box[1] - box[0]) * torch.rand(count, 3, generator=generator)
        share, colour = seen_in_pictures(drawn, images, cameras)
        kept = share >= 0.95
        points.append(drawn[kept])
        colours.append(colour[kept])
        have += int(kept.sum())
        if have >= count:
            break
        if box is None and have >= _ENOUGH:
            inside = torch.cat(points)
            low, high = inside.amin(0), inside.amax(0)
            box = low - 0.05 * (high - low), high + 0.05 * (high - low)
    if have == 0:
        raise ForegroundError(
            "the masks of the pictures have no place in space in common; check that the cameras belong to the pictures, "
            "or give points to start from"
        )
    return torch.cat(points)[:count], torch.cat(colours)[:count]


def gaussians_on_points(points: Tensor, rgb: Tensor, sh_degree: int = 0, opacity: float = START_OPACITY) -> Gaussians:
    """Round Gaussians on points [N, 3] with colours [N, 3] in 0..1, as large as the mean distance of the nearest three.

    Raises:
        InputError: fewer than 4 points, or points that are not finite.
    """
    from scipy.spatial import cKDTree

    points, rgb = torch.as_tensor(points).float().cpu(), torch.as_tensor(rgb).float().cpu()
    if points.ndim != 2 or points.shape != rgb.shape or points.shape[-1] != 3 or len(points) < LEAST_POINTS:
        raise InputError(
            f"points and colours must be [N, 3] with N of at least {LEAST_POINTS}, got {tuple(points.shape)} and "
            f"{tuple(rgb.shape)}"
        )
    if not bool(torch.isfinite(points).all() and torch.isfinite(rgb).all()):
        raise InputError("the points to start from hold NaN or infinity; remove those points")
    distance = cKDTree(points.numpy()).query(points.numpy(), k=4)[0][:, 1:]
    size = torch.from_numpy(np.sqrt((distance**2).mean(1))).float()
    size = size.clamp_min(1e-3 * float(size.median()) + 1e-9)
    n = len(points)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4).clone()
    flat = Gaussians.from_rgb(points, size[:, None].expand(n, 3).clone(), quats, torch.full((n,), opacity), rgb)
    return with_sh_degree(flat, sh_degree)


def with_sh_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """The same Gaussians with ``degree`` 0..3 of spherical harmonics: zeros are added, or the higher ones dropped."""
    count = (degree + 1) ** 2
    sh = gaussians.sh[:, :count]
    sh = torch.cat([sh, sh.new_zeros(len(gaussians), count - sh.shape[1], 3)], dim=1)
    return Gaussians(gaussians.means, gaussians.scales, gaussians.quats, gaussians.opacities, sh)
