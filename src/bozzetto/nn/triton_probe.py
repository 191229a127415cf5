"""The smallest Triton kernel, to see whether kernels run: one program doubles 16 numbers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def double_kernel(x, count, factor, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i, mask=i < count, other=0.0)
    tl.store(x + i, value * factor, mask=i < count)


def probe() -> None:
    """Raise :class:`RuntimeError` unless a kernel runs on the current device and gives the right numbers."""
    x = torch.arange(16.0, device="cuda")
    double_kernel[(1,)](x, 15, 2.0, 16)
    if x.tolist() != [2.0 * i for i in range(15)] + [15.0]:
        raise RuntimeError("a kernel gave wrong numbers")
