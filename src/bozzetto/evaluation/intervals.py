"""Means with 95 % confidence intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 10_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean, the ends of its 95 % confidence interval, and of how many values."""

    mean: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)


def bootstrap(groups: Mapping[str, Sequence[float]] | Sequence[float], seed: int = 0) -> Interval:
    """The mean of values, or the mean of the means of groups of them, with percentile bootstrap over the values.

    Every resample draws as many values as there are, with replacement, within each group (NumPy's PCG64, ``seed``). Values
    that are NaN are left out; with a single value the interval is that value.
    """
    named = groups if isinstance(groups, Mapping) else {"": groups}
    arrays = [np.asarray(list(v), np.float64) for v in named.values()]
    arrays = [a[np.isfinite(a)] for a in arrays]
    arrays = [a for a in arrays if len(a)]
    if not arrays:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = np.mean([a[rng.integers(len(a), size=(RESAMPLES, len(a)))].mean(1) for a in arrays], axis=0)
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(np.mean([a.mean() for a in arrays])), float(low), float(high), sum(len(a) for a in arrays))
