"""CPU kernel: from gradients of splats to gradients of the Gaussians (in float64 inside)."""

from __future__ import annotations

import math

import numpy as np

from .cpu_backward import SUM_1, SUM_BLUE, SUM_DEPTH, SUM_GREEN, SUM_RED, SUM_X, SUM_XX, SUM_XY, SUM_Y, SUM_YY
from .cpu_project import SMALLEST_QUATERNION, project_geometry, sh_basis
from .lanes import BLUE, GREEN, OPACITY, RED
from .threads import compiled


@compiled
def _sh_direction_gradient(x, y, z, count, q):
    """Gradient of sum_k q_k Y_k(x, y, z) with respect to x, y, z (taken as free variables); q [count]."""
    gx, gy, gz = 0.0, 0.0, 0.0
    if count > 1:
        gx -= 0.4886025119029199 * q[3]
        gy -= 0.4886025119029199 * q[1]
        gz += 0.4886025119029199 * q[2]
    if count > 4:
        a, b, c = 1.0925484305920792 * q[4], -1.0925484305920792 * q[5], 0.31539156525252005 * q[6]
        d = -1.0925484305920792 * q[7]
        f = 0.5462742152960396 * q[8]
        gx += a * y - 2 * c * x + d * z + 2 * f * x
        gy += a * x + b * z - 2 * c * y - 2 * f * y
        gz += b * y + 4 * c * z + d * x
    if count > 9:
        xx, yy, zz = x * x, y * y, z * z
        a = -0.5900435899266435 * q[9]
        b = 2.890611442640554 * q[10]
        c = -0.4570457994644658 * q[11]
        d = 0.3731763325901154 * q[12]
        f = -0.4570457994644658 * q[13]
        g = 1.445305721320277 * q[14]
        h = -0.5900435899266435 * q[15]
        gx += 6 * a * x * y + b * y * z - 2 * c * x * y - 6 * d * x * z
        gx += f * (4 * zz - 3 * xx - yy) + 2 * g * x * z + 3 * h * (xx - yy)
        gy += 3 * a * (xx - yy) + b * x * z + c * (4 * zz - xx - 3 * yy) - 6 * d * y * z
        gy += -2 * f * x * y - 2 * g * y * z - 6 * h * x * y
        gz += b * x * y + 8 * c * y * z + 3 * d * (2 * zz - xx - yy) + 8 * f * x * z + g * (xx - yy)
    return gx, gy, gz


