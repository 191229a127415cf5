"""Closed plane outlines, star-shaped around the origin: the cross-sections of lofted solids.

An outline is (points [N, 2] as (x, z), bands [N]: smoothing band of the segment that leaves each point). Points run from
the back (-z) by the left (-x) to the front, the sense that :func:`bozzetto.data.procedural.solid.loft` expects.
"""

from __future__ import annotations

import numpy as np

Outline = tuple[np.ndarray, np.ndarray]


def _angles(count: int) -> np.ndarray:
    # Start at the back, so that the texture's seam is there and its middle is at the front (+z).
    return -np.pi + 2 * np.pi * np.arange(count) / count


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)


def circle(count: int) -> Outline:
    """Unit circle of ``count`` points."""
    return _polar(np.ones(count), _angles(count)), np.zeros(count, int)


def superellipse(count: int, exponent: float) -> Outline:
    """|x|^e + |z|^e = 1 with e = ``exponent``: 2 is a circle, large is a rounded square, below 1 is a four-armed star."""
    angle = _angles(count)
    radius = (np.abs(np.sin(angle)) ** exponent + np.abs(np.cos(angle)) ** exponent) ** (-1 / exponent)
    return _polar(radius, angle), np.zeros(count, int)


def blob(rng: np.random.Generator, count: int, roughness: float = 0.3) -> Outline:
    """A smooth random outline: a circle whose radius varies by a few low harmonics."""
    angle = _angles(count)
    radius = np.ones(count)
    for order in range(2, 7):
        radius += roughness / order * rng.normal() * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return _polar(np.clip(radius, 0.25, 1.8), angle), np.zeros(count, int)


def corners(points: np.ndarray, per_side: int, smooth: bool = False) -> Outline:
    """A polygon [K, 2] with every side cut into ``per_side`` pieces; each side is its own band unless ``smooth``."""
    steps = np.arange(per_side) / per_side
    following = np.roll(points, -1, axis=0)
    sides = points[:, None] + (following - points)[:, None] * steps[None, :, None]  # [K, per_side, 2]
    bands = np.repeat(np.arange(len(points)) * (not smooth), per_side)
    return sides.reshape(-1, 2), bands


def polygon(count: int, per_side: int, turn: float = 0.0, jitter: np.ndarray | None = None) -> Outline:
    """A regular polygon of ``count`` corners; ``jitter`` [count] multiplies the corner radii."""
    radius = np.ones(count) if jitter is None else jitter
    return corners(_polar(radius, _angles(count) + turn), per_side)


def star(count: int, inner: float, per_side: int) -> Outline:
    """A star of ``count`` points whose inner corners have radius ``inner``."""
    radius = np.where(np.arange(2 * count) % 2 == 0, 1.0, inner)
    return corners(_polar(radius, _angles(2 * count)), per_side)


def gear(count: int, depth: float, duty: float = 0.5) -> Outline:
    """A toothed wheel of ``count`` teeth of height ``depth``; ``duty`` is the share of the turn at full radius."""
    step = 2 * np.pi / count
    local = np.array([0.08, duty - 0.08, duty + 0.02, 0.98]) * step
    angle = (_angles(count)[:, None] + local[None]).reshape(-1)
    radius = np.tile([1.0, 1.0, 1 - depth, 1 - depth], count)
    return corners(_polar(radius, angle), 1)


def wedge(count: int, mouth: float) -> Outline:
    """A disc without a sector of ``mouth`` radians (a cake with a slice out), shifted so that it is star-shaped."""
    angle = np.linspace(-np.pi + mouth / 2, np.pi - mouth / 2, count)
    points = np.concatenate([_polar(np.ones(count), angle), [[0.0, 0.0]]])
    bands = np.concatenate([np.zeros(count - 1, int), [1, 2]])
    return np.array([0.0, 0.12]) - points, bands


