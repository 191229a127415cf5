"""Pictures from arbitrary cameras are brought to the network's frame, and results go back to the caller's world."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from bozzetto import Cameras, Gaussians, rasterize
from bozzetto.errors import CameraError, ForegroundError, InputError
from bozzetto.systems.lgm.cameras import SLOTS, sample_views
from bozzetto.systems.lgm.inputs import camera_above, canonical_frame, mini_inputs, query_cameras, to_frame
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.reconstruct import reconstruct
from bozzetto.systems.lgm.views import OBJECT_RADIUS, find_object, normalize_views, spread_views


def ellipsoid(centre=(0.0, 0.0, 0.0), axes=(0.5, 0.3, 0.4), count=2500) -> Gaussians:
    torch.manual_seed(0)
    direction = normalize(torch.randn(count, 3), dim=-1)
    means = direction * torch.tensor(axes) + torch.tensor(centre)
    size = 3.0 * max(axes) / math.sqrt(count)
    return Gaussians.from_rgb(
        means,
        torch.full((count, 3), size / 2),
        torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        torch.full((count,), 0.9),
        direction * 0.5 + 0.5,
    )


def photograph(gaussians: Gaussians, cameras: Cameras, size=96) -> list[torch.Tensor]:
    drawn = rasterize(gaussians, cameras, size)
    alpha = drawn.alpha[..., None]
    return list(torch.cat([drawn.rgb / alpha.clamp_min(1e-3), alpha], dim=-1).clamp(0, 1))


@pytest.mark.parametrize("scale", [0.02, 1.0, 300.0])
def test_finds_the_object_at_any_place_and_scale(scale):
    centre = torch.tensor([10.0, -4.0, 7.0]) * scale
    object_ = ellipsoid(tuple(centre.tolist()), tuple(scale * a for a in (1.5, 0.9, 1.2)))
    target = tuple((centre + torch.tensor([0.3, -0.2, 0.1]) * scale).tolist())
    cameras = Cameras.orbit([0.0, 80.0, 200.0], [10.0, 40.0, -20.0], [6 * scale, 9 * scale, 5 * scale], 40.0, target)
    found, radius = find_object(cameras, [p[..., 3] for p in photograph(object_, cameras)])
    assert float((found - centre.double()).norm()) < 0.12 * scale
    assert 0.85 < radius / (1.5 * scale) < 1.2


def test_cameras_that_do_not_fit_together_are_named(recwarn):
    object_, target = ellipsoid((2.0, 1.0, -3.0), (1.5, 0.9, 1.2)), (2.3, 0.8, -2.9)
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [10.0, 0.0, 20.0, 0.0], 6.0, 40.0, target)
    alphas = [p[..., 3] for p in photograph(object_, cameras)]
    find_object(cameras, alphas)
    assert not recwarn.list
    moved = cameras.camera_to_world.clone()
    moved[2, :3, 3] += torch.tensor([0.0, 5.0, 0.0])
    with pytest.warns(UserWarning, match="the object stands elsewhere") as told:
        find_object(Cameras(moved, cameras.intrinsics, ("front.png", "right.png", "back.png", "left.png")), alphas)
    assert "back.png" in str(told[0].message)


def test_reprojection_equals_a_photo_by_the_new_camera():
    object_ = ellipsoid((2.0, 1.0, -3.0), (1.5, 0.9, 1.2))
    cameras = Cameras.orbit([20.0, 130.0], [15.0, -10.0], [6.0, 8.0], 35.0, (2.3, 0.8, -2.9))
    views = normalize_views(photograph(object_, cameras, 192), cameras, 96)
    moved = object_.transformed(views.matrix)
    assert abs(float(moved.means.norm(dim=-1).quantile(0.99)) - OBJECT_RADIUS) < 0.06
    drawn = rasterize(moved, views.cameras, 96)
    given = views.rgba.permute(0, 2, 3, 1)
    assert float((drawn.alpha - given[..., 3]).abs().mean()) < 0.02
    assert float((drawn.rgb - given[..., :3] * given[..., 3:]).abs().mean()) < 0.015


def test_distant_camera_is_brought_nearer_with_the_picture_kept():
    object_ = ellipsoid(axes=(0.4, 0.4, 0.4))
    cameras = Cameras.orbit([0.0, 90.0], 0.0, 40.0, 1.6)
    views = normalize_views(photograph(object_, cameras), cameras, 96)
    assert float(views.cameras.positions.norm(dim=-1).max()) < 4.0
    assert float(views.cameras.fov_y.min()) >= 20.0 - 1e-3
    drawn = rasterize(object_.transformed(views.matrix), views.cameras, 96)
    assert float((drawn.alpha - views.rgba[:, 3]).abs().mean()) < 0.03


def test_a_network_of_one_camera_gets_it():
    """LGM's own pictures come through unchanged; those of other cameras look as if its camera had taken them."""
    object_ = ellipsoid(axes=(0.5, 0.3, 0.4))
    own = Cameras.orbit([0.0, 90.0, 180.0, 270.0])
    pictures = photograph(object_, own)
    views = normalize_views(pictures, own, 96, (1.5, 49.1))
    assert float((views.rgba.permute(0, 2, 3, 1)[..., 3] - torch.stack(pictures)[..., 3]).abs().mean()) < 0.01
    assert torch.allclose(views.matrix, torch.eye(4, dtype=torch.float64), atol=0.03)
    far = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 0.0, 12.0, 6.0)
    views = normalize_views(photograph(object_, far), far, 96, (1.5, 49.1))
    assert torch.allclose(views.cameras.fov_y, torch.full((4,), 49.1), atol=1e-3)
    assert torch.allclose(views.cameras.positions.norm(dim=-1), torch.full((4,), 1.5), atol=1e-4)
    drawn = rasterize(object_.transformed(views.matrix), views.cameras, 96)
    both = ((drawn.alpha > 0.5) & (views.rgba[:, 3] > 0.5)).sum()
    assert both / ((drawn.alpha > 0.5) | (views.rgba[:, 3] > 0.5)).sum() > 0.85


