"""Evidence around the depths that a network gives: masks and colours of the other pictures, as fine as the Gaussians."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bozzetto.camera import Cameras
from bozzetto.data.procedural import generate_object
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.errors import CheckpointError
from bozzetto.systems.lgm.cascade import APART, CLOSE, cascade_channels, cascade_planes, small_pictures
from bozzetto.systems.lgm.growth import grown
from bozzetto.systems.lgm.inputs import arguments_of, inputs_of
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.plane_sweep import _half_size
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.reconstruct import reconstruct

SIZE, SMALL, DEPTHS = 128, 64, 8
CONFIG = preset("debug-cascade")


@pytest.fixture(scope="module")
def batch():
    """Two objects from a ring of four: pictures, cameras, distance along the ray [2, 4, SMALL, SMALL] and where it is known."""
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [0.0, 0.0, 20.0, 0.0])
    cameras = Cameras.cat([cameras[None]] * 2)
    scene = SceneBatch.pack([generate_object(3), generate_object(8)])
    drawn = render_objects(scene, cameras, SIZE, Lights.default(2), outputs=("rgba", "depth"))
    rgba = drawn.rgba.permute(0, 1, 4, 2, 3).contiguous()
    _, directions = cameras.rays(SMALL)
    forward = -cameras.camera_to_world[..., None, None, :3, 2]
    inside = F.avg_pool2d(rgba[:, :, 3], 2) > 0.99
    return rgba, cameras, drawn.depth[..., 1::2, 1::2] / (directions * forward).sum(-1), inside


def numbers(rgba, cameras, known, distance):
    """Hull and the other numbers of each depth, [B, V, DEPTHS, h, h] each, and those about surfaces, [B, V, 3, h, h]."""
    channels = cascade_channels(_half_size(rgba, known), known, cameras, distance, DEPTHS, torch.float32)
    assert channels.shape == (known.numel(), cascade_planes(DEPTHS), *distance.shape[-2:])
    assert channels.is_contiguous(memory_format=torch.channels_last)
    rays = channels.unflatten(0, known.shape)
    return rays[:, :, :DEPTHS] + 0.5, rays[:, :, DEPTHS : 2 * DEPTHS], rays[:, :, 2 * DEPTHS :]


def test_true_depths_lie_within_the_hull_and_pictures_agree_there(batch):
    rgba, cameras, distance, inside = batch
    hull, agreement, _ = numbers(rgba, cameras, torch.ones(2, 4), distance)
    before, beside, _ = numbers(rgba, cameras, torch.ones(2, 4), distance - 0.25)
    middle = slice(DEPTHS // 2 - 1, DEPTHS // 2 + 1)  # the depths on either side of the network's own

    def mean(x):
        return float(x[:, :, middle].mean(2)[inside].mean())

    assert mean(hull) > 0.8 and mean(before) < 0.6
    assert mean(agreement) > 1.5 * mean(beside)


def test_the_points_are_a_pixel_apart(batch):
    """A step along the ray moves what is looked at by one pixel of a camera that stands aside by 90 degrees."""
    cameras = Cameras.orbit([0.0, 90.0])[None]
    rgba = torch.rand(1, 2, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    rgba[:, :, 3] = 1
    centre = cameras.positions.norm(dim=-1)[..., None, None].expand(1, 2, SMALL, SMALL)
    _, directions = cameras.rays(SMALL)
    ahead = (directions * -cameras.camera_to_world[..., None, None, :3, 2]).sum(-1)
    picture = _half_size(rgba, torch.ones(1, 2))
    picture[:, :, :3] *= torch.linspace(
        0, 1, SMALL
    )  # brighter to the right; the other camera sees depth as right and left
    flags = torch.tensor([[0.0, 1.0]])
    picture[:, 0] = 0
    picture[:, 1, :3] = torch.linspace(0, 1, SMALL)
    channels = cascade_channels(picture, flags, cameras, centre / ahead, DEPTHS, torch.float32)
    light = channels[0, DEPTHS : 2 * DEPTHS, SMALL // 2, SMALL // 2]
    steps = light.diff().abs() * (SMALL - 1)
    assert torch.allclose(steps, torch.ones_like(steps), atol=0.05)


def test_true_depths_agree_with_the_other_slots_surfaces_and_others_do_not(batch):
    rgba, cameras, distance, inside = batch
    known = torch.ones(2, 4)
    *_, surfaces = numbers(rgba, cameras, known, distance)
    far = distance.clone()
    far[:, 0] -= 0.5 * APART
    *_, moved = numbers(rgba, cameras, known, far)

    where = inside[:, 0]
    least, nearest, many = (surfaces[:, 0, k][where] for k in range(3))
    assert float(many.mean()) > 0.05 and float(many.max()) < 1.01
    assert float((nearest.abs() < 1 / CLOSE).float().mean()) > 0.5 and float((least < -0.5).float().mean()) < 0.3
    least_moved, _, many_moved = (moved[:, 0, k][where] for k in range(3))
    assert float(many_moved.mean()) < 0.8 * float(many.mean())
    assert float(least_moved.mean()) < float(least.mean())  # before what the others see: they look through it


def test_slots_without_a_picture_are_not_looked_at(batch):
    rgba, cameras, distance, _ = batch
    known = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = numbers(rgba, cameras, known, distance)
    other = torch.where(known[:, :, None, None, None] > 0, rgba, torch.nan)
    for a, b in zip(expected, numbers(other, cameras, known, distance)):
        assert torch.equal(a, b)
    assert (
        bool((expected[0][1] == 1).all()) and not bool(expected[1][1].any()) and not bool(expected[2][1].any())
    )  # nothing known: nothing is said
    alone = numbers(rgba[:, :1], cameras[:, :1], torch.ones(2, 1), distance[:, :1])
    assert bool((alone[0] == 1).all()) and not bool(alone[1].any()) and not bool(alone[2].any())


def test_the_networks_input_holds_the_small_pictures(batch):
    rgba, cameras, _, _ = batch
    known = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    inputs = inputs_of(rgba, cameras, known, replace(CONFIG, input_size=SIZE))
    pictures, flags = small_pictures(inputs, 2)
    assert torch.equal(flags, known) and torch.allclose(pictures, _half_size(rgba, known), atol=1e-6)


def test_depths_come_in_fours(batch):
    rgba, cameras, distance, _ = batch
    with pytest.raises(ValueError, match="multiple of 4"):
        cascade_channels(_half_size(rgba, torch.ones(2, 4)), torch.ones(2, 4), cameras, distance, 6, torch.float32)


def test_a_network_starts_as_the_smaller_one_and_learns_from_the_evidence(batch):
    rgba, cameras, _, _ = batch
    rgba, known = F.avg_pool2d(rgba.flatten(0, 1), 4).unflatten(0, (2, 4)), torch.ones(2, 4)
    torch.manual_seed(0)
    old = replace(CONFIG, cascade=0, detail=0)
    small, large = LGM(old), LGM(CONFIG)
    large.load_state_dict(grown(small.state_dict(), old, CONFIG))
    given = arguments_of(rgba, cameras, known, CONFIG)
    with torch.no_grad():
        assert torch.allclose(large(*given), small(given[0]), atol=1e-5)
    with pytest.raises(ValueError, match="arguments_of"):
        large(given[0])
    torch.nn.init.normal_(large.detail.conv_out.weight, std=0.1)
    large(*given).square().mean().backward()
    gradient = large.detail.near.weight.grad
    assert bool(gradient.isfinite().all()) and bool((gradient.abs().amax((0, 2, 3)) > 0).all())


def test_a_trained_branch_is_kept_when_it_is_told_more(batch):
    rgba, cameras, _, _ = batch
    rgba, known = F.avg_pool2d(rgba.flatten(0, 1), 4).unflatten(0, (2, 4)), torch.ones(2, 4)
    torch.manual_seed(0)
    old = replace(CONFIG, cascade=0)
    small, large = LGM(old), LGM(CONFIG)
    torch.nn.init.normal_(small.detail.conv_out.weight, std=0.1)
    large.load_state_dict(grown(small.state_dict(), old, CONFIG))
    given = arguments_of(rgba, cameras, known, CONFIG)
    with torch.no_grad():
        assert torch.allclose(large(*given), small(given[0]), atol=1e-5)
    with pytest.raises(CheckpointError, match="nothing else"):
        grown(small.state_dict(), old, replace(CONFIG, detail=64))


def test_one_photo_and_several(batch):
    rgba, cameras, _, _ = batch
    torch.manual_seed(0)
    model = LGM(CONFIG).eval()
    for count in (1, 3):
        made = reconstruct(model, rgba[:1, :count], cameras[:1, :count])
        assert bool(made.means.isfinite().all()) and made.means.shape[1] == 4 * CONFIG.splat_size**2
