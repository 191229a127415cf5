"""Compiled loops of the fusion on the CPU: what all views say about a point, and from which side views see a place.

The plain functions of :mod:`.fusion` with the same names are the oracle. A task has a range of points of its own.
"""

from __future__ import annotations

import numpy as np

from ..raster.threads import compiled


@compiled
def vote(points, maps, rotation, shift, settings, first, last, value, closest, free):
    """Fused value, distance to the closest surface and number of views that see past them, of the points first..last (exclusive).

    Args:
        points: [P, 3]. maps: [V, H, W, 5]: near wall, far wall, facing, trust, spread. rotation: [V, 3, 3], rows of points
            times it, plus shift [V, 3], are image x and y (-1..1) times z, and z.
        settings: reach, least facing, hidden weight, what fog adds to it, spread in length at which it adds half of that, and
            what part of its reach a view must see past a point to count.
        value, closest, free: [P], the result.
    """
    reach, least_facing, hidden_weight, fog_hidden, fog_scale, least_ahead = settings
    views, height, width, _ = maps.shape
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    wide, high = np.float32(width), np.float32(height)
    for p in range(first, last):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        total = weight = past = zero
        near = np.float32(np.inf)
        for k in range(views):
            r, s = rotation[k], shift[k]
            depth = x * r[0, 2] + y * r[1, 2] + z * r[2, 2] + s[2]
            inverse = one / depth
            u = (x * r[0, 0] + y * r[1, 0] + z * r[2, 0] + s[0]) * inverse
            v = (x * r[0, 1] + y * r[1, 1] + z * r[2, 1] + s[1]) * inverse
            px = min(max(((u + one) * wide - one) * half, zero), wide - one)
            py = min(max(((v + one) * high - one) * half, zero), high - one)
            i, j = np.int64(px), np.int64(py)
            i1, j1 = min(i + 1, width - 1), min(j + 1, height - 1)
            fx, fy = px - np.float32(i), py - np.float32(j)
            w11 = fx * fy
            w10, w01 = fx - w11, fy - w11
            w00 = one - fx - w01
            a, b, c, d = maps[k, j, i], maps[k, j, i1], maps[k, j1, i], maps[k, j1, i1]
            near_wall = a[0] * w00 + b[0] * w10 + c[0] * w01 + d[0] * w11
            far_wall = a[1] * w00 + b[1] * w10 + c[1] * w01 + d[1] * w11
            facing = a[2] * w00 + b[2] * w10 + c[2] * w01 + d[2] * w11
            trust = a[3] * w00 + b[3] * w10 + c[3] * w01 + d[3] * w11
            spread = a[4] * w00 + b[4] * w10 + c[4] * w01 + d[4] * w11
            soft = one / (reach + spread)
            ahead = (near_wall - depth) * soft
            hidden = hidden_weight + fog_hidden * spread / (spread + fog_scale)
            if ahead > least_ahead:
                past += trust
            if ahead >= one:
                w = trust
            elif facing > least_facing:
                w = (facing * (one + min(max(ahead, -one), zero)) + hidden) * trust
            else:
                w = zero
            if (far_wall - depth) * soft <= -one:
                w = hidden
            total += w * min(max(ahead, -one), one)
            weight += w
            if facing > least_facing:
                near = min(near, abs(near_wall - depth))
        value[p] = total / max(weight, np.float32(1e-6)) if weight > zero else -one
        closest[p] = near
        free[p] = past


@compiled
def _seen_at(x, y, z, c, wide, high):
    """Camera z of a point, and column and row of the pixel that shows it. c: [19], see :func:`count_sides`."""
    away = c[11] * x + c[12] * y + c[13] * z + c[14]
    inverse = np.float32(1) / away
    u = (c[3] * x + c[4] * y + c[5] * z + c[6]) * inverse * c[15] + c[17]
    v = (c[7] * x + c[8] * y + c[9] * z + c[10]) * inverse * c[16] + c[18]
    half = np.float32(0.5)
    return away, np.int64(np.rint(u * wide - half)), np.int64(np.rint(v * high - half))


@compiled
def count_sides(points, normals, depth, cameras, thickness, first, last, same, opposite):
    """How many views see the places first..last (exclusive) from the side of their normals, and how many from the other.

    Args:
        points, normals: [P, 3]. depth: [V, H, W], finite. cameras: [V, 19]: position, view matrix [3, 4], fx, fy, cx, cy.
        same, opposite: [P] float32, the result.
    """
    views, height, width = depth.shape
    wide, high = np.float32(width), np.float32(height)
    for p in range(first, last):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        front = back = np.float32(0)
        for k in range(views):
            c = cameras[k]
            dx, dy, dz = c[0] - x, c[1] - y, c[2] - z
            cosine = dx * normals[p, 0] + dy * normals[p, 1] + dz * normals[p, 2]
            length = np.float32(np.sqrt(dx * dx + dy * dy + dz * dz))
            if not abs(cosine) > np.float32(0.2) * length:
                continue
            away, column, row = _seen_at(x, y, z, c, wide, high)
            seen = np.float32(0)  # beyond the picture
            if column >= 0 and column < width and row >= 0 and row < height:
                seen = depth[k, row, column]
            if abs(away - seen) * abs(cosine) < thickness * length:
                if cosine > np.float32(0):
                    front += np.float32(1)
                else:
                    back += np.float32(1)
        same[p], opposite[p] = front, back


@compiled
def count_touches(points, bounds, cameras, first, last, touch, past):
    """How many views see a surface at the places first..last (exclusive), and how many see past them.

    Args:
        points: [P, 3]. bounds: [V, H, W, 2], first and last depth of a pixel's surface. cameras: [V, 19] as in count_sides.
        touch, past: [P] float32, the result.
    """
    views, height, width, _ = bounds.shape
    wide, high = np.float32(width), np.float32(height)
    for p in range(first, last):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        at = before = np.float32(0)
        for k in range(views):
            away, column, row = _seen_at(x, y, z, cameras[k], wide, high)
            if column >= 0 and column < width and row >= 0 and row < height:
                if away < bounds[k, row, column, 0]:
                    before += np.float32(1)
                elif away <= bounds[k, row, column, 1]:
                    at += np.float32(1)
        touch[p], past[p] = at, before