@pytest.mark.parametrize("azimuths", [(0.0, 180.0), (0.0, 3.0), (0.0, 179.0)])
def test_cameras_on_one_line_agree_on_a_size(azimuths):
    """Front and back alone, away from the world's origin: parallax says nothing, the outlines' sizes do."""
    object_ = ellipsoid((0.0, 0.0, 10.0), (0.9, 0.6, 0.9))
    cameras = Cameras.orbit(list(azimuths), 0.0, [4.0, 5.0], 40.0, (0, 0, 10))
    centre, radius = find_object(cameras, [p[..., 3] for p in photograph(object_, cameras, 192)])
    assert float((centre - torch.tensor([0.0, 0.0, 10.0], dtype=torch.float64)).norm()) < 0.35
    assert 0.75 < radius / 0.9 < 1.25


@pytest.mark.parametrize("roll", [(90, 90, 90, 90), (0, 90, 180, 270), (10, -20, 0, 15)])
def test_rolled_cameras_give_upright_pictures(roll):
    object_ = ellipsoid(axes=(0.3, 0.55, 0.4))
    plain = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 0.0, 3.0, 30.0)
    turn = torch.eye(4).repeat(4, 1, 1)
    angle = torch.deg2rad(torch.tensor(roll, dtype=torch.float32))
    turn[:, 0, 0], turn[:, 1, 1] = angle.cos(), angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angle.sin(), angle.sin()
    rolled = Cameras(plain.camera_to_world @ turn, plain.intrinsics)
    alpha = normalize_views(photograph(object_, rolled), rolled, 96).rgba[:, 3] > 0.5
    heights, widths = alpha.any(2).sum(1), alpha.any(1).sum(1)
    assert bool((heights > 1.2 * widths).all())  # the long axis stands up in every picture


def test_single_view_lies_at_the_world_origin():
    cameras = Cameras.orbit([30.0], [20.0], 5.0, 30.0)
    centre, _ = find_object(cameras, [photograph(ellipsoid(), cameras)[0][..., 3]])
    assert float(centre.norm()) < 0.1


def test_cameras_that_look_away_are_refused():
    cameras = Cameras.orbit([0.0, 90.0, 180.0], 0.0, 3.0, 40.0)
    alphas = [p[..., 3] for p in photograph(ellipsoid(), cameras)]
    pose = cameras.camera_to_world.clone()
    pose[..., :3, 0] *= -1  # turned round their vertical axis, as OpenCV axes read as OpenGL would be
    pose[..., :3, 2] *= -1
    with pytest.raises(CameraError, match="behind view"):
        find_object(Cameras(pose, cameras.intrinsics), alphas)


def test_empty_mask_is_refused():
    cameras = Cameras.orbit([0.0, 90.0], 0.0, 3.0, 40.0)
    with pytest.raises(ForegroundError, match="view 1"):
        find_object(cameras, [torch.ones(8, 8), torch.zeros(8, 8)])


def test_spread_views_prefers_different_sides():
    cameras = Cameras.orbit([0.0, 5.0, 10.0, 180.0, 90.0, 270.0])
    assert spread_views(cameras, 4) == [0, 3, 4, 5]
    moved = torch.eye(4)
    moved[:3, 3] = torch.tensor([20.0, 0.0, 30.0])
    assert spread_views(cameras.transformed(moved), 4) == [0, 3, 4, 5]
    assert spread_views(cameras, 9) == list(range(6))


def test_query_cameras_fill_the_unseen_sides():
    one = Cameras.orbit([0.0])[None]
    asked = query_cameras(one, 3).positions[0]
    expected = Cameras.orbit([180.0, 90.0, 270.0]).positions
    assert torch.allclose(asked, expected, atol=1e-5)
    two = Cameras.orbit([0.0, 90.0])[None]
    assert float(query_cameras(two, 1).positions[0, 0, 0]) < -0.5  # neither front nor right


