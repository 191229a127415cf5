"""Creature-like compositions: quadrupeds, upright figures, birds and fish, mirror-symmetric and facing +z."""

from __future__ import annotations

import numpy as np

from . import outlines, primitives, profiles
from .assembly import Assembly
from .deform import aligned, displace, rotation
from .primitives import segments
from .solid import Solid


def limb(rng: np.random.Generator, detail: float, points: np.ndarray, thick: float, thin: float) -> Solid:
    """A round bent limb through points [K, 3] whose radius runs from ``thick`` to ``thin``."""
    path = profiles.curve(np.asarray(points, dtype=np.float64), segments(4, detail, 3))
    t = np.linspace(0, 1, len(path))
    radius = thick + (thin - thick) * t + 0.12 * thick * np.sin(2 * np.pi * t) * rng.uniform(-1, 1)
    return primitives.tube(path, radius, outlines.circle(segments(11, detail, 6)))


def _ball(
    assembly: Assembly, material: int, at: tuple, scale: object, turn: np.ndarray | None = None, **kwargs
) -> None:
    fineness = kwargs.pop("fineness", 1.0)
    solid = primitives.ellipsoid(assembly.detail * fineness)
    assembly.add(solid, material, scale=scale, turn=turn, at=at, **kwargs)


def _head(assembly: Assembly, at: np.ndarray, size: float, skin: int, other: int, dark: int) -> None:
    """A head that looks along +z: skull, snout or beak, ears or horns, eyes."""
    rng, detail = assembly.rng, assembly.detail
    wide, high, deep = size * rng.uniform(0.85, 1.15, 3)
    _ball(assembly, skin, at, (wide, high, deep), fineness=1.2)
    snout = rng.uniform(0.2, 0.9) * size
    kind = rng.integers(3)
    nose = at + np.array([0.0, -0.25 * high, 0.75 * deep])
    if kind == 0:
        _ball(
            assembly,
            other,
            nose + [0, 0, 0.3 * snout],
            (0.5 * wide, 0.42 * high, 0.6 * snout + 0.2 * size),
            fineness=0.8,
        )
        _ball(assembly, dark, nose + [0, 0.15 * high, 0.9 * snout + 0.15 * size], 0.16 * size, fineness=0.6)
    elif kind == 1:
        cone = primitives.cylinder(detail, rng.uniform(0.4, 1.0), 0.0, 14)
        assembly.add(
            cone,
            other,
            scale=(0.35 * wide, snout, 0.3 * high),
            turn=rotation(0, np.pi / 2),
            at=nose + [0, 0, 0.4 * snout],
        )
    else:
        _ball(
            assembly, dark, nose + [0, 0.12 * high, 0.22 * deep], (0.16 * size, 0.12 * size, 0.1 * size), fineness=0.6
        )
    eye = rng.uniform(0.1, 0.2) * size
    spread, lift = rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.4)
    depth = np.sqrt(max(1 - spread**2 - lift**2, 0.05))
    place = at + np.array([spread * wide, lift * high, depth * deep])
    if rng.random() < 0.5:
        white = assembly.materials.new("plain") if rng.random() < 0.3 else other
        _ball(assembly, white, place, eye * 1.5, mirror=True, fineness=0.6)
        _ball(assembly, dark, place + [0.1 * eye, 0, 0.9 * eye], eye, mirror=True, fineness=0.5)
    else:
        _ball(assembly, dark, place, eye, mirror=True, fineness=0.6)
    ear = rng.choice(4, p=[0.3, 0.3, 0.2, 0.2])
    length = rng.uniform(0.3, 1.1) * size
    base = at + np.array([0.6 * wide, 0.7 * high, -0.1 * deep])
    lean = rotation(2, -rng.uniform(0.0, 0.9)) @ rotation(0, rng.uniform(-0.3, 0.3))
    if ear == 0:
        blade = primitives.leaf(detail, rng.uniform(0.25, 0.5), 0.1, rng.uniform(-0.2, 0.2))
        assembly.add(blade, skin, scale=(length, length, length), turn=lean, at=base, mirror=True)
    elif ear == 1:
        _ball(assembly, skin, base, (0.35 * size, 0.38 * size, 0.14 * size), lean, mirror=True, fineness=0.8)
    elif ear == 2:
        horn = limb(
            rng, detail, [[0, 0, 0], [0.2, 0.4, 0], [rng.uniform(-0.1, 0.5), 1, rng.uniform(-0.4, 0.4)]], 0.16, 0.03
        )
        assembly.add(horn, other, scale=length, turn=lean, at=base - [0.15 * wide, 0.05, 0], mirror=True)


