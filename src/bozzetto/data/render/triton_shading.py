"""Shading in Triton: one program owns a tile of output pixels, shades the samples behind them and alone writes them.

The arithmetic is that of :func:`.cpu._shade`, where the steps are named.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_geometry import bilinear, corner_floats, corners, positions, screen

TILE = 8  # a tile is TILE x TILE pixels


@triton.jit(do_not_specialize=["views", "view_base", "view_count", "height", "width"])
def shade_kernel(
    vertices, faces, uvs, normals, material, levels, sizes, base_colors, texels, cameras, lights, lamps, keys,
    rgba, depth, normal_map, views, view_base, view_count, height, width,
    SUPERSAMPLE: tl.constexpr, COLOR: tl.constexpr, BYTES: tl.constexpr, DEPTH: tl.constexpr, NORMALS: tl.constexpr,
    LAMPS: tl.constexpr, ENVIRONMENT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Grid (scenes * views in flight * tiles); height and width count output pixels."""
    BLOCK: tl.constexpr = TILE * TILE
    across = (width + (TILE - 1)) // TILE
    tiles = across * ((height + (TILE - 1)) // TILE)
    image = tl.program_id(0) // tiles
    tile = tl.program_id(0) - image * tiles
    scene = image // view_count
    view = scene.to(tl.int64) * views + view_base + (image - scene * view_count)
    camera = cameras + view * 20
    light = lights + scene.to(tl.int64) * (39 if ENVIRONMENT else 12)
    lamp = lamps + scene.to(tl.int64) * (LAMPS * 6)
    lane = tl.arange(0, BLOCK)
    row = (tile // across) * TILE + lane // TILE
    column = (tile % across) * TILE + lane % TILE
    here = (row < height) & (column < width)
    own = keys + image.to(tl.int64) * (height * width) * (SUPERSAMPLE * SUPERSAMPLE)

    zero = tl.zeros((BLOCK,), tl.float32)
    red = zero
    green = zero
    blue = zero
    far = zero
    sx = zero
    sy = zero
    sz = zero
    covered = zero
    for s in range(SUPERSAMPLE * SUPERSAMPLE):
        y = row * SUPERSAMPLE + s // SUPERSAMPLE
        x = column * SUPERSAMPLE + s % SUPERSAMPLE
        key = tl.load(own + (y * (width * SUPERSAMPLE) + x), mask=here, other=0)
        hit = key > 0
        iz = tl.where(hit, (key >> 32).to(tl.int32).to(tl.float32, bitcast=True), 1.0)
        inverse = 1.0 / iz
        covered += tl.where(hit, 1.0, 0.0)
        far += tl.where(hit, inverse, 0.0)
        # Most tiles of a picture are empty: one test spares them all the rest.
        if tl.max(hit.to(tl.int32), axis=0) > 0:
            face = tl.where(hit, key.to(tl.int32) - 1, 0)
            a, b, c = corners(faces, face, hit)
            x0, y0, i0, _z = screen(vertices, a, camera, hit)
            x1, y1, i1, _z = screen(vertices, b, camera, hit)
            x2, y2, i2, _z = screen(vertices, c, camera, hit)
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            scale = 1.0 / tl.where(hit, area, 1.0)
            px = x.to(tl.float32) + 0.5
            py = y.to(tl.float32) + 0.5
            w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * scale
            w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * scale
            b0 = w0 * i0 * inverse
            b1 = w1 * i1 * inverse
            b2 = (1.0 - w0 - w1) * i2 * inverse
            p, q, r = corner_floats(normals, face, 0, 3, hit)
            nx = b0 * p + b1 * q + b2 * r
            p, q, r = corner_floats(normals, face, 1, 3, hit)
            ny = b0 * p + b1 * q + b2 * r
            p, q, r = corner_floats(normals, face, 2, 3, hit)
            nz = b0 * p + b1 * q + b2 * r
            length = 1.0 / tl.sqrt(tl.maximum(nx * nx + ny * ny + nz * nz, 1e-20))
            length = tl.where(area > 0.0, -length, length)
            nx = nx * length
            ny = ny * length
            nz = nz * length
            if NORMALS:
                sx += tl.where(hit, nx, 0.0)
                sy += tl.where(hit, ny, 0.0)
                sz += tl.where(hit, nz, 0.0)
            if COLOR:
                mat = tl.load(material + face, mask=hit, other=0).to(tl.int64)
                tw = tl.load(sizes + mat * 4, mask=hit, other=1)
                th = tl.load(sizes + mat * 4 + 1, mask=hit, other=1)
                top_level = tl.load(sizes + mat * 4 + 2, mask=hit, other=1) - 1
                u0, u1, u2 = corner_floats(uvs, face, 0, 2, hit)
                v0, v1, v2 = corner_floats(uvs, face, 1, 2, hit)
                u = b0 * u0 + b1 * u1 + b2 * u2
                v = b0 * v0 + b1 * v1 + b2 * v2
                # d(uv)/d(column, row), from the linear functions numerator and 1 / z: (dN - uv dD) / D.
                dx0 = (y1 - y2) * scale * i0
                dx1 = (y2 - y0) * scale * i1
                dx2 = (y0 - y1) * scale * i2
                dy0 = (x2 - x1) * scale * i0
                dy1 = (x0 - x2) * scale * i1
                dy2 = (x1 - x0) * scale * i2
                ddx = dx0 + dx1 + dx2
                ddy = dy0 + dy1 + dy2
                fw = tw.to(tl.float32) * inverse
                fh = th.to(tl.float32) * inverse
                ux = (dx0 * u0 + dx1 * u1 + dx2 * u2 - u * ddx) * fw
                uy = (dy0 * u0 + dy1 * u1 + dy2 * u2 - u * ddy) * fw
                vx = (dx0 * v0 + dx1 * v1 + dx2 * v2 - v * ddx) * fh
                vy = (dy0 * v0 + dy1 * v1 + dy2 * v2 - v * ddy) * fh
                spread = tl.maximum(tl.maximum(ux * ux + vx * vx, uy * uy + vy * vy), 1e-12)
                level = tl.minimum(tl.maximum(0.5 * tl.log2(spread), 0.0), top_level.to(tl.float32))
                fine = level.to(tl.int32)
                coarse = tl.minimum(fine + 1, top_level)
                t = level - fine.to(tl.float32)
                u = u - tl.floor(u)
                v = v - tl.floor(v)
                start = tl.load(levels + mat * 16 + fine, mask=hit, other=0)
                lw = tl.maximum(tw >> fine, 1)
                lh = tl.maximum(th >> fine, 1)
                r0, g0, l0, a0 = bilinear(texels, start, lw, lh, u, v, hit)
                start = tl.load(levels + mat * 16 + coarse, mask=hit, other=0)
                lw = tl.maximum(tw >> coarse, 1)
                lh = tl.maximum(th >> coarse, 1)
                r1, g1, l1, a1 = bilinear(texels, start, lw, lh, u, v, hit)
                weight = 1.0 / (tl.maximum(a0 * (1.0 - t) + a1 * t, 1e-6) * 255.0)
                cr = (r0 * (1.0 - t) + r1 * t) * weight * tl.load(base_colors + mat * 3, mask=hit, other=0.0)
                cg = (g0 * (1.0 - t) + g1 * t) * weight * tl.load(base_colors + mat * 3 + 1, mask=hit, other=0.0)
                cb = (l0 * (1.0 - t) + l1 * t) * weight * tl.load(base_colors + mat * 3 + 2, mask=hit, other=0.0)

                up = 0.5 + 0.5 * ny
                ground_r = tl.load(light + 6)
                ground_g = tl.load(light + 7)
                ground_b = tl.load(light + 8)
                er = tl.load(light) + ground_r + (tl.load(light + 3) - ground_r) * up
                eg = tl.load(light + 1) + ground_g + (tl.load(light + 4) - ground_g) * up
                eb = tl.load(light + 2) + ground_b + (tl.load(light + 5) - ground_b) * up
                if ENVIRONMENT:
                    for k in tl.static_range(9):
                        if k == 0:
                            basis = zero + 1.0
                        elif k == 1:
                            basis = nx
                        elif k == 2:
                            basis = ny
                        elif k == 3:
                            basis = nz
                        elif k == 4:
                            basis = nx * ny
                        elif k == 5:
                            basis = ny * nz
                        elif k == 6:
                            basis = nz * nx
                        elif k == 7:
                            basis = nx * nx - ny * ny
                        else:
                            basis = 3.0 * nz * nz - 1.0
                        er += tl.load(light + 12 + 3 * k) * basis
                        eg += tl.load(light + 13 + 3 * k) * basis
                        eb += tl.load(light + 14 + 3 * k) * basis
                specular = tl.load(light + 9)
                shininess = tl.load(light + 10)
                gloss = tl.zeros((BLOCK,), tl.float32)
                for k in range(LAMPS):
                    lx = tl.load(lamp + k * 6)
                    ly = tl.load(lamp + k * 6 + 1)
                    lz = tl.load(lamp + k * 6 + 2)
                    lr = tl.load(lamp + k * 6 + 3)
                    lg = tl.load(lamp + k * 6 + 4)
                    lb = tl.load(lamp + k * 6 + 5)
                    facing = nx * lx + ny * ly + nz * lz
                    half = 0.5 + 0.5 * facing
                    half = half * half
                    er += lr * half
                    eg += lg * half
                    eb += lb * half
                    if specular > 0.0:
                        p, q, r = positions(vertices, a, b, c, 0, hit)
                        ex = tl.load(camera + 16) - (b0 * p + b1 * q + b2 * r)
                        p, q, r = positions(vertices, a, b, c, 1, hit)
                        ey = tl.load(camera + 17) - (b0 * p + b1 * q + b2 * r)
                        p, q, r = positions(vertices, a, b, c, 2, hit)
                        ez = tl.load(camera + 18) - (b0 * p + b1 * q + b2 * r)
                        away = 1.0 / tl.sqrt(tl.maximum(ex * ex + ey * ey + ez * ez, 1e-20))
                        hx = lx + ex * away
                        hy = ly + ey * away
                        hz = lz + ez * away
                        along = nx * hx + ny * hy + nz * hz
                        along = along / tl.sqrt(tl.maximum(hx * hx + hy * hy + hz * hz, 1e-20))
                        strength = (lr + lg + lb) * (1.0 / 3.0)
                        highlight = strength * tl.exp2(shininess * tl.log2(tl.maximum(along, 1e-6)))
                        gloss += tl.where(facing > 0.0, highlight, 0.0)
                gloss = tl.minimum(gloss * specular, 1.0)
                cr = tl.minimum(cr * er, 1.0)
                cg = tl.minimum(cg * eg, 1.0)
                cb = tl.minimum(cb * eb, 1.0)
                red += tl.where(hit, cr + gloss * (1.0 - cr), 0.0)
                green += tl.where(hit, cg + gloss * (1.0 - cg), 0.0)
                blue += tl.where(hit, cb + gloss * (1.0 - cb), 0.0)

    mean = 1.0 / tl.maximum(covered, 1.0)
    alpha = covered * (1.0 / (SUPERSAMPLE * SUPERSAMPLE))
    pixel = view * (height * width) + row * width + column
    if BYTES:
        packed = (red * mean * 255.0 + 0.5).to(tl.int32)
        packed = packed | ((green * mean * 255.0 + 0.5).to(tl.int32) << 8)
        packed = packed | ((blue * mean * 255.0 + 0.5).to(tl.int32) << 16)
        packed = packed | ((alpha * 255.0 + 0.5).to(tl.int32) << 24)
        tl.store(rgba + pixel, packed, mask=here)
    elif COLOR:
        tl.store(rgba + pixel * 4, red * mean, mask=here)
        tl.store(rgba + pixel * 4 + 1, green * mean, mask=here)
        tl.store(rgba + pixel * 4 + 2, blue * mean, mask=here)
        tl.store(rgba + pixel * 4 + 3, alpha, mask=here)
    if DEPTH:
        tl.store(depth + pixel, far * mean, mask=here)
    if NORMALS:
        length = 1.0 / tl.sqrt(tl.maximum(sx * sx + sy * sy + sz * sz, 1e-20))
        tl.store(normal_map + pixel * 3, sx * length, mask=here)
        tl.store(normal_map + pixel * 3 + 1, sy * length, mask=here)
        tl.store(normal_map + pixel * 3 + 2, sz * length, mask=here)
