"""Triton kernel of a residual branch's end where that is a matrix product: ``(x W1' + skip W2' + residual + bias) * scale``.

A program owns a tile of BM pixels x BN channels of the result, accumulates it in registers (float32) over the channels of ``x``,
then of ``skip`` (a 1x1 convolution of their concatenation, which is never written), both loaded ahead through shared memory;
then it adds residual and bias and writes the tile once. It may also write the tile's moments per channel, for the group norm
that reads the map next. Programs share nothing; inside one, only loads through shared memory and the moments' sums wait.

It multiplies more slowly than the library and gains by the passes over memory that it saves. 64 pictures, float16, an H200, us,
library + sum -> kernel with moments: 256 + 128 -> 128 channels of 128 x 128 641 -> 417, 512 + 256 -> 256 of 64 x 64 345 -> 281,
1,024 + 512 -> 512 of 32 x 32 228 -> 222, 512 -> 512 of 32 x 32 111 -> 111, 1,024 -> 1,024 of 16 x 16 78 -> 81; the norm behind
it is then 27 us (32 x 32) to 70 us (128 x 128) shorter. Slower by 4 to 63 %: 8 warps, four stages with 8 warps, 128 x 256 and
(but for 64 -> 128 channels) 128 x 64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch
from .moments import CHUNK, LARGE, Moments, remember
from .tiles import chunk_moments, load_channels, turned
from .turn import AS_THEY_ARE

BM, BN, BK = CHUNK, 128, 64
WARPS, STAGES = 4, 3
PROGRAMS = 1024  # tiles from which it is worth while


@triton.jit(do_not_specialize=["pixels", "outer", "inner"])
def pointwise_kernel(
    x, skip, weight, residual, bias, out, means, m2s, c1, c2, channels, scale, pixels, outer, inner,
    SKIP: tl.constexpr, TURN: tl.constexpr, MOMENTS: tl.constexpr, C: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    blocks = channels // BN
    block, chunk = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    row = chunk * BM + tl.arange(0, BM)
    c = block * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    source = row
    if TURN:  # x's pictures stand in another order
        source = turned(row // pixels, inner, outer) * pixels + row % pixels
    a = x + source[:, None].to(tl.int64) * c1 + k[None, :]
    w = weight + c[:, None] * (c1 + c2) + k[None, :]
    other = a
    if SKIP:  # steps behind x's channels
        other = skip + source[:, None].to(tl.int64) * c2 + (k[None, :] - c1)
    total = tl.zeros([BM, BN], tl.float32)
    for i in range(0, C if C > 0 else c1 + c2, BK):  # the interpreter's loops want a constant
        inputs = a + i
        if SKIP:
            inputs = tl.where(i < c1, inputs, other + i)
        total = tl.dot(tl.load(inputs), tl.trans(tl.load(w + i)), total)
    at = row[:, None].to(tl.int64) * channels + c[None, :]
    total += tl.load(residual + at).to(tl.float32)
    total += load_channels(bias, c, c < channels)[None, :]
    result = (total * scale).to(out.dtype.element_ty)
    tl.store(out + at, result)
    if MOMENTS:
        mean, m2 = chunk_moments(result.to(tl.float32), BM)
        tl.store(means + chunk * channels + c, mean)
        tl.store(m2s + chunk * channels + c, m2)


def usable(device: torch.device) -> bool:
    """Whether the device has the shared memory and the tensor cores that the kernel was measured with."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)


def first_launches(device: torch.device, dtype: torch.dtype) -> list[Callable[[], object]]:
    """One launch of every form that L4GM uses, on small zeros."""
    x = torch.zeros((4, 128, 32, 32), device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w, bias = torch.zeros((128, 256), device=device, dtype=dtype), torch.zeros(128, device=device, dtype=dtype)
    return [
        lambda: pointwise_add(x, x, w, x, bias, 1.0, moments=True),
        lambda: pointwise_add(x, None, w[:, :128].contiguous(), x, bias, 1.0, moments=True),
        lambda: pointwise_add(x, None, w[:, :128].contiguous(), x, bias, 1.0, (2, 2), moments=True),
        lambda: pointwise_add(x, x, w, x, bias, 1.0),
        lambda: pointwise_add(x, None, w[:, :128].contiguous(), x, bias, 1.0),
        lambda: pointwise_add(x, None, w[:, :128].contiguous(), x, bias, 1.0, (2, 2)),
    ]


def fits(x: Tensor, skip: Tensor | None, channels: int) -> bool:
    """Whether the kernel takes maps [N, C1, H, W] and [N, C2, H, W], and is worth it."""
    n, c1, h, w = x.shape
    c2 = 0 if skip is None else skip.shape[1]
    width = min(channels, BN)
    return (
        usable(x.device)
        and x.dtype in (torch.float16, torch.bfloat16)
        and n * h * w % BM == 0
        and c1 % BK == 0
        and c2 % BK == 0
        and channels % width == 0
        and width >= 64
        and width & (width - 1) == 0
        and n * h * w // BM * (channels // width) >= PROGRAMS
    )


def pointwise_add(
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    residual: Tensor,
    bias: Tensor,
    scale: float,
    turn: tuple[int, int] = AS_THEY_ARE,
    moments: bool = False,
) -> Tensor:
    """Channels-last maps; ``weight`` [D, C1 + C2]; the arguments of ``residual.add_pointwise``."""
    n, c1, h, w = x.shape
    channels, pixels, c2 = len(weight), h * w, 0 if skip is None else skip.shape[1]
    width = min(channels, BN)
    out = torch.empty_like(residual)
    kept = Moments.empty(out) if moments and pixels % BM == 0 and pixels >= LARGE else None
    means, m2s = (bias, bias) if kept is None else kept
    args = (
        x,
        x if skip is None else skip,
        weight,
        residual,
        bias,
        out,
        means,
        m2s,
        c1,
        c2,
        channels,
        scale,
        pixels,
        *turn,
    )
    constants = (skip is not None, 1 not in turn, kept is not None, 0 if x.is_cuda else c1 + c2, BM, width, BK)
    launch(pointwise_kernel, (n * pixels // BM * (channels // width), 1, 1), args, constants, WARPS, STAGES)
    return remember(out, kept)
