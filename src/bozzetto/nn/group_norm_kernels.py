"""Triton kernels of group normalisation on channels-last maps [N, P, C], P pixels; :mod:`.group_norm` has the model in words.

Three ways. Maps of very few pixels: :mod:`.group_norm_held`. Small maps: one program owns some whole groups of one picture (up to
128 channels), goes over their pixels once for the moments and once more, out of the cache, for the result. Large maps: a
program owns a chunk of pixels and 64 channels and writes its moments per channel, unless the kernel that made the map did so
(:mod:`.moments`); a second kernel, one program a group, joins chunks and channels in one pass; a third, one program a tile of
32 pixels x 64 channels, writes the result. The backward pass is built the same way, with the sums of dz and dz * xhat in the
place of the moments. Registers hold one tile and its running sums; nothing is synchronised but the reductions inside a
program; launches are ordered by the stream.

Moments are taken about a value of the channel itself (its first pixel in the chunk) and joined by their exact rule, about the
mean of one chunk, so that a mean far from zero costs no digits. The channels of ``skip`` lie behind those of ``x``. The
result's pictures may stand in another order (``turned`` of :mod:`.tiles`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from .group_norm_held import held_kernel
from .launch import cdiv, launch
from .moments import CHUNK, Moments, recall
from .tiles import load_channels, load_pair, pair_pointers, sum_groups, tile_offsets, turned

SMALL = 1024  # pixels up to which one program does a whole group
HELD, HELD_VALUES = 8192, 32  # values that one program holds in registers at most, and one thread
TILE_P, TILE_C = 32, 64  # large maps
CHUNKS = 1024  # programs wanted for a pass over large maps
MANY_GROUPS = 1024  # groups from which a warp joins each, so that all are at work at once; below, four do


@triton.jit
def silu_slope(z, dy):
    """Gradient by z of silu(z) * dy."""
    gate = tl.sigmoid(z)
    return dy * gate * (1.0 + z * (1.0 - gate))


@triton.jit(do_not_specialize=["pixels", "size", "width", "shift_stride", "silu", "outer", "inner"])
def small_kernel(
    x, skip, shift, weight, bias, y, rstds, centres,
    pixels, c1, c2, size, width, eps, shift_stride, shift_gain, silu, outer, inner,
    MANY: tl.constexpr, ALIGN: tl.constexpr, TURN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    block, image = tl.program_id(0), tl.program_id(1)
    channels = c1 + c2
    local = tl.arange(0, BC)
    width = width // ALIGN * ALIGN  # tells the compiler that loads are aligned
    c = block * width + local
    valid = (local < width) & (c < channels)
    group = local // size
    first = tl.arange(0, 1)
    pivot = tl.sum(load_pair(x, skip, image, first, c, valid[None, :], pixels, c1, c2), axis=0)
    s = tl.zeros([BP, BC], tl.float32)
    q = tl.zeros([BP, BC], tl.float32)
    start = 0
    while start < pixels:
        p = start + tl.arange(0, BP)
        mask = (p[:, None] < pixels) & valid[None, :]
        d = load_pair(x, skip, image, p, c, mask, pixels, c1, c2) - pivot[None, :]
        d = tl.where(mask, d, 0.0)
        s += d
        q += d * d
        start += BP
    s1 = tl.sum(s, axis=0)
    m2 = tl.sum(q, axis=0) - s1 * s1 / pixels
    mean = pivot + s1 / pixels
    added = load_channels(shift + image * shift_stride, c, valid) * shift_gain
    mean = tl.where(valid, mean + added, 0.0)
    centre = sum_groups(mean, group, MANY) / size
    spread = tl.where(valid, m2 + pixels * (mean - centre) * (mean - centre), 0.0)
    rstd = tl.rsqrt(sum_groups(spread, group, MANY) / (size * pixels) + eps)
    centre -= added  # of x, not of the sum
    tl.store(rstds + image * channels + c, rstd, mask=valid)
    tl.store(centres + image * channels + c, centre, mask=valid)
    w = load_channels(weight, c, valid)
    b = load_channels(bias, c, valid)
    to = image
    if TURN:
        to = turned(image, outer, inner)
    start = 0
    while start < pixels:
        p = start + tl.arange(0, BP)
        mask = (p[:, None] < pixels) & valid[None, :]
        v = load_pair(x, skip, image, p, c, mask, pixels, c1, c2)
        z = (v - centre[None, :]) * (rstd * w)[None, :] + b[None, :]
        if silu != 0:
            z = z * tl.sigmoid(z)
        tl.store(y + tile_offsets(to, p, c, pixels, channels), z.to(y.dtype.element_ty), mask=mask)
        start += BP


@triton.jit(do_not_specialize=["pixels", "chunk"])
def moments_kernel(
    x, skip, means, m2s, pixels, c1, c2, chunk, BP: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    k, image = tl.program_id(0), tl.program_id(1)
    channels = c1 + c2
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    valid = c < channels
    begin = k * chunk
    end = tl.minimum(begin + chunk, pixels)
    first = begin + tl.arange(0, 1)
    pivot = tl.sum(load_pair(x, skip, image, first, c, valid[None, :], pixels, c1, c2), axis=0)
    s = tl.zeros([BP, BC], tl.float32)
    q = tl.zeros([BP, BC], tl.float32)
    start = begin
    while start < end:
        p = start + tl.arange(0, BP)
        mask = (p[:, None] < end) & valid[None, :]
        d = load_pair(x, skip, image, p, c, mask, pixels, c1, c2) - pivot[None, :]
        d = tl.where(mask, d, 0.0)
        s += d
        q += d * d
        start += BP
    count = end - begin
    s1 = tl.sum(s, axis=0)
    at = (image * tl.num_programs(0) + k) * channels + c
    tl.store(means + at, pivot + s1 / count, mask=valid)
    tl.store(m2s + at, tl.sum(q, axis=0) - s1 * s1 / count, mask=valid)


@triton.jit(do_not_specialize=["pixels", "size", "chunk", "chunks", "shift_stride"])
def join_kernel(
    means, m2s, skip_means, skip_m2s, shift, rstds, centres,
    pixels, chunks, chunk, c1, c2, size, eps, shift_stride, shift_gain,
    BK: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    group, image = tl.program_id(0), tl.program_id(1)
    channels = c1 + c2
    local = tl.arange(0, BC)
    c = group * size + local
    valid = local < size
    added = load_channels(shift + image * shift_stride, c, valid) * shift_gain
    row = tl.arange(0, 1)
    first = tl.load(pair_pointers(means, skip_means, image, row, c, chunks, c1, c2), mask=valid[None, :], other=0.0)
    pivot = tl.sum(tl.sum(tl.where(local[None, :] == 0, first + added[None, :], 0.0), axis=0), axis=0)
    total = tl.zeros([BK, BC], tl.float32)
    spread = tl.zeros([BK, BC], tl.float32)
    start = 0
    while start < chunks:
        k = start + tl.arange(0, BK)
        mask = (k[:, None] < chunks) & valid[None, :]
        count = tl.minimum(pixels - k * chunk, chunk).to(tl.float32)
        at = pair_pointers(means, skip_means, image, k, c, chunks, c1, c2)
        d = tl.load(at, mask=mask, other=0.0) + added[None, :] - pivot
        at = pair_pointers(m2s, skip_m2s, image, k, c, chunks, c1, c2)
        m2 = tl.load(at, mask=mask, other=0.0)
        d = tl.where(mask, d, 0.0)
        total += count[:, None] * d
        spread += m2 + count[:, None] * d * d
        start += BK
    mean = tl.sum(tl.sum(total, axis=0), axis=0) / (size * pixels)  # about the pivot, as the spread is
    variance = tl.sum(tl.sum(spread, axis=0), axis=0) / (size * pixels) - mean * mean
    rstd = tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    centre = pivot + mean
    tl.store(rstds + image * channels + c, tl.zeros([BC], tl.float32) + rstd, mask=valid)
    tl.store(centres + image * channels + c, centre - added, mask=valid)


@triton.jit(do_not_specialize=["pixels", "silu", "outer", "inner"])
def normalise_kernel(
    x, skip, rstds, centres, weight, bias, y, pixels, c1, c2, silu, outer, inner,
    TURN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1)
    channels = c1 + c2
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    valid = c < channels
    mask = (p[:, None] < pixels) & valid[None, :]
    v = load_pair(x, skip, image, p, c, mask, pixels, c1, c2)
    w = load_channels(weight, c, valid)
    gain = load_channels(rstds + image * channels, c, valid) * w
    centre = load_channels(centres + image * channels, c, valid)
    b = load_channels(bias, c, valid)
    z = (v - centre[None, :]) * gain[None, :] + b[None, :]
    if silu != 0:
        z = z * tl.sigmoid(z)
    to = image
    if TURN:
        to = turned(image, outer, inner)
    tl.store(y + tile_offsets(to, p, c, pixels, channels), z.to(y.dtype.element_ty), mask=mask)


def shapes(x: Tensor, skip: Tensor | None, groups: int) -> tuple[int, int, int, int, int]:
    """(pictures, pixels, channels of x, channels of skip, channels of a group)."""
    n, c1, h, w = x.shape
    c2 = 0 if skip is None else skip.shape[1]
    return n, h * w, c1, c2, (c1 + c2) // groups


def small_blocks(size: int, channels: int, c1: int) -> tuple[int, int, tuple[bool, int, int]]:
    """(programs, channels a program: whole groups, the small kernels' MANY, ALIGN, BC)."""
    per = 8 // math.gcd(size, 8)  # groups until loads are of 8 channels
    if per * size > 128:
        per = 1
    while 2 * per * size <= 32:
        per *= 2
    width = per * size
    columns = max(1 << (width - 1).bit_length(), 32)
    align = 8 if width % 8 == 0 and c1 % 8 == 0 and channels % 8 == 0 else 1
    return cdiv(channels, width), width, (columns <= 64 or per > 1, align, columns)


def chunk_length(n: int, pixels: int, blocks: int) -> int:
    """Pixels of a chunk: a multiple of the tile's, such that about :data:`CHUNKS` programs run."""
    wanted = max(1, CHUNKS // (n * blocks))
    return max(cdiv(cdiv(pixels, wanted), TILE_P), 1) * TILE_P


def first_launches(device: torch.device, dtype: torch.dtype) -> list[Callable[[], None]]:
    """One launch of every forward kernel, in the forms for numbers of channels that are multiples of 16; on small zeros."""
    x = torch.zeros((1, 64, 33, 32), device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    v, f = torch.zeros(64, device=device, dtype=dtype), torch.zeros((2, 1, 64), device=device)
    pixels, tile = 33 * 32, (TILE_P, TILE_C)

    def small(columns: int) -> None:
        args = (x, x, v, v, v, torch.empty_like(x), f[0], f[1], 64, 64, 0, columns, columns, 1e-5, 0, 0.0, 1, 1, 1)
        launch(small_kernel, (1, 1, 1), args, (True, 8, False, 8192 // columns, columns), 8)

    def join(wide: int, many: bool) -> None:
        rstds, centres = torch.empty_like(f[0]), torch.empty_like(f[0])
        args = (f[0], f[1], f[0], f[1], v, rstds, centres, pixels, 1, pixels, 64, 0, 2, 1e-5, 0, 0.0)
        launch(join_kernel, (1, 1, 1), args, *_join_form(wide, many))

    def moments() -> None:
        m = torch.empty_like(f)
        launch(moments_kernel, (1, 1, 1), (x, x, m[0], m[1], pixels, 64, 0, pixels), tile, 4)

    def normalise() -> None:
        args = (x, x, f[0], f[1], v, v, torch.empty_like(x), pixels, 64, 0, 1, 1, 1)
        launch(normalise_kernel, (1, 1, 1), args, (False, *tile), 4)

    def held(rows: int, columns: int) -> None:
        args = (x, x, v, v, v, torch.empty_like(x), f[0], f[1], rows, 64, 0, columns, columns, 1e-5, 0, 0.0, 1, 1, 1)
        launch(held_kernel, (1, 1, 1), args, (True, 8, False, rows, columns), _held_warps(rows * columns))

    tasks = [
        lambda: small(32),
        lambda: small(64),
        moments,
        normalise,
        *(lambda w=w, m=m: join(w, m) for w in (16, 32, 64, 128) for m in (False, True)),
    ]
    return tasks + [lambda r=r, c=c: held(r, c) for r, c in ((256, 32), (64, 32), (64, 64), (16, 64))]


def _join_form(wide: int, many: bool) -> tuple[tuple[int, int], int]:
    """Constants of ``join_kernel`` for groups of up to ``wide`` channels, and its warps."""
    return (max((512 if many else 1024) // wide, 1), wide), 1 if many else 4


def _held_warps(values: int) -> int:
    return max(values // (32 * HELD_VALUES), 1)


def _kept(x: Tensor, skip: Tensor | None, pixels: int) -> tuple[Tensor, ...] | None:
    """Moments that came with the maps, ``x``'s and ``skip``'s; on large maps, one of the two may be missing and is made."""
    given = [recall(t) for t in (x, x if skip is None else skip)]
    if given == [None, None] or (pixels <= SMALL and None in given):
        return None
    for i, t in enumerate((x, skip)):
        if given[i] is None:
            n, c = t.shape[:2]
            given[i] = Moments.empty(t)
            args = (t, t, *given[i], pixels, c, 0, CHUNK)
            launch(moments_kernel, (pixels // CHUNK, n, cdiv(c, TILE_C)), args, (TILE_P, TILE_C), 4)
    return (*given[0], *given[1])


def forward(
    x: Tensor,
    skip: Tensor | None,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    turn: tuple[int, int] = (1, 1),
) -> tuple[Tensor, Tensor, Tensor]:
    """Channels-last maps [N, C, H, W] -> (result, 1 / standard deviation [N, C], centre [N, C]).

    The normalised value of ``v`` is ``(v - centre) * rstd``. ``turn``: see ``group_norm``; concerns the result only.
    """
    n, pixels, c1, c2, size = shapes(x, skip, groups)
    channels = c1 + c2
    y = torch.empty((n, channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rstds, centres = torch.empty((2, n, channels), dtype=torch.float32, device=x.device).unbind(0)
    other = x if skip is None else skip
    stride = channels if shift is not None and shift.dim() == 2 else 0
    added, gain = (weight, 0.0) if shift is None else (shift, 1.0)  # weight: any vector, times 0
    kept = _kept(x, skip, pixels)
    if pixels <= SMALL:
        programs, width, (many, align, columns) = small_blocks(size, channels, c1)
        args = (x, other, added, weight, bias, y, rstds, centres)
        args += (pixels, c1, c2, size, width, eps, stride, gain, int(silu), *turn)
        rows = max(1 << (pixels - 1).bit_length(), 16)
        if rows * columns <= HELD:
            constants = (many, align, 1 not in turn, rows, columns)
            launch(held_kernel, (programs, n, 1), args, constants, _held_warps(rows * columns))
            return y, rstds, centres
        if kept is None:
            launch(small_kernel, (programs, n, 1), args, (many, align, 1 not in turn, 8192 // columns, columns), 8)
            return y, rstds, centres
    blocks = cdiv(channels, TILE_C)
    tile = (TILE_P, TILE_C)
    if kept is None:
        chunk, split = chunk_length(n, pixels, blocks), (channels, 0)
        means, m2s = torch.empty((2, n, cdiv(pixels, chunk), channels), dtype=torch.float32, device=x.device).unbind(0)
        args = (x, other, means, m2s, pixels, c1, c2, chunk)
        launch(moments_kernel, (cdiv(pixels, chunk), n, blocks), args, tile, 4)
        kept = (means, m2s, means, m2s)
    else:
        chunk, split = CHUNK, (c1, c2)
    chunks = cdiv(pixels, chunk)
    args = (*kept, added, rstds, centres, pixels, chunks, chunk, *split, size, eps, stride, gain)
    form = _join_form(max(1 << (size - 1).bit_length(), 16), n * groups >= MANY_GROUPS)
    launch(join_kernel, (groups, n, 1), args, *form)
    args = (x, other, rstds, centres, weight, bias, y, pixels, c1, c2, int(silu), *turn)
    launch(normalise_kernel, (cdiv(pixels, TILE_P), n, blocks), args, (1 not in turn, *tile), 4)
    return y, rstds, centres
