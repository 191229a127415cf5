"""Regular textures: plain, striped, chequered, woven, bricks, panels, windows."""

from __future__ import annotations

import numpy as np

from .noise import blend, cells, coordinates, ramp, soft_step
from .texture_kinds import flat, texture, whole


@texture(0.16)
def solid(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """One colour."""
    return flat(size, colors[0])


@texture(0.07, 1)
def gradient(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Two or three colours from top to bottom."""
    _, y = coordinates(size)
    return ramp(colors[: whole(rng, 2, 3)], y ** np.exp(rng.normal(0, 0.4)))


@texture(0.05, 3)
def checker(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """A chessboard."""
    x, y = coordinates(size)
    nx = 2 * whole(rng, 1, 5)
    ny = nx if rng.random() < 0.7 else 2 * whole(rng, 1, 5)
    return blend(colors[0], colors[1], (np.floor(x * nx) + np.floor(y * ny)) % 2)


@texture(0.07, 3)
def stripes(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Stripes of random widths, straight or slanted, hard or soft or wavy."""
    x, y = coordinates(size)
    nx, ny = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)][int(rng.choice(5, p=[0.3, 0.4, 0.1, 0.1, 0.1]))]
    phase = x * nx + y * ny
    if rng.random() < 0.3:
        phase = phase + rng.uniform(0.01, 0.06) * np.sin(2 * np.pi * whole(rng, 1, 3) * (y if nx else x))
    phase = phase * whole(rng, 1, 8)
    if rng.random() < 0.25:
        return blend(colors[0], colors[1], 0.5 + 0.5 * np.sin(2 * np.pi * phase))
    edges = np.sort(rng.uniform(0, 1, whole(rng, 2, 5)))
    return colors[np.searchsorted(edges, (phase % 1).ravel()).reshape(size, size) % len(colors)]


@texture(0.06, 1)
def bands(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Horizontal bands of random heights, some with a row of dots or triangles: painted pottery."""
    x, y = coordinates(size)
    edges = np.sort(rng.uniform(0, 1, whole(rng, 2, 7)))
    number = np.searchsorted(edges, y[:, 0])
    choice = rng.integers(0, 4, len(edges) + 1)
    picture = colors[choice[number]][:, None].repeat(size, 1)
    bounds = np.concatenate([[0], edges, [1]])
    for k in range(len(edges) + 1):
        if rng.random() < 0.5 and bounds[k + 1] - bounds[k] > 0.06:
            count = whole(rng, 4, 16)
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
    near, _, number = cells(rng, size, whole(rng, 2, 9), float(rng.choice([0.0, 0.0, 0.5])))
    spot = colors[1 + np.arange(number.max() + 1) % (1 if rng.random() < 0.6 else 3)][number]
    return blend(flat(size, colors[0]), spot, soft_step(near, rng.uniform(0.15, 0.4), 0.06) * -1 + 1)


@texture(0.05, 3)
def bricks(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Bricks, tiles or planks with joints; every stone has its own shade."""
    x, y = coordinates(size)
    rows = 2 * whole(rng, 1, 6)
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


@texture(0.03, 4)
def plaid(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Woven stripes both ways."""
    x, y = coordinates(size)
    edges = np.sort(rng.uniform(0, 1, 4))
    tone = rng.integers(0, 4, 5)
    repeat = whole(rng, 1, 4)
    warp = colors[tone[np.searchsorted(edges, x[0] * repeat % 1)]][None]
    weft = colors[tone[np.searchsorted(edges, y[:, 0] * repeat % 1)]][:, None]
    thread = ((np.arange(size)[None] + np.arange(size)[:, None]) // 2 % 2)[..., None]
    return np.where(thread == 1, warp, weft) * 0.6 + 0.4 * (0.5 * warp + 0.5 * weft)


@texture(0.03, 4)
def weave(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Basket work."""
    x, y = coordinates(size)
    count = 2 * whole(rng, 2, 8)
    over = (np.floor(x * count) + np.floor(y * count)) % 2
    shade = np.where(over == 1, np.abs(np.sin(np.pi * x * count)), np.abs(np.sin(np.pi * y * count)))
    return blend(colors[0], colors[1], 0.4 * over) * (0.45 + 0.55 * shade)[..., None]


@texture(0.05, 1)
def panels(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """Rectangles cut in two again and again, with seams: machines, cupboards, quilts."""
    picture = flat(size, colors[0])
    stack = [(0, 0, size, size)]
    seam = colors[0] * 0.5
    for _ in range(whole(rng, 4, 16)):
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
    columns, rows = whole(rng, 2, 7), whole(rng, 1, 6)
    u, v = x * columns % 1, y * rows % 1
    number = (np.floor(y * rows) * columns + np.floor(x * columns)).astype(np.int64)
    glass = np.array([0.12, 0.17, 0.24]) * rng.uniform(0.5, 2.0)
    tone = np.clip(1 + rng.normal(0, 0.25, rows * columns), 0.3, 2)[number]
    wide, high = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.4)
    pane = (np.abs(u - 0.5) < wide) & (np.abs(v - 0.5) < high)
    frame = (np.abs(u - 0.5) < wide + 0.06) & (np.abs(v - 0.5) < high + 0.06)
    picture = np.where(frame[..., None], colors[1], flat(size, colors[0]))
    return np.where(pane[..., None], glass * (tone * (1.2 - 0.5 * v))[..., None], picture)
