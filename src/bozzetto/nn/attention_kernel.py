"""Triton kernels of softmax attention with 32 channels a head, which the libraries' kernels pad to 64.

Three launches. ``sample_kernel``: one program per head and 64th of the tokens finds the longest key there. ``fast_kernel``: one
program owns BM queries of one head, keeps them, their sums and their result in registers and goes over all keys in steps of
BN; keys and values are loaded ahead through shared memory, both products run on the tensor cores, several programs share a
multiprocessor so that one's exponentials hide the other's products. Instead of a running maximum, which costs a third of
its instructions, it subtracts a constant per query: the largest product with the sampled keys, less a margin. Where a weight
then overflows half precision (some product is more than 2^12 times larger than the sampled ones), the program says so, and
``exact_kernel``, with a running maximum (online softmax, Milakov & Gimelshein 2018), computes those queries anew; its other
programs end at once. All sums are float32. Programs share nothing and never wait for each other.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import cdiv, launch

BM, BN = 64, 64
SAMPLES = 64  # keys that are looked at first
MARGIN = (
    4  # powers of two below the largest sampled product, so that as many more fit above it; half precision ends at 16
)
WARPS, STAGES, POLY = 4, 3, 0


@triton.jit
def _exp2(x, INLINE: tl.constexpr):
    if INLINE:  # without the handling of denormals: they are 0 beside the row's largest value
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = tl.exp2(x)
    return y


def _eighths(by_polynomial: int) -> str:
    """PTX for eight exponentials of 2, from float32 to float16 and float32: ``by_polynomial`` pairs of them without the special
    function unit, which gives 16 a clock on a multiprocessor where everything else gives 64 or more.

    Pairs in float16: x is kept within -15 (2^x rounds to 0 there) and 16 (infinity), rounded to n by adding and subtracting
    1536, whose bits then hold n; 2^(x - n) is a polynomial of degree 3 (largest relative error 7.5e-5, minimax); n is added
    to its exponents, for both halves in one integer operation.
    """
    text = """{ .reg .b32 t, n, r, f, p, lo, hi, mg, c0, c1, c2, c3; .reg .b16 a, b;
        mov.b32 lo, 0xCB80CB80; mov.b32 hi, 0x4C004C00; mov.b32 mg, 0x66006600;
        mov.b32 c0, 0x3C003C00; mov.b32 c1, 0x398C398C; mov.b32 c2, 0x33C333C3; mov.b32 c3, 0x2B102B10;
    """
    for pair in range(4):  # operands: 4 words of two float16, 8 float32 out; 8 float32 in
        x, y, out, first, second = 12 + 2 * pair, 13 + 2 * pair, pair, 4 + 2 * pair, 5 + 2 * pair
        if pair % 2 == 1 and pair // 2 < by_polynomial:
            text += f"""cvt.rn.f16x2.f32 t, ${y}, ${x}; max.f16x2 t, t, lo; min.f16x2 t, t, hi;
                add.rn.f16x2 n, t, mg; sub.rn.f16x2 r, n, mg; sub.rn.f16x2 f, t, r;
                fma.rn.f16x2 p, f, c3, c2; fma.rn.f16x2 p, p, f, c1; fma.rn.f16x2 p, p, f, c0;
                mad.lo.u32 n, n, 1024, p; add.u32 n, n, 0xFE680000; mov.b32 ${out}, n;
                mov.b32 {{a, b}}, n; cvt.f32.f16 ${first}, a; cvt.f32.f16 ${second}, b;
            """
        else:
            text += f"ex2.approx.ftz.f32 ${first}, ${x}; ex2.approx.ftz.f32 ${second}, ${y};\n"
            text += f"cvt.rn.f16x2.f32 ${out}, ${second}, ${first};\n"
    return text + "}"


_ONE, _TWO = tl.constexpr(_eighths(1)), tl.constexpr(_eighths(2))
_OPERANDS = tl.constexpr(",".join(["=&r"] * 4 + ["=&f"] * 8 + ["f"] * 8))


@triton.jit
def _weights(x, like, INLINE: tl.constexpr, POLY: tl.constexpr):
    """2^x in ``like``'s precision and in float32; POLY quarters of float16's by polynomials."""
    if INLINE and POLY == 1:
        h, p = tl.inline_asm_elementwise(_ONE, _OPERANDS, [x], dtype=(tl.float16, tl.float32), is_pure=True, pack=8)
    elif INLINE and POLY == 2:
        h, p = tl.inline_asm_elementwise(_TWO, _OPERANDS, [x], dtype=(tl.float16, tl.float32), is_pure=True, pack=8)
    else:
        p = _exp2(x, INLINE)
        h = p.to(like.dtype.element_ty)
    return h, p


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
    q, k, v, sample, out, flags, batch_stride, head_stride, token_stride, length, heads, scale, margin,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SAMPLES: tl.constexpr, STEPS: tl.constexpr,
    INLINE: tl.constexpr, POLY: tl.constexpr,
):  # fmt: skip
    block, bh = tl.program_id(0), tl.program_id(1)
    batch, head = bh // heads, bh % heads
    base = batch.to(tl.int64) * batch_stride + head * head_stride
    d = tl.arange(0, D)
    rows = block * BM + tl.arange(0, BM)
    cols = tl.arange(0, BN)
    queries = tl.load(q + base + rows[:, None].to(tl.int64) * token_stride + d[None, :])
    queries = (queries.to(tl.float32) * 0.25).to(queries.dtype)  # exact; what was computed stays in registers
    scale *= 4.0
    first = tl.load(sample + (bh * SAMPLES + tl.arange(0, SAMPLES))[None, :] * D + d[:, None])  # [D, SAMPLES]
    pivot = tl.max(tl.dot(queries, first), axis=1) * scale - margin
    keys = k + base + cols[None, :] * token_stride + d[:, None]  # [D, BN]
    values = v + base + cols[:, None] * token_stride + d[None, :]  # [BN, D]
    total = tl.zeros([BM, 8], tl.float32)  # of columns 8 apart: what one thread holds, so that threads join once only
    result = tl.zeros([BM, D], tl.float32)
    for _ in range(STEPS if STEPS > 0 else length // BN):  # the interpreter's loops want a constant
        s = tl.dot(queries, tl.load(keys))  # [BM, BN]
        h, p = _weights(s * scale - pivot[:, None], v, INLINE, POLY)
        total += tl.sum(tl.reshape(p, [BM, BN // 8, 8]), axis=1)
        result = tl.dot(h, tl.load(values), result)
        keys += BN * token_stride
        values += BN * token_stride
    result = result / tl.sum(total, axis=1)[:, None]
    bad = tl.where(tl.abs(result) < float("inf"), 0, 1)  # infinite or NaN
    tl.store(flags + bh * tl.num_programs(0) + block, tl.max(tl.max(bad, axis=1), axis=0))
    at = ((batch.to(tl.int64) * length + rows[:, None]) * heads + head) * D + d[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["length"])
def exact_kernel(
    q, k, v, out, flags, batch_stride, head_stride, token_stride, length, heads, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, STEPS: tl.constexpr, INLINE: tl.constexpr,
):  # fmt: skip
    block, bh = tl.program_id(0), tl.program_id(1)
    if tl.load(flags + bh * tl.num_programs(0) + block) != 0:
        batch, head = bh // heads, bh % heads
        base = batch.to(tl.int64) * batch_stride + head * head_stride
        d = tl.arange(0, D)
        rows = block * BM + tl.arange(0, BM)
        cols = tl.arange(0, BN)
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


def attention(qkv: Tensor) -> Tensor:
    """Tokens' projections [B, L, 3, heads, 32] in half precision, L a multiple of 128 -> [B, L, heads, 32]."""
    return attention_and_flags(qkv)[0]


def attention_and_flags(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`attention`, and per head and BM queries whether they had to be computed a second time [B * heads, L / BM]."""
    b, length, _, heads, d = qkv.shape
    q, k, v = qkv.unbind(2)
    out = torch.empty((b, length, heads, d), dtype=qkv.dtype, device=qkv.device)
    sample = torch.empty((b * heads, SAMPLES, d), dtype=qkv.dtype, device=qkv.device)
    flags = torch.empty((b * heads, length // BM), dtype=torch.int32, device=qkv.device)
    scale = d**-0.5 * 1.4426950408889634  # of powers of two
    strides = (qkv.stride(0), qkv.stride(3), qkv.stride(1), length)
    share, steps = cdiv(length, SAMPLES), 0 if qkv.is_cuda else length // BN
    launch(sample_kernel, (SAMPLES, b * heads, 1), (k, sample, *strides, share, heads), (d, 64), 1)
    args = (q, k, v, sample, out, flags, *strides, heads, scale, float(MARGIN))
    grid = (length // BM, b * heads, 1)
    poly = POLY if qkv.dtype == torch.float16 else 0
    launch(fast_kernel, grid, args, (d, BM, BN, SAMPLES, steps, qkv.is_cuda, poly), WARPS, STAGES)
    launch(exact_kernel, grid, (q, k, v, out, flags, *strides, heads, scale), (d, BM, BN, steps, qkv.is_cuda), 4)
    return out, flags
