"""Procedural textures: functions (rng, size, colours [4, 3]) -> picture [n, n, 3] in 0..1 that tile without seams.

Each is registered with how often it is used and whether it is meant to be laid once over a part ("fit") or repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .noise import blend, cells, coordinates, fractal, ramp, sample, soft_step

Painter = Callable[[np.random.Generator, int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Texture:
    """A painter, its weight among random textures, and the most repeats that still look right."""

    paint: Painter
    weight: float
    repeats: int


TEXTURES: dict[str, Texture] = {}


def texture(weight: float, repeats: int = 4) -> Callable[[Painter], Painter]:
    """Registers a painter under its function name."""

    def register(paint: Painter) -> Painter:
        TEXTURES[paint.__name__] = Texture(paint, weight, repeats)
        return paint

    return register


def _flat(size: int, color: np.ndarray) -> np.ndarray:
    return np.broadcast_to(color.astype(np.float32), (size, size, 3)).copy()


def _whole(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


@texture(0.16)
def solid(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """One colour."""
    return _flat(size, colors[0])


@texture(0.07, 1)
def gradient(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Two or three colours from top to bottom."""
    _, y = coordinates(size)
    return ramp(colors[: _whole(rng, 2, 3)], y ** np.exp(rng.normal(0, 0.4)))