def rounded_rectangle(width: float, depth: float, radius: float, per_corner: int, per_side: int) -> Outline:
    """A rectangle of half sizes ``width`` (x) and ``depth`` (z) with rounded corners of ``radius``."""
    radius = min(radius, width * 0.999, depth * 0.999)
    pieces, bands = [], []
    start = [(-1, -1), (-1, 1), (1, 1), (1, -1)]  # left back, left front, right front, right back
    for k, (sx, sz) in enumerate(start):
        angle = -np.pi + k * np.pi / 2 + np.linspace(0, np.pi / 2, per_corner + 1)
        centre = np.array([sx * (width - radius), sz * (depth - radius)])
        pieces.append(centre + radius * np.stack([np.sin(angle), np.cos(angle)], -1))
        bands.append(np.full(per_corner + 1, 2 * k))
        nx, nz = start[(k + 1) % 4]
        leave = pieces[-1][-1]
        angle = -np.pi + (k + 1) * np.pi / 2
        arrive = np.array([nx * (width - radius), nz * (depth - radius)]) + radius * np.array(
            [np.sin(angle), np.cos(angle)]
        )
        pieces.append(leave + (arrive - leave) * (np.arange(1, per_side) / per_side)[:, None])
        bands.append(np.full(per_side - 1, 2 * k + 1))
        bands[-2][-1] = 2 * k + 1  # the straight side starts at the corner's last point
    joined = np.concatenate(bands)
    return np.concatenate(pieces), np.zeros_like(joined) if radius > 0.05 else joined  # wide corners shade smoothly


def cross(width: float, per_side: int) -> Outline:
    """A plus sign whose arms have half width ``width``."""
    w = width
    points = [
        (w, -1),
        (-w, -1),
        (-w, -w),
        (-1, -w),
        (-1, w),
        (-w, w),
        (-w, 1),
        (w, 1),
        (w, w),
        (1, w),
        (1, -w),
        (w, -w),
    ]
    return corners(np.array(points, dtype=np.float64), per_side)


def angle_section(width: float, per_side: int) -> Outline:
    """An L whose legs have width 2 * ``width`` (below 0.5), moved so that it is star-shaped."""
    w = 2 * width
    points = np.array([(1, -1), (-1, -1), (-1, 1), (w - 1, 1), (w - 1, w - 1), (1, w - 1)], dtype=np.float64)
    return corners(points - (width - 1), per_side)


def square(per_side: int) -> Outline:
    """The square of half size 1."""
    return corners(np.array([[0.0, -1], [-1, -1], [-1, 0], [-1, 1], [0, 1], [1, 1], [1, 0], [1, -1]]), per_side)


def random_outline(rng: np.random.Generator, count: int) -> Outline:
    """One of the outlines above with random parameters and about ``count`` points."""
    kind = rng.choice(10, p=[0.2, 0.1, 0.16, 0.15, 0.08, 0.06, 0.06, 0.11, 0.04, 0.04])
    if kind == 0:
        return circle(count)
    if kind == 1:
        return superellipse(count, float(np.exp(rng.uniform(np.log(0.8), np.log(8)))))
    if kind == 2:
        return blob(rng, count, rng.uniform(0.1, 0.5))
    if kind == 3:
        sides = int(rng.integers(3, 9))
        jitter = rng.uniform(0.6, 1.2, sides) if rng.random() < 0.4 and sides > 3 else None
        return polygon(sides, max(count // sides, 2), rng.uniform(0, np.pi), jitter)
    if kind == 4:
        points = int(rng.integers(4, 10))
        return star(points, rng.uniform(0.35, 0.8), max(count // (2 * points), 1))
    if kind == 5:
        return gear(int(rng.integers(6, 20)), rng.uniform(0.08, 0.3), rng.uniform(0.35, 0.65))
    if kind == 6:
        return wedge(count, rng.uniform(0.4, 2.2))
    if kind == 8:
        return cross(rng.uniform(0.15, 0.5), max(count // 12, 1))
    if kind == 9:
        return angle_section(rng.uniform(0.12, 0.4), max(count // 6, 1))
    return rounded_rectangle(1.0, rng.uniform(0.4, 1.0), rng.uniform(0.01, 0.35), 4, max(count // 8, 2))
