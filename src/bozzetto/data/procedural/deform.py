"""Deformations of a solid's vertices. All are continuous in space, so closed surfaces stay closed."""

from __future__ import annotations

import numpy as np

from .solid import Solid


def rotation(axis: int, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] about axis 0, 1 or 2 by ``angle`` radians (right-handed)."""
    c, s = np.cos(angle), np.sin(angle)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform random rotation matrix [3, 3]."""
    q = rng.normal(size=4)
    w, x, y, z = q / np.sqrt(q @ q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def aligned(direction: np.ndarray) -> np.ndarray:
    """A rotation matrix that takes +y to ``direction`` [3]."""
    y = np.asarray(direction, dtype=np.float64)
    y = y / np.sqrt(y @ y)
    helper = np.array([0.0, 0.0, 1.0]) if abs(y[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    x = np.cross(y, helper)
    x /= np.sqrt(x @ x)
    return np.stack([x, y, np.cross(x, y)], -1)


def taper(vertices: np.ndarray, amount: float) -> np.ndarray:
    """Widths grow by the factor 1 + ``amount`` * y / |y|max towards +y; |amount| < 1."""
    y = vertices[:, 1] / max(np.abs(vertices[:, 1]).max(), 1e-9)
    grown = 1 + amount * y
    return vertices * np.stack([grown, np.ones_like(y), grown], -1)


def twist(vertices: np.ndarray, angle: float) -> np.ndarray:
    """Turns about y by up to ``angle`` radians at each end (opposite senses)."""
    turn = angle * vertices[:, 1] / max(np.abs(vertices[:, 1]).max(), 1e-9)
    c, s = np.cos(turn), np.sin(turn)
    x, y, z = vertices.T
    return np.stack([c * x + s * z, y, c * z - s * x], -1)


def bend(vertices: np.ndarray, angle: float) -> np.ndarray:
    """Bends the y axis into an arc in the x-y plane that turns by ``angle`` radians from the middle to each end."""
    height, width = np.abs(vertices[:, 1]).max(), np.abs(vertices[:, 0]).max()
    curvature = angle / max(height, 1e-9)
    limit = 0.7 / max(width, 1e-9)  # a tighter bend would fold the inner side over
    curvature = float(np.clip(curvature, -limit, limit))
    if abs(curvature) < 1e-4:
        return vertices
    radius = 1 / curvature
    turn = vertices[:, 1] * curvature
    reach = radius - vertices[:, 0]
    return np.stack([radius - reach * np.cos(turn), reach * np.sin(turn), vertices[:, 2]], -1)


def lattice_noise(rng: np.random.Generator, points: np.ndarray, cells: int, channels: int) -> np.ndarray:
    """Smooth random values in [-1.3, 1.3] at points [N, 3], from a random lattice with ``cells`` cells along the largest
    extent of the points: [N, channels]."""
    low = points.min(0)
    scaled = (points - low) / max(float(np.ptp(points, axis=0).max()), 1e-9) * (cells * 0.999)
    values = np.clip(rng.normal(0, 0.7, ((cells + 1) ** 3, channels)), -1.3, 1.3)
    cell = scaled.astype(np.int64)
    t = scaled - cell
    t = t * t * (3 - 2 * t)
    stride = np.array([(cells + 1) ** 2, cells + 1, 1])
    base = cell @ stride
    out = np.zeros((len(points), channels))
    for x in (0, 1):
        wx = t[:, 0] if x else 1 - t[:, 0]
        for y in (0, 1):
            wxy = wx * (t[:, 1] if y else 1 - t[:, 1])
            for z in (0, 1):
                weight = wxy * (t[:, 2] if z else 1 - t[:, 2])
                out += weight[:, None] * values[base + (x * stride[0] + y * stride[1] + z)]
    return out


def displace(rng: np.random.Generator, solid: Solid, amount: float, cells: int) -> Solid:
    """Moves the surface by a smooth random vector field of size ``amount``.

    The size is limited so that space is never folded: thin walls keep their sides and inner surfaces stay inside.
    """
    extent = float(np.ptp(solid.vertices, axis=0).max())
    amount = min(amount, 0.3 * extent / cells)
    return solid.with_vertices(solid.vertices + amount * lattice_noise(rng, solid.vertices, cells, 3))


def ripple(rng: np.random.Generator, vertices: np.ndarray, amount: float, frequency: float) -> np.ndarray:
    """A sum of three sine waves that shift the surface; ``amount`` is limited so that space is never folded."""
    waves = rng.normal(size=(3, 3)) * frequency / 1.7
    phase = rng.uniform(0, 2 * np.pi, 3)
    amount = min(amount, 0.7 / float(np.linalg.norm(waves)))
    return vertices + amount * np.sin(vertices @ waves + phase)


def random_scale(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Log-normal scale per axis with mean-free logarithm, [3]."""
    log = rng.normal(0, spread, 3)
    return np.exp(np.clip(log - log.mean(), -1.2, 1.2))


def random_deform(rng: np.random.Generator, solid: Solid, strength: float = 1.0, finest: int = 5) -> Solid:
    """A random selection of the deformations above, about a random axis.

    ``strength`` 0 leaves the solid as it is; ``finest`` is the most noise cells across it, for its fineness in triangles.
    """
    vertices = solid.vertices
    axis = int(rng.integers(3))
    turned = np.roll(np.arange(3), axis)
    if rng.random() < 0.6 * strength:
        local = vertices[:, turned]
        if rng.random() < 0.5:
            local = taper(local, rng.uniform(-0.6, 0.6) * strength)
        if rng.random() < 0.3:
            local = twist(local, rng.normal(0, 0.6) * strength)
        if rng.random() < 0.4:
            local = bend(local, rng.normal(0, 0.6) * strength)
        vertices = local[:, np.argsort(turned)]
    solid = solid.with_vertices(vertices)
    if rng.random() < 0.45 * strength:
        cells = int(rng.integers(2, finest + 1))
        solid = displace(rng, solid, strength * rng.uniform(0.1, 0.8) / cells, cells)
    if rng.random() < 0.12 * strength:
        frequency = np.exp(rng.uniform(np.log(2.5), np.log(2.5 * finest)))
        solid = solid.with_vertices(ripple(rng, solid.vertices, 0.2 * strength / frequency, frequency))
    return solid
