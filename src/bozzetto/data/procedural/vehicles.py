"""Vehicle-like compositions facing +z: cars, lorries, aircraft, boats."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .assembly import Assembly
from .deform import rotation
from .parts import random_part
from .primitives import segments


def _box(assembly: Assembly, material: int, size: object, at: object, bevel: float = 0.0, **kwargs) -> None:
    assembly.add(primitives.box(1 if bevel <= 0 else 2, bevel, 2), material, scale=size, at=at, **kwargs)


def _wheels(assembly: Assembly, places: list[tuple[float, float, float]], radius: float, width: float) -> None:
    rng = assembly.rng
    tyre, hub = primitives.wheel(rng, 0.9 * assembly.detail)
    rubber, metal = assembly.materials.new("dark"), assembly.materials.new("metal")
    turn = rotation(2, -np.pi / 2)
    for place in places:
        for solid, material in ((tyre, rubber), (hub, metal)):
            assembly.add(solid, material, scale=(radius, width / 0.3, radius), turn=turn, at=place, mirror=place[0] > 0)


def _car(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(14)
    paint, glass, trim = (
        assembly.materials.new("paint"),
        assembly.materials.new("glass"),
        assembly.materials.new("dark"),
    )
    length, width, height = rng.uniform(0.5, 0.8), rng.uniform(0.22, 0.36), rng.uniform(0.1, 0.2)
    radius = rng.uniform(0.1, 0.19)
    floor = radius * rng.uniform(0.6, 1.2)
    bevel = rng.choice([0.05, 0.2, 0.4])
    body = primitives.box(segments(3, detail), bevel, segments(2, detail, 2))
    y = floor + height
    assembly.add(body, paint, scale=(width, height, length), at=(0, y, 0))
    kind = rng.choice(3, p=[0.5, 0.3, 0.2])
    if kind == 0:  # cabin in the middle
        cabin, tall = rng.uniform(0.3, 0.6) * length, rng.uniform(0.1, 0.2)
        back = rng.uniform(-0.3, 0.1) * length
        taper = rng.uniform(0.15, 0.4)
        shape = outlines.rounded_rectangle(1.0, 1.0, 0.1, 3, 3)
        solid = primitives.extrusion(shape, 1.0, 0.05, detail, taper)
        assembly.add(solid, paint, scale=(0.9 * width, tall, cabin), at=(0, y + height + 0.95 * tall, back))
        pane = primitives.extrusion(shape, 1.0, 0.0, detail, taper)
        assembly.add(
            pane, glass, scale=(0.92 * width, 0.62 * tall, 0.8 * cabin), at=(0, y + height + 0.85 * tall, back)
        )
        front = primitives.extrusion(shape, 1.0, 0.0, detail, taper)
        assembly.add(
            front, glass, scale=(0.75 * width, 0.62 * tall, 1.03 * cabin), at=(0, y + height + 0.85 * tall, back)
        )
    elif kind == 1:  # cab in front, load behind
        cab, tall = rng.uniform(0.15, 0.3) * length, rng.uniform(0.12, 0.25)
        _box(assembly, paint, (0.95 * width, tall, cab), (0, y + height + 0.9 * tall, length - cab), 0.15)
        _box(assembly, glass, (0.8 * width, 0.35 * tall, cab), (0, y + height + 1.1 * tall, length - cab + 0.02))
        _box(assembly, glass, (0.97 * width, 0.35 * tall, 0.6 * cab), (0, y + height + 1.1 * tall, length - cab))
        load = assembly.materials.new("any" if rng.random() < 0.5 else "package")
        bed = length - cab - 0.03
        if rng.random() < 0.6:
            high = rng.uniform(0.1, 0.35)
            _box(assembly, load, (0.98 * width, high, bed), (0, y + height + high, -cab), rng.choice([0.0, 0.1]))
        else:
            solid = random_part(rng, detail, 0.3)
            low, high = solid.bounds()
            scale = np.array([0.85 * width, 0.25, 0.8 * bed]) / np.maximum((high - low) / 2, 1e-3)
            assembly.add(solid, load, scale=scale, at=(0, y + height + 0.22, -cab))
    else:  # one box with a row of windows: bus, tram
        tall = rng.uniform(0.15, 0.3)
        _box(assembly, paint, (width, tall, length), (0, y + height + tall, 0), 0.1)
        count = int(rng.integers(3, 8))
        for k in range(count):
            z = length * (1.7 * (k + 0.5) / count - 0.85)
            _box(
                assembly,
                glass,
                (0.02, 0.5 * tall, 0.65 * length / count),
                (width, y + height + 1.1 * tall, z),
                mirror=True,
            )
        _box(assembly, glass, (0.8 * width, 0.5 * tall, 0.02), (0, y + height + 1.1 * tall, length))
    axles = int(rng.choice([2, 2, 2, 3]))
    spots = np.linspace(-0.65, 0.62, axles) * length
    _wheels(assembly, [(width * rng.uniform(0.92, 1.02), radius, z) for z in spots], radius, 0.3 * radius)
    lamp = assembly.materials.new("plain")
    light = primitives.cylinder(0.7 * detail, 0.0, 0.2, 14) if rng.random() < 0.6 else primitives.box()
    assembly.add(
        light, lamp, scale=(0.05, 0.02, 0.05), turn=rotation(0, np.pi / 2), at=(0.65 * width, y, length), mirror=True
    )
    if rng.random() < 0.7:
        for end in (1, -1):
            _box(assembly, trim, (1.02 * width, 0.03, 0.03), (0, y - 0.6 * height, end * length), 0.3)
    if rng.random() < 0.4:
        _box(assembly, trim, (0.45 * width, 0.25 * height, 0.01), (0, y, length))


def _aircraft(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(12)
    paint, second = assembly.materials.new("paint"), assembly.materials.new("paint")
    glass, metal = assembly.materials.new("glass"), assembly.materials.new("metal")
    length, radius = rng.uniform(0.7, 0.9), rng.uniform(0.07, 0.16)
    knots = np.array(
        [[0.35, -1.0], [0.7, -0.6], [1, -0.2], [1, 0.3], [0.95, 0.7], [rng.uniform(0.4, 0.7), 0.92], [0.1, 1.0]]
    )
    hull = profiles.revolve(
        profiles.closed([profiles.curve(knots, segments(3, detail, 2))]), outlines.circle(segments(20, detail, 10))
    )
    assembly.add(hull, paint, scale=(radius, length, radius * rng.uniform(0.9, 1.2)), turn=rotation(0, np.pi / 2))
    span, chord = rng.uniform(0.5, 1.0), rng.uniform(0.12, 0.25)
    sweep, lift = rng.uniform(-0.05, 0.45), rng.uniform(-0.1, 0.25)
    wing_y = rng.uniform(-0.8, 0.9) * radius
    section = outlines.superellipse(12, 2.0)

    def wing(root: np.ndarray, tip: np.ndarray, wide: float, narrow: float, thick: float) -> None:
        path = np.linspace(0, 1, 5)[:, None] * (tip - root) + root
        blade = primitives.tube(path - path[0], np.linspace(wide, narrow, 5), section, False)
        axis = (tip - root) / np.linalg.norm(tip - root)
        flat = np.array([0.0, 1.0, 0.0]) if abs(axis[1]) < 0.7 else np.array([1.0, 0.0, 0.0])
        flat = flat - axis * (axis @ flat)
        flat /= np.linalg.norm(flat)
        squeeze = np.eye(3) - (1 - thick) * np.outer(flat, flat)
        assembly.add(blade.moved(squeeze), second, at=root, mirror=abs(tip[0]) > 0.1)

    wing(
        np.array([0, wing_y, 0.1]), np.array([span, wing_y + lift * span, 0.1 - sweep * span]), chord, 0.4 * chord, 0.12
    )
    tail_z = -0.88 * length
    wing(
        np.array([0, 0.3 * radius, tail_z]),
        np.array([0.35 * span, 0.3 * radius, tail_z - 0.1]),
        0.5 * chord,
        0.25 * chord,
        0.14,
    )
    wing(
        np.array([0, 0.0, tail_z]),
        np.array([0.0, rng.uniform(0.2, 0.4), tail_z - 0.15]),
        0.6 * chord,
        0.3 * chord,
        0.14,
    )
    canopy = primitives.ellipsoid(detail)
    assembly.add(canopy, glass, scale=(0.6 * radius, 0.6 * radius, 0.18), at=(0, 0.75 * radius, 0.6 * length))
    if rng.random() < 0.5:
        for k in range(int(rng.integers(1, 3))):
            x = span * (0.35 + 0.25 * k)
            pod = primitives.capsule(0.8 * detail, 1.2)
            at = (x, wing_y + lift * x - 0.06, 0.12 - sweep * x + 0.05)
            assembly.add(pod, metal, scale=(0.09, 0.14, 0.09), turn=rotation(0, np.pi / 2), at=at, mirror=True)
    else:
        blades = int(rng.integers(2, 5))
        for k in range(blades):
            turn = rotation(2, 2 * np.pi * k / blades + 0.3)
            assembly.add(
                primitives.box(),
                metal,
                scale=(0.02, 0.13, 0.008),
                turn=turn,
                at=turn @ [0, 0.13, 0] + [0, 0, 1.01 * length],
            )
        assembly.add(primitives.ellipsoid(0.7 * detail), metal, scale=(0.04, 0.04, 0.06), at=(0, 0, length))


def _boat(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(9)
    paint, deck = assembly.materials.new("paint"), assembly.materials.new("wood")
    length, width, height = rng.uniform(0.6, 0.85), rng.uniform(0.18, 0.32), rng.uniform(0.1, 0.2)
    t = np.linspace(0, 1, 13)
    right = np.stack([np.sin(np.pi * t**0.7 / 1.15 + 0.3).clip(0), 1 - 2 * t], -1)
    right[0, 0] = 0.0
    outline = np.concatenate(
        [right[::-1] * [-1, 1], right[1:]]
    )  # back left, along the left side to the bow, back right
    walls = [profiles.line((0.6, -1), (0.85, -0.2), 2), profiles.line((0.85, -0.2), (1.0, 1.0), 2)]
    hull = profiles.revolve(profiles.hollow(walls, 0.1, rng.uniform(0.8, 1.6)), (outline, np.zeros(len(outline), int)))
    assembly.add(hull, paint, scale=(width, height, length))
    y = height
    for _ in range(int(rng.integers(0, 4))):
        size = np.array([rng.uniform(0.4, 0.7) * width, rng.uniform(0.04, 0.12), rng.uniform(0.1, 0.35) * length])
        _box(assembly, deck, size, (0, y + 0.5 * size[1], rng.uniform(-0.2, 0.1)), 0.1)
        y += 1.4 * size[1]
    if rng.random() < 0.5:
        mast = rng.uniform(0.5, 1.0)
        assembly.add(
            primitives.cylinder(0.6 * detail), deck, scale=(0.02, mast / 2 + 0.1, 0.02), at=(0, mast / 2, 0.05)
        )
        sail = primitives.extrusion(outlines.polygon(3, 4), 0.02, 0.0, detail)
        turn = rotation(2, np.pi / 2) @ rotation(1, rng.uniform(0, np.pi))
        assembly.add(
            sail,
            assembly.materials.new("fabric"),
            scale=(0.55 * mast, 0.3, 0.4 * mast),
            turn=turn,
            at=(0.02, 0.6 * mast, -0.1),
        )
    else:
        funnel = primitives.cylinder(detail, 0.1)
        assembly.add(funnel, assembly.materials.new("paint"), scale=(0.06, 0.15, 0.06), at=(0, y + 0.1, -0.05))


def vehicle(assembly: Assembly) -> None:
    """One of the kinds above."""
    kinds = (_car, _aircraft, _boat)
    kinds[int(assembly.rng.choice(3, p=[0.62, 0.23, 0.15]))](assembly)
