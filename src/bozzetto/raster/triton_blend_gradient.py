"""Gradient of the compositing: Triton kernel.

One warp takes a cell of 8 x 8 pixels back to front, 16 Gaussians at a time. Per Gaussian and pixel there are two numbers:
the weight w of its colour and v = dL/d(ln alpha). All that the loss knows of a Gaussian are sums over pixels: of w times
the gradient of the picture, and of v times 1, x, y, x^2, xy, y^2 - two small matrix products. They run on tensor cores
(tf32) with numbers split in two parts, which is as good as float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_bins import LEAST
from .triton_blend import MAX_ALPHA, cell_pixels, cell_place
from .triton_numbers import computed, power_of_2, reciprocal, unpack
from .triton_project import CELL, TILE

MOMENTS = 10  # floats
REGISTERS = 168  # a few values spill, but more warps fit


@triton.jit
def coarse(x):
    """The leading 11 bits of each number."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def join8(t):
    """Tuple of 8 tensors [...] -> [..., 2, 2, 2], in order."""
    a = tl.join(tl.join(t[0], t[4]), tl.join(t[2], t[6]))
    b = tl.join(tl.join(t[1], t[5]), tl.join(t[3], t[7]))
    return tl.join(a, b)


@triton.jit
def join16(t):
    """Tuple of 16 tensors [...] -> [..., 2, 2, 2, 2], in order."""
    a = join8((t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14]))
    b = join8((t[1], t[3], t[5], t[7], t[9], t[11], t[13], t[15]))
    return tl.join(a, b)


@triton.jit
def split8(t):
    """[..., 8] -> its columns."""
    n: tl.constexpr = t.shape[0]
    even, odd = tl.split(t.reshape(n, 2, 2, 2))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    t0, t4 = tl.split(a)
    t2, t6 = tl.split(c)
    t1, t5 = tl.split(b)
    t3, t7 = tl.split(d)
    return t0, t1, t2, t3, t4, t5, t6, t7


