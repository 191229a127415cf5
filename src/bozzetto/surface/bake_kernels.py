"""Compiled loops of the texture on the CPU: which face a texel shows, its colour from all views, and the nearest filled texel.

Each is the work of a plain function elsewhere, which is its oracle: :func:`.coverage.covered_pixels`, :func:`.bake.blend_views`,
``scipy.ndimage.distance_transform_edt``. A task writes to rows or texels of its own, so no thread waits for another.
"""

from __future__ import annotations

import math

import numpy as np

from ..raster.threads import compiled

INSIDE = -1e-9
FAR_AWAY = 1 << 20  # texels


@compiled
def cover_texels(corners, size, first, last, owner, weights):
    """The last face and its barycentric weights for each texel centre of rows first..last (exclusive).

    Args:
        corners: [F, 3, 2] float32, (x, y) in texels.
        owner: [size, size] int32, -1 everywhere, and weights: [size, size, 3] float32; the result.
    """
    for f in range(len(corners)):
        ax, ay = np.float64(corners[f, 0, 0]), np.float64(corners[f, 0, 1])
        bx, by = np.float64(corners[f, 1, 0]), np.float64(corners[f, 1, 1])
        cx, cy = np.float64(corners[f, 2, 0]), np.float64(corners[f, 2, 1])
        y0 = max(np.int64(np.ceil(min(ay, by, cy) - 0.5)), first)
        y1 = min(np.int64(np.floor(max(ay, by, cy) - 0.5)), last - 1)
        if y0 > y1:
            continue
        x0 = max(np.int64(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        x1 = min(np.int64(np.floor(max(ax, bx, cx) - 0.5)), size - 1)
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) <= 1e-12:
            continue
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                wc = 1 - wa - wb
                if wa >= INSIDE and wb >= INSIDE and wc >= INSIDE:
                    owner[y, x] = f
                    weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = wa, wb, wc


@compiled
def blend_texels(points, normals, pictures, maps, cameras, tolerance, settings, first, last, colour, seen):
    """Colours of the surface points first..last (exclusive) from all views.

    Args:
        points, normals: [T, 3]. pictures: [K, H, W, 4], premultiplied. maps: [K, h, w, 2], nearest depth and its spread.
        cameras: [K, 19]: position, view matrix [3, 4] row by row, fx, fy, cx, cy.
        settings: least cosine, its power, least alpha.
        colour: [T, 3] float32 and seen: [T] bool, zeros; the result.
    """
    least_facing, power, least_alpha = settings
    views, height, width, _ = pictures.shape
    _, rows, columns, _ = maps.shape
    half, wide, high = np.float32(0.5), np.float32(width), np.float32(height)
    for t in range(first, last):
        x, y, z = points[t, 0], points[t, 1], points[t, 2]
        total = total_r = total_g = total_b = np.float32(0)
        loose = loose_r = loose_g = loose_b = np.float32(0)
        for k in range(views):
            c = cameras[k]
            dx, dy, dz = c[0] - x, c[1] - y, c[2] - z
            cosine = dx * normals[t, 0] + dy * normals[t, 1] + dz * normals[t, 2]
            if cosine <= np.float32(0):
                continue
            facing = cosine / np.float32(math.sqrt(dx * dx + dy * dy + dz * dz))
            if not facing > least_facing:
                continue
            depth = c[11] * x + c[12] * y + c[13] * z + c[14]
            u = (c[3] * x + c[4] * y + c[5] * z + c[6]) / depth * c[15] + c[17]
            v = (c[7] * x + c[8] * y + c[9] * z + c[10]) / depth * c[16] + c[18]
            column = min(max(np.int64(np.rint(u * np.float32(columns) - half)), 0), columns - 1)
            row = min(max(np.int64(np.rint(v * np.float32(rows) - half)), 0), rows - 1)
            lag = depth - maps[k, row, column, 0]
            slack = tolerance / facing
            if not lag < 3 * slack:
                continue
            # Bilinear, clamped to the picture.
            px = min(max(u * wide - half, np.float32(0)), wide - np.float32(1))
            py = min(max(v * high - half, np.float32(0)), high - np.float32(1))
            i, j = np.int64(px), np.int64(py)
            i1, j1 = min(i + 1, width - 1), min(j + 1, height - 1)
            s, r = px - np.float32(i), py - np.float32(j)
            one = np.float32(1)
            w00, w10, w01, w11 = (one - s) * (one - r), s * (one - r), (one - s) * r, s * r
            a, b, d, e = pictures[k, j, i], pictures[k, j, i1], pictures[k, j1, i], pictures[k, j1, i1]
            alpha = a[3] * w00 + b[3] * w10 + d[3] * w01 + e[3] * w11
            if not alpha > least_alpha:
                continue
            spread = maps[k, row, column, 1] / tolerance
            trust = facing**power * alpha * alpha / (one + spread * spread)
            share = trust / alpha  # the pictures are premultiplied
            red = share * (a[0] * w00 + b[0] * w10 + d[0] * w01 + e[0] * w11)
            green = share * (a[1] * w00 + b[1] * w10 + d[1] * w01 + e[1] * w11)
            blue = share * (a[2] * w00 + b[2] * w10 + d[2] * w01 + e[2] * w11)
            loose, loose_r, loose_g, loose_b = loose + trust, loose_r + red, loose_g + green, loose_b + blue
            if lag < slack:
                total, total_r, total_g, total_b = total + trust, total_r + red, total_g + green, total_b + blue
        if not total > np.float32(1e-4):
            total, total_r, total_g, total_b = loose, loose_r, loose_g, loose_b
        seen[t] = total > np.float32(1e-4)
        scale = np.float32(1) / max(total, np.float32(1e-8))
        colour[t, 0], colour[t, 1], colour[t, 2] = total_r * scale, total_g * scale, total_b * scale


@compiled
def nearest_rows(filled, first, last, row):
    """For each texel of columns first..last the row of the nearest filled texel in its column, or -FAR_AWAY.

    Args:
        filled: [H, W] bool; row: [H, W] int32, the result.
    """
    height = len(filled)
    for x in range(first, last):
        latest = -FAR_AWAY
        for y in range(height):
            if filled[y, x]:
                latest = y
            row[y, x] = latest
        latest = 2 * FAR_AWAY
        for y in range(height - 1, -1, -1):
            if filled[y, x]:
                latest = y
            if latest - y < y - row[y, x]:
                row[y, x] = latest


@compiled
def nearest_texels(row, first, last, index):
    """For each texel of rows first..last the nearest filled texel: lower envelope of parabolas (Felzenszwalb, Huttenlocher 2012).

    Args:
        row: [H, W], as of :func:`nearest_rows`; index: [H, W] int64, the result, row * W + column.
    """
    _, width = row.shape
    place = np.empty(width, np.int64)  # columns of the parabolas of the envelope
    begin = np.empty(width + 1, np.float64)  # where each becomes the lowest
    for y in range(first, last):
        count = 0
        for x in range(width):
            if row[y, x] < 0:
                continue
            rise = np.float64(y - row[y, x]) ** 2 + np.float64(x) ** 2
            start = -np.inf
            while count > 0:
                q = place[count - 1]
                start = (rise - np.float64(y - row[y, q]) ** 2 - np.float64(q) ** 2) / (2.0 * (x - q))
                if start > begin[count - 1]:
                    break
                count -= 1
            if count == 0:
                start = -np.inf
            place[count], begin[count] = x, start
            count += 1
        k = 0
        for x in range(width):
            while k + 1 < count and begin[k + 1] < x:
                k += 1
            index[y, x] = np.int64(row[y, place[k]]) * width + place[k]
