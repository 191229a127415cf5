"""From sums over pixels back to means, quaternions, scales, opacities and SH coefficients (Triton kernels).

Gaussians are projected again: of the records only the colours' signs are read, and these only where there are SH coefficients
of a degree above 0. Otherwise the memory of the records is free by then.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_launch import Launcher
from .triton_layout import Layout
from .triton_memory import Piece
from .triton_project import clamp_ratio, load_camera, rotation_matrix, unit_quaternion
from .triton_sh import camera_centre, colour_gradient, sh_basis_gradient, sh_gradient_kernel, unit_direction

BLOCK = 128
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["N", "V", "height", "width", "view_scene", "view_step", "lens_scene", "lens_step"])
def project_gradient_kernel(
    means, quats, scales, opacities, sh, view, intrinsics, records, moments, more_moments,
    grad_means, grad_quats, grad_scales, grad_opacities, grad_sh,
    N, V, height, width, view_scene, view_step, lens_scene, lens_step,
    K: tl.constexpr, MORE: tl.constexpr, POSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK Gaussians of one scene, summed over its V views. MORE: how many more moments there are, 1 or 2."""
    blocks = tl.cdiv(N, BLOCK)
    scene = tl.program_id(0) // blocks
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    row = scene.to(tl.int64) * N + n
    mx = tl.load(means + row * 3 + 0, mask=mask, other=0.0)
    my = tl.load(means + row * 3 + 1, mask=mask, other=0.0)
    mz = tl.load(means + row * 3 + 2, mask=mask, other=0.0)
    s0 = tl.load(scales + row * 3 + 0, mask=mask, other=0.0)
    s1 = tl.load(scales + row * 3 + 1, mask=mask, other=0.0)
    s2 = tl.load(scales + row * 3 + 2, mask=mask, other=0.0)
    qw, qx, qy, qz, length = unit_quaternion(quats + row * 4, mask)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_matrix(qw, qx, qy, qz)

    zero = tl.zeros([BLOCK], tl.float32)
    gmx, gmy, gmz, gopacity = zero, zero, zero, zero
    g_red, g_green, g_blue = zero, zero, zero
    # Gradient of the matrix R S, whose product with its transpose is the covariance.
    h00, h01, h02, h10, h11, h12, h20, h21, h22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    seen = tl.zeros([BLOCK], tl.int32)
    view += scene * view_scene
    intrinsics += scene * lens_scene
    opacity = tl.load(opacities + row, mask=mask, other=1.0)
    if K == 1:  # through the clamp of colours at 0 nothing passes
        shown_red = mask & (0.5 + 0.28209479177387814 * tl.load(sh + row * 3 + 0, mask=mask, other=0.0) >= 0.0)
        shown_green = mask & (0.5 + 0.28209479177387814 * tl.load(sh + row * 3 + 1, mask=mask, other=0.0) >= 0.0)
        shown_blue = mask & (0.5 + 0.28209479177387814 * tl.load(sh + row * 3 + 2, mask=mask, other=0.0) >= 0.0)
    step = scene * 0
    while step < V:
        w00, w01, w02, t0, w10, w11, w12, t1, w20, w21, w22, t2, fx, fy, cx, cy = load_camera(
            view, intrinsics, width, height, POSES
        )
        slot = (scene.to(tl.int64) * V + step) * N + n
        moment = moments + slot * 8
        more = more_moments + slot * MORE
        mass = tl.load(moment + 0, mask=mask, other=0.0)
        vx = tl.load(moment + 1, mask=mask, other=0.0)
        vy = tl.load(moment + 2, mask=mask, other=0.0)
        gxx = -0.5 * tl.load(moment + 3, mask=mask, other=0.0)
        gxy = -0.5 * tl.load(moment + 4, mask=mask, other=0.0)
        gyy = -0.5 * tl.load(moment + 5, mask=mask, other=0.0)
        gr = tl.load(moment + 6, mask=mask, other=0.0)
        gg = tl.load(moment + 7, mask=mask, other=0.0)
        gb = tl.load(more, mask=mask, other=0.0)
        gz = tl.zeros([BLOCK], tl.float32)
        if MORE == 2:
            gz = tl.load(more + 1, mask=mask, other=0.0)
        # Of a Gaussian that contributed to no pixel all are 0, and what follows may be no number.
        drawn = (mass != 0.0) | (vx != 0.0) | (vy != 0.0) | (gxx != 0.0) | (gxy != 0.0) | (gyy != 0.0)
        drawn = drawn | (gr != 0.0) | (gg != 0.0) | (gb != 0.0) | (gz != 0.0)
        seen = tl.where(drawn, 1, seen)
        gopacity += tl.where(drawn, mass / tl.where(drawn, opacity, 1.0), 0.0)

        x = w00 * mx + w01 * my + w02 * mz + t0
        y = w10 * mx + w11 * my + w12 * mz + t1
        z = w20 * mx + w21 * my + w22 * mz + t2
        inverse_z = 1.0 / tl.where(drawn, z, 1.0)
        u = x * inverse_z
        v = y * inverse_z
        cu = clamp_ratio(u, fx, cx, width)
        cv = clamp_ratio(v, fy, cy, height)
        j00 = fx * inverse_z
        j02 = -j00 * cu
        j11 = fy * inverse_z
        j12 = -j11 * cv
        # m = W R S, row by row; a and b the rows of J m, C = [a; b] [a; b]^T + 0.3 I.
        m00 = (w00 * r00 + w01 * r10 + w02 * r20) * s0
        m01 = (w00 * r01 + w01 * r11 + w02 * r21) * s1
        m02 = (w00 * r02 + w01 * r12 + w02 * r22) * s2
        m10 = (w10 * r00 + w11 * r10 + w12 * r20) * s0
        m11 = (w10 * r01 + w11 * r11 + w12 * r21) * s1
        m12 = (w10 * r02 + w11 * r12 + w12 * r22) * s2
        m20 = (w20 * r00 + w21 * r10 + w22 * r20) * s0
        m21 = (w20 * r01 + w21 * r11 + w22 * r21) * s1
        m22 = (w20 * r02 + w21 * r12 + w22 * r22) * s2
        a0 = j00 * m00 + j02 * m20
        a1 = j00 * m01 + j02 * m21
        a2 = j00 * m02 + j02 * m22
        b0 = j11 * m10 + j12 * m20
        b1 = j11 * m11 + j12 * m21
        b2 = j11 * m12 + j12 * m22

        # The inverse of C, with the determinant as in the projection.
        aa = a0 * a0 + a1 * a1 + a2 * a2
        bb = b0 * b0 + b1 * b1 + b2 * b2
        n0 = a1 * b2 - a2 * b1
        n1 = a2 * b0 - a0 * b2
        n2 = a0 * b1 - a1 * b0
        inverse = 1.0 / tl.where(drawn, n0 * n0 + n1 * n1 + n2 * n2 + 0.3 * (aa + bb) + 0.09, 1.0)
        xx = (bb + 0.3) * inverse
        xy = -(a0 * b0 + a1 * b1 + a2 * b2) * inverse
        yy = (aa + 0.3) * inverse
        gpx = xx * vx + xy * vy
        gpy = xy * vx + yy * vy
        # The gradient of the inverse Q of a symmetric matrix C: dC = -Q dQ Q.
        e00 = gxx * xx + gxy * xy
        e01 = gxx * xy + gxy * yy
        e10 = gxy * xx + gyy * xy
        e11 = gxy * xy + gyy * yy
        cxx = -(xx * e00 + xy * e10)
        cxy = -(xx * e01 + xy * e11)
        cyy = -(xy * e01 + yy * e11)
        ga0 = 2.0 * (cxx * a0 + cxy * b0)
        ga1 = 2.0 * (cxx * a1 + cxy * b1)
        ga2 = 2.0 * (cxx * a2 + cxy * b2)
        gb0 = 2.0 * (cxy * a0 + cyy * b0)
        gb1 = 2.0 * (cxy * a1 + cyy * b1)
        gb2 = 2.0 * (cxy * a2 + cyy * b2)

        # W^T (J^T [ga; gb]), column by column.
        k0 = j00 * ga0
        k1 = j11 * gb0
        k2 = j02 * ga0 + j12 * gb0
        h00 += tl.where(drawn, w00 * k0 + w10 * k1 + w20 * k2, 0.0)
        h10 += tl.where(drawn, w01 * k0 + w11 * k1 + w21 * k2, 0.0)
        h20 += tl.where(drawn, w02 * k0 + w12 * k1 + w22 * k2, 0.0)
        k0 = j00 * ga1
        k1 = j11 * gb1
        k2 = j02 * ga1 + j12 * gb1
        h01 += tl.where(drawn, w00 * k0 + w10 * k1 + w20 * k2, 0.0)
        h11 += tl.where(drawn, w01 * k0 + w11 * k1 + w21 * k2, 0.0)
        h21 += tl.where(drawn, w02 * k0 + w12 * k1 + w22 * k2, 0.0)
        k0 = j00 * ga2
        k1 = j11 * gb2
        k2 = j02 * ga2 + j12 * gb2
        h02 += tl.where(drawn, w00 * k0 + w10 * k1 + w20 * k2, 0.0)
        h12 += tl.where(drawn, w01 * k0 + w11 * k1 + w21 * k2, 0.0)
        h22 += tl.where(drawn, w02 * k0 + w12 * k1 + w22 * k2, 0.0)

        # J's entries, then the ratios u and v (through the clamp only where it did not act), then camera x, y, z.
        g00 = ga0 * m00 + ga1 * m01 + ga2 * m02
        g02 = ga0 * m20 + ga1 * m21 + ga2 * m22
        g11 = gb0 * m10 + gb1 * m11 + gb2 * m12
        g12 = gb0 * m20 + gb1 * m21 + gb2 * m22
        gu = fx * gpx + tl.where(cu == u, -j00 * g02, 0.0)
        gv = fy * gpy + tl.where(cv == v, -j11 * g12, 0.0)
        g_inverse = fx * (g00 - cu * g02) + fy * (g11 - cv * g12) + gu * x + gv * y
        gx = gu * inverse_z
        gy = gv * inverse_z
        gz -= g_inverse * inverse_z * inverse_z
        gmx += tl.where(drawn, w00 * gx + w10 * gy + w20 * gz, 0.0)
        gmy += tl.where(drawn, w01 * gx + w11 * gy + w21 * gz, 0.0)
        gmz += tl.where(drawn, w02 * gx + w12 * gy + w22 * gz, 0.0)

        if K > 1:
            gr, gg, gb = colour_gradient(records + slot * 5, moment, more, drawn)
            ex, ey, ez = camera_centre(view, POSES)
            dx, dy, dz, inverse = unit_direction(mx, my, mz, ex, ey, ez)
            gdx, gdy, gdz = zero, zero, zero
            for k in tl.static_range(1, K):
                coefficient = sh + (row * K + k) * 3
                share = gr * tl.load(coefficient + 0, mask=drawn, other=0.0)
                share += gg * tl.load(coefficient + 1, mask=drawn, other=0.0)
                share += gb * tl.load(coefficient + 2, mask=drawn, other=0.0)
                bx, by, bz = sh_basis_gradient(k, dx, dy, dz)
                gdx += share * bx
                gdy += share * by
                gdz += share * bz
            # Normalisation keeps the part across the direction.
            along = gdx * dx + gdy * dy + gdz * dz
            gmx += tl.where(drawn, (gdx - along * dx) * inverse, 0.0)
            gmy += tl.where(drawn, (gdy - along * dy) * inverse, 0.0)
            gmz += tl.where(drawn, (gdz - along * dz) * inverse, 0.0)
        else:
            g_red += tl.where(shown_red, 0.28209479177387814 * gr, 0.0)
            g_green += tl.where(shown_green, 0.28209479177387814 * gg, 0.0)
            g_blue += tl.where(shown_blue, 0.28209479177387814 * gb, 0.0)
        view += view_step
        intrinsics += lens_step
        step += 1

    if K == 1:
        tl.store(grad_sh + row * 3 + 0, g_red, mask=mask)
        tl.store(grad_sh + row * 3 + 1, g_green, mask=mask)
        tl.store(grad_sh + row * 3 + 2, g_blue, mask=mask)
    tl.store(grad_means + row * 3 + 0, gmx, mask=mask)
    tl.store(grad_means + row * 3 + 1, gmy, mask=mask)
    tl.store(grad_means + row * 3 + 2, gmz, mask=mask)
    tl.store(grad_opacities + row, gopacity, mask=mask)
    # Where no view drew it, the Gaussian may hold NaN.
    good = seen > 0
    tl.store(grad_scales + row * 3 + 0, tl.where(good, h00 * r00 + h10 * r10 + h20 * r20, 0.0), mask=mask)
    tl.store(grad_scales + row * 3 + 1, tl.where(good, h01 * r01 + h11 * r11 + h21 * r21, 0.0), mask=mask)
    tl.store(grad_scales + row * 3 + 2, tl.where(good, h02 * r02 + h12 * r12 + h22 * r22, 0.0), mask=mask)
    h00 *= s0
    h10 *= s0
    h20 *= s0
    h01 *= s1
    h11 *= s1
    h21 *= s1
    h02 *= s2
    h12 *= s2
    h22 *= s2
    gw = 2.0 * (qx * (h21 - h12) + qy * (h02 - h20) + qz * (h10 - h01))
    gx = 2.0 * (qy * (h01 + h10) + qz * (h02 + h20) + qw * (h21 - h12) - 2.0 * qx * (h11 + h22))
    gy = 2.0 * (qx * (h01 + h10) + qz * (h12 + h21) + qw * (h02 - h20) - 2.0 * qy * (h00 + h22))
    gz = 2.0 * (qx * (h02 + h20) + qy * (h12 + h21) + qw * (h10 - h01) - 2.0 * qz * (h00 + h11))
    along = gw * qw + gx * qx + gy * qy + gz * qz
    good = good & (length > 1e-12)
    inverse = 1.0 / tl.where(good, length, 1.0)
    tl.store(grad_quats + row * 4 + 0, tl.where(good, (gw - along * qw) * inverse, 0.0), mask=mask)
    tl.store(grad_quats + row * 4 + 1, tl.where(good, (gx - along * qx) * inverse, 0.0), mask=mask)
    tl.store(grad_quats + row * 4 + 2, tl.where(good, (gy - along * qy) * inverse, 0.0), mask=mask)
    tl.store(grad_quats + row * 4 + 3, tl.where(good, (gz - along * qz) * inverse, 0.0), mask=mask)


