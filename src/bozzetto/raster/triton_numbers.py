"""Small functions of numbers that the kernels share."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def pack(first, second):
    """Two float32 as one int64."""
    low = first.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return low | (second.to(tl.int32, bitcast=True).to(tl.int64) << 32)


@triton.jit
def unpack(pair):
    """The two float32 of :func:`pack`."""
    return pair.to(tl.int32).to(tl.float32, bitcast=True), (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def unsigned(x):
    """int32 of what is stored as int32, or in 16 bits without sign."""
    return x.to(tl.int32) & (0xFFFF if x.dtype == tl.int16 else -1)


@triton.jit
def power_of_2(x):
    """2^x in one instruction; 0 instead of denormal numbers."""
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def reciprocal(x):
    """1 / x in one instruction, to one unit in the last place."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def either(a, b):
    """Bits of one or the other."""
    return a | b


@triton.jit
def highest_bit(x):
    """Position of the highest bit set in each int32; anything where none is."""
    if INTERPRETED:
        return tl.floor(tl.log2(tl.maximum((x.to(tl.int64) & 0xFFFFFFFF).to(tl.float64), 1.0))).to(tl.int32)
    else:
        return tl.inline_asm_elementwise("bfind.u32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def number_of_bits(x):
    """How many bits are set in each int32."""
    x = (x & 0x55555555) + ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x & 0x0F0F0F0F) + ((x >> 4) & 0x0F0F0F0F)
    return (x * 0x01010101) >> 24


@triton.jit
def shared_memory():
    """Address of 1536 bytes that the threads of the program share."""
    return tl.inline_asm_elementwise(
        "{ .shared .align 16 .b8 staged[1536]; mov.u32 $0, staged; }",
        "=r,r", [tl.program_id(0)], dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def share(address, a, b, c, d, e, f, g, h, i, j):
    """Write ten numbers of each thread of a warp to shared memory, at 48 bytes from thread to thread."""
    tl.inline_asm_elementwise(
        "bar.warp.sync 0xffffffff; st.shared.v4.f32 [$1], {$2, $3, $4, $5}; st.shared.v4.f32 [$1 + 16], {$6, $7, $8, $9};"
        "st.shared.v2.f32 [$1 + 32], {$10, $11}; bar.warp.sync 0xffffffff; mov.u32 $0, 0;",
        "=r,r,f,f,f,f,f,f,f,f,f,f", [address + tl.arange(0, 32) * 48, a, b, c, d, e, f, g, h, i, j],
        dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def shared(address):
    """The ten numbers that one thread wrote at ``address``."""
    four: tl.constexpr = (tl.float32, tl.float32, tl.float32, tl.float32)
    a, b, c, d = tl.inline_asm_elementwise(
        "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];", "=f,=f,=f,=f,r", [address], dtype=four, is_pure=False, pack=1
    )
    e, f, g, h = tl.inline_asm_elementwise(
        "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4 + 16];", "=f,=f,=f,=f,r", [address], dtype=four, is_pure=False, pack=1
    )
    i, j = tl.inline_asm_elementwise(
        "ld.shared.v2.f32 {$0, $1}, [$2 + 32];",
        "=f,=f,r",
        [address],
        dtype=(tl.float32, tl.float32),
        is_pure=False,
        pack=1,
    )
    return a, b, c, d, e, f, g, h, i, j


@triton.jit
def sum_two(a, b, DISTANCE: tl.constexpr):
    """Add numbers [32] of every two threads of a warp at DISTANCE: the lower one gets the sum of its a and its partner's,
    the other that of b."""
    upper = (tl.arange(0, 32) & DISTANCE) != 0
    if INTERPRETED:
        shape: tl.constexpr = (16 // DISTANCE, 2, DISTANCE)
        a = tl.broadcast_to(tl.sum(a.reshape(shape), axis=1)[:, None, :], shape).reshape(32)
        b = tl.broadcast_to(tl.sum(b.reshape(shape), axis=1)[:, None, :], shape).reshape(32)
        return tl.where(upper, b, a)
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 t; shfl.sync.bfly.b32 t, $2, $3, 31, 0xffffffff; add.f32 $0, $1, t; }",
            "=f,f,f,n", [tl.where(upper, b, a), tl.where(upper, a, b), DISTANCE],
            dtype=tl.float32, is_pure=False, pack=1,
        )  # fmt: skip
