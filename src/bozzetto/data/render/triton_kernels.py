"""The renderer's Triton kernels; :mod:`.triton` launches them, :mod:`.cpu` is their twin.

Keys: one int64 per sample, [scenes, views, h, w] of the views in flight, holding the float bits of 1 / z above and
face + 1 below; positive floats keep their order as integers, so a relaxed atomic maximum keeps the nearest triangle,
whatever the order of arrival.

* ``visibility_kernel``: one program of one warp owns a (face, view) and walks its bounding box. A box of more than CHUNK
  samples is cut into chunks that go to a queue instead, so that no single warp holds up the launch.
* ``queue_kernel``: a fixed number of larger programs empty that queue. If the queue was full, the first kernel walked the rest.
* ``shade_kernel``: one program owns a tile of output pixels; it alone writes them.

The kernels run one after the other on one stream; within a kernel programs synchronise only by the atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE = 8  # shading tiles are TILE x TILE pixels


@triton.jit
def _screen(vertices, index, camera, mask):
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
def _corners(faces, face, mask):
    at = faces + face.to(tl.int64) * 3
    a = tl.load(at, mask=mask, other=0)
    b = tl.load(at + 1, mask=mask, other=0)
    c = tl.load(at + 2, mask=mask, other=0)
    return a, b, c


@triton.jit
def _corner_floats(table, face, column, WIDTH: tl.constexpr, mask):
    """Column ``column`` of the [F, 3, WIDTH] float table for the three corners of ``face``."""
    at = table + face.to(tl.int64) * (3 * WIDTH) + column
    p = tl.load(at, mask=mask, other=0.0)
    q = tl.load(at + WIDTH, mask=mask, other=0.0)
    r = tl.load(at + 2 * WIDTH, mask=mask, other=0.0)
    return p, q, r


@triton.jit
def _positions(vertices, a, b, c, axis, mask):
    p = tl.load(vertices + a.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    q = tl.load(vertices + b.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    r = tl.load(vertices + c.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    return p, q, r


@triton.jit
def _bilinear(texels, start, width, height, u, v, mask):
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


@triton.jit
def _setup(vertices, faces, face, camera, height, width, near, CULL: tl.constexpr):
    """Screen triangle of one face: corners, 1 / area, and its box of samples (left, top, columns, count; count 0: skip)."""
    a, b, c = _corners(faces, face, face >= 0)
    x0, y0, i0, z0 = _screen(vertices, a, camera, a >= 0)
    x1, y1, i1, z1 = _screen(vertices, b, camera, b >= 0)
    x2, y2, i2, z2 = _screen(vertices, c, camera, c >= 0)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    visible = (z0 > near) & (z1 > near) & (z2 > near) & (tl.abs(area) > 1e-6)
    if CULL:
        visible = visible & (area < 0.0)
    # Clamped as floats, so that the casts are defined for any corner.
    last_x = (width - 1).to(tl.float32)
    last_y = (height - 1).to(tl.float32)
    left_f = tl.maximum(tl.ceil(tl.minimum(x0, tl.minimum(x1, x2)) - 0.5), 0.0)
    top_f = tl.maximum(tl.ceil(tl.minimum(y0, tl.minimum(y1, y2)) - 0.5), 0.0)
    right_f = tl.minimum(tl.floor(tl.maximum(x0, tl.maximum(x1, x2)) - 0.5), last_x)
    bottom_f = tl.minimum(tl.floor(tl.maximum(y0, tl.maximum(y1, y2)) - 0.5), last_y)
    visible = visible & (left_f <= right_f) & (top_f <= bottom_f)
    left = tl.where(visible, left_f, 0.0).to(tl.int32)
    top = tl.where(visible, top_f, 0.0).to(tl.int32)
    columns = tl.where(visible, right_f, 0.0).to(tl.int32) - left + 1
    rows = tl.where(visible, bottom_f, 0.0).to(tl.int32) - top + 1
    count = tl.where(visible, columns * rows, 0)
    scale = 1.0 / tl.where(visible, area, 1.0)
    return x0, y0, i0, x1, y1, i1, x2, y2, i2, scale, left, top, columns, count


@triton.jit
def _cover(
    x0, y0, i0, x1, y1, i1, x2, y2, i2, scale, left, top, columns, first, last,
    face, uvs, levels, sizes, mat, cutout, texels, keys, width, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the samples [first, last) of a triangle's box into ``keys`` (one view's samples)."""
    start = first
    while start < last:
        index = start + tl.arange(0, BLOCK)
        row = index // columns
        column = left + index - row * columns
        row = top + row
        px = column.to(tl.float32) + 0.5
        py = row.to(tl.float32) + 0.5
        w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * scale
        w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * scale
        w2 = 1.0 - w0 - w1
        inside = (index < last) & (w0 >= -1e-6) & (w1 >= -1e-6) & (w2 >= -1e-6)
        b0 = w0 * i0
        b1 = w1 * i1
        b2 = w2 * i2
        iz = b0 + b1 + b2
        if cutout != 0:
            u0, u1, u2 = _corner_floats(uvs, face, 0, 2, face >= 0)
            v0, v1, v2 = _corner_floats(uvs, face, 1, 2, face >= 0)
            u = (b0 * u0 + b1 * u1 + b2 * u2) / iz
            v = (b0 * v0 + b1 * v1 + b2 * v2) / iz
            # Samples outside may be anywhere: keep their coordinates finite.
            u = tl.where(inside, u - tl.floor(u), 0.0)
            v = tl.where(inside, v - tl.floor(v), 0.0)
            base = tl.load(levels + mat.to(tl.int64) * 16)
            tw = tl.load(sizes + mat.to(tl.int64) * 4)
            th = tl.load(sizes + mat.to(tl.int64) * 4 + 1)
            _r, _g, _b, alpha = _bilinear(texels, base, tw, th, u, v, inside)
            inside = inside & (alpha >= 127.5)
        key = (iz.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (face + 1).to(tl.int64)
        tl.atomic_max(keys + (row * width + column), key, mask=inside, sem="relaxed")
        start += BLOCK


@triton.jit(do_not_specialize=["views", "view_base", "view_count", "capacity", "height", "width"])
def visibility_kernel(
    vertices, faces, uvs, material, face_object, levels, sizes, texels, cameras, keys, queue, queue_length,
    views, view_base, view_count, capacity, height, width, near,
    CULL: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (faces, views in flight); one warp. Small boxes are drawn, large ones queued in chunks."""
    face = tl.program_id(0)
    slot = tl.program_id(1)
    scene = tl.load(face_object + face)
    camera = cameras + (scene.to(tl.int64) * views + view_base + slot) * 20
    x0, y0, i0, x1, y1, i1, x2, y2, i2, scale, left, top, columns, count = _setup(
        vertices, faces, face, camera, height, width, near, CULL
    )
    first = count * 0
    if count > CHUNK:
        chunks = (count + (CHUNK - 1)) // CHUNK
        begin = tl.atomic_add(queue_length, chunks, sem="relaxed")
        step = first
        while step < chunks:
            index = step + tl.arange(0, 32)
            here = (index < chunks) & (begin + index < capacity)
            item = queue + (begin + index).to(tl.int64) * 3
            tl.store(item, tl.zeros((32,), tl.int32) + face, mask=here)
            tl.store(item + 1, tl.zeros((32,), tl.int32) + slot, mask=here)
            tl.store(item + 2, index, mask=here)
            step += 32
        first = tl.minimum(tl.maximum(capacity - begin, 0), chunks) * CHUNK
    mat = tl.load(material + face)
    cutout = tl.load(sizes + mat.to(tl.int64) * 4 + 3)
    own = keys + (scene.to(tl.int64) * view_count + slot) * (height * width)
    _cover(
        x0, y0, i0, x1, y1, i1, x2, y2, i2, scale, left, top, columns, first, count,
        face, uvs, levels, sizes, mat, cutout, texels, own, width, BLOCK,
    )  # fmt: skip


@triton.jit(do_not_specialize=["views", "view_base", "view_count", "capacity", "height", "width"])
def queue_kernel(
    vertices, faces, uvs, material, face_object, levels, sizes, texels, cameras, keys, queue, queue_length,
    views, view_base, view_count, capacity, height, width, near,
    CULL: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (any number of programs): they share the queued chunks evenly."""
    length = tl.minimum(tl.load(queue_length), capacity)
    entry = tl.program_id(0)
    while entry < length:
        item = queue + entry.to(tl.int64) * 3
        face = tl.load(item)
        slot = tl.load(item + 1)
        chunk = tl.load(item + 2)
        scene = tl.load(face_object + face)
        camera = cameras + (scene.to(tl.int64) * views + view_base + slot) * 20
        x0, y0, i0, x1, y1, i1, x2, y2, i2, scale, left, top, columns, count = _setup(
            vertices, faces, face, camera, height, width, near, CULL
        )
        mat = tl.load(material + face)
        cutout = tl.load(sizes + mat.to(tl.int64) * 4 + 3)
        own = keys + (scene.to(tl.int64) * view_count + slot) * (height * width)
        first = chunk * CHUNK
        last = tl.minimum(first + CHUNK, count)
        _cover(
            x0, y0, i0, x1, y1, i1, x2, y2, i2, scale, left, top, columns, first, last,
            face, uvs, levels, sizes, mat, cutout, texels, own, width, BLOCK,
        )  # fmt: skip
        entry += tl.num_programs(0)


@triton.jit(do_not_specialize=["views", "view_base", "view_count", "height", "width"])
def shade_kernel(
    vertices, faces, uvs, normals, material, levels, sizes, base_colors, texels, cameras, lights, lamps, keys,
    rgba, depth, normal_map, views, view_base, view_count, height, width,
    SUPERSAMPLE: tl.constexpr, COLOR: tl.constexpr, BYTES: tl.constexpr, DEPTH: tl.constexpr, NORMALS: tl.constexpr,
    LAMPS: tl.constexpr, TILE: tl.constexpr,
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
    light = lights + scene.to(tl.int64) * 12
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
            a, b, c = _corners(faces, face, hit)
            x0, y0, i0, _z = _screen(vertices, a, camera, hit)
            x1, y1, i1, _z = _screen(vertices, b, camera, hit)
            x2, y2, i2, _z = _screen(vertices, c, camera, hit)
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            scale = 1.0 / tl.where(hit, area, 1.0)
            px = x.to(tl.float32) + 0.5
            py = y.to(tl.float32) + 0.5
            w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * scale
            w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * scale
            b0 = w0 * i0 * inverse
            b1 = w1 * i1 * inverse
            b2 = (1.0 - w0 - w1) * i2 * inverse
            p, q, r = _corner_floats(normals, face, 0, 3, hit)
            nx = b0 * p + b1 * q + b2 * r
            p, q, r = _corner_floats(normals, face, 1, 3, hit)
            ny = b0 * p + b1 * q + b2 * r
            p, q, r = _corner_floats(normals, face, 2, 3, hit)
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
                u0, u1, u2 = _corner_floats(uvs, face, 0, 2, hit)
                v0, v1, v2 = _corner_floats(uvs, face, 1, 2, hit)
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
                r0, g0, l0, a0 = _bilinear(texels, start, lw, lh, u, v, hit)
                start = tl.load(levels + mat * 16 + coarse, mask=hit, other=0)
                lw = tl.maximum(tw >> coarse, 1)
                lh = tl.maximum(th >> coarse, 1)
                r1, g1, l1, a1 = _bilinear(texels, start, lw, lh, u, v, hit)
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
                        p, q, r = _positions(vertices, a, b, c, 0, hit)
                        ex = tl.load(camera + 16) - (b0 * p + b1 * q + b2 * r)
                        p, q, r = _positions(vertices, a, b, c, 1, hit)
                        ey = tl.load(camera + 17) - (b0 * p + b1 * q + b2 * r)
                        p, q, r = _positions(vertices, a, b, c, 2, hit)
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
