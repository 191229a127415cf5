"""What depth says about the field: the inside is full, so that a mesh of the field has no surface there; open hollows stay."""

from dataclasses import replace

import pytest
import shapes
import torch

from bozzetto.camera import Cameras
from bozzetto.errors import MeshError
from bozzetto.gaussians import Gaussians
from bozzetto.surface.bounds import normalise_object
from bozzetto.surface.clean import keep_large_components
from bozzetto.surface.nerf import NerfSettings, pipeline
from bozzetto.surface.nerf.guide import SIGHTS, DepthGuide, depth_guide, sights
from bozzetto.surface.nerf.march import Occupancy
from bozzetto.surface.nerf.settings import OBJECT_RADIUS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def shell(bowl: bool = False) -> Gaussians:
    """A sphere of splats of radius 1 around the origin, or its lower half."""
    g = shapes.sphere(12_000).gaussians()
    size = 1 / g.means.norm(dim=1).amax()
    g.means *= size
    g.scales *= size
    return g.select((g.means[:, 1] < 0.1).nonzero()[:, 0]) if bowl else g


def test_the_volume_is_read_where_its_voxels_are():
    generator = torch.Generator().manual_seed(1)
    volume = torch.rand(4, 5, 6, generator=generator) * 2 - 1
    guide = DepthGuide(volume, torch.tensor([-0.4, -0.3, -0.2]), 0.1)
    index = torch.tensor([[0, 0, 0], [3, 1, 2], [1, 4, 5]])
    points = guide.origin + index * 0.1
    assert torch.allclose(guide.at(points), volume[tuple(index.T)], atol=1e-5)
    between = guide.origin + torch.tensor([[1.5, 2.0, 3.0]]) * 0.1
    assert torch.allclose(guide.at(between), (volume[1, 2, 3] + volume[2, 2, 3]) / 2, atol=1e-5)
    assert torch.allclose(guide.at(torch.tensor([[-9.0, -9.0, -9.0]])), volume[0, 0, 0])


def test_what_lies_deep_inside_is_filled_but_not_open_hollows():
    for bowl in (False, True):
        found = normalise_object(shell(bowl))
        guide = depth_guide(found, DEVICE)
        height = torch.tensor([0.0, -0.5, -0.85, -1.15, 3.0])  # the outline is at 1.05
        points = torch.zeros(len(height), 3)
        points[:, 1] = height
        points = (points - found.centre.float()) / found.scale * OBJECT_RADIUS
        filling = guide.filling(points.to(DEVICE)).tolist()
        assert filling[2:] == [2.0, 0.0, 0.0]
        assert filling[0] == 0.0 if bowl else filling[:2] == [2.0, 2.0]


def test_sights_count_views():
    """Some pictures show a wall at depth 2, the others nothing: what is before it is seen by all, behind it by the others."""
    cameras = Cameras.orbit([0.0] * 20, radius=2.0)
    depth = torch.full((20, 8, 8), torch.inf)
    points = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.05], [0.0, 0.0, -0.05], [0.0, 0.0, -0.5]])
    for walls, expected in ((20 - SIGHTS, [1.0] * 4), (21 - SIGHTS, [1.0, 0.5, -0.5, -1.0])):
        depth[:walls] = 2.0
        assert torch.allclose(sights(points, depth, cameras, 0.1), torch.tensor(expected), atol=1e-4)


def test_a_hollow_field_becomes_one_surface():
    found = normalise_object(shell())
    settings = replace(NerfSettings(), resolution=64)

    class Hollow:
        """Dense in a thin shell alone, which a pit leads through."""

        def density(self, points: torch.Tensor) -> torch.Tensor:
            points = points / (OBJECT_RADIUS / 3**0.5)
            radius, pit = points.norm(dim=1), (points[:, 1:].norm(dim=1) < 0.1) & (points[:, 0] > 0)
            return 100.0 * ((radius > 0.9) & (radius < 1.0) & ~pit).float()

    occupancy = Occupancy(16, DEVICE)
    occupancy.values += 1.0
    half = found.half_extent * OBJECT_RADIUS + 0.05
    guide = depth_guide(found, DEVICE)
    radii = []
    for own in (guide, replace(guide, volume=torch.ones_like(guide.volume))):
        vertices, _ = keep_large_components(*pipeline._surface(Hollow(), occupancy, own, half, settings))
        radii.append(vertices.norm(dim=1) / (OBJECT_RADIUS / 3**0.5))
    assert float((radii[0] < 0.93).float().mean()) < 0.01 < 0.3 < float((radii[1] < 0.93).float().mean())


def test_what_has_no_surface_is_refused():
    faint = shell()
    faint.opacities[:] = 0.03
    with pytest.raises(MeshError):
        depth_guide(normalise_object(faint.select(torch.arange(0, len(faint), 100))), DEVICE)
