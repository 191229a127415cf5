"""Vessels, furniture, bags and lamps."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .assembly import Assembly
from .creatures import limb
from .deform import aligned, displace, rotation
from .parts import lathe_walls
from .primitives import segments


def vessel(assembly: Assembly) -> None:
    """One hollow vessel: cup, jug, vase, bowl, bottle; handles, contents, lid, saucer."""
    rng, detail = assembly.rng, assembly.plan(2)
    clay = assembly.materials.new(["pottery", "pottery", "metal", "glass", "wood", "any"][int(rng.integers(6))])
    columns = segments(26, detail, 12)
    outline = outlines.circle(columns)
    if rng.random() < 0.2:
        outline = outlines.rounded_rectangle(
            1.0, rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.5), 4, max(columns // 8, 2)
        )
    kind = rng.choice(3, p=[0.4, 0.25, 0.35])
    if kind == 0:  # cup
        lip, foot = 1.0, rng.uniform(0.5, 1.0)
        belly = rng.uniform(0.7, 1.1)
        walls = [
            profiles.curve(
                np.array([[foot, -1], [belly, -0.5], [0.5 * (belly + lip), 0.2], [lip, 1.0]]), segments(5, detail, 2)
            )
        ]
        height, width = rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.45)
    elif kind == 1:  # bowl or plate
        foot = rng.uniform(0.25, 0.6)
        walls = [
            profiles.line((foot, -1), (foot, -0.85), 1),
            profiles.curve(
                np.array([[foot, -0.85], [0.8, -0.3], [rng.uniform(0.9, 1.0), 0.4], [1.0, 1.0]]), segments(5, detail, 2)
            ),
        ]
        height, width = rng.uniform(0.06, 0.3), 0.55
    else:  # vase, bottle
        walls = lathe_walls(rng, 1.3 * detail, 0.2)
        height, width = rng.uniform(0.4, 0.7), rng.uniform(0.2, 0.5)
    thickness, floor = rng.uniform(0.04, 0.12), rng.uniform(0.08, 0.3)
    assembly.add(
        profiles.revolve(profiles.hollow(walls, thickness, floor), outline), clay, scale=(width, height, width)
    )
    wall = np.concatenate(walls)

    def radius(y: float) -> float:
        order = np.argsort(wall[:, 1], kind="stable")
        return float(np.interp(y, wall[order, 1], wall[order, 0]))

    if rng.random() < 0.6:  # contents
        level = rng.uniform(-0.2, 0.8)
        narrowest = min(radius(level + step) for step in (-thickness, 0.0, thickness))
        inside = max(narrowest - 0.6 * thickness, 0.5 * narrowest) * width
        assembly.add(
            profiles.revolve(profiles.cylinder(0.0, 0.0, 1), outline),
            assembly.materials.new("food"),
            scale=(inside, 0.01, inside),
            at=(0, level * height, 0),
        )
    if rng.random() < (0.75 if kind == 0 else 0.35):
        high, low = rng.uniform(0.4, 0.85), rng.uniform(-0.7, 0.1)
        out = rng.uniform(0.12, 0.35)
        a = np.array([radius(high) * width * 0.96, high * height, 0.0])
        b = np.array([radius(low) * width * 0.96, low * height, 0.0])
        reach = max(a[0], b[0]) + out
        path = [
            a,
            [reach, a[1] + rng.uniform(-0.05, 0.08), 0],
            [reach, (a[1] + b[1]) / 2, 0],
            [0.5 * (reach + b[0]), b[1], 0],
            b,
        ]
        thick = rng.uniform(0.02, 0.06)
        metal = clay if rng.random() < 0.7 else assembly.materials.new("any")
        assembly.add(
            limb(rng, detail, path, thick, thick * rng.uniform(0.6, 1.1)), metal, mirror=bool(rng.random() < 0.3)
        )
    if rng.random() < 0.25:  # spout
        a = np.array([-radius(-0.2) * width * 0.9, -0.2 * height, 0.0])
        path = [a, a + [-0.15, 0.05, 0], a + [-0.25, 0.2 + 0.3 * height, 0]]
        assembly.add(limb(rng, detail, path, rng.uniform(0.06, 0.1), 0.04), clay)
    if rng.random() < 0.2:  # lid
        lid = profiles.revolve(
            profiles.closed(
                [
                    profiles.curve(
                        np.array([[1.05, 0], [0.9, 0.3], [0.3, 0.5], [0.12, 0.6], [0.2, 0.8], [0.06, 1]]),
                        segments(4, detail, 2),
                    )
                ]
            ),
            outlines.circle(columns),
        )
        size = radius(1.0) * width
        assembly.add(lid, clay, scale=(size, rng.uniform(0.1, 0.3), size), at=(0, 0.98 * height, 0))
    if rng.random() < 0.25:  # saucer
        walls = [profiles.curve(np.array([[0.5, -1], [0.8, -0.4], [1.0, 1.0]]), segments(3, detail, 2))]
        saucer = profiles.revolve(profiles.hollow(walls, 0.05, 0.5), outlines.circle(columns))
        size = width * rng.uniform(1.3, 1.9)
        assembly.add(saucer, clay, scale=(size, 0.05, size), at=(0, -height - 0.01, 0))


def _legs(assembly: Assembly, material: int, width: float, depth: float, height: float) -> None:
    rng, detail = assembly.rng, assembly.detail
    thick = rng.uniform(0.015, 0.06)
    kind, splay = rng.integers(3), rng.uniform(-0.02, 0.12)
    for z in (depth, -depth):
        top, foot = np.array([width, height, z]), np.array([width + splay, 0.0, z + np.sign(z) * splay])
        if kind == 0:
            axis = top - foot
            size = (thick, np.linalg.norm(axis) / 2, thick)
            assembly.add(primitives.box(), material, scale=size, turn=aligned(axis), at=(top + foot) / 2, mirror=True)
        elif kind == 1:
            assembly.add(primitives.rod(foot, top, 0.7 * thick, 1.1 * thick, detail), material, mirror=True)
        else:
            walls = profiles.turned(rng, int(rng.integers(3, 6)), 2)
            leg = profiles.revolve(profiles.closed(walls, 1), outlines.circle(segments(12, detail, 6)))
            assembly.add(
                leg, material, scale=(1.4 * thick, height / 2, 1.4 * thick), at=(width, height / 2, z), mirror=True
            )
    if rng.random() < 0.4:
        y = height * rng.uniform(0.2, 0.6)
        for z in (depth, -depth):
            assembly.add(primitives.box(), material, scale=(width, 0.6 * thick, 0.6 * thick), at=(0, y, z))
        assembly.add(primitives.box(), material, scale=(0.6 * thick, 0.6 * thick, depth), at=(width, y, 0), mirror=True)


def _seat(assembly: Assembly) -> None:
    """Chairs, stools, benches and tables: a slab on legs, perhaps with a back and arms."""
    rng, detail = assembly.rng, assembly.plan(12)
    wood = assembly.materials.new(["wood", "paint", "metal"][int(rng.integers(3))])
    top = wood if rng.random() < 0.5 else assembly.materials.new(["fabric", "wood", "any"][int(rng.integers(3))])
    table = rng.random() < 0.4
    width, depth = (
        (rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.5)) if table else (rng.uniform(0.22, 0.55), rng.uniform(0.2, 0.28))
    )
    height, thick = rng.uniform(0.2, 0.7) if table else rng.uniform(0.25, 0.5), rng.uniform(0.015, 0.08)
    if rng.random() < 0.7:
        plate = primitives.box(segments(2, detail), rng.choice([0.03, 0.1, 0.5]), 2)
    else:
        plate = primitives.extrusion(outlines.circle(segments(30, detail, 12)), 1.0, 0.2, detail)
    assembly.add(plate, top, scale=(width, thick, depth), at=(0, height + thick, 0))
    if table and rng.random() < 0.3:
        walls = profiles.turned(rng, int(rng.integers(3, 7)), 2)
        post = profiles.revolve(profiles.closed(walls, 1), outlines.circle(segments(18, detail, 8)))
        assembly.add(post, wood, scale=(0.12, height / 2, 0.12), at=(0, height / 2, 0))
        assembly.add(primitives.cylinder(detail, 0.3, 0.2), wood, scale=(0.25, 0.03, 0.25), at=(0, 0.03, 0))
    else:
        _legs(assembly, wood, 0.88 * width, 0.85 * depth, height)
    if table:
        return
    if rng.random() < 0.75:
        tall, tilt = rng.uniform(0.2, 0.45), rng.uniform(0.0, 0.25)
        at = np.array([0, height + 2 * thick + tall, -0.9 * depth - tilt * tall])
        turn = rotation(0, -tilt)
        if rng.random() < 0.5:
            assembly.add(
                primitives.box(segments(2, detail), 0.1, 2), top, scale=(0.95 * width, tall, 0.035), turn=turn, at=at
            )
        else:
            bars = int(rng.integers(2, 6))
            for k in range(bars):
                x = width * (1.8 * k / (bars - 1) - 0.9)
                assembly.add(primitives.box(), wood, scale=(0.02, tall, 0.02), turn=turn, at=at + [x, 0, 0])
            for y in rng.uniform(0.2, 1.0, 2):
                assembly.add(
                    primitives.box(1),
                    top,
                    scale=(0.93 * width, 0.05, 0.022),
                    turn=turn,
                    at=at + turn @ [0, tall * (2 * y - 1), 0],
                )
        if rng.random() < 0.4:
            arm = height + rng.uniform(0.12, 0.25)
            assembly.add(
                primitives.box(2, 0.2, 2), top, scale=(0.04, 0.03, 0.9 * depth), at=(0.97 * width, arm, 0), mirror=True
            )
            assembly.add(
                primitives.box(),
                wood,
                scale=(0.02, (arm - height) / 2, 0.02),
                at=(0.97 * width, (arm + height) / 2, 0.7 * depth),
                mirror=True,
            )


def _sofa(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(9)
    cloth = assembly.materials.new("fabric")
    cushion = cloth if rng.random() < 0.5 else assembly.materials.new("fabric")
    width, depth, bevel = rng.uniform(0.4, 0.75), rng.uniform(0.25, 0.35), rng.uniform(0.1, 0.6)
    soft = primitives.box(segments(3, detail), bevel, segments(2, detail, 2))
    base, back, arm = rng.uniform(0.1, 0.18), rng.uniform(0.2, 0.4), rng.uniform(0.06, 0.12)
    assembly.add(soft, cloth, scale=(width, base, depth), at=(0, base + 0.06, 0))
    assembly.add(
        soft, cloth, scale=(width, back, 0.09), turn=rotation(0, -rng.uniform(0, 0.2)), at=(0, base + back, -depth)
    )
    assembly.add(soft, cloth, scale=(arm, base + 0.1, depth), at=(width, base + 0.12, 0.02), mirror=True)
    count = int(rng.integers(1, 4))
    for k in range(count):
        x = width * (2 * (k + 0.5) / count - 1) * 0.92
        pillow = displace(rng, soft, 0.06, 2)
        assembly.add(pillow, cushion, scale=(0.9 * width / count, 0.06, 0.9 * depth), at=(x, 2 * base + 0.1, 0.03))
    foot = assembly.materials.new("wood")
    for z in (-0.8, 0.8):
        assembly.add(
            primitives.cylinder(0.5 * detail, 0.3),
            foot,
            scale=(0.03, 0.04, 0.03),
            at=(0.85 * width, 0.04, z * depth),
            mirror=True,
        )


def _cabinet(assembly: Assembly) -> None:
    """Cupboards, drawers, shelves, ovens: a box with fronts and knobs, or open boards."""
    rng, detail = assembly.rng, assembly.plan(14)
    wood = assembly.materials.new(["wood", "paint", "metal"][int(rng.integers(3))])
    front = (
        wood if rng.random() < 0.5 else assembly.materials.new(["wood", "paint", "glass", "any"][int(rng.integers(4))])
    )
    metal = assembly.materials.new("metal")
    width, height, depth = rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.7), rng.uniform(0.15, 0.3)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    if rng.random() < 0.35:  # open shelf
        board = 0.02
        assembly.add(primitives.box(), wood, scale=(board, height, depth), at=(width, 0, 0), mirror=True)
        for k in range(rows + 2):
            y = height * (2 * k / (rows + 1) - 1)
            assembly.add(primitives.box(), wood, scale=(width, board, depth), at=(0, y, 0))
            if k <= rows and rng.random() < 0.6:
                things = assembly.materials.new("any")
                size = np.array([rng.uniform(0.2, 0.8) * width, 0.6 * height / (rows + 1), 0.6 * depth])
                assembly.add(
                    primitives.box(2, 0.1, 2),
                    things,
                    scale=size,
                    at=(rng.uniform(-0.2, 0.2) * width, y + board + size[1], 0),
                )
        if rng.random() < 0.6:
            assembly.add(primitives.box(), front, scale=(width, height, 0.01), at=(0, 0, -depth))
        return
    assembly.add(primitives.box(2, rng.choice([0.02, 0.1]), 2), wood, scale=(width, height, depth))
    for i in range(columns):
        for j in range(rows):
            x, y = width * (2 * (i + 0.5) / columns - 1), height * (2 * (j + 0.5) / rows - 1)
            size = (0.86 * width / columns, 0.86 * height / rows, 0.015)
            assembly.add(primitives.box(), front, scale=size, at=(x, y, depth))
            knob = primitives.ellipsoid(0.5 * detail) if rng.random() < 0.5 else primitives.box()
            assembly.add(knob, metal, scale=(0.03, 0.015, 0.02), at=(x, y + 0.3 * size[1], depth + 0.03))
    if rng.random() < 0.4:
        _legs(assembly, wood, 0.9 * width, 0.85 * depth, 0.2)
        # Stand the box on its legs.
        lowered = [(s, m) for s, m in assembly.parts]
        body = 1 + 2 * rows * columns
        assembly.parts = [(s.moved(1.0, (0, height + 0.18, 0)), m) for s, m in lowered[:body]] + lowered[body:]


def _lamp(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(4)
    base, shade = assembly.materials.new("pottery"), assembly.materials.new("fabric")
    height = rng.uniform(0.3, 0.8)
    foot = profiles.revolve(profiles.closed(lathe_walls(rng, detail)), outlines.circle(segments(22, detail, 10)))
    assembly.add(
        foot, base, scale=(rng.uniform(0.06, 0.22), height / 2, rng.uniform(0.06, 0.22)), at=(0, height / 2, 0)
    )
    assembly.add(primitives.cylinder(detail, 0.3, 0.2), base, scale=(0.18, 0.03, 0.18), at=(0, 0.02, 0))
    low, high = rng.uniform(0.2, 0.4), rng.uniform(0.08, 0.4)
    tall = rng.uniform(0.1, 0.22)
    walls = [profiles.line((low, -1), (high, 1), segments(3, detail, 2))]
    skirt = profiles.revolve(profiles.hollow(walls, 0.03, 0.1), outlines.circle(segments(26, detail, 10)))
    turn = rotation(0, np.pi) if rng.random() < 0.2 else None
    assembly.add(skirt, shade, scale=(1, tall, 1), turn=turn, at=(0, height + 0.8 * tall, 0))


def _bag(assembly: Assembly) -> None:
    """Handbags, suitcases, boxes and packages."""
    rng, detail = assembly.rng, assembly.plan(8)
    cloth = assembly.materials.new(["fabric", "package", "paint", "skin"][int(rng.integers(4))])
    trim = assembly.materials.new("any")
    width, height, depth = rng.uniform(0.3, 0.5), rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.35)
    shape = outlines.rounded_rectangle(1.0, depth / width, rng.uniform(0.02, 0.9) * depth / width, 4, 4)
    body = primitives.extrusion(
        shape, 1.0, rng.choice([0.0, 0.05, 0.15]), 2 * detail, rng.choice([0.0, rng.uniform(-0.15, 0.4)])
    )
    if rng.random() < 0.5:
        body = displace(rng, body, rng.uniform(0.01, 0.05), 3)
    assembly.add(body, cloth, scale=(width, height, width))
    if rng.random() < 0.65:  # handle
        span, rise, thick = rng.uniform(0.3, 0.7) * width, rng.uniform(0.1, 0.4), rng.uniform(0.015, 0.035)
        path = [
            [-span, 0.95 * height, 0],
            [-0.9 * span, height + 0.7 * rise, 0],
            [0, height + rise, 0],
            [0.9 * span, height + 0.7 * rise, 0],
            [span, 0.95 * height, 0],
        ]
        for z in [0.0] if rng.random() < 0.5 else [0.5 * depth, -0.5 * depth]:
            assembly.add(limb(rng, detail, path, thick, thick), trim, at=(0, 0, z))
    if rng.random() < 0.5:  # pocket, flap or label
        size = (rng.uniform(0.3, 0.8) * width, rng.uniform(0.2, 0.7) * height, 0.02)
        assembly.add(primitives.box(2, 0.3, 2), trim, scale=size, at=(0, rng.uniform(-0.3, 0.4) * height, 0.97 * depth))
    if rng.random() < 0.5:
        clasp = (
            primitives.ellipsoid(0.7 * detail)
            if rng.random() < 0.5
            else primitives.torus(0.7 * detail, 0.2).moved(rotation(0, np.pi / 2))
        )
        assembly.add(
            clasp,
            assembly.materials.new("metal"),
            scale=(0.05, 0.05, 0.03),
            at=(0, rng.uniform(0.1, 0.6) * height, depth + 0.01),
        )
    if rng.random() < 0.3:  # straps around
        for x in rng.uniform(0.2, 0.7, int(rng.integers(1, 3))):
            assembly.add(
                primitives.box(), trim, scale=(0.03, 1.02 * height, 1.03 * depth), at=(x * width, 0, 0), mirror=True
            )


def furniture(assembly: Assembly) -> None:
    """One of the kinds of household things other than vessels."""
    kinds = (_seat, _sofa, _cabinet, _lamp, _bag)
    kinds[int(assembly.rng.choice(5, p=[0.4, 0.1, 0.2, 0.1, 0.2]))](assembly)
