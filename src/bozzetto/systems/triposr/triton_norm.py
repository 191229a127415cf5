"""Triton kernel: the end of one residual branch and the layer norm that begins the next, in one pass over memory.

One program owns one token: all of its channels are in registers, so that mean and variance need no second read. The running
sum is float32 and is updated in place; the normed token is written in the precision of the matrix products. Programs share
nothing and never wait for each other.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_norm_kernel(x, y, weight, bias, out, channels, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    c = tl.arange(0, BLOCK)
    mask = c < channels
    at = tl.program_id(0).to(tl.int64) * channels + c
    s = tl.load(x + at, mask=mask, other=0.0)
    if ADD:
        s += tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(x + at, s, mask=mask)
    mean = tl.sum(s, axis=0) / channels
    d = tl.where(mask, s - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(d * d, axis=0) / channels + eps)
    w = tl.load(weight + c, mask=mask, other=0.0)
    b = tl.load(bias + c, mask=mask, other=0.0)
    tl.store(out + at, (d * scale * w + b).to(out.dtype.element_ty), mask=mask)


def add_norm_triton(
    x: Tensor, y: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """``x += y`` in place, then the layer norm of ``x`` in ``dtype``; ``x`` [..., C] float32, ``y`` of any dtype or None."""
    channels = x.shape[-1]
    out = torch.empty_like(x, dtype=dtype)
    with torch.cuda.device_of(x):
        _add_norm_kernel[(x.numel() // channels,)](
            x, x if y is None else y, weight, bias, out, channels, eps,
            ADD=y is not None, BLOCK=triton.next_power_of_2(channels), num_warps=4,
        )  # fmt: skip
    return out
