"""Spherical-harmonic colour inside Triton kernels: the basis of :mod:`bozzetto.sh`, its derivative, the gradient."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def camera_centre(view, POSES: tl.constexpr):
    """Position of the camera whose row-major matrix [4, 4] starts at ``view``.

    POSES: it is camera to world. Otherwise world to camera, and the position is -A^-1 t, by cofactors.
    """
    if POSES:
        return tl.load(view + 3), tl.load(view + 7), tl.load(view + 11)
    else:
        return inverse_translation(view)


@triton.jit
def inverse_translation(view):
    """-A^-1 t of the row-major matrix [A t] at ``view``."""
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
    ca = e * i - f * h
    cb = f * g - d * i
    cc = d * h - e * g
    scale = -1.0 / (a * ca + b * cb + c * cc)
    x = scale * (ca * tx + (c * h - b * i) * ty + (b * f - c * e) * tz)
    y = scale * (cb * tx + (a * i - c * g) * ty + (c * d - a * f) * tz)
    z = scale * (cc * tx + (b * g - a * h) * ty + (a * e - b * d) * tz)
    return x, y, z


@triton.jit
def unit_direction(mx, my, mz, cx, cy, cz):
    """Unit vector from the camera centre to the mean, and the inverse of the distance."""
    x = mx - cx
    y = my - cy
    z = mz - cz
    inverse = 1.0 / tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-12)
    return x * inverse, y * inverse, z * inverse, inverse


@triton.jit
def sh_basis(k: tl.constexpr, x, y, z):
    """Basis function ``k`` (0..15) at the unit direction (x, y, z)."""
    value = tl.zeros_like(x) + 0.28209479177387814
    if k == 1:
        value = -0.4886025119029199 * y
    if k == 2:
        value = 0.4886025119029199 * z
    if k == 3:
        value = -0.4886025119029199 * x
    if k == 4:
        value = 1.0925484305920792 * x * y
    if k == 5:
        value = -1.0925484305920792 * y * z
    if k == 6:
        value = 0.31539156525252005 * (2.0 * z * z - x * x - y * y)
    if k == 7:
        value = -1.0925484305920792 * x * z
    if k == 8:
        value = 0.5462742152960396 * (x * x - y * y)
    if k == 9:
        value = -0.5900435899266435 * y * (3.0 * x * x - y * y)
    if k == 10:
        value = 2.890611442640554 * x * y * z
    if k == 11:
        value = -0.4570457994644658 * y * (4.0 * z * z - x * x - y * y)
    if k == 12:
        value = 0.3731763325901154 * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y)
    if k == 13:
        value = -0.4570457994644658 * x * (4.0 * z * z - x * x - y * y)
    if k == 14:
        value = 1.445305721320277 * z * (x * x - y * y)
    if k == 15:
        value = -0.5900435899266435 * x * (x * x - 3.0 * y * y)
    return value


@triton.jit
def sh_basis_gradient(k: tl.constexpr, x, y, z):
    """Derivatives of basis function ``k`` by x, y and z, taken as independent variables."""
    dx = tl.zeros_like(x)
    dy = tl.zeros_like(x)
    dz = tl.zeros_like(x)
    if k == 1:
        dy = dy - 0.4886025119029199
    if k == 2:
        dz = dz + 0.4886025119029199
    if k == 3:
        dx = dx - 0.4886025119029199
    if k == 4:
        dx = 1.0925484305920792 * y
        dy = 1.0925484305920792 * x
    if k == 5:
        dy = -1.0925484305920792 * z
        dz = -1.0925484305920792 * y
    if k == 6:
        dx = -0.6307831305050401 * x
        dy = -0.6307831305050401 * y
        dz = 1.2615662610100802 * z
    if k == 7:
        dx = -1.0925484305920792 * z
        dz = -1.0925484305920792 * x
    if k == 8:
        dx = 1.0925484305920792 * x
        dy = -1.0925484305920792 * y
    if k == 9:
        dx = -3.540261539559861 * x * y
        dy = -1.7701307697799304 * (x * x - y * y)
    if k == 10:
        dx = 2.890611442640554 * y * z
        dy = 2.890611442640554 * x * z
        dz = 2.890611442640554 * x * y
    if k == 11:
        dx = 0.9140915989289316 * x * y
        dy = -0.4570457994644658 * (4.0 * z * z - x * x - 3.0 * y * y)
        dz = -3.6563663957157264 * y * z
    if k == 12:
        dx = -2.2390579955406924 * x * z
        dy = -2.2390579955406924 * y * z
        dz = 1.1195289977703462 * (2.0 * z * z - x * x - y * y)
    if k == 13:
        dx = -0.4570457994644658 * (4.0 * z * z - 3.0 * x * x - y * y)
        dy = 0.9140915989289316 * x * y
        dz = -3.6563663957157264 * x * z
    if k == 14:
        dx = 2.890611442640554 * x * z
        dy = -2.890611442640554 * y * z
        dz = 1.445305721320277 * (x * x - y * y)
    if k == 15:
        dx = -1.7701307697799304 * (x * x - y * y)
        dy = 3.540261539559861 * x * y
    return dx, dy, dz


@triton.jit
def sh_colour(sh, x, y, z, mask, K: tl.constexpr):
    """0.5 + sum_k basis_k sh_k, not clamped; ``sh`` points at each Gaussian's K x 3 coefficients."""
    red = 0.5 + 0.28209479177387814 * tl.load(sh + 0, mask=mask, other=0.0)
    green = 0.5 + 0.28209479177387814 * tl.load(sh + 1, mask=mask, other=0.0)
    blue = 0.5 + 0.28209479177387814 * tl.load(sh + 2, mask=mask, other=0.0)
    for k in tl.static_range(1, K):
        basis = sh_basis(k, x, y, z)
        red += basis * tl.load(sh + 3 * k, mask=mask, other=0.0)
        green += basis * tl.load(sh + (3 * k + 1), mask=mask, other=0.0)
        blue += basis * tl.load(sh + (3 * k + 2), mask=mask, other=0.0)
    return red, green, blue


