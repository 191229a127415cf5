"""Compiled loops of the atlas: which faces of a chart hide each other, the cells that charts need, and places for them.

Packing works on a grid of cells. A row of the picture is a row of bits, and all places along it are tried at once: with the row
"a cell of the next 2^j is taken" for every j, a run of cells of a chart needs two shifts and an OR to rule out the places where
it would collide. Rows are tried from the top, so that small charts fall into the gaps and holes that large ones leave.
"""

from __future__ import annotations

import numpy as np

from ...raster.threads import compiled

WORD = 64  # bits
TINY = 16  # cells
LEVELS = 12  # runs of up to 2^12 cells
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
EDGE = 1e-3  # barycentric distance under which a sample is on the border that faces share


@compiled
def accept_faces(corners, neighbours, start, order, width, grid, accepted):
    """Grow each chart from its first face and leave out faces that would cover a sample twice.

    Args:
        corners: [F, 3, 2] float64, positions in the chart's own plane in samples, positive.
        neighbours: [F, 3], the face over each edge in the same chart, or -1.
        start: [C + 1], the first of each chart's faces in ``order`` [F].
        width: [C], samples along x of each chart.
        grid: int32 scratch, zeros, as large as the largest chart.
        accepted: [F] bool, zeros; the result.
    """
    queue = np.empty(len(order), np.int64)
    queued = np.zeros(len(order), np.bool_)
    for c in range(len(start) - 1):
        queue[0] = order[start[c]]
        queued[queue[0]] = True
        head, tail = 0, 1
        while head < tail:
            f = queue[head]
            head += 1
            if not _cover(corners[f], width[c], grid, c + 1, f + 1):
                continue
            accepted[f] = True
            for k in range(3):
                other = neighbours[f, k]
                if other >= 0 and not queued[other]:
                    queued[other] = True
                    queue[tail] = other
                    tail += 1


@compiled
def _cover(corners, width, grid, chart, face):
    """Mark the samples of a face; False, and no mark, where one is taken."""
    ax, ay, bx, by, cx, cy = corners[0, 0], corners[0, 1], corners[1, 0], corners[1, 1], corners[2, 0], corners[2, 1]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if abs(area) < 1e-12:
        return True
    x0, x1 = np.int64(np.ceil(min(ax, bx, cx) - 0.5)), np.int64(np.floor(max(ax, bx, cx) - 0.5))
    y0, y1 = np.int64(np.ceil(min(ay, by, cy) - 0.5)), np.int64(np.floor(max(ay, by, cy) - 0.5))
    for mark in range(2):
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                if wa > EDGE and wb > EDGE and wa + wb < 1 - EDGE:
                    if mark == 1:
                        grid[y * width + x] = chart
                    elif grid[y * width + x] == chart:
                        return False
    return True


@compiled
def bounding_angles(points, chart, angles, low, high):
    """Boxes low, high [A, C, 2] of each chart's ``points`` [P, 2] turned by each of ``angles`` [A]; start at +-infinity."""
    for a in range(len(angles)):
        c, s = np.cos(angles[a]), np.sin(angles[a])
        for i in range(len(points)):
            x, y = c * points[i, 0] - s * points[i, 1], s * points[i, 0] + c * points[i, 1]
            k = chart[i]
            low[a, k, 0], high[a, k, 0] = min(low[a, k, 0], x), max(high[a, k, 0], x)
            low[a, k, 1], high[a, k, 1] = min(low[a, k, 1], y), max(high[a, k, 1], y)


@compiled
def chart_masks(flat, chart, scale, offset, pad, first, size, mask):
    """Cells within ``pad`` of each chart's faces.

    Args:
        flat: [F, 3, 2], corners; ``scale`` and ``offset`` take them to cells.
        first: [C], where each chart's cells begin in ``mask`` uint8, zeros, rows of size[c, 0].
    """
    for f in range(len(flat)):
        c = chart[f]
        width = size[c, 0]
        ys = flat[f, 0, 1], flat[f, 1, 1], flat[f, 2, 1]
        y0, y1 = min(ys) * scale + offset, max(ys) * scale + offset
        for row in range(np.int64(np.floor(y0 - pad)), np.int64(np.floor(y1 + pad)) + 1):
            left, right = np.inf, -np.inf  # of the face within ``pad`` of the row
            for k in range(3):
                xa, ya = flat[f, k, 0] * scale + offset, flat[f, k, 1] * scale + offset
                n = (k + 1) % 3
                xb, yb = flat[f, n, 0] * scale + offset, flat[f, n, 1] * scale + offset
                if ya > yb:
                    xa, ya, xb, yb = xb, yb, xa, ya
                top, bottom = max(row - pad, ya), min(row + 1 + pad, yb)
                if top > bottom:
                    continue
                slope = (xb - xa) / max(yb - ya, 1e-12)
                xt, xu = xa + slope * (top - ya), xa + slope * (bottom - ya)
                if yb - ya < 1e-9:
                    xt, xu = xa, xb
                left, right = min(left, xt, xu), max(right, xt, xu)
            if left > right:
                continue
            begin = first[c] + row * width
            for x in range(np.int64(np.floor(left - pad)), np.int64(np.floor(right + pad)) + 1):
                mask[begin + x] = 1