@triton.jit(do_not_specialize=["N", "height", "width", "tiles_x", "tiles"])
def blend_gradient_kernel(
    records, ids, counts, ends, background, transmittance, last, grad_rgb, grad_alpha, grad_depth, moments,
    N, height, width, tiles_x, tiles, TILE: tl.constexpr, CELL: tl.constexpr,
):  # fmt: skip
    """One program: one cell of one view; adds to moments [S * V, N, 10].

    The moments of a Gaussian are the sums over pixels of v, v dx, v dy, v dx^2, v dx dy, v dy^2, and of w times the
    gradients of red, green, blue and depth.
    """
    camera, left, top, start, _length = cell_place(counts, ends, tiles_x, tiles, TILE, CELL)
    pixel, inside = cell_pixels(camera, left, top, width, height, CELL)
    final = tl.load(last + pixel, mask=inside, other=0)
    count = tl.max(final, axis=0)
    if count == 0:
        return
    px = (left + tl.arange(0, CELL)[None, :]).to(tl.float32) + 0.5
    py = (top + tl.arange(0, CELL)[:, None]).to(tl.float32) + 0.5
    ids += start
    records += camera.to(tl.int64) * N * 5
    moments += camera.to(tl.int64) * N * 10
    background += camera.to(tl.int64) * 3

    light = tl.load(transmittance + pixel, mask=inside, other=1.0)
    g_red = tl.load(grad_rgb + pixel * 3 + 0, mask=inside, other=0.0)
    g_green = tl.load(grad_rgb + pixel * 3 + 1, mask=inside, other=0.0)
    g_blue = tl.load(grad_rgb + pixel * 3 + 2, mask=inside, other=0.0)
    g_alpha = tl.load(grad_alpha + pixel, mask=inside, other=0.0)
    g_depth = tl.load(grad_depth + pixel, mask=inside, other=0.0)
    # What everything behind the current Gaussian adds to the loss: at first the background, and -alpha's share.
    behind = light * (
        g_red * tl.load(background + 0) + g_green * tl.load(background + 1) + g_blue * tl.load(background + 2) - g_alpha
    )

    # The right-hand sides of the products, [pixels, 8].
    area: tl.constexpr = CELL * CELL
    field = tl.arange(0, 8)[None, :]
    index = tl.arange(0, area)[:, None]
    half: tl.constexpr = 0.5 * (CELL - 1)
    x = (index % CELL).to(tl.float32) - half  # from the middle of the cell
    y = (index // CELL).to(tl.float32) - half
    powers = tl.where(field == 0, 1.0, tl.where(field == 1, x, tl.where(field == 2, y, 0.0)))
    powers = tl.where(field == 3, x * x, tl.where(field == 4, x * y, tl.where(field == 5, y * y, powers)))
    colour = tl.where(field % 4 == 0, g_red[:, None], tl.where(field % 4 == 1, g_green[:, None], g_blue[:, None]))
    colour = tl.where(field % 4 == 3, g_depth[:, None], colour)
    colour = tl.where(field < 4, coarse(colour), colour - coarse(colour))

    final = final.reshape(CELL, CELL)
    light = light.reshape(CELL, CELL)
    behind = behind.reshape(CELL, CELL)
    g_red = g_red.reshape(CELL, CELL)
    g_green = g_green.reshape(CELL, CELL)
    g_blue = g_blue.reshape(CELL, CELL)
    g_depth = g_depth.reshape(CELL, CELL)
    middle_x = left.to(tl.float32) + (0.5 + half)
    middle_y = top.to(tl.float32) + (0.5 + half)
    group = tl.arange(0, 16)
    while count > 0:
        vs = ()
        ws = ()
        for k in tl.static_range(16):
            position = count - 1 - k
            valid = position >= 0
            record = records + tl.load(ids + position, mask=valid, other=0) * 5
            mx, my = unpack(tl.load(record + 0))
            a, b = unpack(tl.load(record + 1))
            c, bias = unpack(tl.load(record + 2))
            bias = tl.where(valid, bias, float("-inf"))
            r, g = unpack(tl.load(record + 3))
            bl, z = unpack(tl.load(record + 4))
            dx = px - mx
            dy = py - my
            power = (c * dy + b * dx) * dy + (a * dx * dx + bias)
            hit = (power >= LEAST) & (power <= bias) & (position < final)
            raw = power_of_2(power)
            opaque = tl.where(hit, tl.minimum(raw, MAX_ALPHA), 0.0)
            share = g_red * r + g_green * g + g_blue * bl + g_depth * z
            through = reciprocal(1.0 - opaque)
            light = light * through
            w = light * opaque
            # Through the clamp at 0.99 nothing passes.
            v = (light * share - behind * through) * tl.where(raw <= MAX_ALPHA, opaque, 0.0)
            behind += w * share
            vs = vs + (computed(v),)
            ws = ws + (computed(w),)
        left_side = tl.trans(join16(vs).reshape(area, 16))
        head = coarse(left_side)
        sums = tl.dot(head, powers, input_precision="tf32")
        sums = tl.dot(left_side - head, powers, sums, input_precision="tf32")
        left_side = tl.trans(join16(ws).reshape(area, 16))
        head = coarse(left_side)
        colours = tl.dot(head, colour, input_precision="tf32")
        colours = tl.dot(left_side - head, colour, colours, input_precision="tf32")
        s, sx, sy, sxx, sxy, syy, _, _ = split8(sums)
        r0, g0, b0, z0, r1, g1, b1, z1 = split8(colours)
        # From the middle of the cell to the centre of each Gaussian.
        drawn = group < count
        n = tl.load(ids + (count - 1 - group), mask=drawn, other=0)
        mx, my = unpack(tl.load(records + n * 5, mask=drawn, other=0))
        ex = middle_x - mx
        ey = middle_y - my
        mxx = sxx + ex * (2.0 * sx + ex * s)
        mxy = sxy + ex * sy + ey * (sx + ex * s)
        myy = syy + ey * (2.0 * sy + ey * s)
        zero = tl.zeros([16], tl.float32)
        rows = join16(
            (s, sx + ex * s, sy + ey * s, mxx, mxy, myy, r0 + r1, g0 + g1, b0 + b1, z0 + z1)
            + (zero, zero, zero, zero, zero, zero)
        ).reshape(16, 16)
        where = n[:, None] * 10 + group[None, :]
        tl.atomic_add(moments + where, rows, mask=drawn[:, None] & (group[None, :] < 10), sem="relaxed")
        count -= 16


def blend_gradient(
    records: Tensor,
    ids: Tensor,
    counts: Tensor,
    ends: Tensor,
    background: Tensor,
    transmittance: Tensor,
    last: Tensor,
    grad_rgb: Tensor,
    grad_alpha: Tensor,
    grad_depth: Tensor,
) -> Tensor:
    """Moments of the Gaussians, [S * V, N, 10]; zero for those that no tile drew."""
    cameras, n = records.shape[:2]
    height, width = last.shape[1:]
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    moments = torch.zeros(cameras, n, MOMENTS, device=records.device)
    blend_gradient_kernel[(len(counts),)](
        records, ids, counts, ends, background, transmittance, last, grad_rgb, grad_alpha, grad_depth, moments,
        n, height, width, tiles_x, tiles_x * tiles_y, TILE=TILE, CELL=CELL, num_warps=1, maxnreg=REGISTERS,
    )  # fmt: skip
    return moments
