"""Triton kernels of :mod:`.picture_loss`.

Pictures are cut into cells of 4x4 pixels; a window of the similarity is 2x2 cells. *Errors*: a program owns a row of up to 64
cells of one picture. Its 16 pixels a cell lie in registers, channel by channel; it adds up the squared errors of all of them
and, per cell and channel, the sums of x, y, x^2, y^2 and xy (drawn x, true y, over white). *Similarity*: a program owns 256
windows, joins the sums of their cells, and writes for each window the three numbers of which its pixels' gradients are
made: dS/dx = a + b x + c y. *Gradient*: a program owns the same cells as in the first kernel, adds the numbers of the up to
four windows that a cell lies in, and writes the gradients by rgb and alpha. Every program writes its own sums, which PyTorch
adds up, so that results repeat exactly. Nothing is synchronised but the reductions inside a program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS = 64  # cells a program, at most
WINDOWS = 256
C1 = tl.constexpr(0.01**2)
C2 = tl.constexpr(0.03**2)


@triton.jit
def _pixels(columns, row, height, width, CELLS: tl.constexpr):
    """Offsets [16, CELLS] of the pixels of cells in a picture, and which cells exist."""
    number = tl.arange(0, 16)[:, None]
    inside = (columns < width // 4)[None, :] & (number < 16)
    return (row * 4 + number // 4) * width + columns[None, :] * 4 + number % 4, inside


@triton.jit
def errors_kernel(rgb, alpha, target, sums, cells, height, width, CELLS: tl.constexpr):
    """sums [programs, 3]: squared errors on white, on black, of alpha. cells [N, 3, 5, H / 4, W / 4]."""
    column_block, row, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    columns = column_block * CELLS + tl.arange(0, CELLS)
    at, inside = _pixels(columns, row, height, width, CELLS)
    plane = height * width
    start = picture.to(tl.int64) * plane
    a = tl.load(alpha + start + at, mask=inside, other=0.0)
    true_a = tl.load(target + (start * 4 + plane * 3) + at, mask=inside, other=0.0)
    on_white = tl.zeros_like(a)
    on_black = tl.zeros_like(a)
    down, across = height // 4, width // 4
    here = row * across + columns
    for channel in tl.static_range(3):
        colour = tl.load(rgb + start * 3 + at * 3 + channel, mask=inside, other=0.0)
        true = tl.load(target + (start * 4 + plane * channel) + at, mask=inside, other=0.0) * true_a
        difference = colour - true
        on_black += difference * difference
        x = colour + 1.0 - a
        y = true + 1.0 - true_a
        on_white += (x - y) * (x - y)
        to = cells + (picture.to(tl.int64) * 3 + channel) * 5 * down * across + here
        exists = columns < across
        tl.store(to, tl.sum(x, axis=0), mask=exists)
        tl.store(to + down * across, tl.sum(y, axis=0), mask=exists)
        tl.store(to + 2 * down * across, tl.sum(x * x, axis=0), mask=exists)
        tl.store(to + 3 * down * across, tl.sum(y * y, axis=0), mask=exists)
        tl.store(to + 4 * down * across, tl.sum(x * y, axis=0), mask=exists)
    program = (picture * tl.num_programs(1) + row) * tl.num_programs(0) + column_block
    tl.store(sums + program * 3, tl.sum(tl.where(inside, on_white, 0.0)))
    tl.store(sums + program * 3 + 1, tl.sum(on_black))
    tl.store(sums + program * 3 + 2, tl.sum((a - true_a) * (a - true_a)))


@triton.jit
def _window(plane, size, down_right, across, mask):
    """Mean over a window's 64 pixels of one of the cells' sums."""
    total = tl.load(plane, mask=mask, other=0.0) + tl.load(plane + 1, mask=mask, other=0.0)
    total += tl.load(plane + across, mask=mask, other=0.0) + tl.load(plane + across + 1, mask=mask, other=0.0)
    return total * (1.0 / 64.0)


@triton.jit
def similarity_kernel(cells, slopes, sums, down, across, WINDOWS: tl.constexpr):
    """slopes [N * 3, 3, H / 4 - 1, W / 4 - 1]: a, b, c of each window; sums [programs]: of the similarities."""
    block, plane = tl.program_id(0), tl.program_id(1)
    window = block * WINDOWS + tl.arange(0, WINDOWS)
    count = (down - 1) * (across - 1)
    mask = window < count
    row, column = window // (across - 1), window % (across - 1)
    size = down * across
    at = cells + plane.to(tl.int64) * 5 * size + row * across + column
    mean_x = _window(at, size, 0, across, mask)
    mean_y = _window(at + size, size, 0, across, mask)
    var_x = _window(at + 2 * size, size, 0, across, mask) - mean_x * mean_x
    var_y = _window(at + 3 * size, size, 0, across, mask) - mean_y * mean_y
    covariance = _window(at + 4 * size, size, 0, across, mask) - mean_x * mean_y
    n1, n2 = 2.0 * mean_x * mean_y + C1, 2.0 * covariance + C2
    d1, d2 = mean_x * mean_x + mean_y * mean_y + C1, var_x + var_y + C2
    inverse = 1.0 / (d1 * d2)
    similarity = n1 * n2 * inverse
    by_mean = 2.0 * mean_y * (n2 - n1) * inverse + similarity * 2.0 * mean_x * (1.0 / d2 - 1.0 / d1)
    to = slopes + plane.to(tl.int64) * 3 * count + window
    tl.store(to, by_mean * (1.0 / 64.0), mask=mask)
    tl.store(to + count, similarity / d2 * (-2.0 / 64.0), mask=mask)
    tl.store(to + 2 * count, n1 * inverse * (2.0 / 64.0), mask=mask)
    tl.store(sums + plane * tl.num_programs(0) + block, tl.sum(tl.where(mask, similarity, 0.0)))


@triton.jit
def _around(slopes, row, columns, down, across):
    """Sum [CELLS] of one number over the up to four windows that a cell lies in."""
    total = tl.zeros_like(columns).to(tl.float32)
    for up in tl.static_range(2):
        for left in tl.static_range(2):
            r, c = row - up, columns - left
            mask = (r >= 0) & (r < down - 1) & (c >= 0) & (c < across - 1)
            total += tl.load(slopes + r * (across - 1) + c, mask=mask, other=0.0)
    return total


@triton.jit
def gradient_kernel(
    rgb, alpha, target, slopes, weights, by_rgb, by_alpha, height, width, CELLS: tl.constexpr
):  # fmt: skip
    """Gradients of w . (white, black, alpha, ssim), with ``weights`` w divided by what each is the mean of."""
    column_block, row, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    columns = column_block * CELLS + tl.arange(0, CELLS)
    at, inside = _pixels(columns, row, height, width, CELLS)
    plane = height * width
    start = picture.to(tl.int64) * plane
    down, across = height // 4, width // 4
    white, black = 2.0 * tl.load(weights), 2.0 * tl.load(weights + 1)
    opacity, similar = 2.0 * tl.load(weights + 2), tl.load(weights + 3)
    a = tl.load(alpha + start + at, mask=inside, other=0.0)
    true_a = tl.load(target + (start * 4 + plane * 3) + at, mask=inside, other=0.0)
    through_alpha = opacity * (a - true_a)
    count = (down - 1) * (across - 1)
    for channel in tl.static_range(3):
        colour = tl.load(rgb + start * 3 + at * 3 + channel, mask=inside, other=0.0)
        true = tl.load(target + (start * 4 + plane * channel) + at, mask=inside, other=0.0) * true_a
        x = colour + 1.0 - a
        y = true + 1.0 - true_a
        of_window = slopes + (picture.to(tl.int64) * 3 + channel) * 3 * count
        p = _around(of_window, row, columns, down, across)[None, :]
        q = _around(of_window + count, row, columns, down, across)[None, :]
        r = _around(of_window + 2 * count, row, columns, down, across)[None, :]
        by_x = white * (x - y) + similar * (p + q * x + r * y)
        tl.store(by_rgb + start * 3 + at * 3 + channel, by_x + black * (colour - true), mask=inside)
        through_alpha -= by_x
    tl.store(by_alpha + start + at, through_alpha, mask=inside)


class PictureLoss(torch.autograd.Function):
    """[4]: white, black, alpha, ssim of :class:`.picture_loss.PictureTerms`, and its ``white_each`` [N], without gradient."""

    @staticmethod
    def forward(ctx, rgb: Tensor, alpha: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        rgb, alpha, target = rgb.contiguous(), alpha.contiguous(), target.contiguous()
        n, height, width = alpha.shape
        down, across = height // 4, width // 4
        block = min(CELLS, triton.next_power_of_2(across))
        grid = (triton.cdiv(across, block), down, n)
        windows = (down - 1) * (across - 1)
        per_plane = triton.cdiv(windows, WINDOWS)
        errors = rgb.new_empty(grid[0] * grid[1] * n, 3)
        cells = rgb.new_empty(n * 3, 5, down, across)
        slopes, similar = rgb.new_empty(n * 3, 3, windows), rgb.new_empty(n * 3 * per_plane)
        with torch.cuda.device_of(rgb):
            errors_kernel[grid](rgb, alpha, target, errors, cells, height, width, CELLS=block)
            similarity_kernel[(per_plane, n * 3)](cells, slopes, similar, down, across, WINDOWS=WINDOWS)
        ctx.save_for_backward(rgb, alpha, target, slopes)
        ctx.grid, ctx.block = grid, block
        colours = 3 * n * height * width
        ctx.counts = (colours, colours, n * height * width, 3 * n * windows)
        # In float64: thousands of sums of different sizes.
        of_picture = errors.view(n, -1, 3).double().sum(1)  # [programs, 3] -> [N, 3]
        totals = torch.cat([of_picture.sum(0), similar.double().sum()[None]])
        each = (of_picture[:, 0] / (3 * height * width)).to(torch.float32)
        ctx.mark_non_differentiable(each)
        return (totals / _constants(ctx.counts, rgb.device, torch.float64)).to(torch.float32), each

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, None]:
        rgb, alpha, target, slopes = ctx.saved_tensors
        weights = gradient.float() / _constants(ctx.counts, rgb.device, torch.float32)
        by_rgb, by_alpha = torch.empty_like(rgb), torch.empty_like(alpha)
        height, width = alpha.shape[1:]
        with torch.cuda.device_of(rgb):
            gradient_kernel[ctx.grid](
                rgb, alpha, target, slopes, weights, by_rgb, by_alpha, height, width, CELLS=ctx.block
            )
        return by_rgb, by_alpha, None


_kept: dict[tuple, Tensor] = {}


def _constants(counts: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The numbers as a tensor on the device; kept, because bringing them there makes the host wait."""
    key = (counts, device, dtype)
    if key not in _kept:
        if len(_kept) > 64:
            _kept.clear()
        _kept[key] = torch.tensor(counts, dtype=dtype, device=device)
    return _kept[key]
