"""Projection of Gaussians to every view (steps 1 to 3 of :mod:`bozzetto.raster.reference`) as a Triton kernel.

Each Gaussian becomes, in each view, a *record* of 10 floats, kept as 5 int64 of two each: centre x, y (pixels); a, b, c
and log2 opacity, so that alpha = 2^(a dx^2 + b dx dy + c dy^2 + log2 opacity); colour r, g, b (-0.0 where the clamp at 0
acted); camera z. A *lean* record is 3 int64, without colour, which is read from the SH coefficients then, and z, which has
a place of its own. Besides, it becomes a pair with every tile that it can reach with alpha >= 1/255: one program takes 512
Gaussians of a view, one a thread, counts them by tile in shared memory, and writes its pairs grouped by tile.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_launch import Launcher
from .triton_layout import BLOCK, CELL, TILE, Layout
from .triton_memory import Piece
from .triton_numbers import INTERPRETED, pack
from .triton_pairs import write_pairs
from .triton_room import Room
from .triton_sh import camera_centre, sh_colour, unit_direction
from .triton_words import WORDS

LOG2_E = tl.constexpr(1.4426950408889634)

LARGEST = tl.constexpr(3.4028234e38)


@triton.jit
def unit_quaternion(quats, mask):
    """Normalised quaternion (w, x, y, z) and its length before."""
    w = tl.load(quats + 0, mask=mask, other=0.0)
    x = tl.load(quats + 1, mask=mask, other=0.0)
    y = tl.load(quats + 2, mask=mask, other=0.0)
    z = tl.load(quats + 3, mask=mask, other=0.0)
    length = tl.sqrt(w * w + x * x + y * y + z * z)
    inverse = 1.0 / tl.maximum(length, 1e-12)
    return w * inverse, x * inverse, y * inverse, z * inverse, length


@triton.jit
def rotation_matrix(w, x, y, z):
    """Row-major entries of the rotation of a unit quaternion."""
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


@triton.jit
def load_camera(view, intrinsics, width, height, POSES: tl.constexpr):
    """Upper three rows of the view matrix, then fx, fy, cx, cy in pixels: 16 scalars."""
    a = tl.load(view + 0)
    b = tl.load(view + 1)
    c = tl.load(view + 2)
    tx = tl.load(view + 3)
    d = tl.load(view + 4)
    e = tl.load(view + 5)
    f = tl.load(view + 6)
    ty = tl.load(view + 7)
    g = tl.load(view + 8)
    h = tl.load(view + 9)
    i = tl.load(view + 10)
    tz = tl.load(view + 11)
    fx = tl.load(intrinsics + 0)
    fy = tl.load(intrinsics + 1)
    cx = tl.load(intrinsics + 2)
    cy = tl.load(intrinsics + 3)
    if POSES:
        # The inverse of a rigid matrix, whose y and z axes change sign from OpenGL's to OpenCV's.
        x = -(a * tx + d * ty + g * tz)
        y = b * tx + e * ty + h * tz
        z = c * tx + f * ty + i * tz
        return a, d, g, x, -b, -e, -h, y, -c, -f, -i, z, fx * width, fy * height, cx * width, cy * height
    else:
        return a, b, c, tx, d, e, f, ty, g, h, i, tz, fx, fy, cx, cy


@triton.jit
def clamp_ratio(ratio, f, c, size):
    """x/z (or y/z) clamped to the image widened by 15 % of its size on both sides."""
    border = 0.15 * size
    return tl.minimum(tl.maximum(ratio, -(c + border) / f), (size - c + border) / f)


@triton.jit
def finite(x):
    return tl.abs(x) <= LARGEST


@triton.jit(
    do_not_specialize=[
        "N", "V", "height", "width", "near", "far", "room", "view_scene", "view_step", "lens_scene", "lens_step",
    ]
)  # fmt: skip
def project_kernel(
    means, quats, scales, opacities, sh, view, intrinsics, records, depths, pairs, table, needed, scratch,
    N, V, height, width, near, far, room, view_scene, view_step, lens_scene, lens_step,
    K: tl.constexpr, POSES: tl.constexpr, LEAN: tl.constexpr, TILE: tl.constexpr, CELL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK Gaussians of one scene in one view, one a thread.

    It counts its Gaussians in every tile, takes as much of the array of pairs, and writes them there tile by tile. Their
    order within a tile is arbitrary.
    """
    blocks = tl.cdiv(N, BLOCK)
    camera = tl.program_id(0) // blocks
    scene = camera // V
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    row = scene.to(tl.int64) * N + n
    view += scene * view_scene + (camera - scene * V) * view_step
    intrinsics += scene * lens_scene + (camera - scene * V) * lens_step
    w00, w01, w02, t0, w10, w11, w12, t1, w20, w21, w22, t2, fx, fy, cx, cy = load_camera(
        view, intrinsics, width, height, POSES
    )

    mx = tl.load(means + row * 3 + 0, mask=mask, other=0.0)
    my = tl.load(means + row * 3 + 1, mask=mask, other=0.0)
    mz = tl.load(means + row * 3 + 2, mask=mask, other=0.0)
    x = w00 * mx + w01 * my + w02 * mz + t0
    y = w10 * mx + w11 * my + w12 * mz + t1
    z = w20 * mx + w21 * my + w22 * mz + t2
    keep = mask & (z > near) & (z < far)
    inverse_z = 1.0 / z
    u = x * inverse_z
    v = y * inverse_z
    px = fx * u + cx
    py = fy * v + cy
    u = clamp_ratio(u, fx, cx, width)
    v = clamp_ratio(v, fy, cy, height)

    # Rows of J W R S; their products are the projected covariance.
    qw, qx, qy, qz, _ = unit_quaternion(quats + row * 4, mask)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_matrix(qw, qx, qy, qz)
    s0 = tl.load(scales + row * 3 + 0, mask=mask, other=0.0)
    s1 = tl.load(scales + row * 3 + 1, mask=mask, other=0.0)
    s2 = tl.load(scales + row * 3 + 2, mask=mask, other=0.0)
    j00 = fx * inverse_z
    j02 = -j00 * u
    j11 = fy * inverse_z
    j12 = -j11 * v
    a0 = j00 * w00 + j02 * w20
    a1 = j00 * w01 + j02 * w21
    a2 = j00 * w02 + j02 * w22
    b0 = j11 * w10 + j12 * w20
    b1 = j11 * w11 + j12 * w21
    b2 = j11 * w12 + j12 * w22
    p0 = (a0 * r00 + a1 * r10 + a2 * r20) * s0
    p1 = (a0 * r01 + a1 * r11 + a2 * r21) * s1
    p2 = (a0 * r02 + a1 * r12 + a2 * r22) * s2
    q0 = (b0 * r00 + b1 * r10 + b2 * r20) * s0
    q1 = (b0 * r01 + b1 * r11 + b2 * r21) * s1
    q2 = (b0 * r02 + b1 * r12 + b2 * r22) * s2
    pp = p0 * p0 + p1 * p1 + p2 * p2
    qq = q0 * q0 + q1 * q1 + q2 * q2
    xx = pp + 0.3
    xy = p0 * q0 + p1 * q1 + p2 * q2
    yy = qq + 0.3
    # |p|^2 |q|^2 - (p q)^2 = |p x q|^2 (Lagrange): positive in any arithmetic, unlike xx yy - xy^2.
    n0 = p1 * q2 - p2 * q1
    n1 = p2 * q0 - p0 * q2
    n2 = p0 * q1 - p1 * q0
    determinant = n0 * n0 + n1 * n1 + n2 * n2 + 0.3 * (pp + qq) + 0.09
    conic_xx = yy / determinant
    conic_xy = -xy / determinant
    conic_yy = xx / determinant

    dx = mx
    dy = my
    dz = mz
    if K > 1:
        ex, ey, ez = camera_centre(view, POSES)
        dx, dy, dz, _ = unit_direction(mx, my, mz, ex, ey, ez)
    red, green, blue = sh_colour(sh + row * (K * 3), dx, dy, dz, mask, K)
    opacity = tl.load(opacities + row, mask=mask, other=0.0)

    keep = keep & finite(px) & finite(py) & finite(xx) & finite(xy) & finite(yy) & finite(determinant)
    keep = keep & finite(conic_xx) & finite(conic_xy) & finite(conic_yy)
    keep = keep & finite(red) & finite(green) & finite(blue) & finite(opacity) & (opacity >= 1.0 / 255.0)

    # alpha >= 1/255 needs sigma <= ln(255 opacity); a little more allows for rounding. The ellipse of that level
    # reaches sqrt(2 level xx) to the sides and sqrt(2 level yy) up and down.
    level = tl.log(255.0 * tl.where(keep, opacity, 1.0)) + 2e-3
    reach_x = tl.sqrt(2.0 * level * xx)
    reach_y = tl.sqrt(2.0 * level * yy)
    left = tl.maximum(tl.ceil(px - reach_x - 0.5), 0.0)
    right = tl.minimum(tl.floor(px + reach_x - 0.5), width - 1.0)
    top = tl.maximum(tl.ceil(py - reach_y - 0.5), 0.0)
    bottom = tl.minimum(tl.floor(py + reach_y - 0.5), height - 1.0)
    keep = keep & (left <= right) & (top <= bottom)
    x0 = tl.where(keep, left, 0.0).to(tl.int32) // CELL
    x1 = tl.where(keep, right, 0.0).to(tl.int32) // CELL
    y0 = tl.where(keep, top, 0.0).to(tl.int32) // CELL
    y1 = tl.where(keep, bottom, 0.0).to(tl.int32) // CELL
    r0 = pack(px, py)
    r1 = pack(conic_xx * (-0.5 * LOG2_E), conic_xy * -LOG2_E)
    r2 = pack(conic_yy * (-0.5 * LOG2_E), tl.where(keep, tl.log2(opacity), float("-inf")))
    # A record, padded to four or eight numbers, as a row that neighbouring threads store together.
    line = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)[:, None]
    if LEAN:
        four = tl.join(tl.join(r0, r2), tl.join(r1, r2)).reshape(BLOCK, 4)
        part = tl.arange(0, 4)[None, :]
        out = records + camera.to(tl.int64) * N * 3 + line.to(tl.int64) * 3 + part
        tl.store(out, four, mask=(line < N) & (part < 3))
        tl.store(depths + camera.to(tl.int64) * N + n, z, mask=mask)
    else:
        r3 = pack(clamped(red), clamped(green))
        r4 = pack(clamped(blue), z)
        eight = tl.join(tl.join(tl.join(r0, r4), tl.join(r2, r4)), tl.join(tl.join(r1, r4), tl.join(r3, r4))).reshape(
            BLOCK, 8
        )
        part = tl.arange(0, 8)[None, :]
        out = records + camera.to(tl.int64) * N * 5 + line.to(tl.int64) * 5 + part
        tl.store(out, eight, mask=(line < N) & (part < 5))

    side: tl.constexpr = TILE // CELL
    tiles_x = (width + TILE - 1) // TILE
    tiles = tiles_x * ((height + TILE - 1) // TILE)
    across = x1 // side - x0 // side + 1
    number = tl.where(keep, across * (y1 // side - y0 // side + 1), 0)
    first = y0 // side * tiles_x + x0 // side
    # The bits of positive floats, read as integers, are in the order of their values; equal depths by the lower index.
    key = (z.to(tl.int32, bitcast=True).to(tl.int64) << 32) | n.to(tl.int64)
    table += camera.to(tl.int64) * tiles * blocks + tl.program_id(0) % blocks
    write_pairs(key, first, across, number, pairs, table, needed, scratch, blocks, tiles_x, tiles, room, BLOCK)  # fmt: skip


@triton.jit
def clamped(colour):
    """max(colour, 0), or -0.0 where that changed it."""
    bits = tl.where(colour < 0.0, -0x80000000, colour.to(tl.int32, bitcast=True))
    return bits.to(tl.int32).to(tl.float32, bitcast=True)


@cache
def _launcher(k: int, poses: bool, lean: bool) -> Launcher:
    constants = {"K": k, "POSES": poses, "LEAN": lean, "TILE": TILE, "CELL": CELL, "BLOCK": BLOCK}
    return Launcher(project_kernel, constants, num_warps=BLOCK // 32)


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    layout: Layout,
    room: Room,
    records: Piece,
    depths: Piece,
    pairs: Piece,
    table: Piece,
    needed: Tensor,
) -> None:
    """Project all Gaussians to all views.

    It writes:
        records [S * V, N, 5 or 3] int64; a Gaussian that is culled in a view has none that means anything.
        depths [S * V, N]: camera z, where records are lean.
        pairs [room] int64: camera z, as sortable integer, << 32 | index within the scene, of the Gaussians of every tile.
        table [S * V, tiles, groups] int64: of each tile and program (BLOCK Gaussians of a view), where its pairs begin
            << 16 | how many there are.
        needed [4] int64, zeros before: how many pairs there are, also if that is more than the room.
    """
    programs = layout.groups * layout.cameras
    scratch = torch.empty(programs * WORDS.value, dtype=torch.int32) if INTERPRETED else needed
    _launcher(layout.k, layout.poses, layout.lean)(
        programs,
        means, quats, scales, opacities, sh, view, intrinsics, records, depths, pairs, table, needed, scratch,
        layout.n, layout.views, layout.height, layout.width, layout.near, layout.far, room.pairs,
        layout.view_scene, layout.view_step, layout.lens_scene, layout.lens_step,
    )  # fmt: skip
