"""Fruit, flowers, trees, potted plants, loaves and stones."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .assembly import Assembly
from .creatures import limb
from .deform import aligned, displace, ripple, rotation
from .parts import lathe_walls
from .primitives import segments
from .solid import Solid, merge

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def _fruit_body(rng: np.random.Generator, detail: float) -> Solid:
    """A round body: apple, pear, lemon, strawberry, gourd, berry."""
    kind = rng.integers(4)
    columns = segments(30, detail, 12)
    if kind == 0:
        knots = np.array([[0.0, -0.8], [0.55, -0.95], [1.0, -0.1], [0.85, 0.6], [0.35, 0.85], [0.0, 0.62]])
    elif kind == 1:
        neck = rng.uniform(0.25, 0.7)
        knots = np.array([[0.0, -1.0], [0.75, -0.8], [1.0, -0.35], [0.6, 0.25], [neck, 0.7], [0.0, 1.0]])
    elif kind == 2:
        knots = np.array([[0.0, -1.0], [0.4, -0.75], [0.85, 0.0], [1.0, 0.55], [0.55, 0.9], [0.0, 0.85]])
    else:
        knots = np.array([[0.0, -1.0], [0.7, -0.75], [1.0, 0.0], [0.7, 0.75], [0.0, 1.0]])
    wall = profiles.curve(knots, segments(4, detail, 2))
    wall[:, 0] = np.maximum(wall[:, 0], 0.0)
    wall[[0, -1], 0] = 0.0
    outline, bands = outlines.circle(columns)
    if rng.random() < 0.35:  # ribs, as of a pumpkin
        lobes, deep = int(rng.integers(5, 13)), rng.uniform(0.03, 0.12)
        angle = np.arctan2(outline[:, 0], outline[:, 1])
        outline = outline * (1 - deep * np.abs(np.cos(lobes * angle / 2)) ** 4)[:, None]
    solid = profiles.revolve(profiles.join([wall]), (outline, bands))
    solid = solid.moved((1.0, rng.uniform(0.7, 1.3), 1.0))
    if rng.random() < 0.6:
        solid = displace(rng, solid, rng.uniform(0.03, 0.2), int(rng.integers(2, 8)))
    if rng.random() < 0.2:
        solid = solid.with_vertices(ripple(rng, solid.vertices, 0.04, rng.uniform(8, 14)))
    return solid


def _fruit(assembly: Assembly) -> None:
    rng = assembly.rng
    count = 1 if rng.random() < 0.7 else int(rng.integers(2, 8))
    detail = assembly.plan(count + 1)
    skin, green = assembly.materials.new("food"), assembly.materials.new("leaf")
    body = _fruit_body(rng, min(1.5 * detail, 3.0))
    if count > 1:  # a pile: the first in the middle, the others against it
        for k in range(count):
            direction = rng.normal(size=3) * [1, 0.6, 1]
            at = direction / np.linalg.norm(direction) * 0.4 * (k > 0)
            assembly.add(body, skin, scale=rng.uniform(0.22, 0.3), turn=aligned(rng.normal(size=3)), at=at)
        return
    assembly.add(body, skin, scale=0.5)
    top = np.array(
        [0.0, 0.5 * body.vertices[np.argmin(np.abs(body.vertices[:, [0, 2]]).sum(1) - body.vertices[:, 1]), 1], 0]
    )
    stem = rng.uniform(0.08, 0.45)
    sway = rng.normal(0, 0.3, 2) * stem
    if rng.random() < 0.8:
        points = [top - [0, 0.05, 0], top + [0.3 * sway[0], 0.5 * stem, 0.3 * sway[1]], top + [sway[0], stem, sway[1]]]
        assembly.add(
            limb(rng, detail, points, 0.025, 0.018), green if rng.random() < 0.6 else assembly.materials.new("bark")
        )
    if rng.random() < 0.6:
        blades = int(rng.integers(1, 9))
        leaf = primitives.leaf(detail, rng.uniform(0.15, 0.4), 0.04, rng.uniform(-0.4, 0.2))
        rise = rng.uniform(-0.2, 1.0)
        for k in range(blades):
            angle = 2 * np.pi * k / blades + rng.normal(0, 0.15)
            turn = rotation(1, angle) @ rotation(0, np.pi / 2 - rise)
            assembly.add(leaf, green, scale=rng.uniform(0.2, 0.4), turn=turn, at=top)


def _flower(assembly: Assembly) -> None:
    """Petals spiral around a heart; perhaps a stem with leaves."""
    rng = assembly.rng
    petals = int(np.exp(rng.uniform(np.log(5), np.log(80))))
    detail = assembly.plan(petals // 2 + 3)
    colour, heart, green = (assembly.materials.new(s) for s in ("petal", "food", "leaf"))
    blade = primitives.leaf(detail, rng.uniform(0.18, 0.42), rng.uniform(0.03, 0.06), rng.uniform(-0.3, 0.5))
    opening = rng.uniform(0.3, 1.5)  # how far the outermost petals lean out
    layered = petals > 13
    group = []
    for k in range(petals):
        share = (k + 0.5) / petals
        lean = opening * (np.sqrt(share) if layered else 1.0) + rng.normal(0, 0.05)
        length = 0.5 * (0.45 + 0.55 * share if layered else 1.0)
        angle = GOLDEN_ANGLE * k if layered else 2 * np.pi * k / petals
        turn = rotation(1, angle) @ rotation(0, lean)
        group.append(blade.moved(turn * length, turn @ np.array([0.0, 0.02, 0.0])))
    bloom = merge(group)
    tall = rng.uniform(0.4, 1.2) if rng.random() < 0.6 else 0.0
    tilt = rotation(0, rng.uniform(0, 1.2))
    at = np.array([0.0, tall, 0.0])
    assembly.add(bloom, colour, turn=tilt, at=at)
    if not layered or rng.random() < 0.4:
        size = rng.uniform(0.08, 0.2)
        assembly.add(
            primitives.ellipsoid(1.5 * detail),
            heart,
            scale=(size, 0.5 * size, size),
            turn=tilt,
            at=at + tilt @ [0, 0.05, 0],
        )
    if tall:
        bend = rng.normal(0, 0.1)
        assembly.add(
            limb(rng, 1.5 * detail, [[bend, 0, 0], [0.7 * bend, 0.5 * tall, bend], [0, tall, 0]], 0.02, 0.025), green
        )
        leaf = primitives.leaf(1.5 * detail, rng.uniform(0.12, 0.3), 0.04, rng.uniform(0.0, 0.5))
        for _ in range(int(rng.integers(0, 4))):
            turn = rotation(1, rng.uniform(0, 2 * np.pi)) @ rotation(0, rng.uniform(0.4, 1.1))
            assembly.add(
                leaf,
                green,
                scale=rng.uniform(0.25, 0.5),
                turn=turn,
                at=(0.6 * bend, tall * rng.uniform(0.1, 0.6), 0.3 * bend),
            )


def _tree(assembly: Assembly) -> None:
    rng = assembly.rng
    balls = int(rng.integers(1, 8))
    detail = assembly.plan(balls + 4)
    bark, green = assembly.materials.new("bark"), assembly.materials.new("leaf")
    tall = rng.uniform(0.3, 0.9)
    lean = rng.normal(0, 0.08, 2)
    top = np.array([lean[0], tall, lean[1]])
    thick = rng.uniform(0.03, 0.1)
    assembly.add(
        limb(rng, 1.5 * detail, [[0, 0, 0], [-0.4 * lean[0], 0.5 * tall, 0], top], 1.3 * thick, 0.7 * thick), bark
    )
    if rng.random() < 0.35:  # conifer
        layers, width = int(rng.integers(1, 5)), rng.uniform(0.25, 0.45)
        for k in range(layers):
            cone = primitives.cylinder(1.3 * detail, 1.0)
            size = width * (1 - 0.75 * k / layers)
            at = top * [1, 0.5, 1] + [0, 0.75 * width * (k + 0.5), 0]
            cone = displace(rng, cone, 0.12, 4) if rng.random() < 0.6 else cone
            assembly.add(cone, green, scale=(size, 0.75 * width, size), at=at)
        return
    for k in range(balls):
        offset = rng.normal(0, 0.2, 3) * [1, 0.6, 1] if k else np.zeros(3)
        at = top + offset + [0, 0.1, 0]
        start = top * rng.uniform(0.5, 0.9)
        if k:
            assembly.add(
                limb(rng, detail, [start, (start + at) / 2 + rng.normal(0, 0.03, 3), at], 0.5 * thick, 0.3 * thick),
                bark,
            )
        crown = displace(rng, primitives.ellipsoid(1.3 * detail), rng.uniform(0.1, 0.3), int(rng.integers(3, 7)))
        assembly.add(crown, green, scale=rng.uniform(0.15, 0.35) * np.array([1, rng.uniform(0.7, 1.2), 1]), at=at)


def _potted(assembly: Assembly) -> None:
    rng = assembly.rng
    leaves = int(rng.integers(5, 40))
    detail = assembly.plan(leaves // 3 + 4)
    clay, soil, green = (
        assembly.materials.new("pottery"),
        assembly.materials.new("bark"),
        assembly.materials.new("leaf"),
    )
    lip = rng.uniform(0.2, 0.3)
    foot = lip * rng.uniform(0.5, 1.0)
    tall = rng.uniform(0.15, 0.3)
    walls = [profiles.line((foot, -1), (lip, 0.7), 3), profiles.line((lip, 0.7), (1.12 * lip, 0.7), 1)]
    walls.append(profiles.line((1.12 * lip, 0.7), (1.12 * lip, 1.0), 1))
    if rng.random() < 0.4:
        walls = [w * [lip, 1.0] for w in lathe_walls(rng, 1.5 * detail, 0.5)]
    pot = profiles.revolve(profiles.hollow(walls, 0.03, 0.2), outlines.circle(segments(28, 1.3 * detail, 12)))
    assembly.add(pot, clay, scale=(1, tall, 1), at=(0, tall, 0))
    mouth = walls[-1][-1, 0]
    assembly.add(primitives.cylinder(detail), soil, scale=(0.97 * mouth, 0.02, 0.97 * mouth), at=(0, 1.75 * tall, 0))
    leaf = primitives.leaf(detail, rng.uniform(0.06, 0.35), 0.04, rng.uniform(-0.2, 0.6))
    stalk = rng.uniform(0.0, 0.4) if rng.random() < 0.5 else 0.0
    if stalk:
        assembly.add(
            limb(rng, detail, [[0, tall, 0], [0.02, 2 * tall + 0.5 * stalk, 0], [0, 2 * tall + stalk, 0]], 0.03, 0.02),
            assembly.materials.new("bark"),
        )
    for k in range(leaves):
        lean = rng.uniform(0.1, 1.3)
        turn = rotation(1, GOLDEN_ANGLE * k) @ rotation(0, lean)
        at = np.array([0.0, 1.75 * tall + stalk * rng.uniform(0.3, 1.0) if stalk else 1.75 * tall, 0.0])
        assembly.add(leaf, green, scale=rng.uniform(0.3, 0.6), turn=turn, at=at)


def _lump(assembly: Assembly) -> None:
    """Stones, loaves, roasts, cakes, shells: lumpy bodies on one another."""
    rng = assembly.rng
    count = int(rng.integers(1, 5))
    detail = assembly.plan(count)
    style = ["stone", "food", "food", "bark"][int(rng.integers(4))]
    material = assembly.materials.new(style)
    top = 0.0
    for k in range(count):
        if rng.random() < 0.6:
            solid = primitives.ellipsoid(1.3 * detail, rng.uniform(1.6, 4), rng.uniform(1.6, 4))
        else:
            solid = primitives.box(segments(9, detail), rng.uniform(0.2, 0.7), 3)
        for cells in (2, int(rng.integers(3, 8))):
            solid = displace(rng, solid, rng.uniform(0.1, 0.6) / cells, cells)
        size = np.exp(rng.normal(0, 0.3, 3)) * [0.4, 0.25, 0.4] * 0.8**k
        at = (rng.normal(0, 0.12), top + 0.7 * size[1], rng.normal(0, 0.12))
        assembly.add(
            solid,
            material if rng.random() < 0.7 else assembly.materials.new(style),
            scale=size,
            turn=rotation(1, rng.uniform(0, 6)),
            at=at,
        )
        top += 1.4 * size[1]


def nature(assembly: Assembly) -> None:
    """One of the kinds above."""
    kinds = (_fruit, _flower, _tree, _potted, _lump)
    kinds[int(assembly.rng.choice(5, p=[0.28, 0.17, 0.16, 0.14, 0.25]))](assembly)
