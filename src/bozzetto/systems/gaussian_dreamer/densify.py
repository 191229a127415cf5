"""GaussianDreamer's density control: that of :mod:`bozzetto.fitting.density`, with a higher floor for the opacity.

**The effective threshold.** The published run trains in mixed precision: the loss is multiplied by a scale (65,536 at
first, halved at an overflow) and only the parameters' gradients are divided by it again, not the screen-space ones. Its
threshold of 2e-4 is therefore 2e-4 / 65,536 in the loss's own units, and nearly every visible Gaussian passes it. Here
the loss is never scaled; ``grad_scale`` says by how much the statistic is multiplied, 65,536 for the published effect
and 1 for what the number 2e-4 says.
"""

from __future__ import annotations

from functools import partial

from ...fitting.density import DensificationStats, screen_gradient, screen_radii
from ...fitting.density import densify_and_prune as _densify_and_prune

__all__ = ["MIN_OPACITY", "DensificationStats", "densify_and_prune", "screen_gradient", "screen_radii"]

MIN_OPACITY = 0.05
densify_and_prune = partial(_densify_and_prune, min_opacity=MIN_OPACITY)
