"""CPU kernels: splats to tile lists, and tile lists to pictures, one band (row of tiles) at a time."""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import (
    BLUE,
    DEPTH,
    GREEN,
    INT,
    LANES,
    LEFT,
    MIN_TRANSMITTANCE,
    QXX,
    QXY,
    QYY,
    RECORD,
    RED,
    RIGHT,
    SIDE,
    TILE,
    TILE_BLOCKS,
    X_PART,
    X_WHOLE,
    Y_PART,
    Y_WHOLE,
    Emitter,
)
from .threads import compiled

# Planes of the result of a block: 16 lanes each.
_STATE = 6 * LANES  # red, green, blue, depth, final transmittance (float32), stop (int32 bits)
NEVER = 2**31 - 1  # stop of a pixel that meets every splat of its tile's list


@intrinsic
def _composite_block(context, records, ids, begin, end, x, y, state):
    """Composite the splats ids[begin:end], front to back, on the block whose first pixel centre is (x, y).

    Writes the planes of ``_STATE`` into ``state`` (float32). A pixel's stop is the place in ``ids``, counted from
    ``begin``, of the splat before which it finished. Returns how many places were visited (int64).
    """
    signature = types.int64(records, ids, begin, end, x, y, state)

    def generate(context, builder, signature, arguments):
        records, ids, begin, end, x, y, state = arguments
        records, ids, state = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in ((signature.args[0], records), (signature.args[1], ids), (signature.args[6], state))
        )
        long = ir.IntType(64)
        e = Emitter(builder)
        zero = e.constant(0.0)
        colour = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]
        transmittance = cgutils.alloca_once_value(builder, e.constant(1.0))  # negative once the pixel is finished
        stop = cgutils.alloca_once_value(builder, e.integer(NEVER))
        visited = cgutils.alloca_once_value(builder, builder.sub(end, begin))

        with cgutils.for_range(builder, end, start=begin) as loop:
            index = builder.load(builder.gep(ids, [loop.index]))
            record = builder.gep(records, [builder.mul(builder.sext(index, long), ir.Constant(long, RECORD))])
            with e.when_reached(record, x, y):
                dx, dy = e.offsets(record, x, y)
                _, alpha, counts = e.falloff(record, dx, dy)
                with builder.if_then(e.any(counts)):
                    alpha = e.choose(counts, alpha, zero)
                    before = builder.load(transmittance)
                    weight = e.mul(before, alpha)
                    after = e.sub(before, weight)
                    goes_on = e.less(e.constant(MIN_TRANSMITTANCE), after)
                    weight = e.choose(goes_on, weight, zero)
                    for plane, field in zip(colour, (RED, GREEN, BLUE, DEPTH)):
                        value = e.spread(e.field(record, field))
                        builder.store(e.fused(weight, value, builder.load(plane)), plane)
                    finishes = e.both(builder.not_(goes_on), e.less(zero, before))
                    place = e.spread(builder.trunc(builder.sub(loop.index, begin), INT))
                    builder.store(e.choose(finishes, place, builder.load(stop)), stop)
                    after = e.choose(goes_on, after, e.smaller(before, e.sub(zero, before)))
                    builder.store(after, transmittance)
                    with builder.if_then(builder.not_(e.any(e.less(zero, after)))):
                        builder.store(builder.sub(loop.index, begin), visited)
                        loop.do_break()

        for plane, variable in enumerate(colour):
            e.store(builder.load(variable), state, plane * LANES)
        last = builder.load(transmittance)
        e.store(e.larger(last, e.sub(zero, last)), state, 4 * LANES)
        e.store(builder.load(stop), state, 5 * LANES)
        return builder.load(visited)

    return signature, generate


