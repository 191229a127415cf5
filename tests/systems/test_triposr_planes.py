"""The decoder on projected planes: plain PyTorch against the plain query, the Triton kernels against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from bozzetto.systems.triposr.config import DecoderConfig, RendererConfig
from bozzetto.systems.triposr.field import TriposrField
from bozzetto.systems.triposr.network import NeRFMLP
from bozzetto.systems.triposr.planes import GridPlanes, bilinear_weights, grid_density, project_planes
from bozzetto.systems.triposr.triplane import query_triplane

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [("silu", "concat", 3), ("relu", "concat", 3), ("silu", "mean", 2)]


def make(activation: str = "silu", reduction: str = "concat", layers: int = 3, size: int = 12, seed: int = 0):
    """A decoder of lively outputs, a triplane and their configuration."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 24 if reduction == "concat" else 8
    decoder = NeRFMLP(DecoderConfig(inputs, 32, layers, activation)).requires_grad_(False)
    for layer in decoder.layers:
        if isinstance(layer, torch.nn.Linear):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / layer.in_features) ** 0.5)
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.2)
    triplane = torch.randn(3, 8, size, size + 2, generator=generator)
    return decoder.to(DEVICE), triplane.to(DEVICE), RendererConfig(feature_reduction=reduction)


def sample_axes(x: int = 5, y: int = 6, z: int = 7) -> tuple[torch.Tensor, ...]:
    """Coordinates up to the cube's faces and, along z, beyond of them."""
    return tuple(torch.linspace(-r, r, n, device=DEVICE) for r, n in ((0.87, x), (0.87, y), (1.1, z)))


def points_of(axes) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def test_bilinear_weights_are_grid_sample():
    positions = torch.linspace(-1.3, 1.3, 41)
    row = torch.rand(9)
    grid = torch.stack([positions, torch.zeros_like(positions)], dim=-1)[None, None]
    expected = torch.nn.functional.grid_sample(row.expand(1, 1, 3, 9), grid, align_corners=False)[0, 0, 0]
    assert torch.allclose(bilinear_weights(positions, 9) @ row, expected, atol=1e-6)


@pytest.mark.parametrize(("activation", "reduction", "layers"), [*CASES, ("silu", "concat", 1)])
@pytest.mark.parametrize("chunk", [1, 17, 10_000])
def test_grid_is_the_query_at_its_points(activation, reduction, layers, chunk):
    decoder, triplane, config = make(activation, reduction, layers)
    axes = sample_axes()
    expected = query_triplane(decoder, triplane, points_of(axes), config)["density_act"][..., 0]
    planes = GridPlanes(decoder, project_planes(decoder, triplane, reduction), axes, config)
    slabs = [grid_density(planes, 0, 2, chunk), grid_density(planes, 2, 5, chunk)]
    assert torch.allclose(torch.cat(slabs), expected, rtol=1e-4)
    assert expected.std() > 0.1


def kernels_of(decoder, triplane, config):
    module = pytest.importorskip("bozzetto.systems.triposr.triton_decoder", reason="needs Triton")
    if DEVICE == "cpu" and not module.INTERPRETED.value:
        pytest.skip("Triton was imported before its interpreter was chosen")
    assert module.DecoderKernels.take(decoder)
    return module.DecoderKernels(decoder, project_planes(decoder, triplane, config.feature_reduction), config)


@pytest.mark.parametrize(("activation", "reduction", "layers"), CASES)
def test_kernels_agree_with_plain_pytorch(activation, reduction, layers):
    decoder, triplane, config = make(activation, reduction, layers)
    kernels = kernels_of(decoder, triplane, config)
    axes = sample_axes(z=131)  # more than a tile
    planes = GridPlanes(decoder, kernels.projected, axes, config)
    assert torch.allclose(kernels.grid(planes, 1, 4), grid_density(planes, 1, 4, 10_000), rtol=1e-4)
    generator = torch.Generator().manual_seed(1)
    points = ((torch.rand(133, 3, generator=generator) * 2 - 1) * 1.2).to(DEVICE)
    points[0] = torch.tensor([1e9, -3e9, 0.0])
    expected = query_triplane(decoder, triplane, points, config)
    found = kernels.points(points)
    assert torch.allclose(found[:, 0], expected["density_act"][:, 0], rtol=1e-4)
    assert torch.allclose(found[:, 1:], expected["color"], atol=1e-5)


def test_kernels_keep_single_precision():
    """Products of plain float16 numbers would miss this by two orders of magnitude."""
    decoder, triplane, config = make(layers=6)
    kernels = kernels_of(decoder, triplane, config)
    planes = GridPlanes(decoder, kernels.projected, sample_axes(), config)
    twin = make(layers=6)[0].double()
    wide = GridPlanes(twin, kernels.projected.double(), sample_axes(), config)
    exact = torch.log(grid_density(wide, 0, 5, 10_000).double())
    assert (torch.log(kernels.grid(planes, 0, 5).double()) - exact).abs().max() < 2e-5 * exact.std()


def test_numbers_beyond_half_precision_are_nan_and_then_computed_plainly(monkeypatch):
    decoder, triplane, config = make()
    decoder.layers[0].weight *= 3e5
    decoder.layers[2].weight *= 1e-5
    kernels = kernels_of(decoder, triplane, config)
    points = points_of(sample_axes()).reshape(-1, 3)
    assert torch.isnan(kernels.points(points)).any()
    field = TriposrField(triplane, decoder, config)
    monkeypatch.setitem(field.__dict__, "_fused", kernels)
    expected = query_triplane(decoder, triplane, points, config)
    assert torch.allclose(field.density(points), expected["density_act"][:, 0], rtol=1e-4)
    assert field._kernels is None
    field = TriposrField(triplane, decoder, config)
    monkeypatch.setitem(field.__dict__, "_fused", kernels)
    slab = field.grid(sample_axes())(0, 5)
    assert torch.allclose(slab.reshape(-1), expected["density_act"][:, 0], rtol=1e-4)


def test_field_asks_the_kernels(monkeypatch):
    decoder, triplane, config = make()
    field = TriposrField(triplane, decoder, config)
    monkeypatch.setitem(field.__dict__, "_fused", kernels_of(decoder, triplane, config))
    plain = TriposrField(triplane, decoder, config)
    monkeypatch.setitem(plain.__dict__, "_fused", None)
    monkeypatch.setattr("bozzetto.systems.triposr.field.query_triplane", None)
    points = points_of(sample_axes()).reshape(-1, 3)
    assert torch.allclose(field.density(points), plain.grid(sample_axes())(0, 5).reshape(-1), rtol=1e-4)
    assert field.colour(points).shape == (210, 3)


def test_decoders_of_other_kinds_are_asked_point_by_point():
    decoder, triplane, config = make()
    other = torch.nn.Sequential(decoder)
    axes = sample_axes()
    found = TriposrField(triplane, other, config, chunk=50).grid(axes)(1, 4)
    expected = query_triplane(decoder, triplane, points_of(axes), config)["density_act"][1:4, ..., 0]
    assert torch.allclose(found, expected, rtol=1e-4)


def test_gradients_reach_the_triplane():
    decoder, triplane, config = make()
    triplane.requires_grad_()
    field = TriposrField(triplane, decoder, config)
    field.density(torch.zeros(1, 3, device=DEVICE)).sum().backward()
    assert triplane.grad.abs().sum() > 0
