"""The radiance field: density and colour, each a hash grid under a small network. No view direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .hash_grid import GridLayout, HashGrid
from .settings import NerfSettings

WIDTH = 32
STEEPEST = 15.0  # the density's gradient grows no further from here on


class _Exp(torch.autograd.Function):
    """exp whose gradient is bounded."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.clamp_max(STEEPEST).exp()


def _network(inputs: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Two linear layers without bias and a ReLU; torch's default range, drawn from ``generator``."""
    network = nn.Sequential(nn.Linear(inputs, WIDTH, bias=False), nn.ReLU(), nn.Linear(WIDTH, outputs, bias=False))
    for layer in (network[0], network[2]):
        bound = layer.in_features**-0.5
        layer.weight.data = (torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound
    return network


class NerfField(nn.Module):
    """Density and colour in the cube [-1, 1] of side 2."""

    def __init__(self, settings: NerfSettings, generator: torch.Generator, backend: str = "auto") -> None:
        super().__init__()
        layout = GridLayout.make(settings.levels, 16, settings.finest, settings.table)
        self.density_grid = HashGrid(layout, generator, backend)
        self.colour_grid = HashGrid(layout, generator, backend)
        self.density_network = _network(self.density_grid.width, 1, generator)
        self.colour_network = _network(self.colour_grid.width, 3, generator)

    def density(self, points: Tensor) -> Tensor:
        """Points [P, 3] -> density [P] per unit of length."""
        return _Exp.apply(self.density_network(self.density_grid((points + 1) / 2))[:, 0])

    def colour(self, points: Tensor) -> Tensor:
        """Points [P, 3] -> sRGB [P, 3] in 0..1."""
        return torch.sigmoid(self.colour_network(self.colour_grid((points + 1) / 2)))

    def grids(self) -> list[nn.Parameter]:
        return [self.density_grid.table, self.colour_grid.table]

    def networks(self) -> list[nn.Parameter]:
        return [*self.density_network.parameters(), *self.colour_network.parameters()]
