"""Two losses on how much of a picture is covered.

In the published code both act on a depth picture whose rasterizer has no backward pass, so they change nothing there.
Here they act on the rendered alpha and do have an effect; both are off by default, so that the default is the published
result.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sparsity_loss(alpha: Tensor) -> Tensor:
    """mean sqrt(alpha^2 + 0.01): pulls empty space clear. Any shape -> scalar."""
    return (alpha * alpha + 0.01).sqrt().mean()


def opaque_loss(alpha: Tensor) -> Tensor:
    """Binary entropy of the coverage (clamped to 0.001..0.999), the cross-entropy of alpha with itself: pulls every pixel
    to full or empty. Any shape -> scalar.
    """
    a = alpha.clamp(1e-3, 1 - 1e-3)
    return -(a * torch.log(a) + (1 - a) * torch.log(1 - a)).mean()
