"""Gaussians by optimisation: their parameters under Adam, adaptive density control, and the fit to posed pictures."""
