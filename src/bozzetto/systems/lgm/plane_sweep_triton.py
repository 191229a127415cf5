"""The channels of :mod:`.plane_sweep` in two Triton kernels, without temporaries for each candidate and without a wait.

* ``halve_kernel``: a lane owns a cell of a picture, 4 x 4 pixels. It writes their four half-size pixels, premultiplied by alpha,
  and the cell's own colour.
* ``sweep_kernel``: a program owns 128 rays of one slot and four neighbouring candidates on each; a thread has a ray's four. Hull,
  agreement and brightness stay in registers while the known pictures of the object are looked at one after another: project,
  four taps of four channels, compare with the ray's own colour. A picture that is not known costs one load. Both numbers of a
  point are written where the fold puts them, a ray's four candidates side by side.

Programs never synchronise with each other; the kernels run one after the other on one stream and can be recorded in a graph.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...camera import Cameras
from ...nn.launch import cdiv, launch
from .plane_sweep import CELL, COLOUR_GAIN, REACH, sweep_planes
from .projection_triton import FRONT, LEAST, shown, slopes, turned, turned_back, unlike

BLOCK_CELLS, BLOCK_POINTS = 128, 512  # of a program
FOLD, DEEP, GAIN = tl.constexpr(CELL), tl.constexpr(REACH), tl.constexpr(COLOUR_GAIN)


@triton.jit(do_not_specialize=["count", "side"])
def halve_kernel(rgba, pictures, colours, count, side, BLOCK: tl.constexpr):
    """Grid (blocks of cells). ``rgba`` [N, 4, S, S] -> ``pictures`` [N, 4, S/2, S/2], ``colours`` [N, 3, S/4, S/4]."""
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = cell < count
    cells = side * side
    image = cell // cells
    rest = cell - image * cells
    row = rest // side
    column = rest - row * side
    source = rgba + image.to(tl.int64) * (64 * cells) + row * (16 * side) + 4 * column
    to = pictures + image.to(tl.int64) * (16 * cells) + row * (4 * side) + 2 * column
    red = tl.zeros([BLOCK], tl.float32)
    green, blue, total = red, red, red
    for part in tl.static_range(4):
        r, g, b, a = tl.zeros_like(red), tl.zeros_like(red), tl.zeros_like(red), tl.zeros_like(red)
        for k in tl.static_range(4):
            at = source + (2 * (part // 2) + k // 2) * (4 * side) + 2 * (part % 2) + k % 2
            alpha = 0.25 * tl.load(at + 48 * cells, mask=mask, other=0.0).to(tl.float32)
            r += alpha * tl.load(at, mask=mask, other=0.0).to(tl.float32)
            g += alpha * tl.load(at + 16 * cells, mask=mask, other=0.0).to(tl.float32)
            b += alpha * tl.load(at + 32 * cells, mask=mask, other=0.0).to(tl.float32)
            a += alpha
        half = to + (part // 2) * (2 * side) + part % 2
        tl.store(half, r, mask=mask)
        tl.store(half + 4 * cells, g, mask=mask)
        tl.store(half + 8 * cells, b, mask=mask)
        tl.store(half + 12 * cells, a, mask=mask)
        red, green, blue, total = red + r, green + g, blue + b, total + a
    scale = 1.0 / tl.maximum(total, 4.0 * LEAST)
    own = colours + image.to(tl.int64) * (3 * cells) + rest
    tl.store(own, red * scale, mask=mask)
    tl.store(own + cells, green * scale, mask=mask)
    tl.store(own + 2 * cells, blue * scale, mask=mask)


@triton.jit(do_not_specialize=["side", "candidates", "s_step"])
def sweep_kernel(
    pictures,
    colours,
    poses,
    intrinsics,
    known,
    out,
    side,
    candidates,
    s_step,
    VIEWS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Grid (blocks of rays, fours of candidates, slots of all objects). ``s_step``: elements of ``out`` from slot to slot."""
    slot, four = tl.program_id(2), tl.program_id(1)
    first = slot // VIEWS * VIEWS  # the object's first slot
    point = tl.arange(0, POINTS)
    cell = tl.program_id(0) * (POINTS // 4) + point % (POINTS // 4)
    one = point // (POINTS // 4)  # of the four candidates: lanes are neighbouring rays, which meet neighbouring pixels
    cells = side * side
    inside = cell < cells
    row = cell // side
    column = cell - row * side
    half = side * (FOLD // 2)
    plane = half * half

    colour = colours + slot.to(tl.int64) * (3 * cells) + cell
    red = tl.load(colour, mask=inside, other=0.0)
    green = tl.load(colour + cells, mask=inside, other=0.0)
    blue = tl.load(colour + 2 * cells, mask=inside, other=0.0)

    # The ray, and how far along it each candidate lies.
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
    step = (4 * four + one).to(tl.float32) * 2.0 / (candidates - 1) - 1.0
    along = tl.sqrt(ox * ox + oy * oy + oz * oz) + DEEP * step

    hull = tl.full([POINTS], 1.0, tl.float32)
    agreement = tl.zeros([POINTS], tl.float32)
    light = tl.zeros([POINTS], tl.float32)
    count = 0.0
    for u in range(VIEWS):
        other = first + u
        there = tl.load(known + other)
        if there > 0.0:
            seen, look = poses + other * 16, intrinsics + other * 4
            sx, sy, sz = ox - tl.load(seen + 3), oy - tl.load(seen + 7), oz - tl.load(seen + 11)
            x = turned_back(seen, sx, sy, sz, 0) + along * turned_back(seen, dx, dy, dz, 0)
            y = turned_back(seen, sx, sy, sz, 1) + along * turned_back(seen, dx, dy, dz, 1)
            z = -turned_back(seen, sx, sy, sz, 2) - along * turned_back(seen, dx, dy, dz, 2)
            front = inside & (z > FRONT) & (hull > 0.0)  # where a mask rules a point out, nothing else about it matters
            picture = pictures + other.to(tl.int64) * (4 * plane)
            r, g, b, a = shown(picture, plane, half, look, x, y, z, front)
            hull = tl.minimum(hull, a)
            light += r + g + b
            count += 1.0
            if other != slot:
                agreement = tl.maximum(agreement, 1.0 - (GAIN / 3.0) * unlike(r, g, b, a, red, green, blue))

    if tl.load(known + slot) > 0.0:
        second = agreement * hull
    else:
        second = light * hull / (3.0 * tl.maximum(count, 1.0))
    # Folded: numbers 4 n to 4 n + 3 of a ray are row n % 4 of its cell in channel n / 4.
    size = FOLD * side
    to = out + slot.to(tl.int64) * s_step
    to += row * (FOLD * size) + column * FOLD + one
    tl.store(to + (four // FOLD * size + four % FOLD) * size, hull - 0.5, mask=inside)
    four += candidates // 4
    tl.store(to + (four // FOLD * size + four % FOLD) * size, second, mask=inside)


def sweep(rgba: Tensor, cameras: Cameras, known: Tensor, candidates: int, out: Tensor | None = None) -> Tensor:
    """:func:`.plane_sweep.sweep_channels` in single precision: [B, V, planes, S, S]. S is a multiple of ``CELL``.

    ``out``: where to write them, float32; None for memory of their own. Its pictures are dense and its slots follow one
    another, such as the last channels of a tensor with more.
    """
    b, v, _, size, _ = rgba.shape
    if size % CELL:
        raise ValueError(f"pictures must have a multiple of {CELL} pixels along a side, got {size}")
    half, side = size // 2, size // CELL
    rgba, known = rgba.contiguous(), known.float().contiguous()
    poses, lenses = (t.float().contiguous() for t in (cameras.camera_to_world, cameras.intrinsics))
    pictures = torch.empty((b, v, 4, half, half), dtype=torch.float32, device=rgba.device)
    colours = torch.empty((b, v, 3, side, side), dtype=torch.float32, device=rgba.device)
    shape = (b, v, sweep_planes(candidates), size, size)
    if out is None:
        out = torch.empty(shape, dtype=torch.float32, device=rgba.device)
    dense = out.stride()[2:] == (size * size, size, 1) and (b == 1 or out.stride(0) == v * out.stride(1))
    if out.shape != shape or not dense:
        raise ValueError(f"out must be dense pictures of shape {shape}, got {tuple(out.shape)}, steps {out.stride()}")
    count = b * v * side * side
    launch(halve_kernel, (cdiv(count, BLOCK_CELLS), 1, 1), (rgba, pictures, colours, count, side), (BLOCK_CELLS,), 4)
    grid = (cdiv(4 * side * side, BLOCK_POINTS), candidates // 4, b * v)
    args = (pictures, colours, poses, lenses, known, out, side, candidates, out.stride(1))
    launch(sweep_kernel, grid, args, (v, BLOCK_POINTS), 4)
    return out
