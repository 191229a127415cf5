"""Handles and wires that the fusion alone loses."""

import math

import pytest
import shapes
import torch
import torch.nn.functional as F
import trimesh

from bozzetto.gaussians import Gaussians
from bozzetto.surface import fusion, gaussians_to_mesh
from bozzetto.surface.capture import capture_moments, solid_depth, sphere_cameras
from bozzetto.surface.fusion import fuse_depth
from bozzetto.surface.thin import (
    _count_touches_cpu,
    _largest,
    count_touches,
    thin_pixels,
    thin_structures,
    thin_views,
    with_balls,
)


def basket(opacity: float = 0.14, wire: float = 0.008) -> Gaussians:
    """A ball with a faint arched handle of round splats, from (-0.25, 0.25, 0) over (0, 0.75, 0) to (0.25, 0.25, 0)."""
    angle = torch.linspace(0, math.pi, 120)
    means = torch.stack([0.25 * angle.cos(), 0.25 + 0.5 * angle.sin(), torch.zeros_like(angle)], dim=1)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(means), 1)
    handle = Gaussians.from_rgb(
        means, torch.full((len(means), 3), wire), quats, torch.full((len(means),), opacity), torch.full_like(means, 0.5)
    )
    return shapes.join(shapes.sphere(6000, 0.42).gaussians(), handle)


def views_of(gaussians: Gaussians, size: int = 112):
    cameras = sphere_cameras(40)
    moments = capture_moments(gaussians, cameras, size)
    return moments, cameras, thin_views(*moments, cameras, 2 / 64)


def test_lines_are_thin_and_rims_are_not():
    alpha = torch.zeros(2, 128, 128)
    alpha[0, 60:63, 10:100] = 0.3  # a faint line
    alpha[1, :, 40:] = torch.cat([torch.linspace(0, 1, 20), torch.ones(68)])  # a body with a soft rim
    found = thin_pixels(alpha)
    assert found[0, 60:63, 12:98].all() and int(found[0].sum()) == 3 * 90
    assert not found[1].any()


@pytest.mark.parametrize("size", [3, 5, 7, 17])
def test_largest_is_max_pooling(size):
    maps = torch.randn(2, 40, 31, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_largest(maps, size), F.max_pool2d(maps[:, None], size, 1, size // 2)[:, 0])


def test_compiled_touches_are_the_plain_ones():
    _, _, views = views_of(basket(), 64)
    points = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    for plain, loop in zip(count_touches(points, views), _count_touches_cpu(points, views), strict=True):
        assert float((plain != loop).float().mean()) < 0.003  # pixels' borders
        assert plain.max() > 5


def test_bodies_have_no_thin_structures():
    for shape in (shapes.sphere(6000), shapes.torus(8000)):
        gaussians = shape.gaussians()
        moments, cameras, views = views_of(gaussians)
        half = torch.full((3,), 0.6)
        plain = fuse_depth(*solid_depth(*moments), cameras, half, 64, gaussians)
        with_thin = fuse_depth(*solid_depth(*moments), cameras, half, 64, gaussians, views)
        assert torch.equal(plain[0], with_thin[0])


def test_nothing_among_no_splats():
    volume = torch.ones(8, 8, 8)
    _, _, views = views_of(shapes.sphere(500).gaussians(), 64)
    places = thin_structures(volume, torch.zeros(8, 8, 8), torch.zeros(3), 0.1, views)
    assert places.shape == (0, 3)
    assert torch.equal(with_balls(volume, places), volume)


def test_balls_hang_together_across_corners():
    volume = torch.ones(12, 12, 12)
    places = torch.tensor([[0, 0, 0], [5, 5, 5], [6, 6, 6]])
    joined = with_balls(volume, places)
    assert (joined[tuple(places.T)] < 0).all()
    assert int((joined < 0).sum()) >= 3 and (joined <= volume).all()
    assert joined[11, 11, 11] == 1 and joined[2, 10, 2] == 1


@pytest.mark.parametrize("resolution", [64, 72, 100])
def test_a_faint_handle_stays_on(resolution, monkeypatch):
    gaussians = basket()
    mesh = gaussians_to_mesh(gaussians, resolution=resolution, texture_size=256, max_faces=12_000)
    solid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    solid.merge_vertices(merge_tex=True, merge_norm=True)
    assert solid.is_watertight
    angle = torch.linspace(0.1, math.pi - 0.1, 30)
    arc = torch.stack([0.25 * angle.cos(), 0.25 + 0.5 * angle.sin(), torch.zeros_like(angle)], dim=1)
    assert float(torch.cdist(arc, mesh.vertices).amin(dim=1).max()) < 0.06
    assert len(solid.split(only_watertight=False)) == 1  # and hangs on the ball
    handle = mesh.vertices[mesh.vertices[:, 1] > 0.55]
    assert float(handle[:, 2].abs().max()) < 0.06  # and is thin
    monkeypatch.setattr(fusion, "thin_structures", lambda *_: torch.zeros(0, 3, dtype=torch.long))
    without = gaussians_to_mesh(gaussians, resolution=resolution, texture_size=256, max_faces=12_000)
    assert float(torch.cdist(arc, without.vertices).amin(dim=1).max()) > 0.2
