"""Gaussians by optimisation: the fit to posed pictures, the refining of predicted ones, their parameters and density control.

gaussians = fit_gaussians(images, cameras, steps=3000)
gaussians = refine_gaussians(gaussians, rgba, cameras)  # of a network, on the pictures that it was given
"""

from .fit import DensitySchedule, fit_gaussians
from .parameters import GaussianParameters, Rates
from .refine import RefinementRates, refine_gaussians

__all__ = [
    "DensitySchedule",
    "GaussianParameters",
    "Rates",
    "RefinementRates",
    "fit_gaussians",
    "refine_gaussians",
]