@triton.jit
def colour_gradient(record, moment, more, mask):
    """Gradient of the colour before the clamp: zero where the clamp acted, which stored -0.0 in the record."""
    rg = tl.load(record + 3, mask=mask, other=-1)
    b = tl.load(record + 4, mask=mask, other=-1)
    gr = tl.load(moment + 6, mask=mask & (rg.to(tl.int32) >= 0), other=0.0)
    gg = tl.load(moment + 7, mask=mask & (rg >= 0), other=0.0)
    gb = tl.load(more, mask=mask & (b.to(tl.int32) >= 0), other=0.0)
    return gr, gg, gb


@triton.jit(do_not_specialize=["N", "V", "view_scene", "view_step"])
def sh_gradient_kernel(
    means, view, records, moments, more_moments, sh_gradients, N, V, view_scene, view_step,
    K: tl.constexpr, MORE: tl.constexpr, POSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sh_gradients [S, N, K, 3] = sum over views of basis_k(direction) x colour gradient. One program: BLOCK Gaussians.

    The inner loop runs over views and the outer one over coefficients, so each gradient stays in a register.
    """
    blocks = tl.cdiv(N, BLOCK)
    scene = tl.program_id(0) // blocks
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    row = scene.to(tl.int64) * N + n
    mx = tl.load(means + row * 3 + 0, mask=mask, other=0.0)
    my = tl.load(means + row * 3 + 1, mask=mask, other=0.0)
    mz = tl.load(means + row * 3 + 2, mask=mask, other=0.0)
    for k in tl.static_range(0, K):
        red = tl.zeros([BLOCK], tl.float32)
        green = tl.zeros([BLOCK], tl.float32)
        blue = tl.zeros([BLOCK], tl.float32)
        v = scene * 0
        while v < V:
            slot = (scene.to(tl.int64) * V + v) * N + n
            gr, gg, gb = colour_gradient(records + slot * 5, moments + slot * 8, more_moments + slot * MORE, mask)
            cx, cy, cz = camera_centre(view + scene * view_scene + v * view_step, POSES)
            x, y, z, _ = unit_direction(mx, my, mz, cx, cy, cz)
            touched = (gr != 0.0) | (gg != 0.0) | (gb != 0.0)
            basis = tl.where(touched, sh_basis(k, x, y, z), 0.0)
            red += basis * gr
            green += basis * gg
            blue += basis * gb
            v += 1
        out = sh_gradients + (row * K + k) * 3
        tl.store(out + 0, red, mask=mask)
        tl.store(out + 1, green, mask=mask)
        tl.store(out + 2, blue, mask=mask)