@compiled
def _interval(record, low, high):
    """Leftmost and rightmost x (pixels) of the splat's footprint between the rows ``low`` and ``high`` (pixel centres).

    The footprint is the ellipse QXX dx^2 + QXY dx dy + QYY dy^2 >= -reach that touches the record's bounds. Its right
    rim is a concave function of dy, so the rightmost point of a band lies where that of the whole ellipse is, clamped.
    """
    a, b, c = -float(record[QXX]), -float(record[QXY]), -float(record[QYY])
    x = float(record[X_WHOLE]) + float(record[X_PART])
    y = float(record[Y_WHOLE]) + float(record[Y_PART])
    half = 0.5 * (float(record[RIGHT]) - float(record[LEFT]))
    determinant = 4.0 * a * c - b * b
    if not (determinant > 1e-12 * a * c):  # a needle in float32: its bounding box must do
        return x - half, x + half
    reach = half * half * determinant / (4.0 * c)
    tip = -b * half / (2.0 * c)  # dy of the rightmost point; the leftmost is at -tip
    rim_right = min(max(tip, low - y), high - y)
    rim_left = min(max(-tip, low - y), high - y)
    right = (-b * rim_right + math.sqrt(max(0.0, 4.0 * a * reach - determinant * rim_right * rim_right))) / (2.0 * a)
    left = (-b * rim_left - math.sqrt(max(0.0, 4.0 * a * reach - determinant * rim_left * rim_left))) / (2.0 * a)
    return x + max(left, -half) - 0.01, x + min(right, half) + 0.01


@compiled
def _tile_lists(records, rows, band, tiles_x):
    """Tile lists of one band: starts [tiles_x + 1] and ids (int32, in the order of ``records``).

    rows: [M, 2] first and last band that each splat touches.
    """
    used = 0
    for i in range(len(rows)):
        if rows[i, 0] <= band <= rows[i, 1]:
            used += 1
    members = np.empty((used, 3), np.int32)  # splat, first and last tile
    starts = np.zeros(tiles_x + 1, np.int64)
    low = np.float64(band * TILE) + 0.5
    used = 0
    for i in range(len(rows)):
        if rows[i, 0] > band or rows[i, 1] < band:
            continue
        left, right = _interval(records[i], low, low + (TILE - 1))
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
def forward_band(records, rows, band, background, rgb, alpha, depth, ends, stops):
    """Render one band of one view.

    Args:
        records: [M, 16] in compositing order. rows: [M, 2], first and last band of each. background: [3].
        rgb: [H, W, 3], alpha: [H, W], depth: [H, W], written for the pixels of the band.
        ends, stops: [H, W] float32, int32; final transmittance and stop of every pixel, for the backward pass.

    Returns:
        starts [tiles_x + 1], ids: the tile lists; visited [tiles_x]: how much of each list the tile's pixels met.
    """
    height, width = alpha.shape
    tiles_x = (width + TILE - 1) // TILE
    starts, ids = _tile_lists(records, rows, band, tiles_x)
    visited = np.zeros(tiles_x, np.int64)
    state = np.empty(_STATE, np.float32)
    integers = state.view(np.int32)
    for t in range(tiles_x):
        for by in range(TILE_BLOCKS):
            y0 = band * TILE + by * SIDE
            if y0 >= height:
                break
            for bx in range(TILE_BLOCKS):
                x0 = t * TILE + bx * SIDE
                if x0 >= width:
                    break
                n = _composite_block(
                    records, ids, starts[t], starts[t + 1], np.float32(x0 + 0.5), np.float32(y0 + 0.5), state
                )
                visited[t] = max(visited[t], n)
                for y in range(y0, min(y0 + SIDE, height)):
                    for x in range(x0, min(x0 + SIDE, width)):
                        lane = (y - y0) * SIDE + (x - x0)
                        end = state[4 * LANES + lane]
                        rgb[y, x, 0] = state[lane] + end * background[0]
                        rgb[y, x, 1] = state[LANES + lane] + end * background[1]
                        rgb[y, x, 2] = state[2 * LANES + lane] + end * background[2]
                        depth[y, x] = state[3 * LANES + lane]
                        alpha[y, x] = np.float32(1.0) - end
                        ends[y, x] = end
                        stops[y, x] = integers[5 * LANES + lane]
    return starts, ids, visited
