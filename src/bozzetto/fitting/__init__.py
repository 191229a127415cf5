"""Gaussians by optimisation: the fit to posed pictures, parameters under Adam, adaptive density control.

gaussians = fit_gaussians(images, cameras, steps=3000)
"""

from .fit import DensitySchedule, fit_gaussians
from .parameters import GaussianParameters, Rates

__all__ = ["DensitySchedule", "GaussianParameters", "Rates", "fit_gaussians"]
