"""Compositing of sorted Gaussians, tile by tile, and its gradient (Triton kernels).

Steps 5 and 6 of :mod:`bozzetto.raster.reference`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_project import RECORD, TILE

FORWARD_WARPS = 4
BACKWARD_WARPS = 1  # sums over a tile then need no shared memory

MIN_ALPHA = tl.constexpr(1.0 / 255.0)
MAX_ALPHA = tl.constexpr(0.99)
MIN_TRANSMITTANCE = tl.constexpr(1e-4)
CHUNK = tl.constexpr(32)  # Gaussians between two looks at whether the whole tile is finished


@triton.jit
def tile_pixels(width, height, tiles_x, tiles, TILE: tl.constexpr):
    """This program's camera and pixels: camera, flat pixel index, centre x and y, whether inside the picture."""
    camera = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    lane = tl.arange(0, TILE * TILE)
    column = (tile % tiles_x) * TILE + lane % TILE
    row = (tile // tiles_x) * TILE + lane // TILE
    inside = (column < width) & (row < height)
    pixel = (camera.to(tl.int64) * height + row) * width + column
    return camera, pixel, column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5, inside


@triton.jit(do_not_specialize=["N", "height", "width", "tiles_x", "tiles"])
def blend_kernel(
    records, ids, starts, background, rgb, alpha, depth, transmittance, last,
    N, height, width, tiles_x, tiles, TILE: tl.constexpr,
):  # fmt: skip
    """One program: one tile of one view, front to back.

    Besides the pictures it keeps, for the gradient, each pixel's final transmittance and the position in the tile's
    list after the last Gaussian that contributed to it.
    """
    camera, pixel, px, py, inside = tile_pixels(width, height, tiles_x, tiles, TILE)
    start = tl.load(starts + tl.program_id(0))
    length = (tl.load(starts + tl.program_id(0) + 1) - start).to(tl.int32)
    ids += start
    records += camera.to(tl.int64) * N * 10

    light = tl.zeros([TILE * TILE], tl.float32) + 1.0
    red = tl.zeros([TILE * TILE], tl.float32)
    green = tl.zeros([TILE * TILE], tl.float32)
    blue = tl.zeros([TILE * TILE], tl.float32)
    deep = tl.zeros([TILE * TILE], tl.float32)
    final = tl.zeros([TILE * TILE], tl.int32)
    live = inside.to(tl.int32)
    position = length * 0
    unfinished = tl.max(live, axis=0)
    while (position < length) & (unfinished > 0):
        stop = tl.minimum(position + CHUNK, length)
        while position < stop:
            record = records + tl.load(ids + position).to(tl.int64) * 10
            dx = px - tl.load(record + 0)
            dy = py - tl.load(record + 1)
            xx = tl.load(record + 2)
            xy = tl.load(record + 3)
            yy = tl.load(record + 4)
            sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
            a = tl.minimum(tl.load(record + 5) * tl.exp(-sigma), MAX_ALPHA)
            hit = (sigma >= 0.0) & (a >= MIN_ALPHA) & (live > 0)
            remaining = light * (1.0 - a)
            ends = hit & (remaining <= MIN_TRANSMITTANCE)
            live = tl.where(ends, 0, live)
            hit = hit & (remaining > MIN_TRANSMITTANCE)
            weight = tl.where(hit, light * a, 0.0)
            red += weight * tl.maximum(tl.load(record + 6), 0.0)
            green += weight * tl.maximum(tl.load(record + 7), 0.0)
            blue += weight * tl.maximum(tl.load(record + 8), 0.0)
            deep += weight * tl.load(record + 9)
            light = tl.where(hit, remaining, light)
            position += 1
            final = tl.where(hit, position, final)
        unfinished = tl.max(live, axis=0)

    background += camera.to(tl.int64) * 3
    tl.store(rgb + pixel * 3 + 0, red + light * tl.load(background + 0), mask=inside)
    tl.store(rgb + pixel * 3 + 1, green + light * tl.load(background + 1), mask=inside)
    tl.store(rgb + pixel * 3 + 2, blue + light * tl.load(background + 2), mask=inside)
    tl.store(alpha + pixel, 1.0 - light, mask=inside)
    tl.store(depth + pixel, deep, mask=inside)
    tl.store(transmittance + pixel, light, mask=inside)
    tl.store(last + pixel, final, mask=inside)


@triton.jit(do_not_specialize=["N", "height", "width", "tiles_x", "tiles"])
def blend_gradient_kernel(
    records, ids, starts, background, transmittance, last, grad_rgb, grad_alpha, grad_depth, record_gradients,
    N, height, width, tiles_x, tiles, TILE: tl.constexpr,
):  # fmt: skip
    """One program: one tile of one view, back to front; adds to record_gradients [S * V, N, 10]."""
    camera, pixel, px, py, inside = tile_pixels(width, height, tiles_x, tiles, TILE)
    ids += tl.load(starts + tl.program_id(0))
    offset = camera.to(tl.int64) * N * 10
    records += offset
    record_gradients += offset
    background += camera.to(tl.int64) * 3

    final = tl.load(last + pixel, mask=inside, other=0)
    light = tl.load(transmittance + pixel, mask=inside, other=1.0)
    g_red = tl.load(grad_rgb + pixel * 3 + 0, mask=inside, other=0.0)
    g_green = tl.load(grad_rgb + pixel * 3 + 1, mask=inside, other=0.0)
    g_blue = tl.load(grad_rgb + pixel * 3 + 2, mask=inside, other=0.0)
    g_alpha = tl.load(grad_alpha + pixel, mask=inside, other=0.0)
    g_depth = tl.load(grad_depth + pixel, mask=inside, other=0.0)
    # What everything behind the current Gaussian adds to the loss: at first the background, and -alpha's share.
    behind = light * (
        g_red * tl.load(background + 0) + g_green * tl.load(background + 1) + g_blue * tl.load(background + 2) - g_alpha
    )
    field = tl.arange(0, 16)
    i = tl.max(final, axis=0)
    while i > 0:
        i -= 1
        slot = tl.load(ids + i).to(tl.int64) * 10
        record = records + slot
        dx = px - tl.load(record + 0)
        dy = py - tl.load(record + 1)
        xx = tl.load(record + 2)
        xy = tl.load(record + 3)
        yy = tl.load(record + 4)
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        # Rounding can make sigma negative for a needle far away; unbounded, exp would turn the sums below into NaN.
        falloff = tl.exp(-tl.maximum(sigma, 0.0))
        raw = tl.load(record + 5) * falloff
        a = tl.minimum(raw, MAX_ALPHA)
        hit = (sigma >= 0.0) & (a >= MIN_ALPHA) & (i < final)
        if tl.max(hit.to(tl.int32), axis=0) > 0:
            red = tl.maximum(tl.load(record + 6), 0.0)
            green = tl.maximum(tl.load(record + 7), 0.0)
            blue = tl.maximum(tl.load(record + 8), 0.0)
            share = g_red * red + g_green * green + g_blue * blue + g_depth * tl.load(record + 9)
            through = 1.0 / (1.0 - a)
            before = light * through
            weight = tl.where(hit, before * a, 0.0)
            # Through the clamp at 0.99 nothing passes.
            g_raw = tl.where(hit & (raw <= MAX_ALPHA), before * share - behind * through, 0.0)
            behind += weight * share
            light = tl.where(hit, before, light)
            g_sigma = -g_raw * raw
            gx = g_sigma * dx
            gy = g_sigma * dy
            g0 = -tl.sum(xx * gx + xy * gy, axis=0)
            g1 = -tl.sum(xy * gx + yy * gy, axis=0)
            g2 = 0.5 * tl.sum(gx * dx, axis=0)
            g3 = tl.sum(gx * dy, axis=0)
            g4 = 0.5 * tl.sum(gy * dy, axis=0)
            g5 = tl.sum(g_raw * falloff, axis=0)
            g6 = tl.sum(weight * g_red, axis=0)
            g7 = tl.sum(weight * g_green, axis=0)
            g8 = tl.sum(weight * g_blue, axis=0)
            g9 = tl.sum(weight * g_depth, axis=0)
            # The ten sums as one vector, so that a single instruction adds them.
            sums = tl.where(field == 0, g0, tl.where(field == 1, g1, tl.where(field == 2, g2, 0.0)))
            sums = tl.where(field == 3, g3, tl.where(field == 4, g4, tl.where(field == 5, g5, sums)))
            sums = tl.where(field == 6, g6, tl.where(field == 7, g7, tl.where(field == 8, g8, sums)))
            sums = tl.where(field == 9, g9, sums)
            tl.atomic_add(record_gradients + slot + field, sums, mask=field < 10, sem="relaxed")


def blend(
    records: Tensor, ids: Tensor, starts: Tensor, background: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pictures rgb [S * V, H, W, 3], alpha and depth [S * V, H, W], and for the gradient transmittance and last."""
    cameras, n = records.shape[:2]
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    rgb = records.new_empty(cameras, height, width, 3)
    alpha, depth, transmittance = (records.new_empty(cameras, height, width) for _ in range(3))
    last = torch.empty(cameras, height, width, dtype=torch.int32, device=records.device)
    blend_kernel[(cameras * tiles_x * tiles_y,)](
        records, ids, starts, background, rgb, alpha, depth, transmittance, last,
        n, height, width, tiles_x, tiles_x * tiles_y, TILE=TILE, num_warps=FORWARD_WARPS,
    )  # fmt: skip
    return rgb, alpha, depth, transmittance, last


def blend_gradient(
    records: Tensor,
    ids: Tensor,
    starts: Tensor,
    background: Tensor,
    transmittance: Tensor,
    last: Tensor,
    grad_rgb: Tensor,
    grad_alpha: Tensor,
    grad_depth: Tensor,
) -> Tensor:
    """Gradient of the records, [S * V, N, 10]; zero for Gaussians that no tile drew."""
    cameras, n = records.shape[:2]
    height, width = last.shape[1:]
    tiles_x, tiles_y = triton.cdiv(width, TILE), triton.cdiv(height, TILE)
    record_gradients = records.new_zeros(cameras, n, RECORD)
    blend_gradient_kernel[(cameras * tiles_x * tiles_y,)](
        records, ids, starts, background, transmittance, last, grad_rgb, grad_alpha, grad_depth, record_gradients,
        n, height, width, tiles_x, tiles_x * tiles_y, TILE=TILE, num_warps=BACKWARD_WARPS,
    )  # fmt: skip
    return record_gradients
