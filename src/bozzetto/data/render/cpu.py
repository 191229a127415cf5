"""The renderer on the CPU: numba kernels, one view at a time, views spread over threads.

Who owns what: a call of :func:`_render_view` owns one picture and its z-buffer, so threads share nothing that is written.
All arithmetic is float32 in the same order as the Triton kernels, which makes the two agree to rounding.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .scene import SceneBatch

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
EDGE = np.float32(-1e-6)  # a little slack in barycentric coordinates closes pinholes along shared edges
MIN_AREA = np.float32(1e-6)  # twice the triangle's area in square samples; smaller ones are skipped
TINY = np.float32(1e-20)

jit = njit(cache=True, nogil=True, error_model="numpy")


@jit
def _project(vertices, camera, out):
    """Vertices [V, 3] -> out [V, 4] = column, row (in samples), 1 / z, z. Non-positive z gives 1 / z = 1."""
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        cx = camera[0] * x + camera[1] * y + camera[2] * z + camera[3]
        cy = camera[4] * x + camera[5] * y + camera[6] * z + camera[7]
        cz = camera[8] * x + camera[9] * y + camera[10] * z + camera[11]
        inverse = ONE / (cz if cz > ZERO else ONE)
        out[i, 0] = camera[12] * cx * inverse + camera[14]
        out[i, 1] = camera[13] * cy * inverse + camera[15]
        out[i, 2] = inverse
        out[i, 3] = cz


@jit
def _bilinear(texels, start, width, height, u, v):
    """Alpha-weighted sums (r a, g a, b a, a) of the four texels around (u, v); texels are RGBA bytes in a uint32."""
    fx = u * np.float32(width) - HALF
    fy = v * np.float32(height) - HALF
    x, y = np.floor(fx), np.floor(fy)
    dx, dy = fx - x, fy - y
    x0, y0 = int(x) & (width - 1), int(y) & (height - 1)
    x1, y1 = (x0 + 1) & (width - 1), (y0 + 1) & (height - 1)
    r = g = b = a = ZERO
    for k in range(4):
        tx, wx = (x1, dx) if k & 1 else (x0, ONE - dx)
        ty, wy = (y1, dy) if k & 2 else (y0, ONE - dy)
        texel = texels[start + ty * width + tx]
        weight = wx * wy * np.float32(texel >> 24)
        r += weight * np.float32(texel & 255)
        g += weight * np.float32((texel >> 8) & 255)
        b += weight * np.float32((texel >> 16) & 255)
        a += weight
    return r, g, b, a


@jit
def _visibility(
    screen, faces, uvs, material, levels, sizes, texels, first_vertex, height, width, near, cull, inverse_z, ids
):
    """Nearest triangle of every sample: inverse_z [h, w] float32 and ids [h, w] int32 (0: none, else face + 1)."""
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0] - first_vertex, faces[f, 1] - first_vertex, faces[f, 2] - first_vertex
        x0, y0, i0, x1, y1, i1 = screen[a, 0], screen[a, 1], screen[a, 2], screen[b, 0], screen[b, 1], screen[b, 2]
        x2, y2, i2 = screen[c, 0], screen[c, 1], screen[c, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if not (screen[a, 3] > near and screen[b, 3] > near and screen[c, 3] > near and abs(area) > MIN_AREA):
            continue
        if cull and area > ZERO:  # rows grow downwards: counter-clockwise triangles have a negative area
            continue
        left = int(max(np.ceil(min(x0, x1, x2) - HALF), ZERO))
        top = int(max(np.ceil(min(y0, y1, y2) - HALF), ZERO))
        right = int(min(np.floor(max(x0, x1, x2) - HALF), np.float32(width - 1)))
        bottom = int(min(np.floor(max(y0, y1, y2) - HALF), np.float32(height - 1)))
        scale = ONE / area
        mat = material[f]
        cutout = sizes[mat, 3] != 0
        for row in range(top, bottom + 1):
            py = np.float32(row) + HALF
            for column in range(left, right + 1):
                px = np.float32(column) + HALF
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * scale
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * scale
                w2 = ONE - w0 - w1
                if w0 < EDGE or w1 < EDGE or w2 < EDGE:
                    continue
                b0, b1, b2 = w0 * i0, w1 * i1, w2 * i2
                iz = b0 + b1 + b2
                # Equal depths go to the later triangle, as the keys of the GPU version do.
                if iz < inverse_z[row, column]:
                    continue
                if cutout:
                    u = (b0 * uvs[f, 0, 0] + b1 * uvs[f, 1, 0] + b2 * uvs[f, 2, 0]) / iz
                    v = (b0 * uvs[f, 0, 1] + b1 * uvs[f, 1, 1] + b2 * uvs[f, 2, 1]) / iz
                    hit = _bilinear(
                        texels, levels[mat, 0], sizes[mat, 0], sizes[mat, 1], u - np.floor(u), v - np.floor(v)
                    )
                    if hit[3] < np.float32(127.5):
                        continue
                inverse_z[row, column] = iz
                ids[row, column] = f + 1


@jit
def _texture(texels, levels, sizes, mat, u, v, lod):
    """Trilinear colour (r, g, b in 0..1) of material ``mat`` at (u, v)."""
    level = min(max(lod, ZERO), np.float32(sizes[mat, 2] - 1))
    fine = int(level)
    coarse = min(fine + 1, sizes[mat, 2] - 1)
    t = level - np.float32(fine)
    r0, g0, b0, a0 = _bilinear(
        texels, levels[mat, fine], max(sizes[mat, 0] >> fine, 1), max(sizes[mat, 1] >> fine, 1), u, v
    )
    if t == ZERO:  # magnified, or the last level
        scale = ONE / (max(a0, np.float32(1e-6)) * np.float32(255))
        return r0 * scale, g0 * scale, b0 * scale
    r1, g1, b1, a1 = _bilinear(
        texels, levels[mat, coarse], max(sizes[mat, 0] >> coarse, 1), max(sizes[mat, 1] >> coarse, 1), u, v
    )
    s = ONE - t
    scale = ONE / (max(a0 * s + a1 * t, np.float32(1e-6)) * np.float32(255))
    return (r0 * s + r1 * t) * scale, (g0 * s + g1 * t) * scale, (b0 * s + b1 * t) * scale


@jit
def _polynomial(k, x, y, z):
    """Term ``k`` of the polynomial of a normal (see :mod:`.environment`)."""
    if k < 4:
        return ONE if k == 0 else (x if k == 1 else (y if k == 2 else z))
    if k < 7:
        return x * y if k == 4 else (y * z if k == 5 else z * x)
    return x * x - y * y if k == 7 else np.float32(3) * z * z - ONE


@jit
def _shade(
    screen, vertices, faces, uvs, normals, material, levels, sizes, base_colors, texels, first_vertex,
    camera, light, lamps, inverse_z, ids, supersample, want, rgba, rgba8, depth, normal_map,
):  # fmt: skip
    """Average the shaded samples of every pixel into the wanted outputs (``want`` bits: 1 rgba, 2 bytes, 4 depth, 8 normals)."""
    height, width = inverse_z.shape[0] // supersample, inverse_z.shape[1] // supersample
    samples = np.float32(supersample * supersample)
    for row in range(height):
        for column in range(width):
            red = green = blue = far = sx = sy = sz = count = ZERO
            for s in range(supersample * supersample):
                y, x = row * supersample + s // supersample, column * supersample + s % supersample
                f = ids[y, x] - 1
                if f < 0:
                    continue
                iz = inverse_z[y, x]
                count += ONE
                far += ONE / iz
                if not want & 9:
                    continue
                a, b, c = faces[f, 0] - first_vertex, faces[f, 1] - first_vertex, faces[f, 2] - first_vertex
                x0, y0, i0, x1, y1, i1 = (
                    screen[a, 0],
                    screen[a, 1],
                    screen[a, 2],
                    screen[b, 0],
                    screen[b, 1],
                    screen[b, 2],
                )
                x2, y2, i2 = screen[c, 0], screen[c, 1], screen[c, 2]
                area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
                scale = ONE / area
                px, py = np.float32(x) + HALF, np.float32(y) + HALF
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * scale
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * scale
                inverse = ONE / iz
                b0, b1 = w0 * i0 * inverse, w1 * i1 * inverse
                b2 = (ONE - w0 - w1) * i2 * inverse
                nx = b0 * normals[f, 0, 0] + b1 * normals[f, 1, 0] + b2 * normals[f, 2, 0]
                ny = b0 * normals[f, 0, 1] + b1 * normals[f, 1, 1] + b2 * normals[f, 2, 1]
                nz = b0 * normals[f, 0, 2] + b1 * normals[f, 1, 2] + b2 * normals[f, 2, 2]
                length = ONE / math.sqrt(max(nx * nx + ny * ny + nz * nz, TINY))
                if area > ZERO:
                    length = -length
                nx, ny, nz = nx * length, ny * length, nz * length
                sx, sy, sz = sx + nx, sy + ny, sz + nz
                if not want & 1:
                    continue
                mat = material[f]
                u = b0 * uvs[f, 0, 0] + b1 * uvs[f, 1, 0] + b2 * uvs[f, 2, 0]
                v = b0 * uvs[f, 0, 1] + b1 * uvs[f, 1, 1] + b2 * uvs[f, 2, 1]
                # d(uv)/d(column, row), from the linear functions numerator and 1 / z: (dN - uv dD) / D.
                dx0, dx1, dx2 = (y1 - y2) * scale * i0, (y2 - y0) * scale * i1, (y0 - y1) * scale * i2
                dy0, dy1, dy2 = (x2 - x1) * scale * i0, (x0 - x2) * scale * i1, (x1 - x0) * scale * i2
                ddx, ddy = dx0 + dx1 + dx2, dy0 + dy1 + dy2
                tw, th = np.float32(sizes[mat, 0]) * inverse, np.float32(sizes[mat, 1]) * inverse
                ux = (dx0 * uvs[f, 0, 0] + dx1 * uvs[f, 1, 0] + dx2 * uvs[f, 2, 0] - u * ddx) * tw
                uy = (dy0 * uvs[f, 0, 0] + dy1 * uvs[f, 1, 0] + dy2 * uvs[f, 2, 0] - u * ddy) * tw
                vx = (dx0 * uvs[f, 0, 1] + dx1 * uvs[f, 1, 1] + dx2 * uvs[f, 2, 1] - v * ddx) * th
                vy = (dy0 * uvs[f, 0, 1] + dy1 * uvs[f, 1, 1] + dy2 * uvs[f, 2, 1] - v * ddy) * th
                lod = HALF * math.log2(max(ux * ux + vx * vx, uy * uy + vy * vy, np.float32(1e-12)))
                r, g, b_ = _texture(texels, levels, sizes, mat, u - np.floor(u), v - np.floor(v), lod)
                r, g, b_ = r * base_colors[mat, 0], g * base_colors[mat, 1], b_ * base_colors[mat, 2]
                up = HALF + HALF * ny
                er = light[0] + light[6] + (light[3] - light[6]) * up
                eg = light[1] + light[7] + (light[4] - light[7]) * up
                eb = light[2] + light[8] + (light[5] - light[8]) * up
                if light.shape[0] > 12:
                    for k in range(9):
                        basis = _polynomial(k, nx, ny, nz)
                        er += light[12 + 3 * k] * basis
                        eg += light[13 + 3 * k] * basis
                        eb += light[14 + 3 * k] * basis
                gloss = ZERO
                specular = light[9]
                ex = ey = ez = ZERO
                if specular > ZERO:
                    qx = b0 * vertices[a, 0] + b1 * vertices[b, 0] + b2 * vertices[c, 0]
                    qy = b0 * vertices[a, 1] + b1 * vertices[b, 1] + b2 * vertices[c, 1]
                    qz = b0 * vertices[a, 2] + b1 * vertices[b, 2] + b2 * vertices[c, 2]
                    ex, ey, ez = camera[16] - qx, camera[17] - qy, camera[18] - qz
                    away = ONE / math.sqrt(max(ex * ex + ey * ey + ez * ez, TINY))
                    ex, ey, ez = ex * away, ey * away, ez * away
                for k in range(lamps.shape[0]):
                    lx, ly, lz = lamps[k, 0], lamps[k, 1], lamps[k, 2]
                    facing = nx * lx + ny * ly + nz * lz
                    half = HALF + HALF * facing
                    half = half * half
                    er += lamps[k, 3] * half
                    eg += lamps[k, 4] * half
                    eb += lamps[k, 5] * half
                    if specular > ZERO and facing > ZERO:
                        hx, hy, hz = lx + ex, ly + ey, lz + ez
                        along = nx * hx + ny * hy + nz * hz
                        along = along / math.sqrt(max(hx * hx + hy * hy + hz * hz, TINY))
                        strength = (lamps[k, 3] + lamps[k, 4] + lamps[k, 5]) * np.float32(1 / 3)
                        gloss += strength * np.float32(2) ** (light[10] * math.log2(max(along, np.float32(1e-6))))
                gloss = min(gloss * specular, ONE)
                r, g, b_ = min(r * er, ONE), min(g * eg, ONE), min(b_ * eb, ONE)
                red += r + gloss * (ONE - r)
                green += g + gloss * (ONE - g)
                blue += b_ + gloss * (ONE - b_)
            mean = ONE / max(count, ONE)
            if want & 2:
                full = np.float32(255)
                rgba8[row, column, 0] = np.uint8(red * mean * full + HALF)
                rgba8[row, column, 1] = np.uint8(green * mean * full + HALF)
                rgba8[row, column, 2] = np.uint8(blue * mean * full + HALF)
                rgba8[row, column, 3] = np.uint8(count / samples * full + HALF)
            elif want & 1:
                rgba[row, column, 0] = red * mean
                rgba[row, column, 1] = green * mean
                rgba[row, column, 2] = blue * mean
                rgba[row, column, 3] = count / samples
            if want & 4:
                depth[row, column] = far * mean
            if want & 8:
                length = ONE / math.sqrt(max(sx * sx + sy * sy + sz * sz, TINY))
                normal_map[row, column, 0] = sx * length
                normal_map[row, column, 1] = sy * length
                normal_map[row, column, 2] = sz * length


@jit
def _render_view(
    vertices, faces, uvs, normals, material, levels, sizes, base_colors, texels, first_vertex,
    camera, light, lamps, supersample, near, cull, want, rgba, rgba8, depth, normal_map, height, width,
):  # fmt: skip
    screen = np.empty((vertices.shape[0], 4), np.float32)
    inverse_z = np.zeros((height * supersample, width * supersample), np.float32)
    ids = np.zeros((height * supersample, width * supersample), np.int32)
    _project(vertices, camera, screen)
    _visibility(
        screen, faces, uvs, material, levels, sizes, texels, first_vertex, height * supersample, width * supersample,
        near, cull, inverse_z, ids,
    )  # fmt: skip
    _shade(
        screen, vertices, faces, uvs, normals, material, levels, sizes, base_colors, texels, first_vertex,
        camera, light, lamps, inverse_z, ids, supersample, want, rgba, rgba8, depth, normal_map,
    )  # fmt: skip


def render_cpu(
    scene: SceneBatch, cameras: Tensor, lights: Tensor, lamps: Tensor, result, size: tuple[int, int],
    supersample: int, near: float, cull: bool,
) -> None:  # fmt: skip
    """Fill the tensors of ``result`` (see :func:`.api.render_objects`). Uses ``torch.get_num_threads()`` threads."""
    if scene.device.type != "cpu":
        raise ValueError(f"the CPU renderer needs a scene on the CPU, this one is on {scene.device}")
    shared = [getattr(scene, n).numpy() for n in ("levels", "sizes", "base_colors")]
    shared.append(scene.texels.numpy().view(np.uint32)[:, 0])  # [N, 4] uint8 -> [N]
    per_vertex, per_face = (
        scene.vertices.numpy(),
        [getattr(scene, n).numpy() for n in ("faces", "uvs", "normals", "material")],
    )
    vertex_start, face_start = scene.vertex_start.tolist(), scene.face_start.tolist()
    table, light, lamp = cameras.numpy(), lights.numpy(), lamps.numpy()
    as_bytes = result.rgba is not None and result.rgba.dtype == torch.uint8
    want = (result.rgba is not None) + 2 * as_bytes + 4 * (result.depth is not None) + 8 * (result.normals is not None)

    # Outputs that are not wanted still need an array of the right type.
    def picture(wanted: bool, tensor: Tensor | None, b: int, v: int, tail: tuple[int, ...], kind: type) -> np.ndarray:
        return tensor[b, v].numpy() if wanted else np.empty((0, 0, *tail), kind)

    def one(job: tuple[int, int]) -> None:
        b, v = job
        own = slice(face_start[b], face_start[b + 1])
        _render_view(
            per_vertex[vertex_start[b] : vertex_start[b + 1]], *(x[own] for x in per_face), *shared, vertex_start[b],
            table[b, v], light[b], lamp[b], supersample, np.float32(near), cull, want,
            picture(want & 3 == 1, result.rgba, b, v, (4,), np.float32),
            picture(as_bytes, result.rgba, b, v, (4,), np.uint8),
            picture(want & 4 > 0, result.depth, b, v, (), np.float32),
            picture(want & 8 > 0, result.normals, b, v, (3,), np.float32),
            *size,
        )  # fmt: skip

    jobs = [(b, v) for b in range(table.shape[0]) for v in range(table.shape[1])]
    workers = min(torch.get_num_threads(), len(jobs))
    if workers <= 1:
        for job in jobs:
            one(job)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, jobs))
