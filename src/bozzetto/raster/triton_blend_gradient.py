"""Gradient of the compositing: Triton kernel.

The work is divided into parts of cells (4 x 4 pixels, LANES = 2, or 8 x 4, LANES = 4); each part has its own list: the
Gaussians that contributed to it, which compositing marked by one bit each. LANES threads take one part, each of them eight
of its pixels (two columns, four rows), back to front; so one warp goes through 32 / LANES lists at once. The programs of
one tile sort its parts by the length of their lists, so that those of one warp end at about the same time.

Per Gaussian and pixel there are two numbers: the weight w of its colour and v = dL/d(ln alpha). All that the loss knows of
a Gaussian are sums over pixels, its moments: of v times 1, dx, dy, dx^2, dx dy, dy^2, and of w times the gradients of red and
green, which are eight numbers side by side, and of w times those of blue and depth, which have a place behind. A
thread sums over its pixels in registers; the threads of a part then add theirs by shuffles, and each writes some of the
sums. While one Gaussian is dealt with, the record of the next one is on its way, and the index of the one after it. Shared
memory and barriers are used only where lists are chosen, before the first Gaussian.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_bins import CELLS
from .triton_blend import MAX_ALPHA, cell_place, colour, exponent, load_record, opacity
from .triton_launch import Launcher
from .triton_layout import CELL, TILE, Layout
from .triton_memory import Piece, pieces
from .triton_numbers import highest_bit, reciprocal, sum_two, unsigned

if TYPE_CHECKING:
    from .triton_call import Kept

BEHIND = tl.constexpr(0x7FFFFFFF)  # a position in no list
REGISTERS = 128
GROUP = 512  # tiles whose longest lists come first; about as many as a large device holds at once


@triton.jit
def longest_parts(lengths, share, LANES: tl.constexpr):
    """Of a tile's parts, by length of list, the share-th 32 / LANES: for each thread, the part and the length."""
    keys = (lengths << 8) | tl.arange(0, lengths.shape[0])
    rank = tl.sum((keys[None, :] > keys[:, None]).to(tl.int32), axis=1)
    mine = share * (32 // LANES) + tl.arange(0, 32) // LANES
    keys = tl.sum(tl.where(rank[None, :] == mine[:, None], keys[None, :], 0), axis=1)
    return keys & 255, keys >> 8


@triton.jit
def next_drawn(words, word, before, batch, left, STRIDE: tl.constexpr):
    """Take the last Gaussian from every list, if the word at hand or the one before has any: its position in the list, or
    one behind all. ``before`` is the word before that at hand, number ``batch``."""
    empty = (word == 0) & (left > 0)
    word = tl.where(empty, before, word)
    batch -= empty.to(tl.int32)
    before = tl.load(words + batch * STRIDE, mask=empty & (batch >= 0), other=before)
    exists = word != 0
    bit = tl.where(exists, highest_bit(word), 0)
    position = tl.where(exists, (batch + 1) * 32 + bit, BEHIND)
    word = tl.where(exists, word ^ (1 << bit), 0)
    return position, word, before, batch, left - exists.to(tl.int32)


@triton.jit(do_not_specialize=["N", "V", "height", "width", "tiles_x", "tiles"])
def blend_gradient_kernel(
    records, depths, sh, ids, counts, ends, background, alpha, rest, last, words, numbers, grad_rgb, grad_alpha, grad_depth,
    moments, more_moments, N, V, height, width, tiles_x, tiles,
    LANES: tl.constexpr, LEAN: tl.constexpr, TILE: tl.constexpr, CELL: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One program: 32 / LANES parts of one tile of one view; adds to moments [views, N, 8] and more_moments [views, N, 2],
    or [views, N, 1] if there is no gradient of depth."""
    PER_CELL: tl.constexpr = CELL * CELL // (8 * LANES)  # parts
    CELLS: tl.constexpr = (TILE // CELL) * (TILE // CELL)
    PROGRAMS: tl.constexpr = CELLS * PER_CELL * LANES // 32  # of one tile
    ACROSS: tl.constexpr = CELL // (2 * LANES)  # parts side by side in a cell
    # Of every GROUP tiles, first the programs with the longest lists of each.
    before = tl.program_id(0) // (PROGRAMS * GROUP) * GROUP
    size = tl.minimum(tl.num_programs(0) // PROGRAMS - before, GROUP)
    place = tl.program_id(0) - before * PROGRAMS
    tile = before + place % size
    lengths = tl.load(numbers + tile * CELLS * PER_CELL + tl.arange(0, CELLS * PER_CELL))
    if tl.max(lengths, axis=0) == 0:
        return
    part, left = longest_parts(lengths, place // size, LANES)
    if tl.max(left, axis=0) == 0:
        return
    lane = tl.arange(0, 32)
    cell = tile * CELLS + part // PER_CELL
    part = part % PER_CELL
    camera = tile // tiles
    _, x, y = cell_place(cell, tiles_x, tiles, TILE, CELL)
    x += (part % ACROSS) * (2 * LANES) + (lane % LANES) * 2
    y += (part // ACROSS) * 4
    start = tl.load(ends + cell) - tl.load(counts + cell)
    ids += start
    words += (start >> 5) * PER_CELL + part
    records += camera.to(tl.int64) * N * (3 if LEAN else 5)
    depths += camera.to(tl.int64) * N
    sh += (camera // V).to(tl.int64) * N * 3
    MORE: tl.constexpr = 1 if grad_depth is None else 2
    moments += camera.to(tl.int64) * N * 8
    more_moments += camera.to(tl.int64) * N * MORE
    background += camera.to(tl.int64) * 3

    light, ahead, final, g_red, g_green, g_blue, g_depth = (), (), (), (), (), (), ()
    latest = lane * 0
    for p in tl.static_range(8):
        inside = (x + p // 4 < width) & (y + p % 4 < height)
        pixel = (camera.to(tl.int64) * height + y + p % 4) * width + x + p // 4
        through = 1.0 - tl.load(alpha + pixel, mask=inside, other=0.0)
        through += tl.load(rest + pixel, mask=inside, other=0).to(tl.float32) * 2.3283064365386963e-10
        light = light + (through,)
        behind = unsigned(tl.load(last + pixel, mask=inside, other=0)) + 1
        final = final + (tl.where(light[p] < 1.0, behind, 0),)  # of no Gaussian if all light came through
        latest = tl.maximum(latest, final[p])
        g_red = g_red + (tl.load(grad_rgb + pixel * 3 + 0, mask=inside, other=0.0),)
        g_green = g_green + (tl.load(grad_rgb + pixel * 3 + 1, mask=inside, other=0.0),)
        g_blue = g_blue + (tl.load(grad_rgb + pixel * 3 + 2, mask=inside, other=0.0),)
        if grad_depth is not None:
            g_depth = g_depth + (tl.load(grad_depth + pixel, mask=inside, other=0.0),)
        # What the loss gains, per unit of light, if what is behind the current Gaussian gets none: at first that is the
        # background, and -alpha.
        gain = tl.load(grad_alpha + pixel, mask=inside, other=0.0) - g_red[p] * tl.load(background + 0)
        gain -= g_green[p] * tl.load(background + 1) + g_blue[p] * tl.load(background + 2)
        ahead = ahead + (gain,)

    # Lists are taken from the word in which the part's last Gaussian stands.
    latest = tl.max(latest.reshape(32 // LANES, LANES), axis=1)[:, None]
    batch = (tl.broadcast_to(latest, [32 // LANES, LANES]).reshape(32) + 31) >> 5
    px = x.to(tl.float32) + 0.5
    py = y.to(tl.float32) + 0.5
    word = lane * 0
    batch -= 1
    before = tl.load(words + batch * PER_CELL, mask=left > 0, other=0)
    # On the way, in every round: the record of the next Gaussian, the index of the one after it, the next word.
    position, word, before, batch, left = next_drawn(words, word, before, batch, left, PER_CELL)
    n = unsigned(tl.load(ids + position, mask=position < BEHIND, other=0))
    DEEP: tl.constexpr = grad_depth is not None
    mx, my, a, b, c, bias, r, g, bl, z = load_record(records, depths, sh, n, position < BEHIND, LEAN, DEEP)
    next_position, word, before, batch, left = next_drawn(words, word, before, batch, left, PER_CELL)
    next_n = unsigned(tl.load(ids + next_position, mask=next_position < BEHIND, other=0))
    going = 1
    while going > 0:
        coming = (left > 0) | (next_position < BEHIND)
        mx1, my1, a1, b1, c1, bias1, r1, g1, bl1, z1 = load_record(
            records, depths, sh, next_n, next_position < BEHIND, LEAN, DEEP
        )
        later, word, before, batch, left = next_drawn(words, word, before, batch, left, PER_CELL)
        later_n = unsigned(tl.load(ids + later, mask=later < BEHIND, other=0))
        r, g, bl = colour(r, LEAN), colour(g, LEAN), colour(bl, LEAN)
        dx = px - mx
        dy = py - my
        new_light, new_ahead = (), ()
        columns = ()
        m6, m7, m8, m9 = 0.0, 0.0, 0.0, tl.zeros([32], tl.float32)
        for i in tl.static_range(2):
            s0, s1, s2 = 0.0, 0.0, 0.0  # sums of v, v dy and v dy^2 over the pixels of one column
            for j in tl.static_range(4):
                ey = dy + j
                power = exponent(dx + i, ey, a, b, c, bias)
                opaque, raw = opacity(power, bias, position, final[4 * i + j])
                gain = ahead[4 * i + j]
                if grad_depth is not None:
                    gain = tl.fma(g_depth[4 * i + j], z, gain)
                gain = tl.fma(g_blue[4 * i + j], bl, gain)
                gain = tl.fma(g_red[4 * i + j], r, tl.fma(g_green[4 * i + j], g, gain))
                through = light[4 * i + j] * reciprocal(1.0 - opaque)
                w = through * opaque
                # Through the clamp at 0.99 nothing passes.
                v = tl.where(raw <= MAX_ALPHA, w * gain, 0.0)
                new_light = new_light + (through,)
                new_ahead = new_ahead + (ahead[4 * i + j] - opaque * gain,)
                s0 += v
                s1 += v * ey
                s2 += v * (ey * ey)
                m6 += w * g_red[4 * i + j]
                m7 += w * g_green[4 * i + j]
                m8 += w * g_blue[4 * i + j]
                if grad_depth is not None:
                    m9 += w * g_depth[4 * i + j]
            columns = columns + (s0, s1, s2)
        x0 = dx * columns[0]
        x1 = (dx + 1.0) * columns[3]
        m = (
            columns[0] + columns[3], x0 + x1, columns[1] + columns[4],
            dx * x0 + (dx + 1.0) * x1, dx * columns[1] + (dx + 1.0) * columns[4], columns[2] + columns[5],
            m6, m7, m8, m9,
        )  # fmt: skip
        light = new_light
        ahead = new_ahead

        add_moments(moments + n * 8, more_moments + n * MORE, position < BEHIND, m, LANES, MORE)
        mx, my, a, b, c, bias, r, g, bl, z = mx1, my1, a1, b1, c1, bias1, r1, g1, bl1, z1
        n, position = next_n, next_position
        next_n, next_position = later_n, later
        going = tl.max(coming.to(tl.int32), axis=0)


@triton.jit
def add_moments(out, more, drawn, m, LANES: tl.constexpr, MORE: tl.constexpr):
    """Add the sums over LANES threads; each thread writes some of them, in one access where the device has it."""
    lane = tl.arange(0, 32)
    s0 = sum_two(m[0], m[4], LANES // 2)
    s1 = sum_two(m[1], m[5], LANES // 2)
    s2 = sum_two(m[2], m[6], LANES // 2)
    s3 = sum_two(m[3], m[7], LANES // 2)
    s4 = sum_two(m[8], m[9], LANES // 2)
    upper = lane % LANES // (LANES // 2)
    if LANES == 2:
        four = tl.join(tl.join(s0, s2), tl.join(s1, s3)).reshape(32, 4)
        to = (out + 4 * upper)[:, None] + tl.arange(0, 4)[None, :]
        tl.atomic_add(to, four, mask=drawn[:, None], sem="relaxed")
    else:
        two = tl.join(sum_two(s0, s2, 1), sum_two(s1, s3, 1))
        to = (out + 4 * upper + 2 * (lane % 2))[:, None] + tl.arange(0, 2)[None, :]
        tl.atomic_add(to, two, mask=drawn[:, None], sem="relaxed")
        s4 = sum_two(s4, s4, 1)
        drawn = drawn & (lane % 2 == 0)
    tl.atomic_add(more + upper, s4, mask=drawn & (upper < MORE), sem="relaxed")


@cache
def _launcher(lanes: int, lean: bool, index: torch.dtype, without_depth: bool) -> Launcher:
    """One for each form of the arguments: ``index`` is the dtype of indices, the gradient of depth a tensor or None."""
    constants = {"LANES": lanes, "LEAN": lean, "TILE": TILE, "CELL": CELL, "GROUP": GROUP}
    return Launcher(blend_gradient_kernel, constants, num_warps=1, maxnreg=REGISTERS)


def blend_gradient(
    kept: Kept,
    sh: Tensor,
    background: Tensor,
    alpha: Tensor,
    grad_rgb: Tensor,
    grad_alpha: Tensor,
    grad_depth: Tensor | None,
    layout: Layout,
) -> tuple[Piece, Piece]:
    """Moments of the Gaussians in every picture: [S * V, N, 8] and [S * V, N, 2], or [S * V, N, 1] for ``grad_depth`` None,
    which is 0."""
    size = layout.cameras * layout.n
    more = size * (1 if grad_depth is None else 2)
    both = torch.zeros(size * 8 + more, device=sh.device)
    moments, more_moments = pieces(both, ((0, size * 8, both.dtype), (size * 32, more, both.dtype)))
    _launcher(layout.lanes, layout.lean, layout.index, grad_depth is None)(
        layout.cameras * layout.tiles * CELLS * layout.parts * layout.lanes // 32,
        kept.records, kept.depths, sh, kept.entries, kept.counts, kept.ends, background, alpha,
        kept.rest, kept.last, kept.words, kept.numbers, grad_rgb, grad_alpha, grad_depth, moments, more_moments,
        layout.n, layout.views, layout.height, layout.width, layout.tiles_x, layout.tiles,
    )  # fmt: skip
    return moments, more_moments
