"""Tileable random fields on an n x n picture, float32."""

from __future__ import annotations

import numpy as np

Field = np.ndarray


def coordinates(size: int) -> tuple[Field, Field]:
    """(x, y) of the pixel centres, 0..1, each [n, n]; x runs to the right and y down."""
    ticks = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return np.broadcast_to(ticks[None], (size, size)), np.broadcast_to(ticks[:, None], (size, size))


def fractal(
    rng: np.random.Generator,
    size: int,
    slope: float = 1.6,
    lowest: float = 1.0,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> Field:
    """Noise with amplitude 1 / frequency^slope from ``lowest`` cycles up, in 0..1 with mean 0.5.

    ``stretch`` (x, y) above 1 draws features out along that axis.
    """
    fx = np.fft.rfftfreq(size, 1 / size).astype(np.float32) * stretch[0]
    fy = np.fft.fftfreq(size, 1 / size).astype(np.float32) * stretch[1]
    frequency = np.sqrt(fx[None] ** 2 + fy[:, None] ** 2)
    gain = np.where(frequency >= lowest * 0.99, np.maximum(frequency, 1e-3) ** -slope, 0.0).astype(np.float32)
    white = rng.standard_normal((2, *gain.shape), dtype=np.float32)
    field = np.fft.irfft2((white[0] + 1j * white[1]) * gain, s=(size, size)).astype(np.float32)
    field -= field.mean()
    return np.clip(0.5 + field * (0.2 / max(float(field.std()), 1e-12)), 0, 1)


def sample(field: Field, x: Field, y: Field) -> Field:
    """``field`` at texture positions (x, y) that wrap, nearest pixel."""
    size = field.shape[0]
    return field[(y * size).astype(np.int64) % size, (x * size).astype(np.int64) % size]


def cells(rng: np.random.Generator, size: int, count: int, jitter: float = 0.9) -> tuple[Field, Field, Field]:
    """Voronoi cells of count x count jittered points that wrap.

    Returns the distances to the nearest and the second point in cell widths, and the nearest point's number
    (0..count^2 - 1), each [n, n].
    """
    px = (np.arange(count)[None] + 0.5 + rng.uniform(-0.5, 0.5, (count, count)) * jitter).astype(np.float32)
    py = (np.arange(count)[:, None] + 0.5 + rng.uniform(-0.5, 0.5, (count, count)) * jitter).astype(np.float32)
    x, y = coordinates(size)
    x, y = x * count, y * count
    cx, cy = x.astype(np.int32), y.astype(np.int32)
    nearest = np.full((size, size), 9.0, np.float32)
    second = nearest.copy()
    number = np.zeros((size, size), np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            nx, ny = cx + dx, cy + dy
            wx, wy = nx % count, ny % count
            distance = (px[wy, wx] + (nx - wx) - x) ** 2 + (py[wy, wx] + (ny - wy) - y) ** 2
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            number = np.where(closer, wy * count + wx, number)
            nearest = np.where(closer, distance, nearest)
    return np.sqrt(nearest), np.sqrt(second), number


def soft_step(value: Field, edge: float, width: float) -> Field:
    """0 below ``edge``, 1 above, a linear ramp of ``width`` between."""
    return np.clip((value - edge) / max(width, 1e-6) + 0.5, 0, 1)


def blend(a: np.ndarray, b: np.ndarray, mask: Field) -> np.ndarray:
    """a where mask is 0, b where it is 1; a and b are colours [3] or pictures [n, n, 3]."""
    return a + (b - a) * mask[..., None]


def ramp(colors: np.ndarray, value: Field) -> np.ndarray:
    """Colours [K, 3] along 0..1, linearly between, at ``value``: [n, n, 3]."""
    table = np.stack([np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(colors)), c) for c in colors.T], -1)
    return table.astype(np.float32)[(np.clip(value, 0, 1) * 255).astype(np.int64)]
