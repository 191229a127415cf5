"""Noisy point growing and colour perturbation (GaussianDreamer, section 3.3): a sparse cloud becomes a dense one.

Arrays are NumPy, because the published clouds are a function of NumPy's legacy random stream: the same seed gives the
same cloud, bit for bit.
"""

from __future__ import annotations

import numpy as np

from ...errors import InputError

CANDIDATES = 1_000_000  # uniform in the cloud's bounding box
REACH = 0.01  # a candidate nearer than this to the cloud is kept; units of the cloud, before any scaling
COLOUR_NOISE = 0.2  # a grown point's colour is its neighbour's plus up to this much, per channel


def grow_points(
    points: np.ndarray,
    rgb: np.ndarray,
    *,
    candidates: int = CANDIDATES,
    reach: float = REACH,
    colour_noise: float = COLOUR_NOISE,
    random: np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Add points near the cloud: uniform candidates in its bounding box whose nearest point is closer than ``reach``.

    Args:
        points: [N, 3], any frame. rgb: [N, 3], 0..1.
        random: the stream to draw from (all positions first, then the colours of the kept ones); None is seed 0.

    Returns:
        points [G + N, 3] and rgb [G + N, 3], float64, the G grown ones first. Grown colours may exceed 1.

    Raises:
        InputError: there are no points.
    """
    from scipy.spatial import cKDTree

    points, rgb = np.asarray(points, np.float64), np.asarray(rgb, np.float64)
    if len(points) == 0:
        raise InputError("the start cloud has no points; give a file that has some")
    random = random or np.random.RandomState(0)
    drawn = random.uniform(points.min(axis=0), points.max(axis=0), (candidates, 3))
    # The bound lets the search stop early; it is wider than the threshold so that rounding in it decides nothing.
    distance, nearest = cKDTree(points).query(drawn, distance_upper_bound=1.001 * reach)
    kept = distance < reach
    grown = drawn[kept]
    colours = rgb[nearest[kept]] + colour_noise * random.random_sample((len(grown), 3))
    return np.concatenate([grown, points]), np.concatenate([colours, rgb])
