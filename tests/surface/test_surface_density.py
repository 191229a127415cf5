"""Density of splats on a grid."""

import pytest
import shapes
import torch

from bozzetto.gaussians import Gaussians, quaternion_to_matrix
from bozzetto.surface import density as room
from bozzetto.surface.density import FAINTEST, _prepared, density_cpu, density_plain, splat_density


def splats(count: int = 60) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians.from_rgb(
        torch.rand(count, 3, generator=generator) - 0.5,
        0.05 + 0.15 * torch.rand(count, 3, generator=generator),
        torch.randn(count, 4, generator=generator),
        torch.rand(count, generator=generator),
        torch.rand(count, 3, generator=generator),
    )


def test_against_the_formula():
    g, shape, voxel = splats(), (20, 24, 17), 0.06
    origin = torch.tensor([-0.6, -0.7, -0.5])
    axes = [torch.arange(n) * voxel + o for n, o in zip(shape, origin, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    local = torch.einsum("xyznc,nca->xyzna", points[..., None, :] - g.means, quaternion_to_matrix(g.quats)) / g.scales
    value = g.opacities * torch.exp(-0.5 * local.square().sum(-1))
    exact = torch.where(value >= FAINTEST, value, 0).sum(-1)
    found = splat_density(g, shape, origin, voxel)
    assert found.shape == shape
    off = (found - exact).abs()
    assert float((off > 1e-4).float().mean()) < 1e-3 and float(off.max()) < 2 * FAINTEST  # splats end at FAINTEST
    assert float(exact.max()) > 1


def test_compiled_equals_plain():
    g = splats(300)
    g.scales[::7, 2] = 1e-4  # sheets
    arguments = (*_prepared(g, torch.full((3,), -0.4), 0.03), (30, 28, 26))
    here, plain = density_cpu(*arguments), density_plain(*arguments)
    assert float((here - plain).abs().max()) < 2 * FAINTEST and float((here - plain).abs().mean()) < 1e-4
    assert float(plain.max()) > 2


def test_specks_count_for_little_and_sheets_for_all():
    one = splats(1)
    one.means[:], one.opacities[:], one.quats[:] = 0, 0.9, torch.tensor([1.0, 0, 0, 0])
    origin = torch.full((3,), -5.0)
    for scales, expected in (((2.0, 2.0, 2.0), 0.9), ((2.0, 2.0, 1e-3), 0.9), ((0.15, 0.15, 0.15), 0.225)):
        one.scales[:] = torch.tensor(scales)
        assert float(splat_density(one, (11, 11, 11), origin, 1.0)[5, 5, 5]) == pytest.approx(expected, rel=1e-4)


def test_of_splats_as_large_as_the_grid_only_some_are_added(monkeypatch):
    g, shape, origin, voxel = splats(), (20, 24, 17), torch.tensor([-0.6, -0.7, -0.5]), 0.06
    large = splats(40)
    large.scales[:] = 1.0
    both = Gaussians.cat([large, g])
    half = _prepared(g, origin, voxel)[1]
    cells = torch.minimum(2 * half + 1, torch.tensor(shape)).prod(dim=-1).sum()
    small = splat_density(g, shape, origin, voxel)
    assert float((splat_density(both, shape, origin, voxel) - small).amin()) > 1
    monkeypatch.setattr(room, "MOST_CELLS", float(cells) + 1)
    assert torch.allclose(splat_density(both, shape, origin, voxel), small, atol=1e-5)
    monkeypatch.setattr(room, "MOST_CELLS", 20 * 24 * 17 - 1)
    assert bool((splat_density(large, shape, origin, voxel) == 0).all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_gpu():
    g = shapes.torus(5000).gaussians()
    origin = torch.tensor([-0.7, -0.3, -0.7])
    here, there = (splat_density(s, (48, 20, 48), origin, 0.03) for s in (g, g.to("cuda")))
    assert there.device.type == "cuda"
    assert float((there.cpu() - here).abs().mean()) < 1e-3
