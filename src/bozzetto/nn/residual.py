"""The end of a residual branch in one pass over memory: sum, bias and scale, and a 1x1 convolution where one stands there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backend import kernels, pointwise_kernel, use_kernels
from .convolution import pointwise
from .turn import AS_THEY_ARE, turn_pictures


def add_scaled(
    x: Tensor,
    y: Tensor,
    bias: Tensor | None = None,
    scale: float = 1.0,
    turn: tuple[int, int] = AS_THEY_ARE,
    moments: bool = False,
) -> Tensor:
    """``(x + y + bias) * scale``, differentiable, in ``x``'s dtype and memory format; sums are float32.

    Args:
        x, y: [N, C, H, W], or tokens [..., C]; the same shape, dtype and layout.
        bias: [C], that of the convolutions or linear layers that made ``x`` and ``y``; along axis 1 for maps (4 dimensions),
            along the last for tokens.
        turn: (V, T): ``y``'s pictures are ordered (batch, V, T), those of ``x`` and of the result (batch, T, V).
        moments: a group norm reads the result, a map: where that saves a pass, its moments go along (:mod:`.moments`).
    """
    if not use_kernels(x) or x.dtype != y.dtype or not _channels_fastest(x) or x.stride() != y.stride():
        return add_scaled_torch(x, y, bias, scale, turn)
    return add_scaled_triton(x, y, bias, scale, turn, moments)


def _channels_fastest(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.is_contiguous()


def add_scaled_triton(
    x: Tensor,
    y: Tensor,
    bias: Tensor | None = None,
    scale: float = 1.0,
    turn: tuple[int, int] = AS_THEY_ARE,
    moments: bool = False,
) -> Tensor:
    """:func:`add_scaled` by the Triton kernel; maps must be channels-last, tokens contiguous."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, y, bias)):
        return _AddScaled.apply(x, turn_pictures(y, turn), bias, scale, moments)
    return kernels()[2].add_scaled(x, y, bias, x.shape[1 if x.dim() == 4 else -1], scale, turn, moments)


def add_pointwise(
    residual: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: float = 1.0,
    skip: Tensor | None = None,
    turn: tuple[int, int] = AS_THEY_ARE,
    moments: bool = False,
) -> Tensor:
    """``(residual + conv2d(cat([x, skip], 1), weight) + bias) * scale``, a 1x1 convolution, differentiable.

    Args:
        residual: [N, D, H, W], channels-last as ``x`` and ``skip``.
        x, skip: [N, C1, H, W], [N, C2, H, W].
        weight: [D, C1 + C2, 1, 1], or as a linear layer's [D, C1 + C2].
        bias: [D].
        turn: (V, T): pictures of ``x`` are ordered (batch, V, T), those of ``residual`` and of the result (batch, T, V).
        moments: as for :func:`add_scaled`.
    """
    maps = [t for t in (residual, x, skip) if t is not None]
    if use_kernels(x) and not (torch.is_grad_enabled() and any(t.requires_grad for t in (*maps, weight, bias))):
        kernel = pointwise_kernel()
        same = all(t.dtype == x.dtype for t in (*maps, weight)) and all(_channels_fastest(t) for t in maps)
        if same and kernel.fits(x, skip, len(weight)):
            return kernel.pointwise_add(x, skip, weight.flatten(1), residual, bias, scale, turn, moments)
    return add_scaled(residual, pointwise(x.to(residual.dtype), weight, skip), bias, scale, turn, moments)


def bias_gradient(grad: Tensor) -> Tensor:
    """Sum over pixels of maps [N, C, H, W], or over tokens [..., C]: [C], float32."""
    if use_kernels(grad) and _channels_fastest(grad):
        return kernels()[2].column_sums(grad, grad.shape[1 if grad.dim() == 4 else -1])
    return grad.sum((0, 2, 3) if grad.dim() == 4 else tuple(range(grad.dim() - 1)), dtype=torch.float32)


class _AddScaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, bias, scale, moments):
        ctx.scale, ctx.bias = scale, None if bias is None else bias.dtype
        return kernels()[2].add_scaled(x, y, bias, x.shape[1 if x.dim() == 4 else -1], scale, moments=moments)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        by_bias = None
        if not ctx.needs_input_grad[2]:
            grad = grad * ctx.scale if ctx.scale != 1.0 else grad
        elif ctx.scale != 1.0 and use_kernels(grad) and _channels_fastest(grad):
            grad, by_bias = kernels()[2].scaled_with_sums(grad, grad.shape[1 if grad.dim() == 4 else -1], ctx.scale)
        else:
            grad = grad * ctx.scale if ctx.scale != 1.0 else grad
            by_bias = bias_gradient(grad)
        return grad, grad, None if by_bias is None else by_bias.to(ctx.bias), None, None


def add_scaled_torch(
    x: Tensor, y: Tensor, bias: Tensor | None = None, scale: float = 1.0, turn: tuple[int, int] = AS_THEY_ARE
) -> Tensor:
    """:func:`add_scaled` in plain PyTorch."""
    x = x + turn_pictures(y, turn)
    if bias is not None:
        bias = bias.to(x.dtype)
        x = x + (bias[:, None, None] if x.dim() == 4 else bias)
    return x if scale == 1.0 else x * scale
