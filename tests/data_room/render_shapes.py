"""Small objects and a slow, independent ray caster for the renderer's tests."""

from __future__ import annotations

import numpy as np

from bozzetto.data.objects import TexturedObject

# (outward normal, direction of +u on the face) of a cube's sides: +z, +x, -z, -x, +y, -y
SIDES = [
    ((0, 0, 1), (1, 0, 0)),
    ((1, 0, 0), (0, 0, -1)),
    ((0, 0, -1), (-1, 0, 0)),
    ((-1, 0, 0), (0, 0, 1)),
    ((0, 1, 0), (1, 0, 0)),
    ((0, -1, 0), (1, 0, 0)),
]
# Colours of a face's corners as its texture shows them: top-left, top-right, bottom-left, bottom-right.
CORNERS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)


def corner_texture(side: int = 8, blue: int = 0) -> np.ndarray:
    """[side, side, 4] with one colour per quadrant."""
    texture = np.full((side, side, 4), 255, np.uint8)
    h = side // 2
    for k, (y, x) in enumerate([(0, 0), (0, h), (h, 0), (h, h)]):
        texture[y : y + h, x : x + h, :3] = CORNERS[k] // (1 + blue)
    return texture


def quads(centres, normals, rights, half, textures, name="quads") -> TexturedObject:
    """One textured square per row: counter-clockwise, texture upright when seen from its front."""
    vertices, faces, uvs, shading = [], [], [], []
    for centre, normal, right in zip(centres, normals, rights):
        centre, normal, right = (np.asarray(x, float) for x in (centre, normal, right))
        up = np.cross(normal, right)
        base = len(vertices)
        vertices += [centre + half * (s * right + t * up) for s, t in ((-1, 1), (-1, -1), (1, -1), (1, 1))]
        corner_uvs = [(0, 0), (0, 1), (1, 1), (1, 0)]
        for triangle in ((0, 1, 2), (0, 2, 3)):
            faces.append([base + i for i in triangle])
            uvs.append([corner_uvs[i] for i in triangle])
            shading.append([normal] * 3)
    count = len(textures)
    return TexturedObject(
        np.array(vertices, np.float32), np.array(faces, np.int32), np.array(uvs, np.float32),
        np.array(shading, np.float32), np.repeat(np.arange(count), 2).astype(np.int32), list(textures),
        np.ones((count, 3), np.float32), name,
    )  # fmt: skip


def cube(half: float = 0.3, textures: list[np.ndarray] | None = None) -> TexturedObject:
    normals, rights = zip(*SIDES)
    textures = textures or [corner_texture(blue=k) for k in range(6)]
    return quads([half * np.array(n) for n in normals], normals, rights, half, textures, "cube")


def sphere(rings: int = 12, segments: int = 16, radius: float = 0.5, side: int = 64, seed: int = 0) -> TexturedObject:
    """A sphere with smooth normals and a noise texture that repeats twice around."""
    theta, phi = np.linspace(0, np.pi, rings + 1)[:, None], np.linspace(0, 2 * np.pi, segments + 1)[None]
    points = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.cos(phi)], -1)
    uv = np.stack([phi / np.pi + 0 * theta, theta / np.pi + 0 * phi], -1).reshape(-1, 2)
    points = points.reshape(-1, 3)
    index = np.arange(len(points)).reshape(rings + 1, segments + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    texture = np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)
    texture[..., 3] = 255
    return TexturedObject(
        (radius * points).astype(np.float32), faces.astype(np.int32), uv[faces].astype(np.float32),
        points[faces].astype(np.float32), np.zeros(len(faces), np.int32), [texture],
        np.array([[1.0, 0.8, 0.6]], np.float32), "sphere",
    )  # fmt: skip


def _bilinear(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """rgb weighted by alpha, and alpha: [N, 4] in 0..1."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    total = 0
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - (x - x0)) * np.abs(1 - dy - (y - y0))
            texel = texture[(y0 + dy) % height, (x0 + dx) % width].astype(float) / 255
            texel[:, :3] *= texel[:, 3:]
            total = total + weight[:, None] * texel
    total[:, :3] /= np.maximum(total[:, 3:], 1e-9)
    return total


def cast(obj: TexturedObject, camera, size: int, samples: int, lights, b: int):
    """Ray-cast one camera in float64, textures unfiltered across levels: rgba [s, s, 4], depth [s, s], normals [s, s, 3]."""
    origin, direction = (x.double().numpy().reshape(-1, 3) for x in camera.rays(size * samples))
    forward = -camera.camera_to_world[:3, 2].double().numpy()
    count = len(direction)
    best, hit_face, hit_bary = np.full(count, np.inf), np.full(count, -1), np.zeros((count, 3))
    for f, face in enumerate(obj.faces):
        p, q, r = obj.vertices[face].astype(float)
        across = np.cross(direction, r - p)
        det = across @ (q - p)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - p
            u = (s * across).sum(1) / det
            w = np.cross(s, q - p)
            v = (direction * w).sum(1) / det
            t = (w @ (r - p)) / det
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < best)
        rows = np.flatnonzero(hit)
        bary = np.stack([1 - u - v, u, v], 1)[rows]
        alpha = _bilinear(obj.textures[obj.material[f]], bary @ obj.uvs[f])[:, 3]
        rows, bary = rows[alpha >= 0.5], bary[alpha >= 0.5]
        best[rows], hit_face[rows], hit_bary[rows] = t[rows], f, bary
    covered = np.flatnonzero(hit_face >= 0)
    rgb, normal, depth = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros(count)
    depth[covered] = best[covered] * (direction[covered] @ forward)
    ambient, sky, ground = (getattr(lights, n)[b].double().numpy() for n in ("ambient", "sky", "ground"))
    for i in covered:
        f, bary = hit_face[i], hit_bary[i]
        p, q, r = obj.vertices[obj.faces[f]].astype(float)
        n = bary @ obj.normals[f]
        n = n / np.linalg.norm(n)
        if np.cross(q - p, r - p) @ direction[i] > 0:
            n = -n
        texture = obj.textures[obj.material[f]]
        color = _bilinear(texture, (bary @ obj.uvs[f])[None])[0, :3] * obj.base_colors[obj.material[f]]
        light = ambient + ground + (sky - ground) * (0.5 + 0.5 * n[1])
        gloss, eye = 0.0, -direction[i]
        for toward, strength in zip(lights.directions[b].double().numpy(), lights.colors[b].double().numpy()):
            light = light + strength * (0.5 + 0.5 * n @ toward) ** 2
            halfway = (toward + eye) / np.linalg.norm(toward + eye)
            if n @ toward > 0:
                gloss += strength.mean() * max(n @ halfway, 0) ** float(lights.shininess[b])
        gloss = min(gloss * float(lights.specular[b]), 1)
        color = np.minimum(color * light, 1)
        rgb[i], normal[i] = color + gloss * (1 - color), n

    def pool(x):  # [(s k)^2, c] -> [s, s, c], sum over the k x k samples of a pixel
        return x.reshape(size, samples, size, samples, -1).sum((1, 3))

    share = pool((hit_face >= 0).astype(float)[:, None])
    mean = 1 / np.maximum(share, 1)
    normals = pool(normal)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    return np.concatenate([pool(rgb) * mean, share / samples**2], -1), (pool(depth[:, None]) * mean)[..., 0], normals
