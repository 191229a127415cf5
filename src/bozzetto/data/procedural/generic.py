"""Compositions without a subject: random overlap, stacks, mirror and rotational symmetry."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .assembly import Assembly
from .deform import aligned, random_deform, random_rotation, random_scale, rotation
from .parts import lathe_walls, random_part, random_tube, wireframe
from .primitives import segments

PART_WEIGHTS = np.array([1, 2, 3, 7, 10, 7, 3, 2, 1], dtype=np.float64)


def part_count(rng: np.random.Generator) -> int:
    """1 to 9 parts, most often 5."""
    return 1 + int(rng.choice(9, p=PART_WEIGHTS / PART_WEIGHTS.sum()))


def _turn(rng: np.random.Generator, free: float) -> np.ndarray:
    """A random rotation with probability ``free``, else a quarter turn about some axis (or none)."""
    if rng.random() < free:
        return random_rotation(rng)
    return rotation(int(rng.integers(3)), np.pi / 2 * int(rng.integers(0, 4)))


def _anchor(assembly: Assembly) -> np.ndarray:
    """A random vertex of the parts so far, drawn a little inwards."""
    solid, _ = assembly.parts[int(assembly.rng.integers(len(assembly.parts)))]
    vertex = solid.vertices[int(assembly.rng.integers(len(solid.vertices)))]
    return vertex + 0.2 * (solid.vertices.mean(0) - vertex)


def overlap(assembly: Assembly) -> None:
    """Random parts that overlap: each is stuck onto those before it, or put near the middle."""
    rng = assembly.rng
    count = part_count(rng)
    detail = assembly.plan(count)
    shared = [assembly.materials.new() for _ in range(int(rng.integers(1, count + 1)))]
    touching = rng.random() < 0.75
    for k in range(count):
        scale = rng.uniform(0.2, 0.6) * random_scale(rng, 0.4)
        at = _anchor(assembly) if k and touching else rng.normal(0, 0.3, 3)
        assembly.add(random_part(rng, detail), shared[k % len(shared)], scale=scale, turn=_turn(rng, 0.6), at=at)
    if rng.random() < 0.1:
        low, high = assembly.bounds()
        frame = wireframe(rng, rng.uniform(0.01, 0.03))
        assembly.add(frame, assembly.materials.new(), scale=(high - low) / 2, at=(low + high) / 2)


def single(assembly: Assembly) -> None:
    """One part with much detail: stones, loaves, sculptures."""
    rng = assembly.rng
    detail = assembly.plan(1) * 0.8
    solid = random_part(rng, detail)
    for _ in range(int(rng.integers(0, 3))):
        solid = random_deform(rng, solid)
    assembly.add(solid, assembly.materials.new(), scale=random_scale(rng, 0.25), turn=_turn(rng, 0.2))


def _storey(assembly: Assembly, sections: list, kind: int):
    rng, detail = assembly.rng, assembly.detail
    if kind == 0:
        return profiles.revolve(profiles.closed(lathe_walls(rng, detail)), sections[0])
    if kind == 1:
        taper, bevel = rng.choice([0.0, rng.uniform(-0.4, 0.8)]), rng.choice([0.0, 0.1, 0.3])
        return profiles.revolve(profiles.cylinder(taper, bevel, segments(3, detail, 1)), sections[0])
    if kind == 2:
        return primitives.ellipsoid(detail, float(rng.choice([2.0, 2.0, 3.5])))
    if kind == 3:
        return primitives.torus(detail, rng.uniform(0.2, 0.45)).moved((1, 2.2, 1))
    if kind == 4:
        return primitives.box(segments(3, detail), rng.choice([0.0, 0.1, 0.3]), 2)
    return random_part(rng, detail, 0.5)


def stacked(assembly: Assembly) -> None:
    """Parts on top of one another along one axis: lamps, towers, figures, chess pieces."""
    rng = assembly.rng
    count = max(2, part_count(rng))
    detail = assembly.plan(count)
    columns = segments(24, detail, 8)
    section = outlines.circle(columns) if rng.random() < 0.7 else outlines.random_outline(rng, columns)
    materials = [
        assembly.materials.new("pottery" if rng.random() < 0.3 else "any") for _ in range(int(rng.integers(1, 4)))
    ]
    width, top = rng.uniform(0.2, 0.6), 0.0
    chance = np.array([0.3, 0.25, 0.17, 0.06, 0.12, 0.1])
    for k in range(count):
        height = float(np.exp(rng.uniform(np.log(0.04), np.log(0.5))))
        solid = _storey(assembly, [section], int(rng.choice(6, p=chance)))
        low, high = solid.bounds()
        extent = np.maximum(high - low, 1e-3) / 2
        wide = width * rng.uniform(0.4, 1.4)
        scale = np.array([wide, height, wide]) / np.array(
            [max(extent[0], extent[2]), extent[1], max(extent[0], extent[2])]
        )
        assembly.add(
            solid, materials[int(rng.integers(len(materials)))], scale=scale, at=(0, top - low[1] * scale[1], 0)
        )
        top += 2 * height * rng.uniform(0.85, 1.0)
        width = float(np.clip(width * rng.uniform(0.6, 1.25), 0.06, 0.8))
        if k and rng.random() < 0.12:
            # Arms on both sides.
            arm = random_tube(rng, 0.7 * detail)
            assembly.add(
                arm, materials[0], scale=rng.uniform(0.15, 0.35), at=(wide + 0.1, top - height, 0), mirror=True
            )


def mirrored(assembly: Assembly) -> None:
    """A body on the mirror plane and pairs of parts left and right."""
    rng = assembly.rng
    count = part_count(rng)
    detail = assembly.plan(2 * count)
    materials = [assembly.materials.new() for _ in range(int(rng.integers(2, 5)))]
    for k in range(max(1, count // 3)):
        scale = rng.uniform(0.3, 0.6) * random_scale(rng, 0.35)
        at = np.array([0.0, *rng.normal(0, 0.25, 2)]) if k else np.zeros(3)
        turn = rotation(0, rng.uniform(0, 2 * np.pi)) if rng.random() < 0.4 else _turn(rng, 0.0)
        assembly.add(random_part(rng, 1.4 * detail, 0.3), materials[0], scale=scale, turn=turn, at=at)
    for k in range(count - max(1, count // 3)):
        scale = rng.uniform(0.12, 0.4) * random_scale(rng, 0.45)
        at = _anchor(assembly)
        at[0] = abs(at[0]) + 0.3 * scale[0]
        assembly.add(
            random_part(rng, detail),
            materials[(k + 1) % len(materials)],
            scale=scale,
            turn=_turn(rng, 0.5),
            at=at,
            mirror=True,
        )


def radial(assembly: Assembly) -> None:
    """A hub on the y axis with copies of a group of parts around it."""
    rng = assembly.rng
    copies = int(rng.integers(3, 13))
    group = int(rng.integers(1, 3))
    detail = assembly.plan(2 + copies * group)
    hub, arm = assembly.materials.new(), assembly.materials.new()
    height = np.exp(rng.uniform(np.log(0.05), np.log(0.7)))
    radius = rng.uniform(0.15, 0.5)
    profile = profiles.closed(lathe_walls(rng, 1.2 * detail))
    core = profiles.revolve(profile, outlines.circle(segments(30, detail, 12)))
    assembly.add(core, hub, scale=(radius, height, radius))
    start = len(assembly.parts)
    for _ in range(group):
        distance = radius * rng.uniform(0.6, 1.6)
        scale = np.array([0.1, 0.15, 0.3]) * np.exp(rng.normal(0, 0.5, 3))
        turn = rotation(2, rng.normal(0, 0.6)) @ _turn(rng, 0.2)
        assembly.add(
            random_part(rng, detail, 0.7), arm, scale=scale, turn=turn, at=(0, rng.uniform(-1, 1) * height, distance)
        )
    if rng.random() < 0.3:
        ring = primitives.torus(1.5 * detail, rng.uniform(0.03, 0.12))
        start_ring = len(assembly.parts)
        size = radius * rng.uniform(1.3, 2.0)
        assembly.add(ring, hub, scale=size)
        assembly.parts.insert(start, assembly.parts.pop(start_ring))
        start += 1
    assembly.add_copies(start, [rotation(1, 2 * np.pi * k / copies) for k in range(1, copies)])
    if rng.random() < 0.35:
        # Lay the axis down: wheels, fans and clocks face the viewer.
        flat = aligned(np.array([0.0, 0.0, 1.0]))
        assembly.parts = [(solid.moved(flat), material) for solid, material in assembly.parts]
