"""Houses, towers, castles and machines: boxes with roofs, doors, windows and attachments."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .assembly import Assembly
from .creatures import limb
from .deform import rotation
from .parts import lathe, random_part, wireframe
from .primitives import segments
from .solid import Solid


def _gable(overhang: float) -> Solid:
    """A ridge roof along x over [-1, 1] x [0, 1] x [-1, 1]: a box whose top is pinched to a line."""
    box = primitives.box(1)
    x, y, z = box.vertices.T
    wide = 1 + overhang
    return box.with_vertices(np.stack([wide * x, (y + 1) / 2, wide * z * (1 - y) / 2], -1))


def _house(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(14)
    wall, roof = assembly.materials.new("wall"), assembly.materials.new("stone" if rng.random() < 0.6 else "any")
    glass, wood = assembly.materials.new("glass"), assembly.materials.new("wood")
    at = np.zeros(3)
    for k in range(int(rng.integers(1, 4))):
        size = np.array([rng.uniform(0.25, 0.55), rng.uniform(0.15, 0.45), rng.uniform(0.2, 0.45)]) * 0.85**k
        assembly.add(primitives.box(1), wall, scale=size, at=at + [0, size[1], 0])
        rise = rng.uniform(0.1, 0.35)
        kind = rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])
        top = at + [0, 2 * size[1], 0]
        if kind == 0:
            turn = rotation(1, np.pi / 2 * int(rng.integers(2)))
            across = size[[2, 1, 0]] if abs(turn[0, 2]) > 0.5 else size
            assembly.add(_gable(rng.uniform(0.0, 0.2)), roof, scale=(across[0], rise, across[2]), turn=turn, at=top)
        elif kind == 1:
            assembly.add(
                profiles.revolve(profiles.cylinder(1.0, 0.0, 2), outlines.square(2)),
                roof,
                scale=(1.1 * size[0], rise / 2, 1.1 * size[2]),
                at=top + [0, rise / 2, 0],
            )
        elif kind == 2:
            assembly.add(primitives.box(1), roof, scale=(1.05 * size[0], 0.02, 1.05 * size[2]), at=top)
        else:
            assembly.add(primitives.ellipsoid(detail), roof, scale=(size[0], rise, size[2]), at=top)
        columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        if rng.random() < 0.7:
            for i in range(columns):
                for j in range(rows):
                    x, y = size[0] * (2 * (i + 0.5) / columns - 1), size[1] * (2 * (j + 0.6) / rows)
                    pane = (0.45 * size[0] / columns, 0.35 * size[1] / rows, 0.012)
                    for side in (1, -1):
                        assembly.add(primitives.box(1), glass, scale=pane, at=at + [x, y, side * size[2]])
        if k == 0:
            assembly.add(
                primitives.box(1),
                wood,
                scale=(0.06, 0.1, 0.015),
                at=at + [rng.uniform(-0.5, 0.5) * size[0], 0.1, size[2]],
            )
        if rng.random() < 0.5:
            tall = rng.uniform(0.1, 0.25)
            assembly.add(
                primitives.box(1), wall, scale=(0.035, tall, 0.035), at=top + [0.5 * size[0], tall, -0.3 * size[2]]
            )
        if rng.random() < 0.3:
            at = at + [0, 2 * size[1], 0]
        else:
            side = rng.choice([-1.0, 1.0])
            at = np.array([at[0] + side * rng.uniform(0.6, 1.1) * size[0], 0.0, rng.uniform(-0.3, 0.3) * size[2]])


def _tower(assembly: Assembly) -> None:
    """Towers and castles: round or many-sided shafts, battlements, pointed roofs."""
    rng = assembly.rng
    count = int(rng.integers(1, 6))
    detail = assembly.plan(4 * count)
    wall, roof, glass = assembly.materials.new("wall"), assembly.materials.new("any"), assembly.materials.new("glass")
    sides = (
        outlines.circle(segments(24, detail, 10))
        if rng.random() < 0.6
        else outlines.polygon(int(rng.integers(4, 9)), 2)
    )
    ring = rng.uniform(0.25, 0.5)
    for k in range(count):
        angle = 2 * np.pi * k / count
        at = np.array([np.sin(angle), 0, np.cos(angle)]) * (ring if count > 1 else 0.0)
        width, height = rng.uniform(0.08, 0.2), rng.uniform(0.25, 0.7)
        if count == 1:
            width *= 1.5
        shaft = profiles.revolve(profiles.cylinder(rng.uniform(0.0, 0.3), 0.0, 2, 1), sides)
        assembly.add(shaft, wall, scale=(width, height, width), at=at + [0, height, 0])
        top = at + [0, 2 * height, 0]
        if rng.random() < 0.5:
            cap = profiles.revolve(profiles.cylinder(1.0, 0.0, 2, 1), sides)
            rise = rng.uniform(0.1, 0.3)
            assembly.add(cap, roof, scale=(1.2 * width, rise, 1.2 * width), at=top + [0, rise, 0])
        else:
            assembly.add(
                profiles.revolve(profiles.cylinder(0.0, 0.0, 1, 1), sides),
                wall,
                scale=(1.2 * width, 0.03, 1.2 * width),
                at=top,
            )
            teeth = int(rng.integers(4, 9))
            for j in range(teeth):
                turn = rotation(1, 2 * np.pi * j / teeth)
                assembly.add(
                    primitives.box(1),
                    wall,
                    scale=(0.3 * width, 0.04, 0.04),
                    turn=turn,
                    at=top + turn @ [0, 0.06, 1.1 * width],
                )
        for y in rng.uniform(0.4, 1.7, int(rng.integers(0, 4))):
            assembly.add(primitives.box(1), glass, scale=(0.03, 0.05, 0.02), at=at + [0, y * height, 0.93 * width])
        if count > 1:
            # A wall to the next tower.
            turn = rotation(1, angle + np.pi / count)
            reach = ring * np.cos(np.pi / count)
            assembly.add(
                primitives.box(1),
                wall,
                scale=(ring * np.sin(np.pi / count), 0.16, 0.035),
                turn=turn,
                at=turn @ [0, 0.16, reach],
            )


def _machine(assembly: Assembly) -> None:
    """A housing with pipes, drums, grilles, knobs and a frame or wheels below: engines, mixers, radios, robots' trunks."""
    rng, detail = assembly.rng, assembly.plan(12)
    paint, metal, dark = (
        assembly.materials.new("paint"),
        assembly.materials.new("metal"),
        assembly.materials.new("dark"),
    )
    size = np.array([rng.uniform(0.2, 0.45), rng.uniform(0.15, 0.4), rng.uniform(0.15, 0.4)])
    assembly.add(primitives.box(3, rng.choice([0.03, 0.1, 0.3]), 2), paint, scale=size)
    for _ in range(int(rng.integers(1, 4))):  # drums and attachments
        solid = lathe(rng, detail) if rng.random() < 0.6 else random_part(rng, detail, 0.2)
        axis, sign = int(rng.integers(3)), rng.choice([-1.0, 1.0])
        at = rng.uniform(-0.5, 0.5, 3) * size
        at[axis] = sign * size[axis] * rng.uniform(0.9, 1.3)
        turn = (rotation(2, np.pi / 2), np.eye(3), rotation(0, np.pi / 2))[axis]
        assembly.add(
            solid,
            (paint, metal)[int(rng.integers(2))],
            scale=rng.uniform(0.12, 0.3) * np.array([1, rng.uniform(0.6, 1.4), 1]),
            turn=turn,
            at=at,
        )
    for _ in range(int(rng.integers(0, 4))):  # pipes
        a, b = (rng.choice([-1.0, 1.0], 3) * size * rng.uniform(0.4, 1.0, 3) for _ in range(2))
        middle = (a + b) / 2 + rng.normal(0, 0.15, 3) + [0, 0.15, 0]
        assembly.add(
            limb(rng, detail, [a, middle, b], rng.uniform(0.015, 0.05), rng.uniform(0.015, 0.05)),
            metal if rng.random() < 0.6 else dark,
        )
    columns, rows = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    knob = (primitives.cylinder(0.5 * detail, 0.2, 0.2, 14), primitives.box(1), primitives.ellipsoid(0.5 * detail))[
        int(rng.integers(3))
    ]
    bright = assembly.materials.new("plain")
    for i in range(columns):
        for j in range(rows):
            at = (size[0] * (1.6 * (i + 0.5) / columns - 0.8), size[1] * (1.2 * (j + 0.5) / rows - 0.6), size[2])
            assembly.add(
                knob, (dark, bright)[(i + j) % 2], scale=(0.03, 0.03, 0.03), turn=rotation(0, np.pi / 2), at=at
            )
    if rng.random() < 0.4:  # screen or grille
        assembly.add(
            primitives.box(1),
            assembly.materials.new("glass"),
            scale=(0.5 * size[0], 0.35 * size[1], 0.02),
            at=(0, 0.4 * size[1], size[2]),
        )
    kind = rng.integers(3)
    if kind == 0:
        low = rng.uniform(0.1, 0.3)
        assembly.add(
            wireframe(rng, 0.04), metal, scale=(0.95 * size[0], low, 0.95 * size[2]), at=(0, -size[1] - low, 0)
        )
    elif kind == 1:
        tyre, hub = primitives.wheel(rng, detail)
        radius = rng.uniform(0.1, 0.25)
        for z in (-0.7, 0.7):
            for solid, material in ((tyre, dark), (hub, metal)):
                assembly.add(
                    solid,
                    material,
                    scale=(radius, 0.5 * radius, radius),
                    turn=rotation(2, -np.pi / 2),
                    at=(size[0] + 0.05, -size[1], z * size[2]),
                    mirror=True,
                )


def building(assembly: Assembly) -> None:
    """One of the kinds above."""
    kinds = (_house, _tower, _machine)
    kinds[int(assembly.rng.choice(3, p=[0.4, 0.22, 0.38]))](assembly)