def test_camera_above_looks_down_from_the_first_cameras_distance():
    cameras = Cameras.orbit([30.0, 120.0, 210.0], 20.0, 1.5, 49.1)[None]
    above = camera_above(to_frame(cameras, canonical_frame(cameras)))
    assert torch.allclose(above.positions, torch.tensor([[[0.0, 1.5, 0.0]]]))
    points = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0, 0, -0.3]]).expand(1, 1, 3, 3)
    seen, depth = above.project(points)
    assert torch.allclose(seen[..., 0, :], torch.tensor(0.5)) and torch.allclose(depth, torch.tensor(1.5))
    assert (seen[..., 1, 0] > 0.55).all() and torch.allclose(seen[..., 1, 1], torch.tensor(0.5))  # right stays right
    assert (seen[..., 2, 1] < 0.45).all()  # away from the first camera is up


def test_training_views_are_consistent():
    generator = torch.Generator().manual_seed(3)
    views = sample_views(256, 4, generator)
    assert views.slots.batch_shape == (256, SLOTS) and views.novel.batch_shape == (256, 4)
    assert set(views.known.sum(1).int().tolist()) == {1, 2, 3, 4}
    identity = views.slots.camera_to_world[:, 0, :3, :3]
    assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-5)
    # Every camera looks at the target, from the world as from the network's frame.
    world = views.world()
    seen, depth = world.project(views.target[:, None, None].expand(-1, 8, 1, 3))
    assert torch.allclose(seen, torch.full_like(seen, 0.5), atol=1e-4) and float(depth.min()) > 0.9
    again = sample_views(256, 4, torch.Generator().manual_seed(3))
    assert torch.equal(again.slots.camera_to_world, views.slots.camera_to_world)


def test_a_share_of_single_photos_is_taken_from_the_front():
    def near_front(front: float, count: int) -> float:
        known = [float(k == count) for k in range(1, 5)]
        views = sample_views(512, 4, torch.Generator().manual_seed(4), known=known, front=front)
        position = views.world().positions[:, 0] - views.target
        return float((torch.atan2(position[:, 0], position[:, 2]).abs() < math.radians(40)).float().mean())

    assert near_front(1.0, 1) > 0.9
    assert near_front(0.0, 1) < 0.35 and near_front(1.0, 4) < 0.35


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return LGM(preset("debug")).eval()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_reconstruct_takes_one_to_eight_views(tiny, count):
    cameras = Cameras.orbit([40.0 * i for i in range(count)])[None]
    gaussians = reconstruct(tiny, torch.rand(1, count, 4, 40, 40), cameras)
    assert len(gaussians) == max(count, SLOTS) * 256
    assert all(bool(torch.isfinite(t).all()) for t in gaussians.tensors())


@pytest.mark.parametrize("count", [1, 4, 6])
def test_a_network_of_five_slots_imagines_the_top_too(count):
    torch.manual_seed(0)
    model = LGM(replace(preset("debug"), slots=5)).eval()
    cameras = Cameras.orbit([360.0 * k / count for k in range(count)], 20.0, 1.5, 49.1)[None]
    seen = []
    with model.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        gaussians = reconstruct(model, torch.rand(1, count, 4, 40, 40), cameras)
    slots = max(count, SLOTS) + 1
    assert gaussians.means.shape == (1, slots * preset("debug").num_gaussians_per_view, 3)
    (inputs,) = seen
    assert inputs.shape[1] == slots and inputs[0, :, 4, 0, 0].tolist() == [1.0] * count + [0.0] * (slots - count)


def test_reconstruct_refuses_nine_views(tiny):
    with pytest.raises(InputError, match="1 to 8"):
        reconstruct(tiny, torch.rand(1, 9, 4, 32, 32), Cameras.orbit([40.0 * i for i in range(9)])[None])


def test_result_turns_with_the_cameras(tiny):
    """The network sees the world from its first camera, so turning all cameras turns the result, and nothing else."""
    rgba = torch.rand(1, 2, 4, 32, 32)
    plain = Cameras.orbit([0.0, 90.0], 0.0)
    matrix = torch.eye(4)
    matrix[:3, :3] = Cameras.orbit([35.0], 25.0).camera_to_world[0, :3, :3]
    a = reconstruct(tiny, rgba, plain[None], torch.float32)[0].transformed(matrix)
    b = reconstruct(tiny, rgba, plain.transformed(matrix)[None], torch.float32)[0]
    assert torch.allclose(a.means, b.means, atol=2e-5)
    assert torch.allclose(a.scales, b.scales, atol=1e-5) and torch.allclose(a.rgb, b.rgb, atol=1e-4)


def test_unknown_slots_ignore_their_pictures(tiny):
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0])[None]
    frame = canonical_frame(cameras)
    slots = to_frame(cameras, frame)
    known = torch.tensor([[1.0, 0, 0, 0]])
    a, b = torch.rand(1, 4, 4, 32, 32), torch.rand(1, 4, 4, 32, 32)
    b[:, 0] = a[:, 0]
    assert torch.equal(mini_inputs(a, slots, known, 32), mini_inputs(b, slots, known, 32))
