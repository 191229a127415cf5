"""Mip chains: each level halves the one before with a 2x2 box filter.

The filter works on the stored sRGB values (as the renderer does when it averages samples). Where alpha varies, colours
are weighted by alpha, so that the hidden colour of transparent texels does not bleed into their neighbours.
"""

from __future__ import annotations

import numpy as np


def _pairs(x: np.ndarray) -> np.ndarray:
    """Sums of neighbouring pairs along both axes of [h, w, c]; an axis of length 1 is counted twice."""
    x = x[0::2] + x[1::2] if x.shape[0] > 1 else x + x
    return x[:, 0::2] + x[:, 1::2] if x.shape[1] > 1 else x + x


def halve(texture: np.ndarray) -> np.ndarray:
    """One [h, w, 4] uint8 RGBA texture (h, w powers of two) -> the next smaller level, at least 1x1."""
    alpha = texture[..., 3]
    if alpha.min() == alpha.max():
        return ((_pairs(texture.astype(np.uint16)) + 2) >> 2).astype(np.uint8)
    weighted = texture.astype(np.float32)
    weighted[..., :3] *= weighted[..., 3:]
    total = _pairs(weighted)
    plain = _pairs(texture[..., :3].astype(np.float32)) * 0.25  # where all four are transparent
    weight = total[..., 3:]
    colour = np.where(weight > 0, total[..., :3] / np.maximum(weight, 1.0), plain)
    return (np.concatenate([colour, weight * 0.25], axis=-1) + 0.5).astype(np.uint8)


def mip_chain(texture: np.ndarray) -> list[np.ndarray]:
    """All levels of an [h, w, 4] uint8 texture, the full one first and 1x1 last."""
    levels = [texture]
    while max(levels[-1].shape[:2]) > 1:
        levels.append(halve(levels[-1]))
    return levels
