"""Triton kernels of softmax attention with 32 channels a head, which the libraries' kernels pad to 64.

Three launches. ``sample_kernel``: one program per head and 64th of the tokens finds the longest key there. ``fast_kernel``: one
program owns BM queries of one head, keeps them, their sums and their result in registers and goes over all keys in steps of
BN; keys and values are loaded ahead through shared memory, both products run on the tensor cores, several programs share a
multiprocessor so that one's exponentials hide the other's products. Instead of a running maximum, which costs a third of
its instructions, it subtracts a constant per query: the largest product with the sampled keys, and a little more. Where a
weight then overflows half precision (2^24 times, e^16.6, that of the best sampled key), the program says so, and
``exact_kernel``, with a running maximum (online softmax, Milakov & Gimelshein 2018), computes those queries anew; its other
programs end at once. All sums are float32. Programs share nothing and never wait for each other.

Queries, keys and values of a token lie at distances that the compiler knows (the number of heads is a constant), so that one
address serves all loads: 177 instructions for 32 weights a thread instead of 189. Alone that gains nothing, in a network that
draws all the power the card may, it does: on an H200, L4GM's 16 frames take 99.4 ms instead of 101.4, replayed in turn.

Measured in float16 with 16 heads on an H100: 4 x 16,384 tokens 6.14 ms, 16 x 4,096 tokens 1.63 ms (under lasting load, before,
6.05 and 1.86; without the limit of registers 6.44 and 1.98; a running maximum, alone, 7.2 and 1.8, PyTorch's choice 8.8 and
2.2). What gained nothing there: sums of eight weights in half precision 6.11 and 1.71, and an error of 4.1e-4 instead of 2.8e-4
for sharp heads; queries in shared memory 6.53 and 1.79, with 80 registers, six programs a multiprocessor, and those sums 6.36
and 1.69. On an H200 under load, where this takes 6.35 and 1.61: a 16th, an eighth, three 16ths of the exponentials as polynomials
in single precision 6.41, 6.48, 6.70 (1.68, 1.77, 1.83; L4GM 100.1 with a 16th); 128 queries and 8 warps a program, which reads
keys and values half as often, 6.56 to 7.52 and 1.81 to 1.93; 64 x 32 with 72 registers 6.19 and 1.68, but L4GM 102.1. Before:
other tiles (128 x 64, 64 x 128), two stages, row sums by the tensor cores, exponentials in half precision (two instructions all
the same), the next products issued before the softmax (the assembler undoes it), two blocks of queries a program 6.78 and 1.66
(6.36 and 1.55 as it was then), four 6.56 and 1.77, keys and values through the L1 7.17 and 1.75.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch

BM, BN = 64, 64
SAMPLES = 64  # keys that are looked at first
BELOW = 8  # powers of two that the weight of the largest sampled product lies below 1; half precision ends at 16
SHARE = 8  # blocks of queries that one program of exact_kernel looks after
WARPS, STAGES, REGISTERS = 4, 3, 96  # so that five programs share a multiprocessor


@triton.jit
def _exp2(x, INLINE: tl.constexpr):
    if INLINE:  # without the handling of denormals: they are 0 beside the row's largest value
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = tl.exp2(x)
    return y


@triton.jit(do_not_specialize=["length", "share"])
def sample_kernel(
    k, sample, batch_stride, head_stride, token_stride, length, share, heads, D: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    part, bh = tl.program_id(0), tl.program_id(1)
    keys = k + (bh // heads).to(tl.int64) * batch_stride + (bh % heads) * head_stride
    d = tl.arange(0, D)
    start = part * share
    end = tl.minimum(start + share, length)
    longest = -1.0
    chosen = tl.minimum(start, length - 1)
    while start < end:
        rows = start + tl.arange(0, ROWS)
        at = rows[:, None].to(tl.int64) * token_stride + d[None, :]
        values = tl.load(keys + at, mask=rows[:, None] < end, other=0.0).to(tl.float32)
        norms = tl.sum(values * values, axis=1)
        best = tl.max(norms, axis=0)
        if best > longest:
            longest = best
            chosen = start + tl.argmax(norms, axis=0)
        start += ROWS
    tl.store(sample + (bh * tl.num_programs(0) + part) * D + d, tl.load(keys + chosen.to(tl.int64) * token_stride + d))


@triton.jit(do_not_specialize=["length"])
def fast_kernel(
    qkv, sample, out, flags, length, scale, below,
    HEADS: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SAMPLES: tl.constexpr,
    STEPS: tl.constexpr, INLINE: tl.constexpr,
):  # fmt: skip
    block, bh = tl.program_id(0), tl.program_id(1)
    batch, head = bh // HEADS, bh % HEADS
    KEY: tl.constexpr = HEADS * D  # from a query to its key, and from a key to its value
    TOKEN: tl.constexpr = 3 * HEADS * D
    qkv += batch.to(tl.int64) * length * TOKEN + head * D
    d = tl.arange(0, D)
    rows = block * BM + tl.arange(0, BM)
    queries = tl.load(qkv + rows[:, None].to(tl.int64) * TOKEN + d[None, :])
    queries = (queries.to(tl.float32) * 0.25).to(queries.dtype)  # exact; what was computed stays in registers
    scale *= 4.0
    first = tl.load(sample + (bh * SAMPLES + tl.arange(0, SAMPLES))[None, :] * D + d[:, None])  # [D, SAMPLES]
    pivot = tl.max(tl.dot(queries, first), axis=1) * scale + below
    keys = qkv + KEY + tl.arange(0, BN)[:, None] * TOKEN + d[None, :]  # [BN, D]
    total = tl.zeros([BM, 4], tl.float32)  # of columns that one thread holds, so that threads join once only
    result = tl.zeros([BM, D], tl.float32)
    for _ in range(STEPS if STEPS > 0 else length // BN):  # the interpreter's loops want a constant
        s = tl.dot(queries, tl.trans(tl.load(keys)))  # [BM, BN]
        p = _exp2(s * scale - pivot[:, None], INLINE)
        total += tl.sum(tl.sum(tl.reshape(p, [BM, BN // 8, 4, 2]), axis=1), axis=2)
        result = tl.dot(p.to(qkv.dtype.element_ty), tl.load(keys + KEY), result)
        keys += BN * TOKEN
    result = result / tl.sum(total, axis=1)[:, None]
    bad = tl.where(tl.abs(result) < float("inf"), 0, 1)  # infinite or NaN
    tl.store(flags + bh * tl.num_programs(0) + block, tl.max(tl.max(bad, axis=1), axis=0))
    at = ((batch.to(tl.int64) * length + rows[:, None]) * HEADS + head) * D + d[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["length"])
def exact_kernel(
    q, k, v, out, flags, batch_stride, head_stride, token_stride, length, heads, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SHARE: tl.constexpr, STEPS: tl.constexpr, INLINE: tl.constexpr,
):  # fmt: skip
    bh, blocks = tl.program_id(1), length // BM
    first = tl.program_id(0) * SHARE
    group = first + tl.arange(0, SHARE)
    again = tl.max(tl.load(flags + bh * blocks + group, mask=group < blocks, other=0), axis=0)
    batch, head = bh // heads, bh % heads
    base = batch.to(tl.int64) * batch_stride + head * head_stride
    d = tl.arange(0, D)
    cols = tl.arange(0, BN)
    block = first
    while (again != 0) & (block < tl.minimum(first + SHARE, blocks)):
        if tl.load(flags + bh * blocks + block) != 0:
            rows = block * BM + tl.arange(0, BM)
            queries = tl.load(q + base + rows[:, None].to(tl.int64) * token_stride + d[None, :])
            keys = k + base + cols[None, :] * token_stride + d[:, None]  # [D, BN]
            values = v + base + cols[:, None] * token_stride + d[None, :]  # [BN, D]
            top = tl.full([BM], -float("inf"), tl.float32)
            total = tl.zeros([BM], tl.float32)
            result = tl.zeros([BM, D], tl.float32)
            for _ in range(STEPS if STEPS > 0 else length // BN):
                s = tl.dot(queries, tl.load(keys))  # [BM, BN]
                new = tl.maximum(top, tl.max(s, axis=1) * scale)
                p = _exp2(s * scale - new[:, None], INLINE)
                decay = _exp2(top - new, INLINE)
                total = total * decay + tl.sum(p, axis=1)
                result = tl.dot(p.to(v.dtype.element_ty), tl.load(values), result * decay[:, None])
                top = new
                keys += BN * token_stride
                values += BN * token_stride
            result = result / total[:, None]
            at = ((batch.to(tl.int64) * length + rows[:, None]) * heads + head) * D + d[None, :]
            tl.store(out + at, result.to(out.dtype.element_ty))
        block += 1


def attention(qkv: Tensor) -> Tensor:
    """Tokens' projections [B, L, 3, heads, 32] in half precision, L a multiple of 128 -> [B, L, heads, 32]."""
    return attention_and_flags(qkv)[0]