def _coat(assembly: Assembly) -> tuple[int, int, int]:
    """Materials of (body, second, dark)."""
    rng = assembly.rng
    style = "fur" if rng.random() < 0.65 else "skin"
    body = assembly.materials.new(style)
    second = body if rng.random() < 0.4 else assembly.materials.new(style)
    return body, second, assembly.materials.new("eye")


def _quadruped(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(16)
    skin, other, dark = _coat(assembly)
    length, width, height = rng.uniform(0.35, 0.65), rng.uniform(0.14, 0.3), rng.uniform(0.15, 0.3)
    leg = rng.uniform(0.15, 0.55)
    centre = np.array([0.0, leg + 0.7 * height, 0.0])
    body = primitives.ellipsoid(1.6 * detail, rng.uniform(1.8, 3.0), rng.uniform(1.8, 3.0))
    if rng.random() < 0.6:
        body = displace(rng, body, rng.uniform(0.03, 0.1), int(rng.integers(2, 5)))
    assembly.add(body, skin, scale=(width, height, length), turn=rotation(0, rng.uniform(-0.15, 0.1)), at=centre)
    if rng.random() < 0.5:
        _ball(assembly, skin, centre + [0, 0.05 * height, 0.6 * length], (1.05 * width, 1.05 * height, 0.4 * length))
    if rng.random() < 0.4:  # a belly of another colour
        _ball(assembly, other, centre - [0, 0.22 * height, 0], (0.9 * width, 0.85 * height, 0.9 * length))
    thick = rng.uniform(0.25, 0.5) * width
    for end in (1, -1):
        hip = np.array([0.65 * width, centre[1] - 0.1 * height, end * 0.68 * length])
        bend = rng.uniform(-0.12, 0.12)
        step = rng.uniform(-0.1, 0.1)
        points = [hip, hip * [1, 0.5, 1] + [0.02, 0, bend], [hip[0], 0.06, hip[2] + step]]
        assembly.add(limb(rng, detail, points, 1.3 * thick, 0.7 * thick), skin, mirror=True)
        _ball(
            assembly,
            other,
            (hip[0], 0.05, hip[2] + step + 0.04),
            (0.9 * thick, 0.05, 1.3 * thick),
            mirror=True,
            fineness=0.7,
        )
    head = rng.uniform(0.12, 0.26)
    place = centre + np.array(
        [0.0, rng.uniform(0.1, 1.6) * height + 0.1, length * rng.uniform(0.95, 1.15) + 0.5 * head]
    )
    neck = [centre + [0, 0.1 * height, 0.65 * length], (centre + [0, 0.2 * height, 0.8 * length] + place) / 2, place]
    assembly.add(limb(rng, detail, neck, rng.uniform(0.6, 0.9) * height, 0.7 * head), skin)
    _head(assembly, place, head, skin, other, dark)
    tail = rng.uniform(0.1, 0.7)
    root = centre + np.array([0, 0.3 * height, -0.9 * length])
    rise = rng.uniform(-0.6, 0.8)
    points = [root, root + [0, 0.3 * rise * tail, -0.5 * tail], root + [rng.normal(0, 0.1), rise * tail, -0.8 * tail]]
    assembly.add(limb(rng, detail, points, rng.uniform(0.03, 0.1), rng.uniform(0.015, 0.08)), skin)


def _figure(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(15)
    skin, other, dark = _coat(assembly)
    shirt = assembly.materials.new("fabric") if rng.random() < 0.6 else skin
    trousers = assembly.materials.new("fabric") if rng.random() < 0.6 else other
    leg, torso, head = rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.42), rng.uniform(0.12, 0.32)
    wide, deep = rng.uniform(0.13, 0.3), rng.uniform(0.11, 0.22)
    middle = leg + 0.85 * torso
    trunk = primitives.ellipsoid(1.4 * detail, rng.uniform(2, 4), rng.uniform(2, 3))
    if rng.random() < 0.4:
        trunk = primitives.cylinder(1.4 * detail, rng.uniform(-0.2, 0.5), 0.3)
    assembly.add(trunk, shirt, scale=(wide, torso, deep), at=(0, middle, 0))
    if rng.random() < 0.35:  # a bib, shirt front or pale belly
        _ball(assembly, other, (0, middle - 0.15 * torso, 0.25 * deep), (0.75 * wide, 0.7 * torso, 0.85 * deep))
    thick = rng.uniform(0.04, 0.1)
    hip = np.array([0.5 * wide, leg + 0.25 * torso, 0.0])
    stance = rng.uniform(0.0, 0.12)
    sit = rng.uniform(0.2, 0.4) if rng.random() < 0.15 else 0.0
    foot = np.array([hip[0] + stance, 0.04 + 0.5 * sit * leg, sit + rng.uniform(-0.05, 0.05)])
    knee = (hip + foot) / 2 + [0, 0.3 * sit, 0.03 + 0.3 * sit]
    assembly.add(limb(rng, detail, [hip, knee, foot], 1.3 * thick, 0.9 * thick), trousers, mirror=True)
    _ball(assembly, other, foot + [0, 0, 0.05], (1.1 * thick, 0.05, 0.09), mirror=True, fineness=0.8)
    shoulder = np.array([0.8 * wide, middle + 0.6 * torso, 0.0])
    reach = rng.uniform(0.25, 0.5)
    swing, forward = rng.uniform(-1.3, 0.9), rng.uniform(-0.3, 1.0)
    hand = shoulder + reach * np.array([0.35 + 0.5 * np.cos(swing), np.sin(swing) - 0.2, 0.6 * forward])
    elbow = (shoulder + hand) / 2 + [0.05, -0.05, -0.05]
    assembly.add(limb(rng, detail, [shoulder, elbow, hand], 0.9 * thick, 0.7 * thick), shirt, mirror=True)
    _ball(assembly, skin, hand, 0.95 * thick, mirror=True, fineness=0.7)
    at = np.array([0.0, middle + torso + 0.75 * head, 0.03])
    _head(assembly, at, head, skin, other, dark)
    if rng.random() < 0.35:
        hat = assembly.materials.new("fabric")
        crown = profiles.revolve(
            profiles.cylinder(rng.uniform(0.0, 1.0), 0.1, 2), outlines.circle(segments(18, detail, 8))
        )
        assembly.add(
            crown, hat, scale=(0.8 * head, rng.uniform(0.2, 0.7) * head, 0.8 * head), at=at + [0, 1.05 * head, 0]
        )
        if rng.random() < 0.5:
            brim = primitives.cylinder(detail, 0.0, 0.1)
            assembly.add(brim, hat, scale=(1.3 * head, 0.04, 1.3 * head), at=at + [0, 0.7 * head, 0])


def _bird(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(11)
    skin, other, dark = _coat(assembly)
    leg = rng.uniform(0.08, 0.4)
    size = np.array([rng.uniform(0.16, 0.28), rng.uniform(0.2, 0.3), rng.uniform(0.3, 0.42)])
    tilt = rng.uniform(-0.9, -0.1)
    centre = np.array([0.0, leg + size[1], 0.0])
    assembly.add(primitives.ellipsoid(1.6 * detail), skin, scale=size, turn=rotation(0, tilt), at=centre)
    head = rng.uniform(0.11, 0.2)
    place = centre + [0, 0.8 * size[1] + 0.5 * head, 0.75 * size[2]]
    assembly.add(
        limb(rng, detail, [centre + [0, 0.2, 0.15], (centre + place) / 2 + [0, 0.05, 0.12], place], 0.13, 0.7 * head),
        skin,
    )
    _ball(assembly, skin, place, head, fineness=1.2)
    beak = primitives.cylinder(detail, 1.0, 0.0, 12)
    long = rng.uniform(0.06, 0.2)
    assembly.add(
        beak,
        other,
        scale=(0.3 * head, long, 0.25 * head),
        turn=rotation(0, np.pi / 2),
        at=place + [0, 0, head + 0.6 * long],
    )
    _ball(assembly, dark, place + [0.75 * head, 0.25 * head, 0.5 * head], 0.18 * head, mirror=True, fineness=0.6)
    wing = primitives.leaf(1.5 * detail, rng.uniform(0.2, 0.4), 0.06, rng.uniform(-0.2, 0.2))
    open_ = rng.random() < 0.35
    turn = rotation(2, -rng.uniform(0.9, 1.8)) if open_ else rotation(0, -np.pi / 2 + tilt) @ rotation(1, np.pi / 2)
    span = rng.uniform(0.5, 0.9)
    assembly.add(
        wing, other, scale=span, turn=turn, at=centre + [0.85 * size[0], 0.25 * size[1], 0.3 * size[2]], mirror=True
    )
    tail = primitives.leaf(detail, 0.25, 0.08, rng.uniform(-0.2, 0.2))
    assembly.add(
        tail,
        skin,
        scale=rng.uniform(0.3, 0.5),
        turn=rotation(0, -np.pi / 2 + tilt * 0.7),
        at=centre + [0, -0.1, -0.7 * size[2]],
    )
    foot = np.array([0.4 * size[0], 0.0, 0.05])
    assembly.add(
        limb(rng, detail, [[foot[0], leg + 0.3 * size[1], 0], foot + [0, 0.5 * leg, -0.03], foot], 0.035, 0.02),
        other,
        mirror=True,
    )
    _ball(assembly, other, foot + [0, 0.01, 0.05], (0.06, 0.02, 0.09), mirror=True, fineness=0.6)


def _fish(assembly: Assembly) -> None:
    rng, detail = assembly.rng, assembly.plan(8)
    skin, other, dark = _coat(assembly)
    size = np.array([rng.uniform(0.1, 0.25), rng.uniform(0.15, 0.35), rng.uniform(0.4, 0.6)])
    body = profiles.revolve(
        profiles.ellipse(rng.uniform(1.3, 2.2), segments(18, detail, 8)), outlines.circle(segments(24, detail, 10))
    )
    assembly.add(body, skin, scale=size[[0, 2, 1]], turn=rotation(0, np.pi / 2))
    for sign in (1, -1):
        fin = primitives.leaf(detail, 0.25, 0.08, 0.0)
        turn = rotation(0, -np.pi / 2 + sign * rng.uniform(0.4, 0.8)) @ rotation(1, np.pi / 2)
        assembly.add(fin, other, scale=rng.uniform(0.3, 0.5), turn=turn, at=(0, 0, -0.9 * size[2]))
    crest = primitives.leaf(detail, rng.uniform(0.2, 0.5), 0.06, 0.0)
    assembly.add(
        crest,
        other,
        scale=rng.uniform(0.3, 0.6),
        turn=rotation(0, -1.0) @ rotation(1, np.pi / 2),
        at=(0, 0.7 * size[1], 0.1),
    )
    side = primitives.leaf(detail, 0.3, 0.08, 0.1)
    assembly.add(
        side,
        other,
        scale=rng.uniform(0.2, 0.4),
        turn=rotation(0, -0.8) @ rotation(2, -2.0),
        at=(0.7 * size[0], -0.1, 0.2),
        mirror=True,
    )
    _ball(assembly, dark, (0.45 * size[0], 0.2 * size[1], 0.78 * size[2]), 0.05, mirror=True, fineness=0.6)


def _critter(assembly: Assembly) -> None:
    """A round body with many legs: insects, spiders, toy monsters."""
    rng, detail = assembly.rng, assembly.plan(16)
    skin, other, dark = _coat(assembly)
    size = np.array([rng.uniform(0.15, 0.35), rng.uniform(0.12, 0.3), rng.uniform(0.2, 0.45)])
    height = rng.uniform(0.15, 0.4)
    assembly.add(primitives.ellipsoid(1.6 * detail), skin, scale=size, at=(0, height, -0.15))
    head = rng.uniform(0.12, 0.2)
    _head(
        assembly, np.array([0.0, height + rng.uniform(0, 0.15), -0.15 + size[2] + 0.6 * head]), head, skin, other, dark
    )
    pairs = int(rng.integers(2, 5))
    for k in range(pairs):
        z = -0.15 + size[2] * (1.2 * (k + 0.5) / pairs - 0.6)
        out = rng.uniform(0.25, 0.45)
        hip = np.array([0.7 * size[0], height, z])
        points = [hip, hip + [0.5 * out, rng.uniform(0.05, 0.25), 0.3 * z], [size[0] + out, 0.0, 2 * z]]
        assembly.add(limb(rng, 0.8 * detail, points, 0.035, 0.018), other, mirror=True)
    if rng.random() < 0.4:
        wing = primitives.leaf(detail, rng.uniform(0.25, 0.5), 0.03, 0.1)
        turn = aligned(np.array([rng.uniform(0.3, 1.0), rng.uniform(0.2, 0.8), -rng.uniform(0.2, 1.0)]))
        assembly.add(
            wing,
            assembly.materials.new("petal"),
            scale=rng.uniform(0.4, 0.8),
            turn=turn,
            at=(0.05, height + 0.8 * size[1], 0),
            mirror=True,
        )


def creature(assembly: Assembly) -> None:
    """One of the kinds above."""
    kinds = (_quadruped, _figure, _bird, _fish, _critter)
    kinds[int(assembly.rng.choice(5, p=[0.38, 0.3, 0.13, 0.07, 0.12]))](assembly)
