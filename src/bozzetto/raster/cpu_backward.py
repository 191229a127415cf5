"""CPU kernels: from gradients of a picture to gradients of the splats, one band (row of tiles) at a time.

The loss depends on a splat's alpha through its own weight and through the transmittance of all that lies behind. With
e = (c, z) . (gradient of rgb, of depth) at the pixel: d loss / d alpha_i = T_i e_i - B_i / (1 - alpha_i), where B_i is
the sum of w_j e_j behind i plus T_end (background . gradient of rgb - gradient of alpha). Tiles are walked back to
front, which yields T_i by division and B_i by addition.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cpu_forward import block_range
from .lanes import (
    BLUE,
    DEPTH,
    GREEN,
    INT,
    INTS,
    LANES,
    RECORD,
    RED,
    SIDE,
    TILE,
    TILE_BLOCKS,
    Emitter,
)
from .reference import MAX_ALPHA
from .threads import compiled

# State of a block while its tile is walked: planes of 16 lanes.
_T, _BEHIND, _RED, _GREEN, _BLUE, _DEPTH, _STOP = range(7)  # _STOP: int32 bits
_BLOCK = 7 * LANES

# Sums over pixels, in a row of 16 (six unused): gradients of colour and depth, then that of sigma times 1, dx, dy, dx^2,
# dx dy, dy^2 (offsets of the pixel from the splat's centre).
SUM_RED, SUM_GREEN, SUM_BLUE, SUM_DEPTH, SUM_1, SUM_X, SUM_Y, SUM_XX, SUM_XY, SUM_YY = range(10)
_SUMS = 10
ROW = LANES


@intrinsic
def _backward_splat(context, records, index, place, x, y, bx0, bx1, by0, by1, state, lasts, sums, row):
    """Take splat ``index`` out of the tile's state (blocks bx0..bx1-1 x by0..by1-1) and write its sums.

    x, y: first pixel centre of the tile; place: the splat's place in the tile's list; lasts [blocks] int64: the first
    place that a block does not need; sums [rows, 16], written at ``row`` if any pixel takes part, which is returned.
    """
    arguments = (records, index, place, x, y, bx0, bx1, by0, by1, state, lasts, sums, row)
    signature = types.boolean(*arguments)

    def generate(context, builder, signature, arguments):
        def data(i):
            return context.make_array(signature.args[i])(context, builder, arguments[i]).data

        records, state, lasts, sums = data(0), data(9), data(10), data(11)
        index, place, x, y, bx0, bx1, by0, by1 = arguments[1:9]
        e = Emitter(builder)
        zero, one = e.constant(0.0), e.constant(1.0)
        record = builder.gep(records, [builder.mul(index, e.number(RECORD))])
        accumulators = [cgutils.alloca_once_value(builder, zero) for _ in range(_SUMS)]
        touched = cgutils.alloca_once_value(builder, cgutils.false_bit)
        here = e.spread(builder.trunc(place, INT))

        with cgutils.for_range(builder, by1, start=by0) as outer, cgutils.for_range(builder, bx1, start=bx0) as inner:
            block = builder.add(builder.mul(outer.index, e.number(TILE_BLOCKS)), inner.index)
            needed = builder.icmp_signed("<", place, builder.load(builder.gep(lasts, [block])))
            with builder.if_then(needed):
                planes = builder.gep(state, [builder.mul(block, e.number(_BLOCK))])
                dx, dy = e.offsets(record, e.block_start(x, inner.index), e.block_start(y, outer.index))
                raw, alpha, counts = e.falloff(record, dx, dy)
                unfinished = builder.icmp_signed("<", here, e.load(planes, _STOP * LANES, INTS))
                counts = e.both(counts, unfinished)
                with builder.if_then(e.any(counts)):
                    builder.store(cgutils.true_bit, touched)
                    alpha = e.choose(counts, alpha, zero)
                    inverse = e.div(one, e.sub(one, alpha))
                    before = e.mul(e.load(planes, _T * LANES), inverse)
                    e.store(before, planes, _T * LANES)
                    weight = e.mul(before, alpha)
                    value = zero
                    for i, (plane, field) in enumerate(((_RED, RED), (_GREEN, GREEN), (_BLUE, BLUE), (_DEPTH, DEPTH))):
                        gradient = e.load(planes, plane * LANES)
                        value = e.fused(e.spread(e.field(record, field)), gradient, value)
                        builder.store(e.fused(weight, gradient, builder.load(accumulators[i])), accumulators[i])
                    behind = e.load(planes, _BEHIND * LANES)
                    e.store(e.fused(weight, value, behind), planes, _BEHIND * LANES)
                    # d alpha / d sigma = -alpha, and 0 where alpha is clamped.
                    slope = e.choose(e.at_least(e.constant(MAX_ALPHA), raw), alpha, zero)
                    gradient = e.mul(slope, e.sub(e.mul(behind, inverse), e.mul(before, value)))
                    along_x, along_y = e.mul(gradient, dx), e.mul(gradient, dy)
                    for i, term in ((SUM_1, gradient), (SUM_X, along_x), (SUM_Y, along_y)):
                        builder.store(e.add(builder.load(accumulators[i]), term), accumulators[i])
                    for i, a, b in ((SUM_XX, along_x, dx), (SUM_XY, along_x, dy), (SUM_YY, along_y, dy)):
                        builder.store(e.fused(a, b, builder.load(accumulators[i])), accumulators[i])

        with builder.if_then(builder.load(touched)):
            target = builder.gep(sums, [builder.mul(arguments[12], e.number(ROW))])
            e.store(e.totals([builder.load(a) for a in accumulators]), target, 0)
        return builder.load(touched)

    return signature, generate


@compiled
def backward_band(records, band, background, starts, ids, ends, stops, grad_rgb, grad_alpha, grad_depth):
    """Gradients of one band of one view.

    Args:
        records [M, 16], band, background [3], starts, ids, ends, stops: as of
            :func:`bozzetto.raster.cpu_forward.forward_band`.
        grad_rgb [H, W, 3], grad_alpha [H, W], grad_depth [H, W].

    Returns:
        members [R] int32 (splats), sums [R, 16] (their sums, one row per splat and tile), grad_background [3] float64.
    """
    height, width = ends.shape
    tiles_x = len(starts) - 1
    members = np.empty(len(ids), np.int32)
    sums = np.empty((len(ids), ROW), np.float32)
    grad_background = np.zeros(3)
    state = np.empty(TILE_BLOCKS * TILE_BLOCKS * _BLOCK, np.float32)
    integers = state.view(np.int32)
    lasts = np.empty(TILE_BLOCKS * TILE_BLOCKS, np.int64)
    red, green, blue = background[0], background[1], background[2]
    row = 0
    for t in range(tiles_x):
        for block in range(TILE_BLOCKS * TILE_BLOCKS):
            lasts[block] = 0
            for lane in range(LANES):
                y = band * TILE + block // TILE_BLOCKS * SIDE + lane // SIDE
                x = t * TILE + block % TILE_BLOCKS * SIDE + lane % SIDE
                at = block * _BLOCK + lane
                if y < height and x < width:
                    end = ends[y, x]
                    r, g, b = grad_rgb[y, x, 0], grad_rgb[y, x, 1], grad_rgb[y, x, 2]
                    state[at + _T * LANES] = end
                    state[at + _BEHIND * LANES] = end * (red * r + green * g + blue * b - grad_alpha[y, x])
                    state[at + _RED * LANES] = r
                    state[at + _GREEN * LANES] = g
                    state[at + _BLUE * LANES] = b
                    state[at + _DEPTH * LANES] = grad_depth[y, x]
                    integers[at + _STOP * LANES] = stops[y, x]
                    lasts[block] = max(lasts[block], stops[y, x])
                    grad_background[0] += end * r
                    grad_background[1] += end * g
                    grad_background[2] += end * b
                else:
                    for plane in range(_STOP):
                        state[at + plane * LANES] = 1.0 if plane == _T else 0.0
                    integers[at + _STOP * LANES] = 0
        x, y = float(t * TILE), float(band * TILE)
        for place in range(starts[t + 1] - starts[t] - 1, -1, -1):
            i = ids[starts[t] + place]
            bx0, bx1, by0, by1 = block_range(records, i, t * TILE, band * TILE)
            if _backward_splat(
                records, np.int64(i), place, np.float32(x + 0.5), np.float32(y + 0.5),
                bx0, bx1, by0, by1, state, lasts, sums, row,
            ):  # fmt: skip
                members[row] = i
                row += 1
    return members[:row], sums[:row], grad_background


@compiled
def add_sums(begin, end, members, sums, total):
    """Add the rows of ``sums`` [R, 16] that belong to the splats begin..end into ``total`` [M, 16], in order."""
    for row in range(len(members)):
        i = members[row]
        if begin <= i < end:
            for field in range(_SUMS):
                total[i, field] += sums[row, field]
