"""CPU kernels: splats to tile lists, and tile lists to pictures, one band (row of tiles) at a time."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import (
    BLUE,
    DEPTH,
    GREEN,
    HALF_X,
    HALF_Y,
    INT,
    INTS,
    LANES,
    RECORD,
    RED,
    SIDE,
    SLANT,
    SLANT_SINE,
    TILE,
    TILE_BLOCKS,
    X_PART,
    X_WHOLE,
    Y_PART,
    Y_WHOLE,
    Emitter,
)
from .reference import MIN_TRANSMITTANCE
from .threads import compiled

# State of a block while its tile is composited: planes of 16 lanes. _T is negative once the pixel is finished; _STOP
# (int32 bits) is the place, in the tile's list, of the splat before which the pixel finished.
_T, _RED, _GREEN, _BLUE, _DEPTH, _STOP = range(6)
_BLOCK = 6 * LANES
NEVER = 2**31 - 1  # stop of a pixel that meets every splat of its tile's list


@intrinsic
def _composite_splat(context, records, index, place, x, y, bx0, bx1, by0, by1, state, live):
    """Composite splat ``index`` onto the blocks bx0..bx1-1 x by0..by1-1 of a tile.

    x, y: first pixel centre of the tile; place: the splat's place in the tile's list; live [blocks] int64: 1 for the
    blocks with unfinished pixels. Returns how many blocks this splat finished (int64).
    """
    signature = types.int64(records, index, place, x, y, bx0, bx1, by0, by1, state, live)

    def generate(context, builder, signature, arguments):
        def data(i):
            return context.make_array(signature.args[i])(context, builder, arguments[i]).data

        records, state, live = data(0), data(9), data(10)
        index, place, x, y, bx0, bx1, by0, by1 = arguments[1:9]
        e = Emitter(builder)
        zero = e.constant(0.0)
        record = builder.gep(records, [builder.mul(index, e.number(RECORD))])
        finished = cgutils.alloca_once_value(builder, e.number(0))
        here = e.spread(builder.trunc(place, INT))

        with cgutils.for_range(builder, by1, start=by0) as outer, cgutils.for_range(builder, bx1, start=bx0) as inner:
            block = builder.add(builder.mul(outer.index, e.number(TILE_BLOCKS)), inner.index)
            flag = builder.gep(live, [block])
            with builder.if_then(builder.icmp_signed("!=", builder.load(flag), e.number(0))):
                planes = builder.gep(state, [builder.mul(block, e.number(_BLOCK))])
                dx, dy = e.offsets(record, e.block_start(x, inner.index), e.block_start(y, outer.index))
                _, alpha, counts = e.falloff(record, dx, dy)
                with builder.if_then(e.any(counts)):
                    alpha = e.choose(counts, alpha, zero)
                    before = e.load(planes, _T * LANES)
                    weight = e.mul(before, alpha)
                    after = e.sub(before, weight)
                    goes_on = e.less(e.constant(MIN_TRANSMITTANCE), after)
                    weight = e.choose(goes_on, weight, zero)
                    for plane, field in ((_RED, RED), (_GREEN, GREEN), (_BLUE, BLUE), (_DEPTH, DEPTH)):
                        sum_so_far = e.load(planes, plane * LANES)
                        value = e.spread(e.field(record, field))
                        e.store(e.fused(weight, value, sum_so_far), planes, plane * LANES)
                    after = e.choose(goes_on, after, e.smaller(before, e.sub(zero, before)))
                    e.store(after, planes, _T * LANES)
                    finishes = e.both(builder.not_(goes_on), e.less(zero, before))
                    with builder.if_then(e.any(finishes)):
                        stop = e.load(planes, _STOP * LANES, INTS)
                        e.store(e.choose(finishes, here, stop), planes, _STOP * LANES)
                        with builder.if_then(builder.not_(e.any(e.less(zero, after)))):
                            builder.store(e.number(0), flag)
                            builder.store(builder.add(builder.load(finished), e.number(1)), finished)
        return builder.load(finished)

    return signature, generate


@compiled
def _interval(records, i, low, high):
    """Leftmost and rightmost x (pixels) of splat i's ellipse between the rows ``low`` and ``high`` (pixel centres).

    In units of its half extents, with s for y: x = SLANT s -+ SLANT_SINE sqrt(1 - s^2). The right rim is a concave
    function of s with its tip at s = SLANT, so the rightmost point of a band lies at the tip, clamped to the band; the
    left rim is its mirror image.
    """
    x = float(records[i, X_WHOLE]) + float(records[i, X_PART])
    y = float(records[i, Y_WHOLE]) + float(records[i, Y_PART])
    half, slant, sine = float(records[i, HALF_X]), float(records[i, SLANT]), float(records[i, SLANT_SINE])
    scale = 1.0 / records[i, HALF_Y]
    low, high = (low - y) * scale, (high - y) * scale
    tip = min(max(slant, low), high)
    right = min(1.0, slant * tip + sine * math.sqrt(max(0.0, 1.0 - tip * tip) + 1e-6))
    tip = min(max(-slant, low), high)
    left = max(-1.0, slant * tip - sine * math.sqrt(max(0.0, 1.0 - tip * tip) + 1e-6))
    return x + left * half, x + right * half


@compiled
def _tile_lists(records, rows, band, tiles_x):
    """Tile lists of one band: starts [tiles_x + 1] and ids (int32, in the order of ``records``).

    rows: [M, 2] first and last band that each splat touches.
    """
    members = np.empty((len(rows), 3), np.int32)  # splat, first and last tile
    starts = np.zeros(tiles_x + 1, np.int64)
    low = np.float64(band * TILE) + 0.5
    used = 0
    for i in range(len(rows)):
        if rows[i, 0] > band or rows[i, 1] < band:
            continue
        left, right = _interval(records, i, low, low + (TILE - 1))
        # Tile t holds pixel centres TILE t + 0.5 ... TILE t + TILE - 0.5.
        first = int(max(0.0, math.floor(math.ceil(left - 0.5) / TILE)))
        last = int(min(tiles_x - 1.0, math.floor(math.floor(right - 0.5) / TILE)))
        if first > last:
            continue
        members[used, 0], members[used, 1], members[used, 2] = i, first, last
        used += 1
        for t in range(first, last + 1):
            starts[t + 1] += 1
    place = np.empty(tiles_x, np.int64)
    for t in range(tiles_x):
        place[t] = starts[t]
        starts[t + 1] += starts[t]
    ids = np.empty(starts[tiles_x], np.int32)
    for j in range(used):
        for t in range(members[j, 1], members[j, 2] + 1):
            ids[place[t]] = members[j, 0]
            place[t] += 1
    return starts, ids


@compiled
def block_range(records, i, x, y):
    """Blocks bx0, bx1, by0, by1 (ends excluded) of the tile at pixel (x, y) that the bounds of splat i reach."""
    left = float(records[i, X_WHOLE]) + float(records[i, X_PART]) - records[i, HALF_X] - x
    top = float(records[i, Y_WHOLE]) + float(records[i, Y_PART]) - records[i, HALF_Y] - y
    right, bottom = left + 2 * records[i, HALF_X], top + 2 * records[i, HALF_Y]
    bx0 = int(max(0.0, math.ceil((left - (SIDE - 0.5)) / SIDE)))
    bx1 = int(min(TILE_BLOCKS - 1.0, math.floor((right - 0.5) / SIDE))) + 1
    by0 = int(max(0.0, math.ceil((top - (SIDE - 0.5)) / SIDE)))
    by1 = int(min(TILE_BLOCKS - 1.0, math.floor((bottom - 0.5) / SIDE))) + 1
    return bx0, bx1, by0, by1


@compiled
def _start_tile(state, integers, live, columns, rows):
    """Empty the state of a tile of which ``columns`` x ``rows`` pixels lie in the picture; returns its live blocks."""
    remaining = 0
    for block in range(TILE_BLOCKS * TILE_BLOCKS):
        for lane in range(LANES):
            at = block * _BLOCK + lane
            row, column = block // TILE_BLOCKS * SIDE + lane // SIDE, block % TILE_BLOCKS * SIDE + lane % SIDE
            state[at + _T * LANES] = 1.0 if row < rows and column < columns else -1.0
            for plane in range(_RED, _STOP):
                state[at + plane * LANES] = 0.0
            integers[at + _STOP * LANES] = NEVER
        inside = block // TILE_BLOCKS * SIDE < rows and block % TILE_BLOCKS * SIDE < columns
        live[block] = 1 if inside else 0
        remaining += live[block]
    return remaining


@compiled
def forward_band(records, rows, band, background, rgb, alpha, depth, ends, stops):
    """Render one band of one view.

    Args:
        records: [M, 16] in compositing order. rows: [M, 2], first and last band of each. background: [3].
        rgb: [H, W, 3], alpha: [H, W], depth: [H, W], written for the pixels of the band.
        ends, stops: [H, W] float32, int32; final transmittance and stop of every pixel, for the backward pass.

    Returns:
        starts [tiles_x + 1] and ids: the tile lists, cut to what the tile's pixels met.
    """
    height, width = alpha.shape
    tiles_x = (width + TILE - 1) // TILE
    starts, ids = _tile_lists(records, rows, band, tiles_x)
    kept = np.zeros(tiles_x + 1, np.int64)
    state = np.empty(TILE_BLOCKS * TILE_BLOCKS * _BLOCK, np.float32)
    integers = state.view(np.int32)
    live = np.empty(TILE_BLOCKS * TILE_BLOCKS, np.int64)
    y = band * TILE
    for t in range(tiles_x):
        x = t * TILE
        remaining = _start_tile(state, integers, live, min(width - x, TILE), min(height - y, TILE))
        for place in range(starts[t + 1] - starts[t]):
            i = np.int64(ids[starts[t] + place])
            bx0, bx1, by0, by1 = block_range(records, i, x, y)
            remaining -= _composite_splat(
                records, i, place, np.float32(x + 0.5), np.float32(y + 0.5), bx0, bx1, by0, by1, state, live
            )
            ids[kept[t] + place] = i  # never ahead of the place read from
            kept[t + 1] = place + 1
            if remaining == 0:
                break
        kept[t + 1] += kept[t]
        for row in range(min(height - y, TILE)):
            for column in range(min(width - x, TILE)):
                at = (row // SIDE * TILE_BLOCKS + column // SIDE) * _BLOCK + row % SIDE * SIDE + column % SIDE
                end = abs(state[at + _T * LANES])
                rgb[y + row, x + column, 0] = state[at + _RED * LANES] + end * background[0]
                rgb[y + row, x + column, 1] = state[at + _GREEN * LANES] + end * background[1]
                rgb[y + row, x + column, 2] = state[at + _BLUE * LANES] + end * background[2]
                depth[y + row, x + column] = state[at + _DEPTH * LANES]
                alpha[y + row, x + column] = np.float32(1.0) - end
                ends[y + row, x + column] = end
                stops[y + row, x + column] = integers[at + _STOP * LANES]
    return kept, ids[: kept[tiles_x]].copy()
