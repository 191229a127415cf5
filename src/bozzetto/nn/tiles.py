"""Where a tile of pixels and channels lies in channels-last maps: index arithmetic that the Triton kernels of this folder share.

Maps are [N, P, C] in memory, P pixels. A tile is one picture's ``rows`` (pixels) x ``cols`` (channels); everything is read as
float32. Each function is inlined into its kernel; registers are the caller's.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_offsets(image, rows, cols, pixels, channels):
    """Offsets [rows, cols] into a map of ``channels`` channels."""
    return (image.to(tl.int64) * pixels + rows[:, None]) * channels + cols[None, :]


@triton.jit
def pair_pointers(x, skip, image, rows, cols, pixels, c1, c2):
    """Pointers [rows, cols] into the concatenation of ``x``, c1 channels, and ``skip``, c2 channels behind them."""
    at = image.to(tl.int64) * pixels + rows[:, None]
    c = cols[None, :]
    return tl.where(c < c1, x + at * c1 + c, skip + at * c2 + (c - c1))


@triton.jit
def load_pair(x, skip, image, rows, cols, mask, pixels, c1, c2):
    """A tile of the concatenation; 0 outside the mask."""
    return tl.load(pair_pointers(x, skip, image, rows, cols, pixels, c1, c2), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_channels(values, cols, valid):
    """A value a channel; 0 where not valid."""
    return tl.load(values + cols, mask=valid, other=0.0).to(tl.float32)


@triton.jit
def turned(image, outer, inner):
    """Where a picture of the order (batch, outer, inner) stands in the order (batch, inner, outer)."""
    batch, o, i = image // (outer * inner), image // inner % outer, image % inner
    return (batch * inner + i) * outer + o


@triton.jit
def sum_groups(values, group, MANY: tl.constexpr):
    """Sum of per-channel values [C] over each channel's group."""
    if MANY:
        same = group[:, None] == group[None, :]
        total = tl.sum(tl.where(same, values[:, None], 0.0), axis=0)
    else:
        total = tl.zeros_like(values) + tl.sum(values, axis=0)
    return total


@triton.jit
def chunk_moments(values, ROWS: tl.constexpr):
    """Mean and sum of squared distances from it, per column of [ROWS, cols]; for values that were half precision.

    One reduction for both: squares are summed about 0, which for a mean far from it costs no digits that half precision had.
    """
    total, squares = tl.split(tl.sum(tl.join(values, values * values), axis=0))
    mean = total / ROWS
    return mean, tl.maximum(squares - total * mean, 0.0)
