"""Handles, stems and wires: structures of a few voxels' width, which the fusion loses.

To a depth map such a structure is all edge: no pixel tells where its surface is, so that a single view which sees past it clears
its voxels. Networks make it half transparent, too, and where it is less than half opaque every view sees past it.

Both are mended by looking for it. A pixel shows a thin structure where it is more opaque than its surroundings on both sides
(a top-hat: opacity less its opening), however faint; the rim of a body or of fog is not. Then a place among the splats belongs
to one if hardly a view sees past it and more views touch it than have something before it: a body hides each of its places
from about half of the views or more, a wire none. Only where a structure is missing from the volume, and near there, its places
become balls, so that it holds together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Cameras
from ..raster.threads import run_tasks, spans
from .capture import SURFACE_ALPHA

WIDTH = 1 / 32  # of the picture; what is wider is not thin
PROMINENCE = 0.2  # opacity by which a thin structure stands out
LOOK_AROUND = 3 / 7  # of that width, within which a view looks for the nearest surface
TOLERANCE = (
    2 / 128
)  # of the object's longest side, or two voxels: how far a surface may lie from a place that it touches
SPREAD = 0.5  # what a pixel's deviation of depth adds to that
TOUCHED = 0.4  # of the views must touch a place of a thin structure
PAST = 0.15  # of them may see past it
FAINT = 0.03  # density under which a place is not among the splats
DEEP = -0.6  # volume under which a place is inside anyway
FEWEST = 8  # places of a structure
MISSING = 2  # voxels; what lies so near to a place inside is there, or the rim of a body
JOINT = 12  # voxels around what is missing, within which the rest of its structure is strengthened, too
# Where it meets a body, which hides it from some views and past whose edge others look: what is among the splats beyond doubt,
# and outside the volume, goes on.
DENSE, JOINT_PAST, JOINT_TOUCHED = 0.12, 0.25, 0.3
RADIUS = 0.9  # voxels, of the ball around a place; from 0.87 on balls touch across a corner
SLOPE = 1.5  # voxels over which the volume grows by 1 around it
PLACES_PER_CHUNK = 1 << 16
FAR = 100.0


@dataclass
class ThinViews:
    """Between which depths views see a surface, thin structures included.

    Attributes:
        bounds: [V, H, W, 2], camera z: what lies before the first is before the surface (seen past), what lies after the
            second is behind it; FAR for background.
        cameras: batch (V,).
    """

    bounds: Tensor
    cameras: Cameras


def odd(width: float) -> int:
    """The nearest odd number of pixels, at least 3."""
    return max(3, 2 * round((width - 1) / 2) + 1)


def _largest(maps: Tensor, size: int) -> Tensor:
    """Largest value [V, H, W] within ``size`` pixels squared."""
    for axis in (1, 2):
        around = [size // 2, size // 2, 0, 0] if axis == 2 else [0, 0, size // 2, size // 2]
        maps, window = F.pad(maps, around, value=-torch.inf), 1
        while window < size:  # windows grow by joining shifted ones
            shift, length = min(window, size - window), maps.shape[axis]
            maps = torch.maximum(maps.narrow(axis, 0, length - shift), maps.narrow(axis, shift, length - shift))
            window += shift
    return maps


def thin_pixels(alpha: Tensor) -> Tensor:
    """Where pictures [V, H, W] of opacity show something of less than WIDTH that stands out from both of its sides."""
    size = odd(WIDTH * alpha.shape[-1])
    return alpha - _largest(-_largest(-alpha, size), size) > PROMINENCE


def thin_views(alpha: Tensor, depth: Tensor, spread: Tensor, cameras: Cameras, tolerance: float) -> ThinViews:
    """What views of opacity, depth and its deviation, each [V, H, W], see of surfaces that are opaque or thin.

    ``tolerance``: length by which a place may be off.
    """
    shown = (alpha >= SURFACE_ALPHA) | thin_pixels(alpha)
    nearest = torch.where(shown, depth - SPREAD * spread - tolerance, FAR)
    farthest = torch.where(shown, depth + SPREAD * spread + tolerance, FAR)
    size = odd(LOOK_AROUND * WIDTH * alpha.shape[-1])
    bounds = torch.stack([-_largest(-nearest, size), -_largest(-farthest, size)], dim=-1)
    return ThinViews(bounds, cameras.to(alpha.device))


def count_touches(points: Tensor, views: ThinViews) -> tuple[Tensor, Tensor]:
    """How many views see a surface at each of the ``points`` [P, 3], and how many see past it, both [P]; the rest are blocked."""
    touch, past = points.new_zeros(len(points)), points.new_zeros(len(points))
    for i in range(len(views.bounds)):
        position, z = views.cameras[i].project(points)
        grid = (position * 2 - 1)[None, :, None, :]
        bounds = views.bounds[i].movedim(-1, 0)[None]
        first, last = F.grid_sample(bounds, grid, mode="nearest", align_corners=False)[0, :, :, 0]
        past += z < first
        touch += (z >= first) & (z <= last)
    return touch, past


def _count_touches_cpu(points: Tensor, views: ThinViews) -> tuple[Tensor, Tensor]:
    """:func:`count_touches` by compiled loops."""
    from .fusion_kernels import count_touches as loop

    c = views.cameras
    rows = torch.cat([c.positions, c.view_matrices()[:, :3].flatten(1), c.intrinsics], dim=1).expand(
        len(views.bounds), 19
    )
    arrays = [t.float().contiguous().numpy() for t in (points, views.bounds, rows)]
    touch, past = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
    run_tasks((loop, *arrays, *span, touch, past) for span in spans(len(points), 4096))
    return torch.from_numpy(touch), torch.from_numpy(past)


def thin_structures(volume: Tensor, density: Tensor, origin: Tensor, voxel: float, views: ThinViews) -> Tensor:
    """Places [P, 3] (indices into ``volume`` [X, Y, Z]) of thin structures of the splats of this ``density`` [X, Y, Z]."""
    from scipy.spatial import cKDTree

    if not bool((volume < 0).any()):  # they are parts of a body
        return torch.zeros(0, 3, dtype=torch.long, device=volume.device)
    places = ((density > FAINT) & (volume > DEEP)).nonzero()
    count = _count_touches_cpu if volume.device.type == "cpu" else count_touches
    touch, past = count(places * voxel + origin, views)
    number = len(views.bounds)
    at = tuple(places.T)
    lost = (density[at] > DENSE) & (volume[at] > 0) & (past <= JOINT_PAST * number) & (touch >= JOINT_TOUCHED * number)
    lost = places[lost]
    places = places[(touch >= TOUCHED * number) & (past <= PAST * number) & (touch > number - touch - past)]
    if len(places) == 0:
        return places
    inside = [_inside_around(part, volume) for part in places.split(PLACES_PER_CHUNK)]
    at = places.cpu().numpy()
    missing = ~torch.cat(inside).cpu().numpy()
    missing[missing] = _group_sizes(at[missing], np.ones(missing.sum(), bool)) >= FEWEST  # specks are noise
    if not missing.any():
        return places[:0]
    # What hangs together with it is strengthened near it, too, where it is likely to break.
    near = cKDTree(at[missing]).query(at, distance_upper_bound=JOINT)[0] <= JOINT
    return _joined(
        places[torch.from_numpy(near & (_group_sizes(at, missing) > 0)).to(places.device)], lost, volume.shape
    )


def _joined(places: Tensor, lost: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The places [P, 3] and those of ``lost`` [Q, 3] that hang together with them within JOINT voxels."""
    allowed, chosen = (torch.zeros(shape, device=places.device) for _ in range(2))
    allowed[tuple(lost.T)] = chosen[tuple(places.T)] = 1.0
    for _ in range(JOINT):
        chosen = torch.maximum(F.max_pool3d(chosen[None, None], 3, 1, 1)[0, 0] * allowed, chosen)
    return chosen.nonzero()


