"""Group normalisation with what usually stands around it: a concatenation, an added vector, SiLU.

Source of the method: Wu & He 2018, "Group Normalization" (arXiv 1803.08494). The plain PyTorch twin is the model of the
kernels and the path on the CPU, under ``torch.compile``, without Triton and for maps that are not channels-last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .backend import kernels, use_kernels
from .residual import bias_gradient
from .turn import AS_THEY_ARE, turn_pictures


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    skip: Tensor | None = None,
    shift: Tensor | None = None,
    turn: tuple[int, int] = AS_THEY_ARE,
) -> Tensor:
    """``silu(group_norm(cat([x, skip], 1) + shift))``, differentiable, in ``x``'s dtype and memory format.

    Statistics and arithmetic are float32. With channels-last maps on CUDA, the concatenation and the sum are never written
    to memory.

    Args:
        x: [N, C1, H, W].
        groups: number of groups of neighbouring channels; divides C = C1 + C2.
        weight, bias: [C].
        silu: whether ``y * sigmoid(y)`` follows.
        skip: [N, C2, H, W] more channels behind ``x``'s, of the same dtype.
        shift: [C] or [N, C], added to every pixel before the statistics: the bias of the convolution that made ``x``, or
            an embedding.
        turn: (T, V): pictures, ordered (batch, T, V), come back ordered (batch, V, T).

    Returns:
        [N, C, H, W].
    """
    if not use_kernels(x) or not x.is_contiguous(memory_format=torch.channels_last):
        return group_norm_torch(x, groups, weight, bias, eps, silu=silu, skip=skip, shift=shift, turn=turn)
    if skip is not None:
        skip = skip.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return group_norm_triton(x, groups, weight, bias, eps, silu=silu, skip=skip, shift=shift, turn=turn)


def group_norm_torch(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    skip: Tensor | None = None,
    shift: Tensor | None = None,
    turn: tuple[int, int] = AS_THEY_ARE,
) -> Tensor:
    """:func:`group_norm` in plain PyTorch."""
    if skip is not None:
        x = torch.cat([x, skip], dim=1)
    if shift is not None:
        x = x + shift.to(x.dtype)[..., None, None]  # [C, 1, 1] or [N, C, 1, 1]
    if x.is_cuda and weight.dtype != x.dtype and not torch.is_autocast_enabled("cuda"):
        y = F.group_norm(x.float(), groups, weight.float(), bias.float(), eps).to(x.dtype)
    else:
        y = F.group_norm(x, groups, weight, bias, eps)
    return turn_pictures(F.silu(y) if silu else y, turn)


def group_norm_triton(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    skip: Tensor | None = None,
    shift: Tensor | None = None,
    turn: tuple[int, int] = AS_THEY_ARE,
) -> Tensor:
    """:func:`group_norm` by the Triton kernels; maps must be channels-last and of one dtype."""
    given = [t for t in (x, skip, shift, weight, bias) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return turn_pictures(_GroupNorm.apply(x, skip, shift, weight, bias, groups, eps, silu), turn)
    return kernels()[0].forward(x, skip, shift, weight, bias, groups, eps, silu, turn)[0]


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, skip, shift, weight, bias, groups, eps, silu):
        y, rstds, centres = kernels()[0].forward(x, skip, shift, weight, bias, groups, eps, silu)
        ctx.save_for_backward(x, skip, rstds, centres, weight, bias)
        ctx.options = groups, silu, None if shift is None else (shift.dim(), shift.dtype)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, skip, rstds, centres, weight, bias = ctx.saved_tensors
        groups, silu, shift = ctx.options
        dx, dskip, dweight, dbias = kernels()[1].backward(
            dy.to(x.dtype), x, skip, rstds, centres, weight, bias, groups, silu
        )
        dshift = None
        if ctx.needs_input_grad[2]:
            parts = [dx] if dskip is None else [dx, dskip]
            sums = [p.sum((2, 3), dtype=torch.float32) if shift[0] == 2 else bias_gradient(p) for p in parts]
            dshift = torch.cat(sums, dim=-1).to(shift[1])
        return dx, dskip, dshift, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None, None


class GroupNorm(nn.GroupNorm):
    """:func:`group_norm` as a module; parameters and their names are ``nn.GroupNorm``'s."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, *, silu: bool = False) -> None:
        super().__init__(groups, channels, eps=eps)
        self.silu = silu

    def forward(
        self,
        x: Tensor,
        skip: Tensor | None = None,
        shift: Tensor | None = None,
        turn: tuple[int, int] = AS_THEY_ARE,
    ) -> Tensor:
        by = (self.num_groups, self.weight, self.bias, self.eps)
        return group_norm(x, *by, silu=self.silu, skip=skip, shift=shift, turn=turn)
