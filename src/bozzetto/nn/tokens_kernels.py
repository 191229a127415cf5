"""Triton kernels for tokens; :mod:`.tokens` has each in words.

``geglu``: one program a tile of 8 tokens x 256 channels, value and gate side by side in registers. ``add_layer_norm``: one
program a few whole tokens, all of their channels in registers, so that mean and variance need no second pass. ``attend``: one
program 64 queries of one head; all keys and values of the head (at most 128, padded with masked ones) are in its shared
memory at once, so the softmax needs no running maximum; the second set of keys follows with a softmax of its own, and
only the sum is written. Programs share nothing and never wait for each other. Arithmetic is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

MOST_KEYS = 128


@triton.jit(do_not_specialize=["tokens"])
def geglu_kernel(x, out, tokens, channels, R: tl.constexpr, BC: tl.constexpr):
    row = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (row[:, None] < tokens) & (c[None, :] < channels)
    at = row[:, None].to(tl.int64) * (2 * channels) + c[None, :]
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + at + channels, mask=mask, other=0.0).to(tl.float32)
    y = value * gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row[:, None].to(tl.int64) * channels + c[None, :], y.to(out.dtype.element_ty), mask=mask)


def geglu(x: Tensor) -> Tensor:
    channels = x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], channels)
    tokens = out.numel() // channels
    grid = (triton.cdiv(tokens, 8), triton.cdiv(channels, 256), 1)
    launch(geglu_kernel, grid, (x, out, tokens, channels), (8, 256), 4)
    return out


@triton.jit(do_not_specialize=["tokens"])
def add_layer_norm_kernel(
    x, y, weight, bias, total, normed, tokens, channels, eps, R: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.arange(0, BC)
    valid = c[None, :] < channels
    mask = (row[:, None] < tokens) & valid
    at = row[:, None].to(tl.int64) * channels + c[None, :]
    s = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) + tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    rounded = s.to(total.dtype.element_ty)
    tl.store(total + at, rounded, mask=mask)
    s = rounded.to(tl.float32)  # what the rest of the network sees
    mean = tl.sum(s, axis=1) / channels
    d = tl.where(mask, s - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(d * d, axis=1) / channels + eps)
    w = tl.load(weight + c, mask=c < channels, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    z = d * rstd[:, None] * w[None, :] + b[None, :]
    tl.store(normed + at, z.to(normed.dtype.element_ty), mask=mask)


def add_layer_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    channels = x.shape[-1]
    total, normed = torch.empty_like(x), torch.empty_like(x)
    tokens, width = x.numel() // channels, triton.next_power_of_2(channels)
    rows = max(1, 2048 // width)
    args = (x, y, weight, bias, total, normed, tokens, channels, eps)
    launch(add_layer_norm_kernel, (triton.cdiv(tokens, rows), 1, 1), args, (rows, width), 4 if width <= 2048 else 8)
    return total, normed


@triton.jit
def _attend_to(q, k, v, row, c, keys, scale, N: tl.constexpr, D: tl.constexpr):
    """softmax(q k^T) v for keys that begin at ``k`` and ``v``, ``row`` apart."""
    n = tl.arange(0, N)
    at = n[:, None] * row + c[None, :]
    here = n[:, None] < keys
    kt = tl.load(k + at, mask=here, other=0.0)
    vt = tl.load(v + at, mask=here, other=0.0)
    s = tl.dot(q, tl.trans(kt)) * scale
    s = tl.where(n[None, :] < keys, s, float("-inf"))
    p = tl.exp2(s - tl.max(s, axis=1)[:, None])
    return tl.dot(p.to(vt.dtype), vt) / tl.sum(p, axis=1)[:, None]


@triton.jit(do_not_specialize=["length", "keys", "keys2"])
def attend_kernel(
    q, k, v, k2, v2, out, length, channels, keys, keys2,
    k_batch, k_row, k2_batch, k2_row, scale, weight,
    TWO: tl.constexpr, BM: tl.constexpr, N: tl.constexpr, N2: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    c = head * D + tl.arange(0, D)
    at = (batch * length + rows[:, None]) * channels + c[None, :]
    mask = rows[:, None] < length
    qt = tl.load(q + at, mask=mask, other=0.0)
    o = _attend_to(qt, k + batch * k_batch, v + batch * k_batch, k_row, c, keys, scale, N, D)
    if TWO:
        o2 = _attend_to(qt, k2 + batch * k2_batch, v2 + batch * k2_batch, k2_row, c, keys2, scale, N2, D)
        o += weight * o2
    tl.store(out + at, o.to(out.dtype.element_ty), mask=mask)


def attends(head_dim: int, keys: int, more: int) -> bool:
    """Whether :func:`attend` takes such heads and numbers of keys."""
    return head_dim in (16, 32, 64, 128) and 0 < keys <= MOST_KEYS and more <= MOST_KEYS


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, second: tuple[Tensor, Tensor] | None = None, weight: float = 1.0
) -> Tensor:
    channels, dim = q.shape[-1], q.shape[-1] // heads
    length = q.numel() // channels // len(k)  # queries that share a row of keys
    k, v, k2, v2 = (t if t.stride(-1) == 1 else t.contiguous() for t in (k, v, *(second or (k, v))))
    if k.stride() != v.stride():
        k, v = k.contiguous(), v.contiguous()
    if k2.stride() != v2.stride():
        k2, v2 = k2.contiguous(), v2.contiguous()
    out = torch.empty_like(q)
    padded, padded2 = (max(16, triton.next_power_of_2(t.shape[1])) for t in (k, k2))
    args = (q, k, v, k2, v2, out, length, channels, k.shape[1], k2.shape[1])
    args += (k.stride(0), k.stride(1), k2.stride(0), k2.stride(1), math.log2(math.e) / math.sqrt(dim), float(weight))
    constants = (second is not None, 64, padded, padded2, dim)
    launch(attend_kernel, (triton.cdiv(length, 64), heads, len(k)), args, constants, 4)
    return out


def first_launches(
    device: torch.device, dtype: torch.dtype, widths: Sequence[int], head_dim: int, keys: int, more: int
) -> list[Callable[[], object]]:
    """One launch of each kernel on small zeros, in the forms that transformers of these widths take.

    ``keys``, ``more``: of their cross-attention, the latter 0 where there is no second set.
    """

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device, dtype=dtype)

    x, w = {c: zeros(1, 16, c) for c in widths}, {c: zeros(c) for c in widths}
    tasks: list[Callable[[], object]] = [lambda c=c: add_layer_norm(x[c], x[c], w[c], w[c], 1e-5) for c in widths]
    wide = zeros(1, 16, 8 * widths[0])
    tasks.append(lambda: geglu(wide))
    if attends(head_dim, keys, more):
        q, k, k2 = zeros(1, 64, widths[0]), zeros(1, keys, widths[0]), zeros(1, max(more, 1), widths[0])
        tasks.append(lambda: attend(q, k, k, widths[0] // head_dim, (k2, k2) if more else None))
    return tasks
