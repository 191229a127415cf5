"""CPU kernels: Gaussians to splat records (in float64 inside), and the gradients on the way back."""

from __future__ import annotations

import math

import numpy as np

from .lanes import (
    BLUE,
    DEPTH,
    GREEN,
    HALF_X,
    HALF_Y,
    OPACITY,
    RECORD,
    RED,
    SKEW_X,
    SKEW_Y,
    SLANT,
    SLANT_SINE,
    TALL,
    TILE,
    X_PART,
    X_WHOLE,
    Y_PART,
    Y_WHOLE,
)
from .reference import LOW_PASS, MIN_ALPHA
from .threads import compiled

_LOG2_E = 1.4426950408889634
HIDDEN = np.uint64(0xFFFFFFFFFFFFFFFF)
SMALLEST_QUATERNION = 1e-12


@compiled
def sh_basis(x, y, z, count, basis):
    """Basis values of the unit direction (x, y, z) into ``basis`` [count]; count 1, 4, 9 or 16."""
    basis[0] = 0.28209479177387814
    if count > 1:
        basis[1] = -0.4886025119029199 * y
        basis[2] = 0.4886025119029199 * z
        basis[3] = -0.4886025119029199 * x
    if count > 4:
        basis[4] = 1.0925484305920792 * x * y
        basis[5] = -1.0925484305920792 * y * z
        basis[6] = 0.31539156525252005 * (2 * z * z - x * x - y * y)
        basis[7] = -1.0925484305920792 * x * z
        basis[8] = 0.5462742152960396 * (x * x - y * y)
    if count > 9:
        basis[9] = -0.5900435899266435 * y * (3 * x * x - y * y)
        basis[10] = 2.890611442640554 * x * y * z
        basis[11] = -0.4570457994644658 * y * (4 * z * z - x * x - y * y)
        basis[12] = 0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y)
        basis[13] = -0.4570457994644658 * x * (4 * z * z - x * x - y * y)
        basis[14] = 1.445305721320277 * z * (x * x - y * y)
        basis[15] = -0.5900435899266435 * x * (x * x - 3 * y * y)


@compiled
def project_geometry(mean, quat, scale, view, camera, half, rotation):
    """Steps 1 and 2 of the model (:mod:`bozzetto.raster.reference`) for one Gaussian.

    Args:
        mean [3], quat [4], scale [3]; view [4, 4] and camera (fx, fy, cx, cy, u low, u high, v low, v high), float64.
        half [2, 3], rotation [3, 3]: filled with J W R and R.

    Returns:
        x, y, z in the camera, and Sigma' as xx, xy, yy.
    """
    m0, m1, m2 = float(mean[0]), float(mean[1]), float(mean[2])
    x = view[0, 0] * m0 + view[0, 1] * m1 + view[0, 2] * m2 + view[0, 3]
    y = view[1, 0] * m0 + view[1, 1] * m1 + view[1, 2] * m2 + view[1, 3]
    z = view[2, 0] * m0 + view[2, 1] * m1 + view[2, 2] * m2 + view[2, 3]
    w, i, j, k = float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3])
    inverse = 1.0 / max(math.sqrt(w * w + i * i + j * j + k * k), SMALLEST_QUATERNION)
    w, i, j, k = w * inverse, i * inverse, j * inverse, k * inverse
    rotation[0, 0] = 1 - 2 * (j * j + k * k)
    rotation[0, 1] = 2 * (i * j - w * k)
    rotation[0, 2] = 2 * (i * k + w * j)
    rotation[1, 0] = 2 * (i * j + w * k)
    rotation[1, 1] = 1 - 2 * (i * i + k * k)
    rotation[1, 2] = 2 * (j * k - w * i)
    rotation[2, 0] = 2 * (i * k - w * j)
    rotation[2, 1] = 2 * (j * k + w * i)
    rotation[2, 2] = 1 - 2 * (i * i + j * j)
    u = min(max(x / z, camera[4]), camera[5])
    v = min(max(y / z, camera[6]), camera[7])
    j00, j02, j11, j12 = camera[0] / z, -camera[0] * u / z, camera[1] / z, -camera[1] * v / z
    xx, xy, yy = LOW_PASS, 0.0, LOW_PASS
    for c in range(3):
        r0, r1, r2 = rotation[0, c], rotation[1, c], rotation[2, c]
        c0 = view[0, 0] * r0 + view[0, 1] * r1 + view[0, 2] * r2
        c1 = view[1, 0] * r0 + view[1, 1] * r1 + view[1, 2] * r2
        c2 = view[2, 0] * r0 + view[2, 1] * r1 + view[2, 2] * r2
        half[0, c] = j00 * c0 + j02 * c2
        half[1, c] = j11 * c1 + j12 * c2
        s = float(scale[c])
        xx += half[0, c] * s * half[0, c] * s
        xy += half[0, c] * s * half[1, c] * s
        yy += half[1, c] * s * half[1, c] * s
    return x, y, z, xx, xy, yy


