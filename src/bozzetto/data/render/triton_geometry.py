"""What both Triton passes of the renderer compute: projected corners, per-corner tables, texture lookups."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def screen(vertices, index, camera, mask):
    """Column and row in samples, 1 / z and z of vertices; ``index`` and ``mask`` are scalars or blocks."""
    at = vertices + index.to(tl.int64) * 3
    x = tl.load(at, mask=mask, other=0.0)
    y = tl.load(at + 1, mask=mask, other=0.0)
    z = tl.load(at + 2, mask=mask, other=0.0)
    cx = tl.load(camera) * x + tl.load(camera + 1) * y + tl.load(camera + 2) * z + tl.load(camera + 3)
    cy = tl.load(camera + 4) * x + tl.load(camera + 5) * y + tl.load(camera + 6) * z + tl.load(camera + 7)
    cz = tl.load(camera + 8) * x + tl.load(camera + 9) * y + tl.load(camera + 10) * z + tl.load(camera + 11)
    inverse = 1.0 / tl.where(cz > 0.0, cz, 1.0)
    column = tl.load(camera + 12) * cx * inverse + tl.load(camera + 14)
    row = tl.load(camera + 13) * cy * inverse + tl.load(camera + 15)
    return column, row, inverse, cz


@triton.jit
def corners(faces, face, mask):
    at = faces + face.to(tl.int64) * 3
    a = tl.load(at, mask=mask, other=0)
    b = tl.load(at + 1, mask=mask, other=0)
    c = tl.load(at + 2, mask=mask, other=0)
    return a, b, c


@triton.jit
def corner_floats(table, face, column, WIDTH: tl.constexpr, mask):
    """Column ``column`` of the [F, 3, WIDTH] float table for the three corners of ``face``."""
    at = table + face.to(tl.int64) * (3 * WIDTH) + column
    p = tl.load(at, mask=mask, other=0.0)
    q = tl.load(at + WIDTH, mask=mask, other=0.0)
    r = tl.load(at + 2 * WIDTH, mask=mask, other=0.0)
    return p, q, r


@triton.jit
def positions(vertices, a, b, c, axis, mask):
    p = tl.load(vertices + a.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    q = tl.load(vertices + b.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    r = tl.load(vertices + c.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    return p, q, r


@triton.jit
def bilinear(texels, start, width, height, u, v, mask):
    """Alpha-weighted sums (r a, g a, b a, a) of the four texels around (u, v); texels are RGBA bytes in an int32."""
    fx = u * width.to(tl.float32) - 0.5
    fy = v * height.to(tl.float32) - 0.5
    x = tl.floor(fx)
    y = tl.floor(fy)
    dx = fx - x
    dy = fy - y
    x0 = x.to(tl.int32) & (width - 1)
    y0 = y.to(tl.int32) & (height - 1)
    x1 = (x0 + 1) & (width - 1)
    y1 = (y0 + 1) & (height - 1)
    upper = texels + start + y0 * width
    lower = texels + start + y1 * width
    t00 = tl.load(upper + x0, mask=mask, other=0)
    t01 = tl.load(upper + x1, mask=mask, other=0)
    t10 = tl.load(lower + x0, mask=mask, other=0)
    t11 = tl.load(lower + x1, mask=mask, other=0)
    w00 = (1.0 - dx) * (1.0 - dy) * ((t00 >> 24) & 255).to(tl.float32)
    w01 = dx * (1.0 - dy) * ((t01 >> 24) & 255).to(tl.float32)
    w10 = (1.0 - dx) * dy * ((t10 >> 24) & 255).to(tl.float32)
    w11 = dx * dy * ((t11 >> 24) & 255).to(tl.float32)
    r = w00 * (t00 & 255).to(tl.float32) + w01 * (t01 & 255).to(tl.float32)
    r = r + w10 * (t10 & 255).to(tl.float32) + w11 * (t11 & 255).to(tl.float32)
    g = w00 * ((t00 >> 8) & 255).to(tl.float32) + w01 * ((t01 >> 8) & 255).to(tl.float32)
    g = g + w10 * ((t10 >> 8) & 255).to(tl.float32) + w11 * ((t11 >> 8) & 255).to(tl.float32)
    b = w00 * ((t00 >> 16) & 255).to(tl.float32) + w01 * ((t01 >> 16) & 255).to(tl.float32)
    b = b + w10 * ((t10 >> 16) & 255).to(tl.float32) + w11 * ((t11 >> 16) & 255).to(tl.float32)
    return r, g, b, w00 + w01 + w10 + w11
