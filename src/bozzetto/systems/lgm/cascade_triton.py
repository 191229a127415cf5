"""The channels of :mod:`.cascade` in two Triton kernels, without temporaries for each point and without a wait.

* ``cascade_kernel``: a program owns 128 rays of one slot and four neighbouring depths on each; a thread has a ray's four. Hull,
  agreement and brightness stay in registers while the other known pictures of the object are looked at one after another:
  project, four taps of four channels, compare with the ray's own colour. A picture that is not known costs one load. A ray's
  numbers lie side by side, four of each half by a thread.
* ``surface_kernel``: a program owns 128 rays of one slot, a thread one of them. It looks up the other slots' distances where its
  Gaussian lies; the three results stay in registers meanwhile.

Programs never synchronise with each other; the kernels write different channels and can be recorded in a graph.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...camera import Cameras
from ...nn.launch import cdiv, launch
from .cascade import APART, CLOSE, COVERED, SPACING, SURFACES, cascade_planes
from .plane_sweep_triton import BLOCK_POINTS, GAIN
from .projection_triton import FRONT, LEAST, neighbours, place, shown, slopes, turned, turned_back, unlike

STEP, UNIT, SHARP = tl.constexpr(SPACING), tl.constexpr(APART), tl.constexpr(CLOSE)
LEAST_COVER, COUNT = tl.constexpr(COVERED), tl.constexpr(SURFACES)
BLOCK_RAYS = 128


@triton.jit(do_not_specialize=["side", "depths", "wide"])
def cascade_kernel(
    pictures, distance, poses, intrinsics, known, out, side, depths, wide, VIEWS: tl.constexpr, POINTS: tl.constexpr
):
    """Grid (blocks of rays, fours of depths, slots of all objects); ``out`` [slots, side, side, wide]."""
    slot, four = tl.program_id(2), tl.program_id(1)
    first = slot // VIEWS * VIEWS  # the object's first slot
    point = tl.arange(0, POINTS)
    cell = tl.program_id(0) * (POINTS // 4) + point % (POINTS // 4)
    one = point // (POINTS // 4)  # of the four depths: lanes are neighbouring rays, which meet neighbouring pixels
    plane = side * side
    inside = cell < plane
    row = cell // side
    column = cell - row * side

    own = pictures + slot.to(tl.int64) * (4 * plane) + cell
    scale = 1.0 / tl.maximum(tl.load(own + 3 * plane, mask=inside, other=0.0), LEAST)
    red = tl.load(own, mask=inside, other=0.0) * scale
    green = tl.load(own + plane, mask=inside, other=0.0) * scale
    blue = tl.load(own + 2 * plane, mask=inside, other=0.0) * scale

    # The ray, and how far along it each point lies.
    pose, lens = poses + slot * 16, intrinsics + slot * 4
    right, up = slopes(lens, row, column, side)
    ahead = 1.0 / tl.sqrt(right * right + up * up + 1.0)
    right, up = right * ahead, up * ahead
    dx, dy, dz = (
        turned(pose, right, up, -ahead, 0),
        turned(pose, right, up, -ahead, 1),
        turned(pose, right, up, -ahead, 2),
    )
    ox, oy, oz = tl.load(pose + 3), tl.load(pose + 7), tl.load(pose + 11)
    step = STEP * tl.sqrt(ox * ox + oy * oy + oz * oz) / (tl.load(lens + 1) * side)
    along = tl.load(distance + slot.to(tl.int64) * plane + cell, mask=inside, other=1.0)
    along += step * ((4 * four + one).to(tl.float32) - 0.5 * (depths - 1))

    hull = tl.full([POINTS], 1.0, tl.float32)
    agreement = tl.zeros([POINTS], tl.float32)
    light = tl.zeros([POINTS], tl.float32)
    count = 0.0
    for u in range(VIEWS):
        other = first + u
        there = tl.load(known + other)
        if (there > 0.0) & (other != slot):
            seen, look = poses + other * 16, intrinsics + other * 4
            sx, sy, sz = ox - tl.load(seen + 3), oy - tl.load(seen + 7), oz - tl.load(seen + 11)
            x = turned_back(seen, sx, sy, sz, 0) + along * turned_back(seen, dx, dy, dz, 0)
            y = turned_back(seen, sx, sy, sz, 1) + along * turned_back(seen, dx, dy, dz, 1)
            z = -turned_back(seen, sx, sy, sz, 2) - along * turned_back(seen, dx, dy, dz, 2)
            front = inside & (z > FRONT) & (hull > 0.0)  # where a mask rules a point out, nothing else about it matters
            picture = pictures + other.to(tl.int64) * (4 * plane)
            r, g, b, a = shown(picture, plane, side, look, x, y, z, front)
            hull = tl.minimum(hull, a)
            light += r + g + b
            count += 1.0
            agreement = tl.maximum(agreement, 1.0 - (GAIN / 3.0) * unlike(r, g, b, a, red, green, blue))

    if tl.load(known + slot) > 0.0:
        second = agreement * hull
    else:
        second = light * hull / (3.0 * tl.maximum(count, 1.0))
    to = out + (slot.to(tl.int64) * plane + cell) * wide + 4 * four + one
    tl.store(to, (hull - 0.5).to(out.dtype.element_ty), mask=inside)
    tl.store(to + depths, second.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sheet(picture, distance, plane, at, weight, inside):
    """Of one neighbour: whether it shows the object, times its weight, and that times its distance."""
    shown = tl.where(tl.load(picture + 3 * plane + at, mask=inside, other=0.0) > 0.5, weight, 0.0)
    return shown * tl.load(distance + at, mask=inside, other=0.0), shown


@triton.jit(do_not_specialize=["side", "depths", "wide"])
def surface_kernel(
    pictures, distance, poses, intrinsics, known, out, side, depths, wide, VIEWS: tl.constexpr, RAYS: tl.constexpr
):
    """Grid (blocks of rays, slots of all objects); ``out`` [slots, side, side, wide], of which this writes the last three."""
    slot = tl.program_id(1)
    first = slot // VIEWS * VIEWS
    cell = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    plane = side * side
    inside = cell < plane
    row = cell // side
    column = cell - row * side
    pose, lens = poses + slot * 16, intrinsics + slot * 4
    right, up = slopes(lens, row, column, side)
    along = tl.load(distance + slot.to(tl.int64) * plane + cell, mask=inside, other=1.0)
    along = along / tl.sqrt(right * right + up * up + 1.0)
    right, up = right * along, up * along
    px = tl.load(pose + 3) + turned(pose, right, up, -along, 0)
    py = tl.load(pose + 7) + turned(pose, right, up, -along, 1)
    pz = tl.load(pose + 11) + turned(pose, right, up, -along, 2)
    least, many = tl.zeros([RAYS], tl.float32), tl.zeros([RAYS], tl.float32)
    nearest = tl.full([RAYS], 2.0, tl.float32)
    for u in range(VIEWS):
        other = first + u
        there = tl.load(known + other)
        if (there > 0.0) & (other != slot):
            seen, look = poses + other * 16, intrinsics + other * 4
            sx, sy, sz = px - tl.load(seen + 3), py - tl.load(seen + 7), pz - tl.load(seen + 11)
            away = tl.sqrt(sx * sx + sy * sy + sz * sz)
            x, y = turned_back(seen, sx, sy, sz, 0), turned_back(seen, sx, sy, sz, 1)
            z = -turned_back(seen, sx, sy, sz, 2)
            front = inside & (z > FRONT)
            i, j, x, y = place(x, y, z, look, side)
            west, east, north, south = neighbours(i, j, side, front)
            picture = pictures + other.to(tl.int64) * (4 * plane)
            sheet = distance + other.to(tl.int64) * plane
            at = j * side + i
            d, w = _sheet(picture, sheet, plane, at, (1.0 - x) * (1.0 - y), north & west)
            d1, w1 = _sheet(picture, sheet, plane, at + 1, x * (1.0 - y), north & east)
            d, w = d + d1, w + w1
            d1, w1 = _sheet(picture, sheet, plane, at + side, (1.0 - x) * y, south & west)
            d, w = d + d1, w + w1
            d1, w1 = _sheet(picture, sheet, plane, at + side + 1, x * y, south & east)
            d, w = d + d1, w + w1
            behind = (away - d / tl.maximum(w, LEAST_COVER)) / UNIT
            behind = tl.minimum(tl.maximum(behind, -1.0), 1.0)
            covered = w > LEAST_COVER
            least = tl.where(covered, tl.minimum(least, behind), least)
            nearest = tl.where(covered & (tl.abs(behind) < tl.abs(nearest)), behind, nearest)
            many += tl.where(covered, tl.maximum(1.0 - SHARP * tl.abs(behind), 0.0) / COUNT, 0.0)
    nearest = tl.where(nearest > 1.0, 0.0, nearest)
    to = out + (slot.to(tl.int64) * plane + cell) * wide + 2 * depths
    tl.store(to, least.to(out.dtype.element_ty), mask=inside)
    tl.store(to + 1, nearest.to(out.dtype.element_ty), mask=inside)
    tl.store(to + 2, many.to(out.dtype.element_ty), mask=inside)


def cascade(
    pictures: Tensor, known: Tensor, cameras: Cameras, distance: Tensor, depths: int, dtype: torch.dtype
) -> Tensor:
    """:func:`.cascade.cascade_channels` by the kernel."""
    b, v, _, side, _ = pictures.shape
    given = (pictures, distance, cameras.camera_to_world, cameras.intrinsics, known)
    given = [t.float().contiguous() for t in given]
    wide = cascade_planes(depths)
    out = torch.empty((b * v, side, side, wide), dtype=dtype, device=pictures.device)
    grid = (cdiv(4 * side * side, BLOCK_POINTS), depths // 4, b * v)
    launch(cascade_kernel, grid, (*given, out, side, depths, wide), (v, BLOCK_POINTS), 4)
    grid = (cdiv(side * side, BLOCK_RAYS), b * v, 1)
    launch(surface_kernel, grid, (*given, out, side, depths, wide), (v, BLOCK_RAYS), 4)
    return out.permute(0, 3, 1, 2)
