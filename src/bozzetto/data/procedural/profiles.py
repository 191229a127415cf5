"""Profiles of lathed and extruded solids: how radius and height run from the bottom pole to the top pole."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .outlines import Outline
from .solid import Solid, loft


@dataclass
class Profile:
    """points [R, 2] = (radius >= 0, height), bands [R - 1] smoothing band and caps [R - 1] "is a flat cap" per strip."""

    points: np.ndarray
    bands: np.ndarray
    caps: np.ndarray


def join(pieces: list[np.ndarray]) -> Profile:
    """Pieces [K, 2] that each start where the one before ended; every joint is a crease."""
    points, bands, caps = [pieces[0][:1]], [], []
    for band, piece in enumerate(pieces):
        points.append(piece[1:])
        bands.append(np.full(len(piece) - 1, band))
        step = np.abs(np.diff(piece, axis=0))
        caps.append(step[:, 1] < 0.15 * step[:, 0])
    return Profile(np.concatenate(points), np.concatenate(bands), np.concatenate(caps))


def line(start: tuple[float, float], end: tuple[float, float], steps: int) -> np.ndarray:
    """A straight piece of ``steps`` strips."""
    t = np.linspace(0, 1, max(steps, 1) + 1)[:, None]
    return np.asarray(start) * (1 - t) + np.asarray(end) * t


def arc(centre: tuple[float, float], radii: tuple[float, float], start: float, end: float, steps: int) -> np.ndarray:
    """A piece of an ellipse around ``centre``; angles in radians, 0 is outwards and pi / 2 is up."""
    angle = np.linspace(start, end, steps + 1)
    piece = np.stack([centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)], -1)
    piece[np.abs(piece) < 1e-12] = 0.0
    return piece


def curve(knots: np.ndarray, steps: int) -> np.ndarray:
    """A Catmull-Rom spline through knots [K, D] with ``steps`` strips per knot interval: [(K - 1) * steps + 1, D]."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (padded[k : k + len(knots) - 1, None] for k in range(4))
    body = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return np.concatenate([body.reshape(-1, knots.shape[1]), knots[-1:]])


def cylinder(taper: float, bevel: float, steps: int, caps: int = 2) -> Profile:
    """From y = -1 to 1; top radius 1 - ``taper``, edges broken by ``bevel``."""
    top = max(1 - taper, 0.0)
    if top < 0.02:
        return join([line((0, -1), (1, -1), caps), line((1, -1), (0, 1), steps)])
    if bevel <= 0:
        return join([line((0, -1), (1, -1), caps), line((1, -1), (top, 1), steps), line((top, 1), (0, 1), caps)])
    b = min(bevel, 0.9 * top)
    side = line((1, -1 + b), (top, 1 - b), steps)
    rim = arc((1 - b, -1 + b), (b, b), -np.pi / 2, 0, 3)
    lip = arc((top - b, 1 - b), (b, b), 0, np.pi / 2, 3)
    smooth = np.concatenate([line((0, -1), (1 - b, -1), caps), rim[1:], side[1:], lip[1:]])
    return join([np.concatenate([smooth, line((top - b, 1), (0, 1), caps)[1:]])])


