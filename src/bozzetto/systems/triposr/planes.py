"""The decoder's first layer, moved onto the planes.

A triplane is read linearly and the decoder's first layer is linear too, so each plane can be pushed through its part of that
layer once: the sum of three reads of projected planes is then the first hidden layer before its activation. On a regular
grid reading separates further: each plane is resampled once at the grid's resolution, and the value at (x, y, z) is

    A[x, y] + B[x, z] + C[y, z]

with the first bias in A. This saves the gather of 3 * C features and the first matrix product at every sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import RendererConfig
from .network import NeRFMLP
from .triplane import density_activation


def project_planes(decoder: NeRFMLP, triplane: Tensor, reduction: str) -> Tensor:
    """A triplane [3, C, H, W] through the first layer's weights: [3, W, H, F] float32, without the bias.

    The first axis of a projected plane is the column, as the first coordinate of :data:`.triplane.PLANES` is.
    """
    weight = decoder.layers[0].weight.float()  # [F, 3 * C] or [F, C]
    parts = weight.unflatten(1, (3, -1)) if reduction == "concat" else (weight / 3)[:, None].expand(-1, 3, -1)
    return torch.einsum("pchw,fpc->pwhf", triplane.float(), parts).contiguous()


def bilinear_weights(positions: Tensor, size: int) -> Tensor:
    """Matrix [N, size] that reads a row of ``size`` cells on [-1, 1] at ``positions`` [N]; zero beyond the cells.

    Cell i has its centre at (2 i + 1) / size - 1: the same as ``grid_sample`` without aligned corners, with zero padding.
    """
    cells = torch.arange(size, dtype=positions.dtype, device=positions.device)
    place = ((positions + 1) * size - 1) / 2
    return (1 - (place[:, None] - cells).abs()).clamp_min(0)


class GridPlanes:
    """The projected planes of a field at the samples of a regular grid.

    Attributes:
        c: [Y, Z, F], of the plane that is the same for every x; the other two are made as they are needed, by :meth:`slab`.
    """

    def __init__(
        self, decoder: NeRFMLP, projected: Tensor, axes: tuple[Tensor, Tensor, Tensor], config: RendererConfig
    ) -> None:
        """
        Args:
            projected: [3, W, H, F] of :func:`project_planes`.
            axes: the samples' coordinates (x [X], y [Y], z [Z]) in the field's frame.
        """
        self.decoder, self.config, self.projected = decoder, config, projected
        self.x, self.y, self.z = (axis.to(projected) / config.radius for axis in axes)
        self.c = self._read(2, self.y, self.z)

    def slab(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """A [stop - first, Y, F] with the first bias in it and B [stop - first, Z, F], for samples first <= x < stop."""
        x = self.x[first:stop]
        return self._read(0, x, self.y) + self.decoder.layers[0].bias.to(self.c), self._read(1, x, self.z)

    def _read(self, plane: int, first: Tensor, second: Tensor) -> Tensor:
        """A plane [W, H, F] at all pairs of coordinates [len(first), len(second), F]."""
        values = self.projected[plane]
        columns, rows = bilinear_weights(first, values.shape[0]), bilinear_weights(second, values.shape[1])
        values = torch.matmul(rows, values)  # [H', H] * [W, H, F] -> [W, H', F]
        return (columns @ values.flatten(1)).unflatten(1, values.shape[1:])  # [W', W] * [W, H' * F]


def grid_density(planes: GridPlanes, first: int, stop: int, chunk: int) -> Tensor:
    """Densities [stop - first, Y, Z] at samples first <= x < stop, about ``chunk`` of them at a time; plain PyTorch."""
    a, b = planes.slab(first, stop)
    c, decoder = planes.c, planes.decoder
    height, depth, channels = c.shape
    out = c.new_empty(stop - first, height, depth)
    linears = [layer for layer in decoder.layers if isinstance(layer, torch.nn.Linear)]
    *middle, (weight, bias) = [(layer.weight.T.to(c), layer.bias.to(c)) for layer in linears[1:]]
    activate = torch.relu_ if isinstance(decoder.layers[1], torch.nn.ReLU) else _silu_
    rows = max(1, min(height, chunk // depth))
    spare = [c.new_empty(rows * depth, channels) for _ in range(2)]  # stays in the cache where a chunk does
    for x in range(stop - first):
        for y in range(0, height, rows):
            end = min(y + rows, height)
            hidden, other = (s[: (end - y) * depth] for s in spare)
            tile = hidden.view(end - y, depth, channels)
            torch.add(b[x], c[y:end], out=tile)
            tile += a[x, y:end, None]
            for matrix, offset in middle:
                torch.addmm(offset, activate(hidden), matrix, out=other)
                hidden, other = other, hidden
            raw = torch.addmm(bias[:1], activate(hidden), weight[:, :1])
            out[x, y:end] = density_activation(raw, planes.config.density_bias).view(end - y, depth)
    return out


def _silu_(x: Tensor) -> Tensor:
    return torch.nn.functional.silu(x, inplace=True)
