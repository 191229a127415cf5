"""Printed textures: labels, letter-like marks, decals."""

from __future__ import annotations

import numpy as np

from .noise import coordinates
from .texture_kinds import flat, texture, whole


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
    picture = flat(size, colors[0])
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
    return np.where(mask[..., None], dark, flat(size, colors[0]))


@texture(0.04, 1)
def decals(rng: np.random.Generator, size: int, colors: np.ndarray) -> np.ndarray:
    """A few big shapes (discs, bars, rings, stars of few points) on a ground."""
    picture = flat(size, colors[0])
    x, y = coordinates(size)
    for k in range(whole(rng, 1, 4)):
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
            mask = distance < radius * (0.7 + 0.3 * np.cos(whole(rng, 3, 7) * np.arctan2(dx, dy)))
        picture[mask] = colors[1 + k % 3]
    return picture
