"""Evidence about depth along rays: masks and colours of the other pictures, before any network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bozzetto.camera import Cameras
from bozzetto.data.procedural import generate_object
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.systems.lgm.inputs import mini_inputs
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.plane_sweep import CELL, REACH, sweep_channels, sweep_planes
from bozzetto.systems.lgm.presets import preset

SIZE, COUNT = 128, 32


@pytest.fixture(scope="module")
def batch():
    """Two objects from a ring of four: pictures, cameras, distance along the ray [2, 4, side, side] and where it is known."""
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [0.0, 0.0, 20.0, 0.0])
    cameras = Cameras.cat([cameras[None]] * 2)
    scene = SceneBatch.pack([generate_object(3), generate_object(8)])
    drawn = render_objects(scene, cameras, SIZE, Lights.default(2), outputs=("rgba", "depth"))
    rgba = drawn.rgba.permute(0, 1, 4, 2, 3).contiguous()
    _, directions = cameras.rays(SIZE // CELL)
    forward = -cameras.camera_to_world[..., None, None, :3, 2]
    depth = drawn.depth[..., CELL // 2 :: CELL, CELL // 2 :: CELL]
    inside = F.avg_pool2d(rgba[:, :, 3], CELL) > 0.99
    return rgba, cameras, depth / (directions * forward).sum(-1), inside


def numbers(rgba, cameras, known):
    """Hull and second half, [B, V, COUNT, side, side] each."""
    channels = sweep_channels(rgba, cameras, known, COUNT)
    assert channels.shape == (*rgba.shape[:2], sweep_planes(COUNT), SIZE, SIZE)
    rays = F.pixel_unshuffle(channels.flatten(0, 1), CELL).unflatten(0, rgba.shape[:2])
    return rays[:, :, :COUNT] + 0.5, rays[:, :, COUNT:]


def steps(cameras):
    return cameras.positions.norm(dim=-1)[..., None, None, None] + REACH * torch.linspace(-1, 1, COUNT)[:, None, None]


def test_the_surface_lies_within_the_hull_and_pictures_agree_there(batch):
    rgba, cameras, distance, inside = batch
    hull, agreement = numbers(rgba, cameras, torch.ones(2, 4))
    place = ((distance - steps(cameras)[:, :, 0]) / (2 * REACH) * (COUNT - 1)).round().long().clamp(0, COUNT - 1)
    there = torch.gather(hull, 2, place[:, :, None])[:, :, 0][inside]
    agreed = torch.gather(agreement, 2, place[:, :, None])[:, :, 0][inside]
    assert float(there.mean()) > 0.85 and float(hull.min()) >= 0 and float(hull.max()) < 1.001
    assert float(agreed.mean()) > 1.5 * float(agreement.mean(2)[inside].mean())
    front = steps(cameras).expand_as(hull).gather(2, (hull > 0.5).float().argmax(2, keepdim=True))[:, :, 0]
    error, constant = (front - distance)[inside].abs().mean(), (steps(cameras).mean(2) - distance)[inside].abs().mean()
    assert float(error) < 0.6 * float(constant)


def test_slots_without_a_picture_are_not_looked_at(batch):
    rgba, cameras, _, _ = batch
    known = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]])
    changed = rgba.clone()
    changed[:, 2:] = torch.rand_like(changed[:, 2:])
    changed[1, 1] = 0.3
    for a, b in zip(numbers(rgba, cameras, known), numbers(changed, cameras, known)):
        assert torch.equal(a, b)
    hull, second = numbers(rgba, cameras, known)
    assert float(second[1, 0].max()) == 0  # a single picture has nobody to agree with
    own = F.avg_pool2d(rgba[1, :1, 3:], CELL)  # and its hull is its mask, all along the ray
    assert torch.allclose(hull[1, 0], own[0].expand_as(hull[1, 0]), atol=0.15)
    assert float(second[1, 2].max()) > 0.1  # an unseen side is told how bright the photo is where its rays meet it


def test_objects_of_a_batch_do_not_mix(batch):
    rgba, cameras, _, _ = batch
    known = torch.ones(2, 4)
    whole = sweep_channels(rgba, cameras, known, COUNT)
    assert torch.allclose(whole[1:], sweep_channels(rgba[1:], cameras[1:], known[1:], COUNT), atol=1e-5)


def test_networks_take_them_as_channels(batch):
    rgba, cameras, _, _ = batch
    config = preset("debug-sweep")
    small = F.interpolate(rgba.flatten(0, 1), (32, 32), mode="area").unflatten(0, (2, 4))
    inputs = mini_inputs(small, cameras, torch.ones(2, 4), config.input_size, config.candidates)
    assert inputs.shape == (2, 4, 11 + sweep_planes(config.candidates), 32, 32)
    assert LGM(config)(inputs).shape == (2, 4, 14, 16, 16)
    with pytest.raises(ValueError, match="multiple of 8"):
        sweep_planes(12)


def test_one_photo_is_seen_where_its_camera_projects_the_candidates():
    """Against :meth:`Cameras.project`: a disc whose brightness grows from left to right, looked at from four sides."""
    cameras = Cameras.orbit([20.0, 110.0, 200.0, 290.0], [10.0, 0.0, -30.0, 60.0], [1.5, 1.4, 1.6, 2.0], 45.0)
    cameras.intrinsics = cameras.intrinsics * torch.tensor([1.0, 1.1, 0.95, 1.05])  # oblong pixels, off the middle
    middle = (torch.arange(SIZE) + 0.5) / SIZE
    rgba = torch.zeros(1, 4, 4, SIZE, SIZE)
    rgba[0, 0, :3] = middle
    rgba[0, 0, 3] = ((middle[:, None] - 0.5) ** 2 + (middle - 0.5) ** 2 < 0.3**2).float()
    hull, second = numbers(rgba, cameras[None], torch.tensor([[1.0, 0, 0, 0]]))

    origins, directions = cameras.rays(SIZE // CELL)
    points = origins[:, None] + directions[:, None] * steps(cameras)[..., None]  # [4, COUNT, side, side, 3]
    places, depth = cameras[0].project(points.reshape(-1, 3))
    places = places.view(4, COUNT, SIZE // CELL, SIZE // CELL, 2)
    from_middle = (places - 0.5).norm(dim=-1)
    inside = (from_middle < 0.265) & (depth.view_as(from_middle) > 0)
    assert 0.03 < float(inside[1:].float().mean()) < 0.8
    assert float(hull[0][inside].min()) > 0.999 and float(hull[0][from_middle > 0.335].max()) == 0
    assert float(second[0, 0].abs().max()) == 0
    assert torch.allclose(second[0, 1:][inside[1:]], places[1:, ..., 0][inside[1:]], atol=1e-4)


def test_points_behind_a_camera_count_as_outside():
    """A camera that looks away from everything sees nothing of it, also where the lines through its centre meet the picture."""
    towards, away = Cameras.orbit([0.0], 0.0, 1.5), Cameras.orbit([180.0], 0.0, 1.5)
    away.camera_to_world[:, :3, 3] = towards.camera_to_world[:, :3, 3]  # at the same place, turned round
    cameras = Cameras.cat([towards, away])[None]
    rgba = torch.ones(1, 2, 4, SIZE, SIZE)
    hull, second = numbers(rgba, cameras, torch.tensor([[1.0, 1.0]]))
    assert float(hull[:, 0].max()) == 0 and float(second.abs().max()) == 0
    hull, _ = numbers(rgba, cameras, torch.tensor([[1.0, 0.0]]))
    assert float(hull[:, 0].min()) > 0.999 and float(hull[:, 1].max()) == 0


@pytest.mark.parametrize(("distance", "fov"), [(1.5, 49.1), (0.01, 170.0), (0.8, 120.0), (30.0, 2.0)])
def test_any_camera_gives_finite_numbers(distance, fov):
    generator = torch.Generator().manual_seed(5)
    rgba = torch.rand(1, 4, 4, 32, 32, generator=generator)
    rgba[0, 3] = torch.nan  # not known, not looked at
    cameras = Cameras.orbit([0.0, 77.0, 180.0, 0.0], [0.0, 90.0, 0.0, -90.0], distance, fov)[None]
    for known in ([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]):
        channels = sweep_channels(rgba, cameras, torch.tensor([known]), 8)
        assert bool(channels.isfinite().all())
        assert float(channels.min()) >= -0.5 and float(channels.max()) <= 1.001