@texture(0.05, 3)
def checker(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """A chessboard."""
    x, y = coordinates(size)
    nx = 2 * _whole(rng, 1, 5)
    ny = nx if rng.random() < 0.7 else 2 * _whole(rng, 1, 5)
    return blend(colors[0], colors[1], (np.floor(x * nx) + np.floor(y * ny)) % 2)


@texture(0.07, 3)
def stripes(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Stripes of random widths, straight or slanted, hard or soft or wavy."""
    x, y = coordinates(size)
    nx, ny = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)][int(rng.choice(5, p=[0.3, 0.4, 0.1, 0.1, 0.1]))]
    phase = x * nx + y * ny
    if rng.random() < 0.3:
        phase = phase + rng.uniform(0.01, 0.06) * np.sin(2 * np.pi * _whole(rng, 1, 3) * (y if nx else x))
    phase = phase * _whole(rng, 1, 8)
    if rng.random() < 0.25:
        return blend(colors[0], colors[1], 0.5 + 0.5 * np.sin(2 * np.pi * phase))
    edges = np.sort(rng.uniform(0, 1, _whole(rng, 2, 5)))
    return colors[np.searchsorted(edges, (phase % 1).ravel()).reshape(size, size) % len(colors)]


@texture(0.06, 1)
def bands(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Horizontal bands of random heights, some with a row of dots or triangles: painted pottery."""
    x, y = coordinates(size)
    edges = np.sort(rng.uniform(0, 1, _whole(rng, 2, 7)))
    number = np.searchsorted(edges, y[:, 0])
    choice = rng.integers(0, 4, len(edges) + 1)
    picture = colors[choice[number]][:, None].repeat(size, 1)
    bounds = np.concatenate([[0], edges, [1]])
    for k in range(len(edges) + 1):
        if rng.random() < 0.5 and bounds[k + 1] - bounds[k] > 0.06:
            count = _whole(rng, 4, 16)
            rows = (y >= bounds[k]) & (y < bounds[k + 1])
            local_y = (y - bounds[k]) / (bounds[k + 1] - bounds[k]) * 2 - 1
            local_x = (x * count % 1) * 2 - 1
            if rng.random() < 0.5:
                mask = local_x**2 + local_y**2 < 0.5
            else:
                mask = np.abs(local_x) < (local_y + 1) / 2
            picture = np.where((rows & mask)[..., None], colors[(choice[k] + 1) % 4], picture)
    return picture


@texture(0.05, 3)
def dots(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Round spots on a regular or jittered grid, of one or several colours."""
    near, _, number = cells(rng, size, _whole(rng, 2, 9), float(rng.choice([0.0, 0.0, 0.5])))
    spot = colors[1 + np.arange(number.max() + 1) % (1 if rng.random() < 0.6 else 3)][number]
    return blend(_flat(size, colors[0]), spot, soft_step(near, rng.uniform(0.15, 0.4), 0.06) * -1 + 1)


@texture(0.05, 3)
def bricks(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Bricks, tiles or planks with joints; every stone has its own shade."""
    x, y = coordinates(size)
    rows = 2 * _whole(rng, 1, 6)
    columns = max(1, round(rows / rng.choice([1.0, 2.0, 3.0])))
    shift = 0.5 if rng.random() < 0.7 else 0.0
    row = np.floor(y * rows)
    across = x * columns + shift * (row % 2)
    stone = (row * columns + np.floor(across) % columns).astype(np.int64)
    shade = rng.normal(0, rng.uniform(0.0, 0.15), rows * columns)[stone]
    joint = rng.uniform(0.03, 0.12)
    u, v = across % 1, y * rows % 1
    gap = (np.minimum(u, 1 - u) * rows / columns * 0.5 < joint / 2) | (np.minimum(v, 1 - v) < joint / 2)
    return np.where(gap[..., None], colors[1], colors[0] * (1 + shade)[..., None])


@texture(0.06, 2)
def wood(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Long grain with rings."""
    warp = fractal(rng, size, 1.8, 1.0, (1.0, 6.0))
    x, _ = coordinates(size)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (x * _whole(rng, 2, 8) + warp * rng.uniform(0.5, 3)))
    grain = fractal(rng, size, 0.8, 4.0, (1.0, 16.0))
    other = colors[0] * rng.uniform(0.45, 0.8)
    return blend(colors[0], other, np.clip(0.7 * rings**2 + 0.6 * (grain - 0.5), 0, 1))


@texture(0.05, 2)
def marble(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Veins along the level lines of warped noise."""
    field = fractal(rng, size, rng.uniform(1.4, 2.0))
    x, y = coordinates(size)
    phase = x * _whole(rng, 0, 2) + y * _whole(rng, 0, 2) + field * rng.uniform(1, 3)
    vein = 1 - np.abs(np.sin(np.pi * phase))
    return ramp(colors[:3], vein ** rng.uniform(1, 5))


@texture(0.06, 3)
def clouds(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Fractal noise through a colour ramp."""
    return ramp(colors[: _whole(rng, 2, 4)], 1.4 * (fractal(rng, size, rng.uniform(0.8, 2.2)) - 0.5) + 0.5)


@texture(0.04, 2)
def camouflage(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Noise cut into three or four flat colours."""
    field = fractal(rng, size, rng.uniform(1.3, 2.2), _whole(rng, 1, 3))
    levels = np.quantile(field, np.sort(rng.uniform(0.15, 0.85, _whole(rng, 1, 3))))
    return colors[np.searchsorted(levels, field.ravel()).reshape(size, size)]


@texture(0.05, 2)
def patches(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Cells with wide joints: giraffe, pebbles, scales, stone walls."""
    near, second, number = cells(rng, size, _whole(rng, 3, 9))
    warp = 0.25 * (fractal(rng, size, 1.4) - 0.5)
    tint = colors[0] * (1 + rng.normal(0, rng.uniform(0.02, 0.15), number.max() + 1)[number])[..., None]
    return blend(colors[1], tint, soft_step(second - near + warp, rng.uniform(0.06, 0.2), 0.08))


@texture(0.03, 2)
def rosettes(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Broken rings on warped cells: leopard-like."""
    near, _, _ = cells(rng, size, _whole(rng, 4, 8), 0.8)
    near = near + 0.5 * (fractal(rng, size, 1.1, 2.0) - 0.5)
    ring = soft_step(near, 0.18, 0.06) * (1 - soft_step(near, 0.36, 0.06))
    inside = 1 - soft_step(near, 0.18, 0.06)
    return blend(blend(colors[0], colors[0] * 0.75, inside), colors[1] * 0.6, ring)


@texture(0.03, 2)
def zebra(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Wavy branching stripes: level sets of band-limited noise."""
    stretch = (1.0, rng.uniform(2, 5)) if rng.random() < 0.5 else (rng.uniform(2, 5), 1.0)
    field = fractal(rng, size, 4.0, _whole(rng, 3, 7), stretch)
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
    picture = _flat(size, colors[0])
    radii = 0.5 * size / (1 + rng.uniform(0, 1, 48) * _whole(rng, 4, 14))
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


@texture(0.03, 4)
def plaid(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Woven stripes both ways."""
    x, y = coordinates(size)
    edges = np.sort(rng.uniform(0, 1, 4))
    tone = rng.integers(0, 4, 5)
    repeat = _whole(rng, 1, 4)
    warp = colors[tone[np.searchsorted(edges, x[0] * repeat % 1)]][None]
    weft = colors[tone[np.searchsorted(edges, y[:, 0] * repeat % 1)]][:, None]
    thread = ((np.arange(size)[None] + np.arange(size)[:, None]) // 2 % 2)[..., None]
    return np.where(thread == 1, warp, weft) * 0.6 + 0.4 * (0.5 * warp + 0.5 * weft)


@texture(0.03, 4)
def weave(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Basket work."""
    x, y = coordinates(size)
    count = 2 * _whole(rng, 2, 8)
    over = (np.floor(x * count) + np.floor(y * count)) % 2
    shade = np.where(over == 1, np.abs(np.sin(np.pi * x * count)), np.abs(np.sin(np.pi * y * count)))
    return blend(colors[0], colors[1], 0.4 * over) * (0.45 + 0.55 * shade)[..., None]


@texture(0.05, 1)
def panels(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Rectangles cut in two again and again, with seams: machines, cupboards, quilts."""
    picture = _flat(size, colors[0])
    stack = [(0, 0, size, size)]
    seam = colors[0] * 0.5
    for _ in range(_whole(rng, 4, 16)):
        k = int(np.argmax([(b - y) * (r - x) * rng.uniform(0.3, 1) for x, y, r, b in stack]))
        x, y, right, bottom = stack.pop(k)
        cut = rng.uniform(0.3, 0.7)
        if right - x > bottom - y:
            m = int(x + cut * (right - x))
            stack += [(x, y, m, bottom), (m, y, right, bottom)]
        else:
            m = int(y + cut * (bottom - y))
            stack += [(x, y, right, m), (x, m, right, bottom)]
    spread, mixed = rng.uniform(0.0, 0.12), rng.random() < 0.35
    line = max(1, size // 96)
    for x, y, right, bottom in stack:
        color = colors[int(rng.integers(4))] if mixed or rng.random() < 0.1 else colors[0]
        picture[y:bottom, x:right] = np.clip(color * (1 + rng.normal(0, spread)), 0, 1)
        picture[y : y + line, x:right] = seam
        picture[y:bottom, x : x + line] = seam
    return picture


@texture(0.04, 2)
def windows(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Rows of panes in a wall, some of them lit: buildings, buses, control panels."""
    x, y = coordinates(size)
    columns, rows = _whole(rng, 2, 7), _whole(rng, 1, 6)
    u, v = x * columns % 1, y * rows % 1
    number = (np.floor(y * rows) * columns + np.floor(x * columns)).astype(np.int64)
    glass = np.array([0.12, 0.17, 0.24]) * rng.uniform(0.5, 2.0)
    tone = np.clip(1 + rng.normal(0, 0.25, rows * columns), 0.3, 2)[number]
    wide, high = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.4)
    pane = (np.abs(u - 0.5) < wide) & (np.abs(v - 0.5) < high)
    frame = (np.abs(u - 0.5) < wide + 0.06) & (np.abs(v - 0.5) < high + 0.06)
    picture = np.where(frame[..., None], colors[1], _flat(size, colors[0]))
    return np.where(pane[..., None], glass * (tone * (1.2 - 0.5 * v))[..., None], picture)


def _glyphs(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random letter-like marks: connected strokes on a 5 x 7 grid, with a free column and row, [count, 8, 6]."""
    marks = np.zeros((count, 8, 6), bool)
    for mark in marks:
        for _ in range(int(rng.integers(2, 5))):
            if rng.random() < 0.5:
                row, (a, b) = int(rng.choice([0, 3, 6])), np.sort(rng.choice(5, 2, replace=False))
                mark[row, a : b + 1] = True
            else:
                column, (a, b) = int(rng.choice([0, 2, 4])), np.sort(rng.choice([0, 3, 6], 2, replace=False))
                mark[a : b + 1, column] = True
    return marks


def _write(rng: np.random.Generator, mask: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """Fills a box of ``mask`` with lines of letter-like marks."""
    scale = max(1, int(rng.integers(1, max(2, height // 8 + 1))))
    lines, columns = height // (8 * scale), width // (6 * scale)
    if lines < 1 or columns < 1:
        return
    alphabet = _glyphs(rng, 12)
    text = alphabet[rng.integers(0, 12, (lines, columns))]  # [lines, columns, 8, 6]
    text[rng.random((lines, columns)) < 0.15] = False
    block = text.transpose(0, 2, 1, 3).reshape(lines * 8, columns * 6).repeat(scale, 0).repeat(scale, 1)
    block = block[:height, :width]
    mask[top : top + block.shape[0], left : left + block.shape[1]] |= block


@texture(0.05, 1)
def label(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """A printed label: frame, lines of letter-like marks, a disc or bar as a logo. The middle faces the front."""
    picture = _flat(size, colors[0])
    x, y = coordinates(size)
    half_w, half_h = rng.uniform(0.12, 0.5), rng.uniform(0.12, 0.4)
    cx, cy = 0.5, rng.uniform(0.4, 0.6)
    inside = (np.abs(x - cx) < half_w) & (np.abs(y - cy) < half_h)
    border = (np.abs(x - cx) < half_w + 0.015) & (np.abs(y - cy) < half_h + 0.015)
    picture[border] = colors[2]
    picture[inside] = colors[1]
    if rng.random() < 0.6:
        radius = rng.uniform(0.04, 0.5) * half_h
        logo = (x - cx - rng.uniform(-0.3, 0.3) * half_w) ** 2 + (y - cy + 0.5 * half_h) ** 2 < radius**2
        picture[logo & inside] = colors[3]
    mask = np.zeros((size, size), bool)
    left, top = int((cx - 0.85 * half_w) * size), int((cy + rng.uniform(-0.6, 0.0) * half_h) * size)
    _write(rng, mask, left, top, int(1.7 * half_w * size), int((cy + 0.9 * half_h) * size) - top)
    picture[mask & inside] = colors[2] if np.abs(colors[2] - colors[1]).sum() > 0.4 else 1 - colors[1]
    return picture


@texture(0.03, 3)
def print_page(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Letter-like marks all over: newspaper, wrapping."""
    mask = np.zeros((size, size), bool)
    _write(rng, mask, 0, 0, size, size)
    dark = colors[1] if np.abs(colors[1] - colors[0]).sum() > 0.5 else 1 - colors[0]
    return np.where(mask[..., None], dark, _flat(size, colors[0]))


@texture(0.04, 1)
def decals(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """A few big shapes (discs, bars, rings, stars of few points) on a ground."""
    picture = _flat(size, colors[0])
    x, y = coordinates(size)
    for k in range(_whole(rng, 1, 4)):
        dx = x - rng.uniform(0, 1)
        dy = y - rng.uniform(0, 1)
        dx, dy = dx - np.round(dx), dy - np.round(dy)
        radius = rng.uniform(0.06, 0.25)
        distance = np.sqrt(dx**2 + dy**2)
        kind = rng.integers(4)
        if kind == 0:
            mask = distance < radius
        elif kind == 1:
            mask = np.abs(distance - radius) < 0.25 * radius
        elif kind == 2:
            mask = (np.abs(dx) < radius * rng.uniform(0.2, 1.2)) & (np.abs(dy) < radius * rng.uniform(0.2, 1.2))
        else:
            mask = distance < radius * (0.7 + 0.3 * np.cos(_whole(rng, 3, 7) * np.arctan2(dx, dy)))
        picture[mask] = colors[1 + k % 3]
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
    return blend(_flat(size, colors[0]), ground, soft_step(field, rng.uniform(0.5, 0.75), 0.05))
