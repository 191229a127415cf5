"""Primitive solids with random parameters; ``detail`` scales how finely they are cut into triangles."""

from __future__ import annotations

import numpy as np

from . import outlines, profiles
from .solid import Solid, loft, repeated


def segments(base: float, detail: float, lowest: int = 3) -> int:
    """A number of segments that follows ``detail``."""
    return max(lowest, round(base * detail))


def box(cuts: int = 1, bevel: float = 0.0, bevel_steps: int = 2) -> Solid:
    """The cube [-1, 1]^3 with ``cuts`` cells along each axis; ``bevel`` rounds the edges (0..1)."""
    ticks = np.linspace(-1 + bevel, 1 - bevel, cuts + 1)
    if bevel > 0:
        # Equal angles on the rounded edge: tan of the angle is the position on the cube.
        edge = 1 - bevel + bevel * np.tan(np.linspace(0, np.pi / 4, bevel_steps + 1))[1:]
        ticks = np.concatenate([-edge[::-1], ticks, edge])
    n = len(ticks)
    shell = np.ones((n, n, n), bool)
    shell[1:-1, 1:-1, 1:-1] = False
    index = np.cumsum(shell.reshape(-1)).reshape(n, n, n) - 1
    vertices = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1)[shell]
    if bevel > 0:
        core = np.clip(vertices, -1 + bevel, 1 - bevel)
        away = vertices - core
        length = np.sqrt((away**2).sum(-1, keepdims=True))
        vertices = core + away * bevel / np.maximum(length, 1e-12)
        on_face = length[:, 0] > bevel * (1 - 1e-9)
        vertices = np.where(on_face[:, None] | (length > 0), vertices, core)
    grid = (ticks + 1) / 2
    # Per side: lattice slice as [right, up] seen from outside.
    sides = [
        index[:, :, -1],  # front: x right
        index[::-1, :, 0],  # back: -x right
        index[-1, :, ::-1].T,  # right: -z right
        index[0].T,  # left: z right
        index[:, -1, ::-1],  # top: x right, -z up
        index[:, 0, :],  # bottom: x right, z up
    ]
    s, t = np.meshgrid(grid, 1 - grid, indexing="ij")
    uv = np.stack([s, t], -1)
    quads = np.stack(sides)  # [6, n, n]

    def triangles(values: np.ndarray) -> np.ndarray:
        a, b, c, d = values[..., :-1, :-1], values[..., 1:, :-1], values[..., 1:, 1:], values[..., :-1, 1:]
        return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], -2)  # [..., n - 1, n - 1, 2, 3]

    faces = triangles(quads).reshape(-1, 3)
    corner_uv = np.stack([triangles(uv[..., k]) for k in range(2)], -1)  # [n - 1, n - 1, 2, 3, 2]
    uvs = np.tile(corner_uv.reshape(1, -1, 3, 2), (6, 1, 1, 1)).reshape(-1, 3, 2)
    groups = np.repeat(np.arange(6) * (bevel <= 0), len(faces) // 6)
    return Solid(vertices, faces, uvs, groups)


def ellipsoid(detail: float, vertical: float = 2.0, horizontal: float = 2.0, size: float = 14) -> Solid:
    """A superquadric; exponents 2 give the unit sphere."""
    return profiles.revolve(
        profiles.ellipse(vertical, segments(size, detail, 5)),
        outlines.superellipse(segments(1.7 * size, detail, 8), horizontal),
    )


def capsule(detail: float, length: float = 1.0) -> Solid:
    """A capsule along y from -1 to 1 whose straight part is ``length`` radii each way."""
    return profiles.revolve(profiles.capsule(length, segments(5, detail)), outlines.circle(segments(16, detail, 7)))


def cylinder(detail: float, taper: float = 0.0, bevel: float = 0.0, columns: float = 24) -> Solid:
    """A cylinder, frustum or cone (``taper`` 1) along y, radius 1."""
    return profiles.revolve(
        profiles.cylinder(taper, bevel, segments(3, detail, 1)), outlines.circle(segments(columns, detail, 8))
    )


def torus(detail: float, tube: float, squareness: float = 2.0) -> Solid:
    """A ring around y of outer radius 1; ``tube`` is the tube's radius (below 0.5)."""
    section, _ = outlines.superellipse(segments(12, detail, 6), squareness)
    angle = 2 * np.pi * np.arange(segments(30, detail, 10)) / segments(30, detail, 10)
    radius = 1 - tube + tube * section[:, 1]  # [T]
    # Rows go round the ring, columns round the tube.
    rings = np.stack(
        [
            np.sin(angle)[:, None] * radius[None],
            np.broadcast_to(-tube * section[:, 0], (len(angle), len(radius))),
            np.cos(angle)[:, None] * radius[None],
        ],
        -1,
    )
    solid = loft(rings, closed=True)
    return solid if solid.volume() > 0 else solid.moved((-1, 1, 1))


def extrusion(outline: outlines.Outline, height: float, bevel: float, detail: float, taper: float = 0.0) -> Solid:
    """``outline`` drawn out along y over [-height, height], edges broken by ``bevel``."""
    profile = profiles.cylinder(taper, bevel, segments(3, detail, 1))
    solid = profiles.revolve(profile, outline)
    return solid.moved((1.0, height, 1.0))


def tube(path: np.ndarray, radius: np.ndarray, section: outlines.Outline, round_ends: bool = True) -> Solid:
    """A tube along ``path`` [R, 3] with ``radius`` [R]; both ends closed, half-spherical or flat."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    # Parallel transport of a side vector along the path.
    side = np.empty_like(path)
    first = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    side[0] = np.cross(tangent[0], first)
    for k in range(1, len(path)):
        side[k] = side[k - 1] - tangent[k] * (side[k - 1] @ tangent[k])
        side[k] /= max(np.sqrt(side[k] @ side[k]), 1e-9)
    side[0] /= np.linalg.norm(side[0])
    angles = np.linspace(0, np.pi / 2, 4)[1:] if round_ends else np.array([np.pi / 2])
    bulge, shrink = (np.sin(angles) if round_ends else np.zeros(1)), np.cos(angles)
    shrink[-1] = 0.0
    low = path[0] - tangent[0] * (radius[0] * bulge)[::-1, None]
    high = path[-1] + tangent[-1] * (radius[-1] * bulge)[:, None]
    ends = len(angles)
    path = np.concatenate([low, path, high])
    radius = np.concatenate([radius[0] * shrink[::-1], radius, radius[-1] * shrink])
    tangent = np.concatenate([np.repeat(tangent[:1], ends, 0), tangent, np.repeat(tangent[-1:], ends, 0)])
    side = np.concatenate([np.repeat(side[:1], ends, 0), side, np.repeat(side[-1:], ends, 0)])
    other = np.cross(tangent, side)
    points, columns = section
    rings = path[:, None] + radius[:, None, None] * (
        points[None, :, :1] * side[:, None] - points[None, :, 1:] * other[:, None]
    )
    bands = np.zeros(len(path) - 1, int)
    if not round_ends:
        bands[0], bands[-1] = 1, 2
    return loft(rings, bands, columns)


def strut_frame(points: np.ndarray, edges: np.ndarray, thickness: float, sides: int = 5) -> Solid:
    """A wireframe: a thin prism along every edge [E, 2] between points [P, 3]."""
    strut = profiles.revolve(profiles.cylinder(0.0, 0.0, 1, 1), outlines.circle(sides))
    start, end = points[edges[:, 0]], points[edges[:, 1]]
    axis = end - start
    length = np.linalg.norm(axis, axis=1)
    keep = length > 1e-6
    start, end, length = start[keep], end[keep], length[keep]
    axis = axis[keep] / length[:, None]
    helper = np.eye(3)[np.argmin(np.abs(axis), axis=1)]
    x = np.cross(helper, axis)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = np.cross(x, axis)
    matrices = np.stack([x * thickness, axis * (length / 2 + 0.5 * thickness)[:, None], z * thickness], -1)
    return repeated(strut, matrices, (start + end) / 2)


def slab(rng: np.random.Generator, detail: float, height: float, roughness: float) -> Solid:
    """A plate of half height ``height`` whose top is a smoothed random 36 x 36 height field."""
    cuts = segments(16, detail, 6)
    solid = box(cuts)
    vertices = solid.vertices * np.array([1.0, height, 1.0])
    field = rng.normal(size=(36, 36))
    for _ in range(int(rng.integers(2, 6))):
        field = (
            field + np.roll(field, 1, 0) + np.roll(field, -1, 0) + np.roll(field, 1, 1) + np.roll(field, -1, 1)
        ) / 5
    field = (field - field.min()) / max(np.ptp(field), 1e-9)
    cell = np.clip(((vertices[:, [0, 2]] + 1) / 2 * 35).round().astype(int), 0, 35)
    top = solid.vertices[:, 1] > 0.999
    vertices[:, 1] += np.where(top, roughness * field[cell[:, 0], cell[:, 1]], 0.0)
    return solid.with_vertices(vertices)


def leaf(detail: float, width: float, thickness: float, bend: float) -> Solid:
    """A thin pointed blade along +y from the origin to y = 1, bent towards +z."""
    rows = segments(8, detail, 5)
    t = np.linspace(0, 1, rows + 1)
    half = width * np.sin(np.pi * t**0.8) ** 0.9
    half[[0, -1]] = 0.0
    section = outlines.circle(8)[0]
    rings = np.empty((rows + 1, 8, 3))
    rings[..., 0] = half[:, None] * section[None, :, 0]
    rings[..., 1] = t[:, None]
    rings[..., 2] = (thickness * (half > 0))[:, None] * section[None, :, 1] * half[:, None] / max(width, 1e-9)
    rings[..., 2] += (bend * t**2)[:, None] + 0.25 * half[:, None] * section[None, :, 0] ** 2
    return loft(rings)


def wheel(rng: np.random.Generator, detail: float) -> tuple[Solid, Solid]:
    """(tyre, hub) around the y axis, radius 1, half width about 0.3."""
    width, rim = rng.uniform(0.15, 0.4), rng.uniform(0.45, 0.75)
    tread = outlines.circle(segments(28, detail, 12))
    if rng.random() < 0.25 and detail > 0.4:
        tread = outlines.gear(int(rng.integers(14, 24)), rng.uniform(0.05, 0.12))
    b = 0.35 * width
    wall = [
        profiles.line((rim, -width), (1 - b, -width), 1),
        profiles.arc((1 - b, -width + b), (b, b), -np.pi / 2, 0, 2),
        profiles.line((1, -width + b), (1, width - b), 1),
        profiles.arc((1 - b, width - b), (b, b), 0, np.pi / 2, 2),
        profiles.line((1 - b, width), (rim, width), 1),
    ]
    wall = np.concatenate([wall[0]] + [w[1:] for w in wall[1:]])
    tyre = profiles.revolve(profiles.closed([wall], 1), tread)
    dish = rng.uniform(-0.5, 0.3) * width
    hub = profiles.join(
        [
            profiles.line((0, -width - 0.02), (rim, -width - 0.02), 2),
            profiles.line((rim, -width - 0.02), (rim, width + 0.02), 1),
            profiles.line((rim, width + 0.02), (0.85 * rim, width + 0.02), 1),
            profiles.line((0.85 * rim, width + 0.02), (0.35 * rim, width + dish), 1),
            profiles.line((0.35 * rim, width + dish), (0.3 * rim, width + 0.03), 1),
            profiles.line((0.3 * rim, width + 0.03), (0, width + 0.05), 1),
        ]
    )
    return tyre, profiles.revolve(hub, outlines.circle(segments(24, detail, 10)))


def rod(start: np.ndarray, end: np.ndarray, radius: float, end_radius: float, detail: float) -> Solid:
    """A straight round limb between two points."""
    t = np.linspace(0, 1, 4)[:, None]
    path = np.asarray(start) * (1 - t) + np.asarray(end) * t
    return tube(path, np.linspace(radius, end_radius, 4), outlines.circle(segments(10, detail, 6)))


def lattice_plate(rng: np.random.Generator, detail: float) -> Solid:
    """A flat plate (normal y) with a grid of holes, made of touching frames."""
    nx, nz = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    count = 4 * segments(4, detail, 2)
    angle = -np.pi + 2 * np.pi * np.arange(count) / count
    outer = np.stack([np.sin(angle), np.cos(angle)], -1)
    outer /= np.abs(outer).max(1, keepdims=True)
    bands = np.zeros(count, int)
    hole = outlines.superellipse(count, float(rng.choice([1.2, 2.0, 6.0])))[0] * rng.uniform(0.5, 0.85)
    cell = profiles.frame((outer, np.arange(count) * 4 // count), (hole, bands), rng.uniform(0.02, 0.12))
    gx, gz = np.meshgrid((np.arange(nx) + 0.5) / nx * 2 - 1, (np.arange(nz) + 0.5) / nz * 2 - 1, indexing="ij")
    offsets = np.stack([gx.ravel(), np.zeros(nx * nz), gz.ravel()], -1)
    matrices = np.broadcast_to(np.diag([1 / nx, 1.0, 1 / nz]), (nx * nz, 3, 3))
    return repeated(cell, matrices, offsets)
