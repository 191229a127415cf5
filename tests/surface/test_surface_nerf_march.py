"""Volume rendering of known fields, the occupancy grid and the visual hull."""

import pytest
import shapes
import torch

from bozzetto.camera import Cameras
from bozzetto.surface.nerf.field import NerfField
from bozzetto.surface.nerf.march import (
    OPAQUE,
    Occupancy,
    Samples,
    composite,
    render_rays,
    sample_rays,
    transmittance,
    visual_hull,
)
from bozzetto.surface.nerf.settings import NerfSettings

RADIUS, DENSITY = 0.4, 3.0


def ball(points: torch.Tensor) -> torch.Tensor:
    return torch.where(points.norm(dim=-1) < RADIUS, DENSITY, 0.0)


def red(points: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0.8, 0.2, 0.1]).expand_as(points)


def rays(size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    camera = Cameras.orbit([30.0], [20.0]).to(dtype=torch.float32)
    return tuple(x.reshape(-1, 3) for x in camera.rays(size))


def filled_occupancy() -> Occupancy:
    occupancy = Occupancy(32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        occupancy.update(ball, 0.02, generator, everywhere=True)
    return occupancy


def test_a_ball_of_fog_is_as_opaque_as_its_chords_are_long():
    origins, directions = rays()
    occupancy = filled_occupancy()
    assert float(occupancy.full.float().mean()) < 0.06
    jitter = torch.rand(len(origins), generator=torch.Generator().manual_seed(0))
    rgb, alpha = render_rays(ball, red, origins, directions, occupancy, 0.002, jitter)
    along = (origins * directions).sum(dim=1)
    chord = 2 * (RADIUS**2 - (origins.square().sum(dim=1) - along**2)).clamp_min(0).sqrt()
    expected = 1 - torch.exp(-DENSITY * chord)
    assert float(expected.max()) > 0.9 and float((expected == 0).float().mean()) > 0.3
    assert torch.allclose(alpha, expected, atol=0.02)
    assert torch.allclose(rgb, red(origins) * alpha[:, None] + 1 - alpha[:, None], atol=1e-5)


def test_occupancy_forgets_what_went_away():
    occupancy = filled_occupancy()
    before = int(occupancy.full.sum())
    generator = torch.Generator().manual_seed(1)
    for _ in range(400):
        occupancy.update(lambda p: ball(2 * p), 0.02, generator, everywhere=False)
    assert 0 < int(occupancy.full.sum()) < 0.4 * before
    low, high = occupancy.box()
    assert float(high.max()) < 0.3 and float(low.min()) > -0.3


def test_compositing_and_its_gradients():
    ray = torch.tensor([0, 0, 0, 2, 2])
    samples = Samples(torch.zeros(5, 3), ray, torch.tensor([0, 1, 3, 0, 2]), 4)
    depth = torch.tensor([0.3, 0.7, 2.0, 0.1, 5.0], dtype=torch.float64, requires_grad=True)
    colour = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    rgb, alpha = composite(depth, colour, samples, 3)
    for r in range(3):
        light, total = 1.0, torch.zeros(3, dtype=torch.float64)
        for i in (ray == r).nonzero()[:, 0].tolist():
            opacity = 1 - float(torch.exp(-depth[i]))
            total += light * opacity * colour[i].detach()
            light *= 1 - opacity
        assert torch.allclose(rgb[r], total + light) and float(alpha[r]) == pytest.approx(1 - light)
    assert torch.autograd.gradcheck(lambda d, c: composite(d, c, samples, 3), (depth, colour))


def test_rays_that_miss_and_an_empty_grid():
    origins, directions = rays(8)
    occupancy = filled_occupancy()
    away = sample_rays(origins, -directions, occupancy, 0.01, torch.zeros(len(origins)))
    assert len(away.points) == 0
    rgb, alpha = render_rays(ball, red, origins, -directions, occupancy, 0.01, torch.zeros(len(origins)))
    assert bool((rgb == 1).all()) and not bool(alpha.any())
    occupancy.full = torch.zeros_like(occupancy.full)
    rgb, alpha = render_rays(ball, red, origins, directions, occupancy, 0.01, torch.zeros(len(origins)))
    assert bool((rgb == 1).all()) and not bool(alpha.any())


def test_kernels_render_as_the_plain_form():
    pytest.importorskip("triton")
    from bozzetto.surface.nerf import march_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    origins, directions = (x.to(device) for x in rays(16))
    occupancy = filled_occupancy()
    occupancy.full = occupancy.full.to(device)
    occupancy.values = occupancy.values.to(device)
    jitter = torch.rand(len(origins), generator=torch.Generator().manual_seed(0)).to(device)
    plain = sample_rays(origins, directions, occupancy, 0.01, jitter)
    points, ends = march_triton.sample_rays(origins, directions, occupancy, 0.01, jitter)
    assert len(points) == int(ends[-1]) > 1000
    assert abs(len(points) - len(plain.points)) <= 3  # on the border between cells a digit decides
    if len(points) == len(plain.points):
        assert torch.allclose(points, plain.points, atol=1e-5)
    counts = torch.bincount(plain.ray, minlength=len(origins))
    assert int((ends.diff(prepend=ends.new_zeros(1)) - counts).abs().sum()) <= 3

    field = NerfField(NerfSettings(levels=4, table=1 << 12, finest=64), torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        field.density_grid.table.mul_(1e5)
        field.colour_grid.table.mul_(1e4)
    weight = torch.randn(len(origins), 4, generator=torch.Generator().manual_seed(1)).to(device)
    found = []
    for backend in ("reference", "triton"):
        field.zero_grad()
        rgb, alpha = render_rays(
            field.density, field.colour, origins, directions, occupancy, 0.01, jitter, backend=backend
        )
        (torch.cat([rgb, alpha[:, None]], dim=1) * weight).sum().backward()
        found.append((rgb.detach(), alpha.detach(), [p.grad.clone() for p in field.parameters()]))
    (rgb, alpha, gradients), (made, made_alpha, made_gradients) = found
    assert float(alpha.max()) > 0.3
    assert torch.allclose(made, rgb, atol=2e-3) and torch.allclose(made_alpha, alpha, atol=2e-3)
    for own, other in zip(gradients, made_gradients, strict=True):
        assert float(own.norm()) > 0 and float((own - other).norm() / own.norm()) < 0.01


@pytest.mark.parametrize("counts", [[3, 0, 5], [0, 0, 0], [300, 1, 260]])
def test_kernel_composites_and_its_gradient(counts):
    pytest.importorskip("triton")
    from bozzetto.surface.nerf import march_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    count = torch.tensor(counts)
    total = int(count.sum())
    ray = torch.arange(len(counts)).repeat_interleave(count)
    first = count.cumsum(0) - count
    rank = torch.arange(total) - first[ray]
    depth = (torch.rand(total, generator=generator) * 0.05).to(device)
    colour = torch.rand(total, 3, generator=generator).to(device)
    samples = Samples(torch.zeros(total, 3, device=device), ray.to(device), rank.to(device), max(max(counts), 1))
    weight = torch.randn(len(counts), 4, generator=generator).to(device)
    ends = count.cumsum(0).to(device)
    results = []
    for kernel in (False, True):
        d, c = depth.clone().requires_grad_(), colour.clone().requires_grad_()
        if kernel:
            made = march_triton._Composite.apply(d, c, ends)
        else:
            rgb, alpha = composite(d, c, samples, len(counts))
            made = torch.cat([rgb, alpha[:, None]], dim=1)
        (made * weight).sum().backward()
        results.append((made.detach(), d.grad, c.grad))
    for own, other in zip(*results, strict=True):
        assert torch.allclose(own, other, atol=2e-5, rtol=1e-4)
    points = torch.rand(total, 3, generator=generator).to(device)
    steep = depth * 60
    short, short_ends = march_triton.before_opaque(points, steep, ends)
    keep = transmittance(steep, samples, len(counts)) > OPAQUE
    assert torch.equal(short, points[keep])
    assert torch.equal(short_ends.cpu(), torch.bincount(ray[keep.cpu()], minlength=len(counts)).cumsum(0))


def test_visual_hull_keeps_the_object_and_little_else():
    shape = shapes.torus(8000)
    possible = visual_hull(shape.gaussians(), 48, 0.6)
    cell = ((shape.points * 0.99 + 1) * 24).long()
    assert bool(possible[cell[:, 0], cell[:, 1], cell[:, 2]].all())
    assert float(possible.float().mean()) < 0.06
    assert not bool(possible[23:25, 23:25, 23:25].any())  # the hole
    nothing = shape.gaussians().select(torch.arange(0))
    assert not bool(visual_hull(nothing, 16, 0.6).any())


def test_field_starts_as_thin_grey_fog():
    settings = NerfSettings(levels=4, table=1 << 12, finest=64)
    field = NerfField(settings, torch.Generator().manual_seed(0))
    again = NerfField(settings, torch.Generator().manual_seed(0))
    points = torch.rand(100, 3) * 2 - 1
    assert torch.allclose(field.density(points), torch.ones(100), atol=1e-2)
    assert torch.allclose(field.colour(points), torch.full((100, 3), 0.5), atol=1e-2)
    assert torch.equal(field.colour(points), again.colour(points))