@compiled
def _runs(mask, begin, width, height, quarter, rows, lows, highs):
    """Runs of a chart's cells turned by quarters, the longest first: 1 is (x, y) -> (height - y, x); their number."""
    w, h = (height, width) if quarter % 2 else (width, height)
    count = 0
    for y in range(h):
        open_at = -1
        for x in range(w + 1):
            taken = False
            if x < w:
                if quarter == 0:
                    i = y * width + x
                elif quarter == 1:
                    i = (height - 1 - x) * width + y
                elif quarter == 2:
                    i = (height - 1 - y) * width + width - 1 - x
                else:
                    i = x * width + width - 1 - y
                taken = mask[begin + i] != 0
            if taken and open_at < 0:
                open_at = x
            elif not taken and open_at >= 0:
                rows[count], lows[count], highs[count] = y, open_at, x
                count += 1
                open_at = -1
    longest = 0
    for i in range(count):
        if highs[i] - lows[i] > highs[longest] - lows[longest]:
            longest = i
    rows[0], rows[longest] = rows[longest], rows[0]
    lows[0], lows[longest] = lows[longest], lows[0]
    highs[0], highs[longest] = highs[longest], highs[0]
    return count


@compiled
def place_charts(order, size, first, mask, side, limit, x, y, turn):
    """Put charts into the topmost free place, one after another; the rows that they take, or limit + 1 if they do not fit.

    Args:
        order: [C], which chart is placed when.
        size: [C, 2] int64, cells along x and y; first: [C]; mask: as of :func:`chart_masks`.
        side: cells along x of the picture; limit: cells along y.
        x, y, turn: [C], the result; turn in quarters, as in :func:`_runs`.
    """
    words = (side + WORD - 1) // WORD
    taken = np.zeros((LEVELS, limit, words + 1), np.uint64)  # bit x of level j: a cell of x .. x + 2^j - 1 is taken
    most = 0
    for c in range(len(size)):
        most = max(most, size[c, 0] * size[c, 1])
    rows, lows, highs = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    free = np.empty(words, np.uint64)
    used = 0
    began = np.zeros(
        TINY + 1, np.int64
    )  # tiny charts are many: each looks no higher than where the last of its size went
    for i in range(len(order)):
        c = order[i]
        longer = max(size[c, 0], size[c, 1])
        best, best_y, best_x, best_turn = limit + 1, -1, -1, 0
        for quarter in range(4):
            w, h = size[c, quarter % 2], size[c, 1 - quarter % 2]
            if w > side:
                continue
            count = _runs(mask, first[c], size[c, 0], size[c, 1], quarter, rows, lows, highs)
            for top in range(began[longer] if longer <= TINY else 0, limit - h + 1):
                if top + h >= best:
                    break
                for k in range(words):
                    bits = side - w + 1 - k * WORD  # places 0 .. side - w
                    free[k] = ALL if bits >= WORD else ((np.uint64(1) << np.uint64(max(bits, 0))) - np.uint64(1))
                if not _free(taken, top, count, rows, lows, highs, words, free):
                    continue
                best, best_y, best_turn = top + h, top, quarter
                for k in range(words):
                    if free[k]:
                        bit = 0
                        while not (free[k] >> np.uint64(bit)) & np.uint64(1):
                            bit += 1
                        best_x = k * WORD + bit
                        break
                break
        if best_x < 0:
            return limit + 1
        count = _runs(mask, first[c], size[c, 0], size[c, 1], best_turn, rows, lows, highs)
        for k in range(count):
            _take(taken, best_y + rows[k], best_x + lows[k], best_x + highs[k])
        used = max(used, best)
        if longer <= TINY:
            began[longer] = best_y
        x[c], y[c], turn[c] = best_x, best_y, best_turn
    return used


@compiled
def _free(taken, top, count, rows, lows, highs, words, free):
    """Clear the places in ``free`` [words] at which a run meets a taken cell; whether one is left."""
    for i in range(count):
        row = top + rows[i]
        level = 0
        while 2 << level <= highs[i] - lows[i]:
            level += 1
        left = 0
        for shift in (lows[i], highs[i] - (1 << level)):
            skip, part = shift // WORD, np.uint64(shift % WORD)
            for k in range(words - skip):
                word = taken[level, row, k + skip] >> part
                if part:
                    word |= taken[level, row, k + skip + 1] << (np.uint64(WORD) - part)
                free[k] &= ~word
        for k in range(words):
            left |= free[k]
        if not left:
            return False
    return True


@compiled
def _take(taken, row, low, high):
    """Mark cells low .. high - 1 of a row in all levels."""
    for level in range(LEVELS):
        begin = max(0, low - (1 << level) + 1)
        for k in range(begin // WORD, (high - 1) // WORD + 1):
            a, b = max(begin - k * WORD, 0), min(high - k * WORD, WORD)
            bits = ALL if b - a == WORD else (((np.uint64(1) << np.uint64(b - a)) - np.uint64(1)) << np.uint64(a))
            taken[level, row, k] |= bits