@compiled
def backproject_range(
    begin, end, ranks, records, total, means, quats, scales, sh, view, centre, camera,
    grad_means, grad_quats, grad_scales, grad_opacities, grad_sh,
):  # fmt: skip
    """Add the gradients of one view to those of the Gaussians begin..end.

    Args:
        ranks [N] int32: place in records, or -1; records [M, 16]; total [M, 16]: sums over pixels
            (:mod:`bozzetto.raster.cpu_backward`);
        means [N, 3] ... sh [N, K, 3], view, centre, camera: as of :func:`bozzetto.raster.cpu_project.project_range`;
        grad_*: float32, of the shapes of the Gaussians' arrays, added to.
    """
    half = np.empty((2, 3))
    rotation = np.empty((3, 3))
    slope = np.empty((3, 3))  # gradient of the rotation
    basis = np.empty(16)
    q = np.empty(16)
    count = sh.shape[1]
    for n in range(begin, end):
        m = ranks[n]
        if m < 0:
            continue
        x, y, z, xx, xy, yy = project_geometry(means[n], quats[n], scales[n], view, camera, half, rotation)
        determinant = xx * yy - xy * xy
        qxx, qxy, qyy = yy / determinant, -xy / determinant, xx / determinant
        grad_opacities[n] -= total[m, SUM_1] / records[m, OPACITY]

        # Centre, and covariance: d Sigma' = -Q (d Q) Q.
        sx, sy = float(total[m, SUM_X]), float(total[m, SUM_Y])
        d_px, d_py = -(qxx * sx + qxy * sy), -(qxy * sx + qyy * sy)
        d_xx, d_xy, d_yy = 0.5 * total[m, SUM_XX], 0.5 * total[m, SUM_XY], 0.5 * total[m, SUM_YY]
        t00, t01 = qxx * d_xx + qxy * d_xy, qxx * d_xy + qxy * d_yy
        t10, t11 = qxy * d_xx + qyy * d_xy, qxy * d_xy + qyy * d_yy
        c00, c01, c11 = -(t00 * qxx + t01 * qxy), -(t00 * qxy + t01 * qyy), -(t10 * qxy + t11 * qyy)

        # Sigma' = M M^T with M = H R S and H = J W.
        u, v = min(max(x / z, camera[4]), camera[5]), min(max(y / z, camera[6]), camera[7])
        j00, j02, j11, j12 = camera[0] / z, -camera[0] * u / z, camera[1] / z, -camera[1] * v / z
        d_j00, d_j02, d_j11, d_j12 = 0.0, 0.0, 0.0, 0.0
        for c in range(3):
            s = float(scales[n, c])
            m0, m1 = half[0, c] * s, half[1, c] * s
            d_m0, d_m1 = 2 * (c00 * m0 + c01 * m1), 2 * (c01 * m0 + c11 * m1)
            grad_scales[n, c] += d_m0 * half[0, c] + d_m1 * half[1, c]
            d_m0, d_m1 = d_m0 * s, d_m1 * s
            w0, w1, w2 = 0.0, 0.0, 0.0  # W times column c of R
            for r in range(3):
                h0, h1 = j00 * view[0, r] + j02 * view[2, r], j11 * view[1, r] + j12 * view[2, r]
                slope[r, c] = h0 * d_m0 + h1 * d_m1
                w0 += view[0, r] * rotation[r, c]
                w1 += view[1, r] * rotation[r, c]
                w2 += view[2, r] * rotation[r, c]
            d_j00 += d_m0 * w0
            d_j02 += d_m0 * w2
            d_j11 += d_m1 * w1
            d_j12 += d_m1 * w2

        # Position in the camera.
        d_x, d_y = camera[0] / z * d_px, camera[1] / z * d_py
        d_z = total[m, SUM_DEPTH] - (j00 * x * d_px + j11 * y * d_py) / z
        d_z -= (j00 * d_j00 + j02 * d_j02 + j11 * d_j11 + j12 * d_j12) / z
        d_u, d_v = -j00 * d_j02, -j11 * d_j12
        if camera[4] <= x / z <= camera[5]:
            d_x += d_u / z
            d_z -= d_u * x / (z * z)
        if camera[6] <= y / z <= camera[7]:
            d_y += d_v / z
            d_z -= d_v * y / (z * z)

        # Rotation.
        w, i, j, k = float(quats[n, 0]), float(quats[n, 1]), float(quats[n, 2]), float(quats[n, 3])
        length = math.sqrt(w * w + i * i + j * j + k * k)
        if length > SMALLEST_QUATERNION:
            w, i, j, k = w / length, i / length, j / length, k / length
            a01, a02, a12 = slope[1, 0] - slope[0, 1], slope[0, 2] - slope[2, 0], slope[2, 1] - slope[1, 2]
            b01, b02, b12 = slope[1, 0] + slope[0, 1], slope[0, 2] + slope[2, 0], slope[2, 1] + slope[1, 2]
            d_w = 2 * (k * a01 + j * a02 + i * a12)
            d_i = 2 * (j * b01 + k * b02 + w * a12 - 2 * i * (slope[1, 1] + slope[2, 2]))
            d_j = 2 * (i * b01 + k * b12 + w * a02 - 2 * j * (slope[0, 0] + slope[2, 2]))
            d_k = 2 * (i * b02 + j * b12 + w * a01 - 2 * k * (slope[0, 0] + slope[1, 1]))
            radial = w * d_w + i * d_i + j * d_j + k * d_k
            grad_quats[n, 0] += (d_w - w * radial) / length
            grad_quats[n, 1] += (d_i - i * radial) / length
            grad_quats[n, 2] += (d_j - j * radial) / length
            grad_quats[n, 3] += (d_k - k * radial) / length

        # Colour.
        red = float(total[m, SUM_RED]) if records[m, RED] > 0 else 0.0
        green = float(total[m, SUM_GREEN]) if records[m, GREEN] > 0 else 0.0
        blue = float(total[m, SUM_BLUE]) if records[m, BLUE] > 0 else 0.0
        ex, ey, ez = means[n, 0] - centre[0], means[n, 1] - centre[1], means[n, 2] - centre[2]
        inverse = 1.0 / max(math.sqrt(ex * ex + ey * ey + ez * ez), 1e-12)
        ex, ey, ez = ex * inverse, ey * inverse, ez * inverse
        sh_basis(ex, ey, ez, count, basis)
        for b in range(count):
            q[b] = sh[n, b, 0] * red + sh[n, b, 1] * green + sh[n, b, 2] * blue
            grad_sh[n, b, 0] += basis[b] * red
            grad_sh[n, b, 1] += basis[b] * green
            grad_sh[n, b, 2] += basis[b] * blue
        gx, gy, gz = _sh_direction_gradient(ex, ey, ez, count, q)
        radial = gx * ex + gy * ey + gz * ez
        gx, gy, gz = (gx - radial * ex) * inverse, (gy - radial * ey) * inverse, (gz - radial * ez) * inverse

        for a, g in ((0, gx), (1, gy), (2, gz)):
            grad_means[n, a] += g + view[0, a] * d_x + view[1, a] * d_y + view[2, a] * d_z
