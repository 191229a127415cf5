"""The Gaussians of a run and their Adam, with the published learning rates."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...fitting.parameters import GROUPS, Rates, raw_parameters
from ...fitting.parameters import GaussianParameters as Parameters

__all__ = ["EXTENT", "GROUPS", "RATES", "GaussianParameters", "raw_parameters"]

RATES = Rates(
    xyz_start=5e-5,
    xyz_end=2.5e-5,
    xyz_steps=30_000,
    f_dc=0.0125,
    f_rest=0.0125 / 20,
    opacity=0.01,
    scaling=0.005,
    rotation=0.001,
)
EXTENT = 4.0  # the published scene size: distance of the test camera


class GaussianParameters(Parameters):
    """:class:`bozzetto.fitting.parameters.GaussianParameters` with GaussianDreamer's extent and rates."""

    def __init__(self, raw: Mapping[str, Tensor], extent: float = EXTENT, rates: Rates = RATES) -> None:
        super().__init__(raw, extent, rates)