def ellipse(exponent: float, steps: int) -> Profile:
    """Half of a superellipse: exponent 2 is a sphere, larger is boxy, smaller is pointed."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, steps + 1)
    c, s = np.cos(angle), np.sin(angle)
    radius = np.abs(c) ** (2 / exponent)
    points = np.stack([radius, np.sign(s) * np.abs(s) ** (2 / exponent)], -1)
    points[[0, -1], 0] = 0.0
    return join([points])


def capsule(straight: float, steps: int) -> Profile:
    """A cylinder of half length ``straight`` between half spheres of radius 1."""
    low = arc((0, -straight), (1, 1), -np.pi / 2, 0, steps)
    high = arc((0, straight), (1, 1), 0, np.pi / 2, steps)
    middle = line((1, -straight), (1, straight), 3)[1:-1]
    points = np.concatenate([low, middle, high]) / (1 + straight)
    points[[0, -1], 0] = 0.0
    return join([points])


def smooth(rng: np.random.Generator, knots: int, steps: int, lowest: float = 0.12) -> np.ndarray:
    """An open random smooth wall from y = -1 to 1, [K, 2]."""
    height = np.linspace(-1, 1, knots) + np.pad(rng.uniform(-0.25, 0.25, knots - 2), 1) * 2 / (knots - 1)
    radius = np.clip(rng.uniform(lowest, 1.0, knots), lowest, 1.0)
    wall = curve(np.stack([radius, height], -1), steps)
    wall[:, 0] = np.clip(wall[:, 0], 0.6 * lowest, 1.1)
    return wall


def bottle(rng: np.random.Generator, steps: int) -> np.ndarray:
    """An open wall: belly, shoulder, neck."""
    body, neck = rng.uniform(-0.1, 0.4), rng.uniform(0.18, 0.5)
    foot = rng.uniform(0.6, 1.0)
    knots = np.array([[foot, -1], [1.0, -0.8], [1.0, body - 0.25], [0.95, body], [neck, 0.5 + 0.4 * body], [neck, 1.0]])
    return curve(knots, steps)


def turned(rng: np.random.Generator, pieces: int, steps: int) -> list[np.ndarray]:
    """Random lathe work (straight, bulge, cove, ring) from y = -1 to 1 as pieces with creases between."""
    cuts = np.concatenate([[0.0], np.sort(rng.uniform(0.04, 0.96, pieces - 1)), [1.0]]) * 2 - 1
    out, radius = [], rng.uniform(0.5, 1.0)
    for low, high in pairwise(cuts):
        kind, following = rng.integers(4), rng.uniform(0.15, 1.0)
        if kind == 0 or high - low < 0.05 or (kind == 3 and not out):
            out.append(line((radius, low), (following, high), steps))
        elif kind in (1, 2):
            swell = (1 if kind == 1 else -0.6) * rng.uniform(0.1, 0.45) * (high - low)
            piece = line((radius, low), (following, high), 2 * steps)
            piece[:, 0] += swell * np.sin(np.linspace(0, np.pi, len(piece)))
            piece[:, 0] = np.maximum(piece[:, 0], 0.06)
            piece[0, 0], piece[-1, 0] = radius, following
            out.append(piece)
        else:
            out.append(line((radius, low), (following, low), 1))
            out.append(line((following, low), (following, high), steps))
        radius = following
    return out


def closed(walls: list[np.ndarray], caps: int = 2) -> Profile:
    """Open walls closed by flat caps at both ends (no cap where the wall already ends on the axis)."""
    first, last = walls[0][0], walls[-1][-1]
    start = [line((0, first[1]), tuple(first), caps)] if first[0] > 1e-6 else []
    end = [line(tuple(last), (0, last[1]), caps)] if last[0] > 1e-6 else []
    return join(start + walls + end)


def hollow(walls: list[np.ndarray], thickness: float, floor: float) -> Profile:
    """A vessel: open walls, a rim, the inner walls ``thickness`` inside and an inner floor ``floor`` above the bottom.

    The bottom is closed; the inside belongs to the same surface, so both sides of the wall face outwards.
    """
    outer = np.concatenate([walls[0]] + [w[1:] for w in walls[1:]])
    bottom, top = outer[0, 1], outer[-1, 1]
    level = min(bottom + floor, top - 1e-3)
    # The inner radius is the least outer one within a wall's thickness above and below, so that steps and undercuts of
    # the outside keep a wall between them and the inside.
    fine = _dense(outer)
    heights = np.linspace(top, level, int(np.clip(len(outer), 6, 40)))
    near = np.abs(fine[None, :, 1] - heights[:, None]) <= max(thickness, 2.5 * (top - level) / len(fine))
    least = np.where(near, fine[None, :, 0], np.inf).min(1)
    inner = np.stack([np.maximum(least - thickness, 0.4 * least), heights], -1)
    start = [line((0, bottom), tuple(outer[0]), 2)] if outer[0, 0] > 1e-6 else []
    rim = [line(tuple(outer[-1]), tuple(inner[0]), 1)]
    return join([*start, *walls, *rim, inner, line((inner[-1, 0], level), (0, level), 2)])


def _dense(points: np.ndarray, count: int = 160) -> np.ndarray:
    """A polyline sampled evenly along its length, [count, 2]."""
    along = np.concatenate([[0.0], np.cumsum(np.sqrt((np.diff(points, axis=0) ** 2).sum(1)))])
    t = np.linspace(0, along[-1], count)
    return np.stack([np.interp(t, along, points[:, 0]), np.interp(t, along, points[:, 1])], -1)


def revolve(profile: Profile, outline: Outline) -> Solid:
    """The solid whose cross-section at each profile point is ``outline`` scaled by the radius."""
    points, columns = outline
    radius, height = profile.points[:, 0], profile.points[:, 1]
    rings = np.empty((len(radius), len(points), 3))
    rings[..., 0] = radius[:, None] * points[None, :, 0]
    rings[..., 1] = height[:, None]
    rings[..., 2] = radius[:, None] * points[None, :, 1]
    return loft(rings, profile.bands, columns, profile.caps)


def frame(outer: Outline, inner: Outline, height: float, steps: int = 1) -> Solid:
    """A ring-like plate: outside ``outer``, hole ``inner`` (same number of points, inside the outer one), flat faces."""
    a, b = outer[0], inner[0]
    rise = np.linspace(-height, height, steps + 1)
    rings = [np.stack([a[:, 0], np.full(len(a), y), a[:, 1]], -1) for y in rise]
    rings += [np.stack([b[:, 0], np.full(len(b), y), b[:, 1]], -1) for y in rise[::-1]]
    bands = np.array([0] * steps + [1] + [2] * steps + [3])
    return loft(np.stack(rings), bands, outer[1], np.isin(bands, (1, 3)), closed=True)