def attention_and_flags(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`attention`, and per head and BM queries whether they had to be computed a second time [B * heads, L / BM]."""
    qkv = qkv.contiguous()
    b, length, _, heads, d = qkv.shape
    q, k, v = qkv.unbind(2)
    out = torch.empty((b, length, heads, d), dtype=qkv.dtype, device=qkv.device)
    sample = torch.empty((b * heads, SAMPLES, d), dtype=qkv.dtype, device=qkv.device)
    flags = torch.empty((b * heads, length // BM), dtype=torch.int32, device=qkv.device)
    scale = d**-0.5 * 1.4426950408889634  # of powers of two
    strides = (qkv.stride(0), qkv.stride(3), qkv.stride(1), length)
    share, steps = cdiv(length, SAMPLES), 0 if qkv.is_cuda else length // BN
    launch(sample_kernel, (SAMPLES, b * heads, 1), (k, sample, *strides, share, heads), (d, 64), 1)
    args = (qkv, sample, out, flags, length, scale, float(BELOW))
    constants = (heads, d, BM, BN, SAMPLES, steps, qkv.is_cuda)
    launch(fast_kernel, (length // BM, b * heads, 1), args, constants, WARPS, STAGES, REGISTERS)
    args = (q, k, v, out, flags, *strides, heads, scale)
    constants = (d, BM, BN, SHARE, steps, qkv.is_cuda)
    launch(exact_kernel, (cdiv(length // BM, SHARE), b * heads, 1), args, constants, 4)
    return out, flags
