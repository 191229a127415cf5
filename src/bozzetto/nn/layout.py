"""How every U-Net of the project is laid out for inference: half precision, channels-last, no gradients."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from .compilation import compile_kernels
from .group_norm import GroupNorm

Module = TypeVar("Module", bound=nn.Module)


def for_inference(module: Module, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Module:
    """Put a network into the form that runs fastest, in place, and return it.

    Evaluation mode, no gradients; floating-point tensors in ``dtype`` on ``device`` (None: as they are); weights of
    convolutions channels-last, so that no convolution turns its input or output around. Submodules that have a method
    ``fold_weights()`` are then told to make what they derive from their weights. For half precision on CUDA, the kernels are
    compiled now, all at once; a network that uses more than the U-Nets' common ones has a method
    ``first_launches(device, dtype)``, which gives one launch of each.
    """
    module.eval().requires_grad_(False)
    module.to(device=device, dtype=dtype)
    module.to(memory_format=torch.channels_last)  # 4-dimensional parameters only
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    if first is not None and any(isinstance(child, GroupNorm) for child in module.modules()):
        narrow = any(getattr(child, "head_dim", None) == 32 for child in module.modules())
        compile_kernels(first.device, first.dtype, narrow, getattr(module, "first_launches", None))
    for child in module.modules():
        fold = getattr(child, "fold_weights", None)
        if fold is not None:
            fold()
    return module
