"""The blending of pixels across outlines in Triton: :mod:`.edges` with shapes that never depend on values.

* ``outline_kernel``: a lane owns a half-edge. Where the surface turns away there, the lane walks the lines of pixels that the
  edge crosses; each crossing in sight goes to the slot of (pixel, side) by an atomic maximum of an int64: the position's float
  bits above, so that the outermost wins, and the complement of the half-edge's number below, so that the first of equals wins.
* ``blend_kernel`` and ``blend_gradient_kernel``: a lane owns a pixel and gathers from the eight slots around it, so that pictures
  and their gradients are the same in every run. Gradients of vertices on the screen are added with relaxed atomics.

Programs synchronise only by the atomics; the kernels run one after the other on one stream.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .edges import BEHIND, BULGE, Topology
from .surface_triton import on, screen_place

BLOCK = 128
CHANNELS = 4
NEARER, FARTHER = tl.constexpr(1 + BULGE), tl.constexpr(1 - BEHIND)


@triton.jit
def _area(faces, screen, face, mask):
    """Corners of faces and twice their signed area on the screen."""
    at = faces + face.to(tl.int64) * 3
    a = tl.load(at, mask=mask, other=0)
    b = tl.load(at + 1, mask=mask, other=0)
    c = tl.load(at + 2, mask=mask, other=0)
    ax, ay = screen_place(screen, a, mask)
    bx, by = screen_place(screen, b, mask)
    cx, cy = screen_place(screen, c, mask)
    return a, b, c, (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


@triton.jit(do_not_specialize=["half_edges", "width", "height"])
def outline_kernel(
    faces, neighbour, screen, inverse, depth, keys, half_edges, width, height, AXIS: tl.constexpr, BLOCK: tl.constexpr
):
    """Grid (blocks of half-edges). Along rows (AXIS 0) or columns (1)."""
    edge = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = edge < half_edges
    face = edge // 3
    corner = edge - face * 3
    a, b, c, area = _area(faces, screen, face, mask)
    other = tl.load(neighbour + edge, mask=mask, other=0)
    _a, _b, _c, behind = _area(faces, screen, tl.maximum(other, 0), mask)
    outline = mask & ((other < 0) | ((area < 0.0) & (behind >= 0.0)))
    if tl.max(outline.to(tl.int32), axis=0) > 0:
        first = tl.where(corner == 0, a, tl.where(corner == 1, b, c))
        second = tl.where(corner == 0, b, tl.where(corner == 1, c, a))
        x0, y0 = screen_place(screen, first, outline)
        x1, y1 = screen_place(screen, second, outline)
        i0 = tl.load(inverse + first, mask=outline, other=1.0)
        i1 = tl.load(inverse + second, mask=outline, other=1.0)
        if AXIS == 0:
            p0, p1, q0, q1 = x0, x1, y0, y1  # along, across
            limit, lines = width, height
            steep = tl.abs(q1 - q0) > tl.abs(p1 - p0)
        else:
            p0, p1, q0, q1 = y0, y1, x0, x1
            limit, lines = height, width
            steep = tl.abs(q1 - q0) >= tl.abs(p1 - p0)
        # Not a number and infinite: no line lies between such ends.
        steep = outline & steep & (tl.abs(p1 - p0) < 1e30) & (tl.abs(q1 - q0) < 1e30)
        low = tl.maximum(tl.ceil(tl.minimum(q0, q1) - 0.5), 0.0)
        high = tl.minimum(tl.ceil(tl.maximum(q0, q1) - 0.5) - 1.0, (lines - 1).to(tl.float32))
        count = tl.where(steep & (high >= low), high - low + 1.0, 0.0).to(tl.int32)
        slope = q1 - q0
        slope = tl.where(slope == 0.0, 1.0, slope)
        upwards = (q1 - q0 > 0.0) == (area > 0.0)
        if AXIS == 0:
            upwards = upwards == 0
        step = 0
        most = tl.max(count, axis=0)
        while step < most:
            line = low + step
            share = (line + 0.5 - q0) / slope
            place = p0 + share * (p1 - p0) - 0.5
            lower = tl.floor(place)
            inside = (step < count) & (lower >= 0.0) & (lower < (limit - 1).to(tl.float32))
            position = place - lower
            position = tl.where(upwards, 1.0 - position, position)
            cell = tl.where(inside, lower, 0.0).to(tl.int32)
            number = tl.where(inside, line, 0.0).to(tl.int32)
            if AXIS == 0:
                low_pixel = number * width + cell
                high_pixel = low_pixel + 1
            else:
                low_pixel = cell * width + number
                high_pixel = low_pixel + width
            near = tl.where(upwards, high_pixel, low_pixel)
            far = tl.where(upwards, low_pixel, high_pixel)
            here = i0 + share * (i1 - i0)
            shown = tl.load(depth + near, mask=inside, other=0.0)
            beyond = tl.load(depth + far, mask=inside, other=0.0)
            good = inside & (shown > 0.0) & (shown < here * NEARER) & (beyond < here * FARTHER)
            slot = near.to(tl.int64) * 4 + 2 * AXIS + tl.where(upwards, 0, 1)
            key = (position.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0x7FFFFFFF - edge).to(tl.int64)
            tl.atomic_max(keys + slot, key, mask=good, sem="relaxed")
            step += 1


@triton.jit
def _neighbour(pixel, row, column, width, height, side: tl.constexpr):
    """The pixel on a side (0 left, 1 right, 2 above, 3 below) and whether there is one."""
    if side == 0:
        return pixel - 1, column > 0
    elif side == 1:
        return pixel + 1, column < width - 1
    elif side == 2:
        return pixel - width, row > 0
    else:
        return pixel + width, row < height - 1


@triton.jit
def _slot(keys, pixel, mask, side: tl.constexpr):
    """Whether a slot is taken, the crossing's position, and its half-edge."""
    key = tl.load(keys + pixel.to(tl.int64) * 4 + side, mask=mask, other=0)
    position = (key >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return key != 0, position, 0x7FFFFFFF - (key & 0xFFFFFFFF).to(tl.int32)


@triton.jit(do_not_specialize=["count", "width", "height"])
def blend_kernel(picture, keys, out, count, width, height, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (blocks of pixels)."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < count
    row = pixel // width
    column = pixel - row * width
    channel = tl.arange(0, CHANNELS)
    at = picture + pixel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    own = tl.load(at, mask=mask[:, None], other=0.0)
    result = own
    for side in tl.static_range(4):
        other, there = _neighbour(pixel, row, column, width, height, side)
        there = there & mask
        beside = picture + other.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        colour = tl.load(beside, mask=there[:, None], other=0.0)
        # The edge lies in this pixel, which is on its face's side ...
        taken, position, _edge = _slot(keys, pixel, mask, side)
        share = tl.where(taken & (position < 0.5), 0.5 - position, 0.0)
        # ... or on the other: the neighbour's slot faces the opposite way.
        taken, position, _edge = _slot(keys, other, there, side ^ 1)
        share += tl.where(taken & (position >= 0.5), position - 0.5, 0.0)
        result += share[:, None] * (colour - own)
    tl.store(out + pixel.to(tl.int64)[:, None] * CHANNELS + channel[None, :], result, mask=mask[:, None])


@triton.jit(do_not_specialize=["count", "width", "height"])
def blend_gradient_kernel(
    picture, keys, gradient, faces, screen, out, out_screen, count, width, height,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of pixels)."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < count
    row = pixel // width
    column = pixel - row * width
    channel = tl.arange(0, CHANNELS)
    mine = pixel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    own = tl.load(picture + mine, mask=mask[:, None], other=0.0)
    g = tl.load(gradient + mine, mask=mask[:, None], other=0.0)
    result = g
    for side in tl.static_range(4):
        other, there = _neighbour(pixel, row, column, width, height, side)
        there = there & mask
        beside = other.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        colour = tl.load(picture + beside, mask=there[:, None], other=0.0)
        g_beside = tl.load(gradient + beside, mask=there[:, None], other=0.0)
        taken, position, edge = _slot(keys, pixel, mask, side)
        inner = taken & (position < 0.5)
        outer = taken & (position >= 0.5)
        # What this pixel gave to the neighbour or lost to it ...
        share = tl.where(inner, 0.5 - position, 0.0)
        result -= share[:, None] * g
        share = tl.where(outer, position - 0.5, 0.0)
        result += share[:, None] * g_beside
        # ... and the position's gradient, to the edge's ends.
        mixed = tl.where(inner[:, None], g, g_beside)
        slope = tl.sum(mixed * (own - colour), axis=1)
        slope = tl.where(taken & there, slope, 0.0)
        if side % 2 == 0:  # the position grows towards the neighbour, which lies at lower coordinates
            slope = -slope
        face = edge // 3
        corner = edge - face * 3
        first = tl.load(faces + face.to(tl.int64) * 3 + corner, mask=taken, other=0).to(tl.int64)
        second = tl.load(faces + face.to(tl.int64) * 3 + (corner + 1) % 3, mask=taken, other=0).to(tl.int64)
        along = side // 2
        across = 1 - along
        q0 = tl.load(screen + first * 2 + across, mask=taken, other=0.0)
        q1 = tl.load(screen + second * 2 + across, mask=taken, other=1.0)
        p0 = tl.load(screen + first * 2 + along, mask=taken, other=0.0)
        p1 = tl.load(screen + second * 2 + along, mask=taken, other=0.0)
        line = (row if along == 0 else column).to(tl.float32) + 0.5
        length = tl.where(taken, q1 - q0, 1.0)
        at = (line - q0) / length
        by_share = slope * (p1 - p0) / length
        tl.atomic_add(out_screen + first * 2 + along, slope * (1.0 - at), mask=taken, sem="relaxed")
        tl.atomic_add(out_screen + second * 2 + along, slope * at, mask=taken, sem="relaxed")
        tl.atomic_add(out_screen + first * 2 + across, by_share * (at - 1.0), mask=taken, sem="relaxed")
        tl.atomic_add(out_screen + second * 2 + across, -by_share * at, mask=taken, sem="relaxed")
        taken, position, _edge = _slot(keys, other, there, side ^ 1)
        share = tl.where(taken & (position < 0.5), 0.5 - position, 0.0)
        result += share[:, None] * g_beside
        share = tl.where(taken & (position >= 0.5), position - 0.5, 0.0)
        result -= share[:, None] * g
    tl.store(out + mine, result, mask=mask[:, None])


def blend(picture: Tensor, depth: Tensor, screen: Tensor, inverse: Tensor, topology: Topology) -> tuple[Tensor, Tensor]:
    """The picture [H, W, 4] with blended outlines, and where they are: keys [H * W * 4] int64."""
    height, width = picture.shape[:2]
    keys = torch.zeros(height * width * 4, dtype=torch.int64, device=picture.device)
    out = torch.empty_like(picture)
    faces, half_edges = topology.faces, topology.faces.numel()
    with on(picture.device):
        for axis in range(2):
            outline_kernel[(triton.cdiv(half_edges, BLOCK),)](
                faces, topology.neighbour, screen, inverse, depth, keys, half_edges, width, height, axis, BLOCK,
                num_warps=4,
            )  # fmt: skip
        blend_kernel[(triton.cdiv(height * width, BLOCK),)](
            picture, keys, out, height * width, width, height, CHANNELS, BLOCK, num_warps=4
        )
    return out, keys


def blend_gradient(
    picture: Tensor, keys: Tensor, faces: Tensor, screen: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of the picture and of the vertices on the screen from that of :func:`blend`'s."""
    height, width = picture.shape[:2]
    out, out_screen = torch.empty_like(picture), torch.zeros_like(screen)
    with on(picture.device):
        blend_gradient_kernel[(triton.cdiv(height * width, BLOCK),)](
            picture, keys, gradient, faces, screen, out, out_screen, height * width, width, height,
            CHANNELS, BLOCK, num_warps=4,
        )  # fmt: skip
    return out, out_screen


class _Antialias(torch.autograd.Function):
    """:func:`.edges.antialias` with the pixels' 1 / z given."""

    @staticmethod
    def forward(ctx, picture: Tensor, depth: Tensor, screen: Tensor, inverse: Tensor, topology: Topology) -> Tensor:
        out, keys = blend(picture, depth, screen, inverse, topology)
        ctx.save_for_backward(picture, keys, topology.faces, screen)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        out, out_screen = blend_gradient(*ctx.saved_tensors, gradient.contiguous())
        return out, None, out_screen, None, None


def antialias(picture: Tensor, depth: Tensor, screen: Tensor, inverse: Tensor, topology: Topology) -> Tensor:
    """Blend pixels across outlines, as :func:`.edges.antialias` does.

    Args:
        picture: [H, W, 4]. depth: [H * W], from :func:`.surface_triton.surface_points`. screen: [N, 2]; inverse: [N].
            topology: with int32 faces and neighbours.
    """
    if picture.shape[-1] != CHANNELS:
        raise ValueError(f"pictures have {CHANNELS} channels here, got {picture.shape[-1]}")
    return _Antialias.apply(
        picture.contiguous(),
        depth,
        screen.contiguous(),
        inverse.detach().contiguous(),
        topology,
    )
