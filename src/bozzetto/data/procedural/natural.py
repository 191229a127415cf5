"""Irregular textures: wood, stone, coats of animals, foliage, wear."""

from __future__ import annotations

import numpy as np

from .noise import blend, cells, coordinates, fractal, ramp, sample, soft_step
from .texture_kinds import flat, texture, whole


@texture(0.06, 2)
def wood(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Long grain with rings."""
    warp = fractal(rng, size, 1.8, 1.0, (1.0, 6.0))
    x, _ = coordinates(size)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (x * whole(rng, 2, 8) + warp * rng.uniform(0.5, 3)))
    grain = fractal(rng, size, 0.8, 4.0, (1.0, 16.0))
    other = colors[0] * rng.uniform(0.45, 0.8)
    return blend(colors[0], other, np.clip(0.7 * rings**2 + 0.6 * (grain - 0.5), 0, 1))


@texture(0.05, 2)
def marble(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Veins along the level lines of warped noise."""
    field = fractal(rng, size, rng.uniform(1.4, 2.0))
    x, y = coordinates(size)
    phase = x * whole(rng, 0, 2) + y * whole(rng, 0, 2) + field * rng.uniform(1, 3)
    vein = 1 - np.abs(np.sin(np.pi * phase))
    return ramp(colors[:3], vein ** rng.uniform(1, 5))


@texture(0.06, 3)
def clouds(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Fractal noise through a colour ramp."""
    return ramp(colors[: whole(rng, 2, 4)], 1.4 * (fractal(rng, size, rng.uniform(0.8, 2.2)) - 0.5) + 0.5)


@texture(0.04, 2)
def camouflage(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Noise cut into three or four flat colours."""
    field = fractal(rng, size, rng.uniform(1.3, 2.2), whole(rng, 1, 3))
    levels = np.quantile(field, np.sort(rng.uniform(0.15, 0.85, whole(rng, 1, 3))))
    return colors[np.searchsorted(levels, field.ravel()).reshape(size, size)]


@texture(0.05, 2)
def patches(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Cells with wide joints: giraffe, pebbles, scales, stone walls."""
    near, second, number = cells(rng, size, whole(rng, 3, 9))
    warp = 0.25 * (fractal(rng, size, 1.4) - 0.5)
    tint = colors[0] * (1 + rng.normal(0, rng.uniform(0.02, 0.15), number.max() + 1)[number])[..., None]
    return blend(colors[1], tint, soft_step(second - near + warp, rng.uniform(0.06, 0.2), 0.08))


@texture(0.03, 2)
def rosettes(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Broken rings on warped cells: leopard-like."""
    near, _, _ = cells(rng, size, whole(rng, 4, 8), 0.8)
    near = near + 0.5 * (fractal(rng, size, 1.1, 2.0) - 0.5)
    ring = soft_step(near, 0.18, 0.06) * (1 - soft_step(near, 0.36, 0.06))
    inside = 1 - soft_step(near, 0.18, 0.06)
    return blend(blend(colors[0], colors[0] * 0.75, inside), colors[1] * 0.6, ring)


@texture(0.03, 2)
def zebra(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Wavy branching stripes: level sets of band-limited noise."""
    stretch = (1.0, rng.uniform(2, 5)) if rng.random() < 0.5 else (rng.uniform(2, 5), 1.0)
    field = fractal(rng, size, 4.0, whole(rng, 3, 7), stretch)
    return blend(colors[0], colors[1], soft_step(field, 0.5, 0.06))


@texture(0.05, 3)
def fur(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Short strands over slowly varying colour."""
    strands = fractal(rng, size, 0.7, 4.0, (1.0, rng.uniform(4, 10)))
    x, y = coordinates(size)
    bendy = fractal(rng, size, 2.0)
    strands = sample(strands, x + 0.15 * (bendy - 0.5), y)
    base = ramp(np.stack([colors[0] * 0.7, colors[0], 0.6 * colors[0] + 0.4 * colors[1]]), fractal(rng, size, 1.8))
    return base * (0.55 + 0.9 * strands)[..., None]


@texture(0.05, 2)
def leaves(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Overlapping discs of many sizes, each with its own colour (a dead-leaves picture: statistics like a photo's)."""
    picture = flat(size, colors[0])
    radii = 0.5 * size / (1 + rng.uniform(0, 1, 48) * whole(rng, 4, 14))
    for radius, tone in zip(np.sort(radii)[::-1], rng.integers(0, 4, 48), strict=True):
        r = max(2, int(radius))
        ticks = np.arange(-r, r + 1)
        mask = ticks[None] ** 2 + ticks[:, None] ** 2 <= r * r
        rows = (int(rng.integers(size)) + ticks) % size
        columns = (int(rng.integers(size)) + ticks) % size
        window = np.ix_(rows, columns)
        color = np.clip(colors[tone] * (1 + rng.normal(0, 0.2)), 0, 1)
        picture[window] = np.where(mask[..., None], color, picture[window])
    return picture


@texture(0.04, 2)
def speckle(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Fine grains: granite, bread, gravel."""
    grain = fractal(rng, size, rng.uniform(0.2, 0.8), 6.0)
    picture = blend(colors[0], colors[0] * 0.6, soft_step(grain, 0.6, 0.1))
    return blend(picture, colors[1], soft_step(grain, rng.uniform(0.15, 0.35), 0.05) * -1 + 1)


@texture(0.04, 2)
def rust(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Paint with worn patches that show another material."""
    field = fractal(rng, size, rng.uniform(1.0, 1.6))
    worn = np.array([0.36, 0.2, 0.1]) if rng.random() < 0.6 else colors[1]
    ground = worn * (0.6 + 0.8 * fractal(rng, size, 0.9))[..., None]
    return blend(flat(size, colors[0]), ground, soft_step(field, rng.uniform(0.5, 0.75), 0.05))