@compiled
def project_range(
    begin, end, means, quats, scales, opacities, sh, view, centre, camera, height, width, near, far, records, keys
):
    """Records and sort keys of the Gaussians begin..end of one scene in one view.

    A key is the bit pattern of the float32 depth above the index; it is all ones for a Gaussian that cannot show.

    Args:
        means [N, 3], quats [N, 4], scales [N, 3], opacities [N], sh [N, K, 3]: float32. view [4, 4], centre [3] (of
        the camera), camera [8] as in :func:`project_geometry`: float64. records [N, 16] float32, keys [N] uint64: written.
    """
    half = np.empty((2, 3))
    rotation = np.empty((3, 3))
    basis = np.empty(16)
    depth_value = np.empty(1, np.float32)
    depth_bits = depth_value.view(np.uint32)
    count = sh.shape[1]
    for n in range(begin, end):
        keys[n] = HIDDEN
        opacity = float(opacities[n])
        if not (opacity >= MIN_ALPHA and opacity < math.inf):  # also NaN
            continue
        x, y, z, xx, xy, yy = project_geometry(means[n], quats[n], scales[n], view, camera, half, rotation)
        depth_value[0] = z
        if not (z > max(near, 0.0) and z < far and depth_value[0] < math.inf):
            continue
        determinant = xx * yy - xy * xy
        px, py = camera[0] * x / z + camera[2], camera[1] * y / z + camera[3]
        if not (determinant > 0 and determinant < math.inf and math.isfinite(px) and math.isfinite(py)):
            continue
        # alpha >= 1/255 inside the ellipse d^T Sigma'^-1 d <= reach; a little more against rounding.
        reach = max(0.0, 2.0 * math.log(opacity / MIN_ALPHA)) * 1.0001 + 1e-4
        half_x, half_y = math.sqrt(reach * xx) + 1e-3, math.sqrt(reach * yy) + 1e-3
        left, right, top, bottom = px - half_x, px + half_x, py - half_y, py + half_y
        if not (
            math.floor(right - 0.5) >= max(0.0, math.ceil(left - 0.5))
            and math.floor(bottom - 0.5) >= max(0.0, math.ceil(top - 0.5))
            and left <= width - 0.5
            and top <= height - 0.5
        ):
            continue
        dx, dy, dz = means[n, 0] - centre[0], means[n, 1] - centre[1], means[n, 2] - centre[2]
        inverse = 1.0 / max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
        sh_basis(dx * inverse, dy * inverse, dz * inverse, count, basis)
        red, green, blue = 0.5, 0.5, 0.5
        for k in range(count):
            red += basis[k] * sh[n, k, 0]
            green += basis[k] * sh[n, k, 1]
            blue += basis[k] * sh[n, k, 2]
        if not (math.isfinite(red) and math.isfinite(green) and math.isfinite(blue)):
            continue
        record = records[n]
        record[X_WHOLE] = math.floor(px)
        record[X_PART] = px - math.floor(px)
        record[Y_WHOLE] = math.floor(py)
        record[Y_PART] = py - math.floor(py)
        skew = math.sqrt(0.5 * _LOG2_E * yy / determinant)
        record[SKEW_X] = skew
        record[SKEW_Y] = -skew * xy / yy
        record[TALL] = math.sqrt(0.5 * _LOG2_E / yy)
        record[OPACITY] = opacity
        record[RED] = max(red, 0.0)
        record[GREEN] = max(green, 0.0)
        record[BLUE] = max(blue, 0.0)
        record[DEPTH] = z
        slant = xy / math.sqrt(xx * yy)
        record[HALF_X] = half_x
        record[HALF_Y] = half_y
        record[SLANT] = slant
        record[SLANT_SINE] = math.sqrt(max(0.0, 1.0 - slant * slant) + 1e-6)
        keys[n] = (np.uint64(depth_bits[0]) << np.uint64(32)) | np.uint64(n)


@compiled
def gather_sorted(order, records, height, sorted_records, rows, ranks):
    """Records in compositing order, the first and last band of each, and the place of every Gaussian.

    Args:
        order [M] uint64 keys, sorted; records [N, 16]; sorted_records [M, 16], rows [M, 2] int32: written;
        ranks [N] int32: written for the Gaussians in ``order``.
    """
    bands = (height + TILE - 1) // TILE
    for m in range(len(order)):
        n = np.int64(order[m] & np.uint64(0xFFFFFFFF))
        for field in range(RECORD):
            sorted_records[m, field] = records[n, field]
        ranks[n] = m
        y = float(records[n, Y_WHOLE]) + float(records[n, Y_PART]) - 0.5
        half = float(records[n, HALF_Y])
        rows[m, 0] = int(max(0.0, math.floor(math.ceil(y - half) / TILE)))
        rows[m, 1] = int(min(bands - 1.0, math.floor(math.floor(y + half) / TILE)))
