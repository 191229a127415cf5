"""Random parts: one draw over all primitives, with cut-outs and deformations."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .cut import slice_solid
from .deform import random_deform
from .primitives import segments
from .solid import Solid

_CHOICES = {
    "box": 0.12,
    "bevelled_box": 0.09,
    "ellipsoid": 0.12,
    "superquadric": 0.06,
    "cylinder": 0.08,
    "cone": 0.05,
    "capsule": 0.05,
    "torus": 0.05,
    "lathe": 0.1,
    "vessel": 0.05,
    "extrusion": 0.1,
    "tube": 0.05,
    "slab": 0.03,
    "wireframe": 0.025,
    "frame": 0.025,
    "lattice": 0.015,
    "leaf": 0.02,
}
_CONVEX = {"box", "bevelled_box", "ellipsoid", "superquadric", "cylinder", "cone", "capsule"}
_THIN = {"wireframe", "lattice", "frame"}


def lathe_walls(rng: np.random.Generator, detail: float, lowest: float = 0.12) -> list[np.ndarray]:
    """Open walls of a random lathe profile from y = -1 to 1."""
    kind = rng.choice(4, p=[0.4, 0.2, 0.3, 0.1])
    if kind == 0:
        return [profiles.smooth(rng, int(rng.integers(3, 8)), segments(4, detail, 2), lowest)]
    if kind == 1:
        return [profiles.bottle(rng, segments(4, detail, 2))]
    if kind == 2:
        return profiles.turned(rng, int(rng.integers(2, 8)), segments(2, detail, 1))
    knots = int(rng.integers(3, 7))
    radius = rng.uniform(max(lowest, 0.2), 1.0, knots)
    height = np.linspace(-1, 1, knots)
    steps = segments(2, detail, 1)
    return [profiles.line((radius[k], height[k]), (radius[k + 1], height[k + 1]), steps) for k in range(knots - 1)]


def lathe(rng: np.random.Generator, detail: float) -> Solid:
    """A random solid of revolution, seldom with another cross-section than a circle."""
    profile = profiles.closed(lathe_walls(rng, detail))
    count = segments(22, detail, 8)
    outline = outlines.circle(count) if rng.random() < 0.8 else outlines.random_outline(rng, count)
    return profiles.revolve(profile, outline)


def vessel(rng: np.random.Generator, detail: float, thickness: float | None = None) -> Solid:
    """A random hollow vessel, open at the top."""
    walls = lathe_walls(rng, detail, 0.3)
    count = segments(24, detail, 10)
    kind = rng.random()
    if kind < 0.7:
        outline = outlines.circle(count)
    elif kind < 0.85:
        outline = outlines.rounded_rectangle(1.0, rng.uniform(0.5, 1.0), rng.uniform(0.02, 0.4), 4, max(count // 8, 2))
    else:
        outline = outlines.polygon(int(rng.integers(3, 9)), 3)
    return profiles.revolve(
        profiles.hollow(walls, thickness or rng.uniform(0.04, 0.14), rng.uniform(0.06, 0.3)), outline
    )


def random_tube(rng: np.random.Generator, detail: float) -> Solid:
    """A tube along a random spline."""
    knots = np.cumsum(rng.normal(0, 0.5, (int(rng.integers(3, 6)), 3)), axis=0)
    knots -= (knots.min(0) + knots.max(0)) / 2
    knots /= max(np.abs(knots).max(), 1e-6)
    path = profiles.curve(knots, segments(7, detail, 4))
    t = np.linspace(0, 1, len(path))
    radius = rng.uniform(0.05, 0.22) * (1 - rng.uniform(0, 0.85) * t) * (1 + rng.uniform(0, 0.3) * np.sin(6 * t))
    section = outlines.circle(segments(10, detail, 5)) if rng.random() < 0.8 else outlines.square(1)
    return primitives.tube(path, radius, section, round_ends=bool(rng.random() < 0.7))


_POLYHEDRA = {
    "cube": np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64),
    "tetrahedron": np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]], dtype=np.float64),
    "octahedron": np.concatenate([np.eye(3), -np.eye(3)]),
    "pyramid": np.array([[-1, -1, -1], [1, -1, -1], [1, -1, 1], [-1, -1, 1], [0, 1, 0]], dtype=np.float64),
}


def wireframe(rng: np.random.Generator, thickness: float | None = None) -> Solid:
    """Struts along the edges of a polyhedron or of a grid on a box."""
    thickness = rng.uniform(0.02, 0.06) if thickness is None else thickness
    if rng.random() < 0.4:
        n = int(rng.integers(2, 5))
        ticks = np.linspace(-1, 1, n)
        points = np.stack(np.meshgrid(ticks, [-1.0, 1.0], ticks, indexing="ij"), -1).reshape(-1, 3)
        reach = 2 / (n - 1)
    else:
        points = list(_POLYHEDRA.values())[int(rng.integers(4))]
        reach = 0.0
    gap = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    first = gap[gap > 0].min()
    near = (gap > 0) & (gap < first * 1.25)
    if reach:
        near |= (np.abs(gap - 2) < 1e-6) & (np.abs(points[:, None, 1] - points[None, :, 1]) > 1)
    i, j = np.nonzero(np.triu(near))
    return primitives.strut_frame(points, np.stack([i, j], -1), thickness)


def random_part(rng: np.random.Generator, detail: float, strength: float = 1.0) -> Solid:
    """A random primitive, perhaps cut and deformed, about [-1, 1] on each axis."""
    names = list(_CHOICES)
    name = names[int(rng.choice(len(names), p=np.array(list(_CHOICES.values())) / sum(_CHOICES.values())))]
    if name == "box":
        solid = primitives.box(segments(6, detail))
    elif name == "bevelled_box":
        solid = primitives.box(segments(5, detail), rng.uniform(0.05, 0.5), segments(2, detail, 2))
    elif name == "ellipsoid":
        solid = primitives.ellipsoid(detail)
    elif name == "superquadric":
        a, b = np.exp(rng.uniform(np.log(0.9), np.log(6), 2))
        solid = primitives.ellipsoid(detail, float(a), float(b))
    elif name == "cylinder":
        solid = primitives.cylinder(detail, rng.choice([0.0, rng.uniform(-0.3, 0.5)]), rng.choice([0.0, 0.1, 0.25]))
    elif name == "cone":
        solid = primitives.cylinder(detail, rng.choice([1.0, rng.uniform(0.5, 0.95)]))
    elif name == "capsule":
        solid = primitives.capsule(detail, rng.uniform(0.2, 3))
    elif name == "torus":
        solid = primitives.torus(detail, rng.uniform(0.06, 0.45), rng.choice([2.0, 2.0, 5.0]))
    elif name == "lathe":
        solid = lathe(rng, detail)
    elif name == "vessel":
        solid = vessel(rng, detail)
    elif name == "extrusion":
        outline = outlines.random_outline(rng, segments(30, detail, 10))
        height = np.exp(rng.uniform(np.log(0.04), np.log(1.2)))
        bevel = rng.choice([0.0, rng.uniform(0.02, 0.25)])
        solid = primitives.extrusion(outline, height, bevel, detail, rng.choice([0.0, rng.uniform(0, 0.6)]))
    elif name == "tube":
        solid = random_tube(rng, detail)
    elif name == "slab":
        solid = primitives.slab(rng, detail, rng.uniform(0.03, 0.3), rng.uniform(0.1, 0.8))
    elif name == "wireframe":
        solid = wireframe(rng)
    elif name == "frame":
        count = segments(24, detail, 12)
        outer = outlines.superellipse(count, float(rng.choice([2.0, 8.0])))
        inner = (outlines.superellipse(count, float(rng.choice([2.0, 8.0])))[0] * rng.uniform(0.4, 0.8), outer[1])
        solid = profiles.frame(outer, inner, rng.uniform(0.04, 0.3), 2)
    elif name == "lattice":
        solid = primitives.lattice_plate(rng, detail)
    else:
        solid = primitives.leaf(detail, rng.uniform(0.2, 0.6), rng.uniform(0.04, 0.1), rng.normal(0, 0.3))
        solid = solid.moved((1.0, 2.0, 1.0), (0, -1, 0))
    if name in _CONVEX and rng.random() < 0.15:
        normal = rng.normal(size=3) if rng.random() < 0.5 else np.eye(3)[int(rng.integers(3))]
        solid = slice_solid(solid, normal, rng.uniform(-0.2, 0.7))
    if strength > 0 and not (name in _THIN and rng.random() < 0.6):
        solid = random_deform(rng, solid, strength, int(np.clip(1.5 + 2.5 * detail, 2, 7)))
    if name in ("box", "extrusion") and strength > 0.5 and rng.random() < 0.1:
        solid = solid.flat()
    return solid
