"""Bring a made surface to the true one where a model's frame is not known: TripoSR's alignment, made definite.

TripoSR's report (Tochilkin et al. 2024, section 4) says that shapes are aligned by a linear search over the rotation angle
for the least Chamfer distance, followed by ICP; the rest is stated here. Both shapes are centred and scaled by their
bounding boxes; 36 turns about the up axis are tried; the best is refined by point-to-point ICP with rotation, translation
and one scale (Umeyama 1991), until it changes by less than a millionth or 50 rounds are over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .distances import bounding_box
from .geometry import SurfacePoints

TURNS = 36
ROUNDS = 50
POINTS = 10_000  # of each surface, the first of its samples


def similarity(source: NDArray, target: NDArray) -> NDArray[np.float64]:
    """The rotation, translation and scale [4, 4] with the least squared distance between paired points [N, 3]."""
    a, b = source.mean(0), target.mean(0)
    x, y = source - a, target - b
    u, s, vt = np.linalg.svd(y.T @ x / len(x))
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    turn = u @ np.diag(sign) @ vt
    scale = float((s * sign).sum() / max((x * x).sum() / len(x), 1e-300))
    out = np.eye(4)
    out[:3, :3] = scale * turn
    out[:3, 3] = b - scale * turn @ a
    return out


def align(made: SurfacePoints, truth: SurfacePoints) -> NDArray[np.float64]:
    """The similarity [4, 4] that brings ``made`` to ``truth``, found as the module says."""
    from scipy.spatial import cKDTree

    source, target = made.points[:POINTS], truth.points[:POINTS]
    tree = cKDTree(target)
    from_centre, from_side = bounding_box(made.points)
    to_centre, to_side = bounding_box(truth.points)
    best, least = np.eye(4), np.inf
    few = source[:: max(len(source) // 2000, 1)]
    few_target = target[:: max(len(target) // 2000, 1)]
    for k in range(TURNS):
        angle = 2 * np.pi * k / TURNS
        c, s = np.cos(angle), np.sin(angle)
        start = np.eye(4)
        start[:3, :3] = to_side / max(from_side, 1e-12) * np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        start[:3, 3] = to_centre - start[:3, :3] @ from_centre
        moved = few @ start[:3, :3].T + start[:3, 3]
        there = tree.query(moved)[0].mean()
        back = cKDTree(moved).query(few_target)[0].mean()
        if there + back < least:
            best, least = start, there + back
    return refine(source, target, best)


def refine(source: NDArray, target: NDArray, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Point-to-point ICP from ``start`` [4, 4].

    Pairs are taken both ways (each made point with its nearest true one, and each true point with its nearest made one), since
    one way alone lets the scale shrink to nothing.
    """
    from scipy.spatial import cKDTree

    tree, matrix, before = cKDTree(target), start, np.inf
    for _ in range(ROUNDS):
        moved = source @ matrix[:3, :3].T + matrix[:3, 3]
        there, nearest_target = tree.query(moved)
        back, nearest_source = cKDTree(moved).query(target)
        error = float((there**2).mean() + (back**2).mean())
        if abs(before - error) <= 1e-6 * max(error, 1e-12):
            break
        before = error
        matrix = similarity(
            np.concatenate([source, source[nearest_source]]), np.concatenate([target[nearest_target], target])
        )
    return matrix
