"""Flat charts → their places in a square picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from . import kernels

LEAST_SIDE, MOST_SIDE = 128, 512  # cells along the packing grid
CELLS_PER_CHART = 8  # along a side, at least, if all were alike
PADDED = 0.15  # of the picture's side over the root of the number of charts: no padding is wider
CROWDED = 0.86  # share of the cells that charts need, above which they never fit


def pack(chart: Tensor, flat: Tensor, extent: Tensor, texture_size: int, padding: float) -> Tensor:
    """Places for charts in the unit square.

    Args:
        chart: [F]; flat: [F, 3, 2], float64, corners in their chart's plane; extent: [C, 2], boxes of the charts from 0 on.
        texture_size: texels along the square; padding: texels between charts, at least, unless charts are too many.

    Returns:
        uvs: [F, 3, 2], float64, positions in 0..1, all charts at the same scale.
    """
    side = min(max(texture_size, LEAST_SIDE), MOST_SIDE)
    count = len(extent)
    side = max(side, math.ceil(CELLS_PER_CHART * math.sqrt(count)))
    pad = min(padding / 2 * side / texture_size, PADDED * side / math.sqrt(count))
    area = _area(flat)
    scale = math.sqrt(CROWDED * side * side / max(area, 1e-30))
    scale = min(scale, (side - 2 * math.ceil(pad) - 2) / float(extent.amax().clamp_min(1e-30)))
    while True:
        layout = _Layout(chart, flat, extent, scale, pad, side)
        if layout.share > CROWDED:
            scale *= max(0.5, math.sqrt(CROWDED / layout.share) - 1e-3)
        elif layout.place():
            return layout.uvs(flat, chart)
        else:
            scale *= max(0.9, min(0.985, math.sqrt(side / layout.height)))


def _area(flat: Tensor) -> float:
    a, b = (flat[:, 1] - flat[:, 0]).unbind(-1), (flat[:, 2] - flat[:, 0]).unbind(-1)
    return float((a[0] * b[1] - a[1] * b[0]).abs().sum() / 2)


class _Layout:
    """One try to place all charts at a scale."""

    def __init__(self, chart: Tensor, flat: Tensor, extent: Tensor, scale: float, pad: float, side: int):
        self.scale, self.side, self.offset = scale, side, math.ceil(pad)
        self.size = (extent * scale + 2 * self.offset).floor().long().numpy() + 1  # [C, 2]
        cells = self.size.prod(axis=1)
        self.first = cells.cumsum() - cells
        self.mask = np.zeros(cells.sum(), np.uint8)
        kernels.chart_masks(
            flat.numpy(), chart.numpy(), scale, float(self.offset), pad, self.first, self.size, self.mask
        )
        self.share = float(self.mask.sum(dtype=np.int64)) / side**2  # of the picture's cells that charts need

    def place(self) -> bool:
        """Find places; False where they take more rows than there are (``height``)."""
        order = np.argsort(-self.size.max(axis=1), kind="stable")
        self.x, self.y, self.turn = (np.zeros(len(order), np.int64) for _ in range(3))
        places = self.x, self.y, self.turn
        self.height = kernels.place_charts(order, self.size, self.first, self.mask, self.side, 2 * self.side, *places)
        return self.height <= self.side

    def uvs(self, flat: Tensor, chart: Tensor) -> Tensor:
        x, y = (flat * self.scale + self.offset).unbind(-1)  # [F, 3]
        w, h = torch.from_numpy(self.size).double()[chart][:, None].unbind(-1)
        turn = torch.from_numpy(self.turn)[chart][:, None]
        left = torch.where(turn == 0, x, torch.where(turn == 1, h - y, torch.where(turn == 2, w - x, y)))
        top = torch.where(turn == 0, y, torch.where(turn == 1, x, torch.where(turn == 2, h - y, w - x)))
        left = left + torch.from_numpy(self.x)[chart][:, None]
        top = top + torch.from_numpy(self.y)[chart][:, None]
        return torch.stack([left, top], dim=-1) / self.side