def _group_sizes(places: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """How many ``counted`` [P] ones are among those of ``places`` [P, 3] that each hangs together with (26 neighbours), [P]."""
    from scipy import ndimage

    if len(places) == 0:
        return np.zeros(0, np.int64)
    at = tuple((places - places.min(axis=0)).T)
    there = np.zeros([axis.max() + 1 for axis in at], bool)
    there[at] = True
    group = ndimage.label(there, np.ones((3, 3, 3)))[0][at]
    return np.bincount(group, counted)[group]


def _around(places: Tensor, radius: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Flat indices of all within ``radius`` voxels of ``places`` [P, 3], whether they are in it, both [P, K]; distances [K]."""
    steps = torch.arange(-radius, radius + 1, device=places.device)
    around = torch.cartesian_prod(steps, steps, steps)
    distance = around.float().norm(dim=-1)
    around, distance = around[distance <= radius], distance[distance <= radius]
    cell = places[:, None] + around  # [P, K, 3]
    inside = ((cell >= 0) & (cell < torch.tensor(shape, device=places.device))).all(dim=-1)
    index = (cell[..., 0] * shape[1] + cell[..., 1]) * shape[2] + cell[..., 2]
    return torch.where(inside, index, 0), inside, distance


def _inside_around(places: Tensor, volume: Tensor) -> Tensor:
    """Whether the volume is below 0 anywhere within MISSING voxels of ``places`` [P, 3], [P]."""
    index, there, _ = _around(places, MISSING, volume.shape)
    return ((volume.reshape(-1)[index] < 0) & there).any(dim=1)


def with_balls(volume: Tensor, places: Tensor) -> Tensor:
    """The volume [X, Y, Z] joined with balls of RADIUS voxels around ``places`` [P, 3] within it."""
    flat = volume.reshape(-1).clone()
    for part in places.split(PLACES_PER_CHUNK):
        index, there, distance = _around(part, 2, volume.shape)
        value = ((distance - RADIUS) / SLOPE).expand(index.shape)[there]
        flat.scatter_reduce_(0, index[there], value.to(flat), "amin")
    return flat.reshape(volume.shape)
