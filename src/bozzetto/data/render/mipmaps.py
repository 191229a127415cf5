"""Mip chains: each level halves the one before with a 2x2 box filter.

The filter works on the stored sRGB values (as the renderer does when it averages samples). Colours are weighted by alpha,
so that the hidden colour of transparent texels does not bleed into their neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def _halve(texture: np.ndarray, out: np.ndarray) -> None:
    # A side of length 1 counts its only row or column twice.
    down, across = min(texture.shape[0] - 1, 1), min(texture.shape[1] - 1, 1)
    for y in range(out.shape[0]):
        upper, lower = texture[y * (1 + down)], texture[y * (1 + down) + down]
        for x in range(out.shape[1]):
            left = x * (1 + across)
            right = left + across
            a0, a1, a2, a3 = int(upper[left, 3]), int(upper[right, 3]), int(lower[left, 3]), int(lower[right, 3])
            alpha = a0 + a1 + a2 + a3
            same = a0 == a1 and a0 == a2 and a0 == a3
            for k in range(3):
                c0, c1, c2, c3 = int(upper[left, k]), int(upper[right, k]), int(lower[left, k]), int(lower[right, k])
                if same:
                    out[y, x, k] = (c0 + c1 + c2 + c3 + 2) >> 2
                else:
                    out[y, x, k] = (c0 * a0 + c1 * a1 + c2 * a2 + c3 * a3 + alpha // 2) // alpha
            out[y, x, 3] = (alpha + 2) >> 2


def mip_chain(texture: np.ndarray) -> list[np.ndarray]:
    """All levels of an [h, w, 4] uint8 RGBA texture (h, w powers of two), the full one first and 1x1 last."""
    levels = [np.ascontiguousarray(texture)]
    while max(levels[-1].shape[:2]) > 1:
        height, width = (max(side // 2, 1) for side in levels[-1].shape[:2])
        out = np.empty((height, width, 4), np.uint8)
        _halve(levels[-1], out)
        levels.append(out)
    return levels
