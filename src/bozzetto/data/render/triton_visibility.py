"""Visibility in Triton: which triangle is nearest at every sample.

Keys: one int64 per sample, [scenes, views, h, w] of the views in flight, holding the float bits of 1 / z above and
face + 1 below; positive floats keep their order as integers, so a relaxed atomic maximum keeps the nearest triangle,
whatever the order of arrival.

* ``visibility_kernel``: one program of one warp owns a (face, view) and walks its bounding box. A box of more than CHUNK
  samples is cut into chunks that go to a queue instead, so that no single warp holds up the launch.
* ``queue_kernel``: a fixed number of larger programs empty that queue. If the queue was full, the first kernel walked the
  rest.

Programs of one kernel synchronise only by the atomics; the kernels run one after the other on one stream.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_geometry import bilinear, corner_floats, corners, screen


@triton.jit
def _setup(vertices, faces, face, camera, height, width, near, CULL: tl.constexpr):
    """Screen triangle of one face: corners, 1 / area, and its box of samples (left, top, columns, count; count 0: skip)."""
    a, b, c = corners(faces, face, face >= 0)
    x0, y0, i0, z0 = screen(vertices, a, camera, a >= 0)
    x1, y1, i1, z1 = screen(vertices, b, camera, b >= 0)
    x2, y2, i2, z2 = screen(vertices, c, camera, c >= 0)
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
            u0, u1, u2 = corner_floats(uvs, face, 0, 2, face >= 0)
            v0, v1, v2 = corner_floats(uvs, face, 1, 2, face >= 0)
            u = (b0 * u0 + b1 * u1 + b2 * u2) / iz
            v = (b0 * v0 + b1 * v1 + b2 * v2) / iz
            # Samples outside may be anywhere: keep their coordinates finite.
            u = tl.where(inside, u - tl.floor(u), 0.0)
            v = tl.where(inside, v - tl.floor(v), 0.0)
            base = tl.load(levels + mat.to(tl.int64) * 16)
            tw = tl.load(sizes + mat.to(tl.int64) * 4)
            th = tl.load(sizes + mat.to(tl.int64) * 4 + 1)
            _r, _g, _b, alpha = bilinear(texels, base, tw, th, u, v, inside)
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