@cache
def _launchers(k: int, more: int, poses: bool) -> tuple[Launcher, Launcher]:
    constants = {"K": k, "MORE": more, "POSES": poses, "BLOCK": BLOCK}
    return (
        Launcher(project_gradient_kernel, constants, num_warps=4),
        Launcher(sh_gradient_kernel, constants, num_warps=4),
    )


def project_gradient(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    records: Piece | None,
    moments: tuple[Piece, Piece],
    layout: Layout,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means, quats, scales, opacities and sh, from the moments of all pictures. For K = 1 without ``records``."""
    n, k = layout.n, layout.k
    gradients = (*map(torch.empty_like, (means, quats, scales, opacities, sh)),)
    programs = -(-n // BLOCK) * layout.scenes
    project_launcher, sh_launcher = _launchers(k, moments[1].place[1] // (layout.cameras * n), layout.poses)
    project_launcher(
        programs,
        means, quats, scales, opacities, sh, view, intrinsics, records or moments[0], *moments, *gradients,
        n, layout.views, layout.height, layout.width,
        layout.view_scene, layout.view_step, layout.lens_scene, layout.lens_step,
    )  # fmt: skip
    if k > 1:
        sh_launcher(
            programs, means, view, records, *moments, gradients[-1],
            n, layout.views, layout.view_scene, layout.view_step,
        )  # fmt: skip
    return gradients
