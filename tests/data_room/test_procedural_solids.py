"""Primitives, cuts and deformations stay closed, outward and sensibly shaded."""

from __future__ import annotations

import numpy as np
import pytest

from bozzetto.data.procedural import cut, deform, outlines, parts, primitives, profiles
from bozzetto.data.procedural.solid import Solid, merge


def open_edges(solid: Solid) -> int:
    """Directed edges without exactly one opposite partner: 0 for a closed, consistently oriented surface."""
    edges = solid.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    size = len(solid.vertices)
    forward, backward = np.sort(edges[:, 0] * size + edges[:, 1]), np.sort(edges[:, 1] * size + edges[:, 0])
    return int((np.diff(forward) == 0).sum() + (forward != backward).sum())


def shading_agreement(solid: Solid) -> float:
    face = solid.face_normals()
    face /= np.linalg.norm(face, axis=1, keepdims=True) + 1e-30
    return float(np.einsum("fki,fi->fk", solid.corner_normals(), face).mean())


def primitive_cases() -> dict[str, Solid]:
    rng = np.random.default_rng(0)
    tyre, hub = primitives.wheel(rng, 1.0)
    path = profiles.curve(rng.normal(size=(4, 3)), 8)
    walls = [profiles.smooth(rng, 5, 5, 0.4)]
    cube = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    edges = np.array([(i, j) for i in range(8) for j in range(i) if np.abs(cube[i] - cube[j]).sum() == 2])
    return {
        "box": primitives.box(3),
        "bevelled box": primitives.box(2, 0.3),
        "ellipsoid": primitives.ellipsoid(1),
        "superquadric": primitives.ellipsoid(1, 5, 0.9),
        "capsule": primitives.capsule(1),
        "cylinder": primitives.cylinder(1, 0.3, 0.1),
        "cone": primitives.cylinder(1, 1.0),
        "torus": primitives.torus(1, 0.3),
        "tube": primitives.tube(path, np.full(len(path), 0.05), outlines.circle(8)),
        "flat-ended tube": primitives.tube(path, np.full(len(path), 0.05), outlines.circle(8), False),
        "struts": primitives.strut_frame(cube, edges, 0.02),
        "slab": primitives.slab(rng, 1.0, 0.1, 0.3),
        "leaf": primitives.leaf(1.0, 0.3, 0.1, 0.2),
        "tyre": tyre,
        "hub": hub,
        "lattice": primitives.lattice_plate(rng, 1.0),
        "lathe": profiles.revolve(profiles.closed(profiles.turned(rng, 6, 3)), outlines.circle(20)),
        "vessel": profiles.revolve(profiles.hollow(walls, 0.06, 0.1), outlines.circle(20)),
        "gear": primitives.extrusion(outlines.gear(9, 0.2), 0.3, 0.05, 1.0),
        "wedge": primitives.extrusion(outlines.wedge(30, 1.0), 0.3, 0.0, 1.0),
        "cross": primitives.extrusion(outlines.cross(0.3, 2), 0.3, 0.05, 1.0),
        "angle": primitives.extrusion(outlines.angle_section(0.2, 2), 0.3, 0.0, 1.0),
        "frame": profiles.frame(
            outlines.circle(16), (outlines.superellipse(16, 8.0)[0] * 0.5, np.zeros(16, int)), 0.2, 2
        ),
    }


@pytest.mark.parametrize("name", list(primitive_cases()))
def test_primitive_is_closed_and_outward(name: str) -> None:
    solid = primitive_cases()[name]
    assert open_edges(solid) == 0
    assert solid.volume() > 0
    assert shading_agreement(solid) > 0.88
    assert solid.uvs.shape == (len(solid.faces), 3, 2) and np.isfinite(solid.uvs).all()
    mirrored = solid.moved((-1, 1, 1))
    assert mirrored.volume() == pytest.approx(solid.volume())
    assert open_edges(mirrored) == 0


def test_known_volumes() -> None:
    assert primitives.box(4).volume() == pytest.approx(8)
    assert primitives.ellipsoid(5).volume() == pytest.approx(4 * np.pi / 3, rel=0.01)
    assert primitives.cylinder(6).volume() == pytest.approx(2 * np.pi, rel=0.01)
    ring = 2 * np.pi**2 * 0.75 * 0.25**2
    assert primitives.torus(5, 0.25).volume() == pytest.approx(ring, rel=0.01)
    assert merge([primitives.box(), primitives.box(2)]).volume() == pytest.approx(16)


def test_bevelled_box_is_round_where_it_should_be() -> None:
    ball = primitives.box(1, 0.999, 6)
    assert np.linalg.norm(ball.vertices, axis=1).max() < 1.01
    assert np.abs(primitives.box(2, 0.2).vertices).max() == pytest.approx(1)


def test_flat_and_smooth_shading() -> None:
    box = primitives.box(3)
    face = box.face_normals()
    face /= np.linalg.norm(face, axis=1, keepdims=True)
    np.testing.assert_allclose(box.corner_normals(), face[:, None].repeat(3, 1), atol=1e-12)
    ball = primitives.ellipsoid(2)
    np.testing.assert_allclose(ball.corner_normals(), ball.vertices[ball.faces], atol=0.05)
    assert not np.allclose(ball.corner_normals()[:, 0], ball.corner_normals()[:, 1], atol=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_slice_keeps_one_side_and_closes_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal, offset = rng.normal(size=3), rng.uniform(-0.4, 0.4)
    normal /= np.linalg.norm(normal)
    whole = primitives.box(3) if seed % 2 else primitives.ellipsoid(2)
    kept, rest = cut.slice_solid(whole, normal, offset), cut.slice_solid(whole, -normal, -offset)
    assert open_edges(kept) == 0 and open_edges(rest) == 0
    assert (kept.vertices @ normal).max() <= offset + 1e-6
    assert kept.volume() + rest.volume() == pytest.approx(whole.volume(), rel=1e-5)
    assert 0 < kept.volume() < whole.volume()


def test_slice_that_misses_changes_nothing() -> None:
    box = primitives.box(2)
    assert cut.slice_solid(box, np.array([0, 1, 0]), 5.0) is box


@pytest.mark.parametrize("name", ["vessel", "ellipsoid", "box", "leaf", "torus"])
def test_deformations_never_turn_a_solid_inside_out(name: str) -> None:
    solid = primitive_cases()[name]
    for seed in range(12):
        changed = deform.random_deform(np.random.default_rng(seed), solid)
        assert open_edges(changed) == 0
        assert changed.volume() > 0.25 * solid.volume()
        assert shading_agreement(changed) > 0.85


def test_displace_is_limited_so_that_thin_walls_survive() -> None:
    wall = primitives.box(12).moved((1.0, 1.0, 0.01))
    changed = deform.displace(np.random.default_rng(0), wall, 100.0, 4)
    assert changed.volume() == pytest.approx(wall.volume(), rel=0.35)
    assert np.abs(changed.vertices - wall.vertices).max() > 0.02


def test_random_parts_are_closed_and_outward() -> None:
    for seed in range(60):
        solid = parts.random_part(np.random.default_rng(seed), 0.7)
        assert open_edges(solid) == 0, seed
        assert solid.volume() > 0, seed
        assert shading_agreement(solid) > 0.8, seed
        assert np.abs(solid.vertices).max() < 8, seed
