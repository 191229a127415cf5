"""Whether the kernels of this folder run: CUDA tensors, Triton installed, not inside ``torch.compile``."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .triton_support import triton_usable

failure: str | None = None  # why the kernels are not used, if compiling them failed


def use_kernels(x: Tensor) -> bool:
    """True for a CUDA tensor in half or single precision where Triton is installed."""
    return (
        x.is_cuda
        and x.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and not torch.compiler.is_compiling()
        and failure is None
        and kernels() is not None
    )


@cache
def kernels() -> tuple[ModuleType, ...] | None:
    """The kernels' modules, imported now: group norm, its gradient, residual sum, upsampling; None where none can run."""
    if not triton_usable():
        return None
    from . import group_norm_gradient, group_norm_kernels, residual_kernel, upsample_kernel

    return group_norm_kernels, group_norm_gradient, residual_kernel, upsample_kernel


@cache
def attention_kernel() -> ModuleType:
    """The module ``attention_kernel``, imported now; only where :func:`use_kernels` says so."""
    from . import attention_kernel

    return attention_kernel


@cache
def pointwise_kernel() -> ModuleType:
    """The module ``pointwise_kernel``, imported now; only where :func:`use_kernels` says so."""
    from . import pointwise_kernel

    return pointwise_kernel


@cache
def pad_kernel() -> ModuleType:
    """The module ``pad_kernel``, imported now; only where :func:`use_kernels` says so."""
    from . import pad_kernel

    return pad_kernel


@cache
def unfold_kernel() -> ModuleType:
    """The module ``unfold_kernel``, imported now; only where :func:`use_kernels` says so."""
    from . import unfold_kernel

    return unfold_kernel


@cache
def fold_kernel() -> ModuleType:
    """The module ``fold_kernel``, imported now; only where :func:`use_kernels` says so."""
    from . import fold_kernel

    return fold_kernel
