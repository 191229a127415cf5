"""Measures of one surface against the true one.

Lengths are in units of the longest side of the true surface's bounding box, so that an F-score at 0.01 asks for one per
cent of the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import SurfacePoints

THRESHOLDS = (0.01, 0.02, 0.05)


@dataclass
class MeshScores:
    """Attributes:
    chamfer: mean distance (not squared) from made to true and from true to made, averaged.
    f_score: by threshold: harmonic mean of precision and recall, 0..1.
    normal_consistency: mean |cosine| between a point's normal and that of its nearest point on the other surface,
        both ways averaged, 0..1. The sign is not looked at: not every collection turns its triangles outwards.
    """

    chamfer: float
    f_score: dict[float, float]
    normal_consistency: float

    def flat(self, prefix: str = "") -> dict[str, float]:
        """As named numbers: ``chamfer``, ``f_score_0.01`` and so on."""
        out = {"chamfer": self.chamfer, "normal_consistency": self.normal_consistency}
        out |= {f"f_score_{t:g}": v for t, v in self.f_score.items()}
        return {prefix + k: v for k, v in out.items()}


def bounding_box(points: NDArray) -> tuple[NDArray[np.float64], float]:
    """Centre [3] and longest side of the axis-aligned bounding box."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float((high - low).max())


def compare_surfaces(
    made: SurfacePoints,
    truth: SurfacePoints,
    unit: float,
    wanted: NDArray[np.bool_] | None = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> MeshScores:
    """Distances between two sampled surfaces in one frame.

    Args:
        made, truth: samples of both.
        unit: the length that counts as 1 (the longest side of the truth's bounding box).
        wanted: [N] of the true points, those that can be seen from outside: only they ask to be covered; every true point
            may be matched. None: all of them.
    """
    from scipy.spatial import cKDTree

    asked = truth if wanted is None else truth.select(wanted)
    to_truth, nearest_true = cKDTree(truth.points).query(made.points)
    to_made, nearest_made = cKDTree(made.points).query(asked.points)
    to_truth, to_made = to_truth / unit, to_made / unit
    scores = {}
    for t in thresholds:
        precision, recall = float((to_truth < t).mean()), float((to_made < t).mean())
        scores[t] = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    normals = [
        np.abs((made.normals * truth.normals[nearest_true]).sum(-1)).mean(),
        np.abs((asked.normals * made.normals[nearest_made]).sum(-1)).mean(),
    ]
    return MeshScores(float(to_truth.mean() + to_made.mean()) / 2, scores, float(np.mean(normals)))
