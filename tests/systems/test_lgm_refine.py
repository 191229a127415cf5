"""The second look: what is fed back, that it changes nothing before it is learned, and how steps of training use it."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize
from bozzetto.systems.lgm.heads import ray_head
from bozzetto.systems.lgm.inputs import camera_above, canonical_frame, inputs_of, to_frame
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.recipe import MiniRecipe
from bozzetto.systems.lgm.reconstruct import reconstruct
from bozzetto.systems.lgm.refine import DRAWN, feedback_channels, feedback_planes, look_again, raw_before

CONFIG = preset("debug-refine")


def ring(batch: int = 1) -> Cameras:
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 0.0, 1.5, 49.1)[None]
    return Cameras.cat([to_frame(cameras, canonical_frame(cameras))] * batch)


def pictures(batch: int, views: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rgba = torch.rand(batch, views, 4, 32, 32, generator=generator)
    disc = ((torch.arange(32) - 15.5).square()[:, None] + (torch.arange(32) - 15.5).square()) < 100
    rgba[:, :, 3] = disc.float()
    return rgba


def five_slots(batch: int) -> tuple[torch.Tensor, Cameras, torch.Tensor]:
    cameras = ring(batch)
    slots = Cameras.cat([cameras, camera_above(cameras)], dim=1)
    rgba = torch.cat([pictures(batch), torch.zeros(batch, 1, 4, 32, 32)], dim=1)
    return rgba, slots, torch.tensor([[1.0, 1, 1, 1, 0]]).repeat(batch, 1)


def test_planes_hold_all_channels():
    assert feedback_planes(256, 128) == 5 and feedback_planes(256, 256) == 20
    with pytest.raises(ValueError, match="do not fill"):
        feedback_planes(256, 64)


def test_camera_above_looks_down_from_the_first_cameras_distance():
    above = camera_above(ring(2))
    assert torch.allclose(above.positions, torch.tensor([0.0, 1.5, 0.0]).expand(2, 1, 3))
    points = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0, 0, -0.3]]).expand(2, 1, 3, 3)
    seen, depth = above.project(points)
    assert torch.allclose(seen[..., 0, :], torch.tensor(0.5)) and torch.allclose(depth, torch.tensor(1.5))
    assert (seen[..., 1, 0] > 0.55).all() and torch.allclose(seen[..., 1, 1], torch.tensor(0.5))  # right stays right
    assert (seen[..., 2, 1] < 0.45).all()  # away from the first camera is up


def test_feedback_shows_what_each_slot_sees_and_keeps_the_raw_channels():
    _, slots, _ = five_slots(1)
    place = torch.tensor([0.1, 0.2, 0.3])
    one = Gaussians.from_rgb(
        place.view(1, 1, 3),
        torch.full((1, 1, 3), 0.03),
        torch.tensor([[[1.0, 0, 0, 0]]]),
        torch.tensor([[0.999]]),
        torch.tensor([[[0.9, 0.5, 0.1]]]),
    )
    raw = torch.randn(1, 5, 14, 16, 16) * 3
    shown = feedback_channels(raw, one, slots, 32)
    assert shown.shape == (1, 5, feedback_planes(32, 16), 32, 32)
    inputs = torch.cat([torch.randn(5, 15, 32, 32), shown[0]], dim=1)
    assert torch.equal(raw_before(inputs, CONFIG), raw[0].clamp(-8, 8))

    drawn = torch.nn.functional.pixel_unshuffle(shown[0], 2)[:, :DRAWN]
    want = rasterize(one, slots, 16)
    assert torch.allclose(drawn[:, :3], want.rgb[0].permute(0, 3, 1, 2)) and torch.equal(drawn[:, 3], want.alpha[0])
    assert torch.equal(drawn[:, 5], torch.ones(5, 16, 16))
    brightest = drawn[:, 3].flatten(1).argmax(1)
    made = (drawn[:, 4].flatten(1) / drawn[:, 3].flatten(1)).gather(1, brightest[:, None])[:, 0]
    true = ((slots.positions[0] - place).norm(dim=-1) - 1.5) / 0.9
    assert torch.allclose(made, true, atol=0.01)
    assert made[0] < -0.2 and made[2] > 0.2  # nearer than the centre in front, farther from behind


def test_a_network_that_looks_twice_starts_as_one_that_looks_once():
    torch.manual_seed(0)
    twice, once = LGM(CONFIG), LGM(preset("debug-sweep"))
    state = once.state_dict()
    with torch.no_grad():
        for name, value in twice.state_dict().items():
            if value.shape == state[name].shape:
                value.copy_(state[name])
            else:  # further input channels, which it does not look at
                value.zero_()
                value[:, : state[name].shape[1]] = state[name]
    rgba, slots, known = five_slots(1)
    inputs = inputs_of(rgba, slots, known, CONFIG)
    first = once(inputs[:, :, :15])
    assert torch.allclose(twice(inputs), first, atol=1e-5)
    inputs[:, :, 15:] = torch.randn(1, 5, 5, 32, 32)
    assert torch.allclose(twice(inputs), first, atol=1e-5)
    with torch.no_grad():
        twice.conv.weight[:, 14:, 0, 0] = torch.eye(14)
    before = raw_before(inputs.flatten(0, 1), CONFIG)
    assert torch.allclose(twice(inputs)[0] - before, first[0], atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_reconstruct_looks_twice_and_imagines_the_top(count):
    torch.manual_seed(0)
    model = MiniRecipe(preset="debug-refine", batch_size=1).build().eval()
    cameras = Cameras.orbit([360.0 * k / count for k in range(count)], 20.0, 1.5, 49.1)[None]
    made = reconstruct(model, pictures(1, count), cameras)
    assert made.means.shape == (1, (max(count, 4) + 1) * 256, 3) and torch.isfinite(made.means).all()
    with torch.no_grad():  # deaf to what it made: one look and two are the same
        model.unet.conv_in.weight[:, 15 * 16 :] = 0
    deaf = reconstruct(model, pictures(1, count), cameras)
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    reconstruct(model, pictures(1, count), cameras)
    handle.remove()
    assert len(calls) == 2 and not torch.allclose(made.means, deaf.means, atol=1e-4)


def test_two_objects_of_three_are_looked_at_again():
    torch.manual_seed(0)
    model = MiniRecipe(preset="debug-refine", batch_size=1).build()
    rgba, slots, known = five_slots(7)
    inputs = inputs_of(rgba, slots, known, CONFIG)
    assert inputs.shape[2] == CONFIG.in_channels and not inputs[:, :, 15:].any()
    start = inputs.clone()
    look_again(model, inputs, slots, rgba, known)
    assert torch.equal(inputs[:, :, :15], start[:, :, :15])
    changed = inputs[:, :, 15:].abs().amax((1, 2, 3, 4)) > 0
    assert changed.tolist() == [False, True, True, False, True, True, False]
    raw = model(start)
    want = feedback_channels(raw[1:2], ray_head(raw, slots, rgba, known)[1:2], slots[1:2], 32)
    assert torch.allclose(inputs[1:2, :, 15:], want, atol=1e-3)


def test_casts_of_the_first_look_do_not_cut_the_gradient_of_the_second():
    torch.manual_seed(0)
    recipe = MiniRecipe(preset="debug-refine", batch_size=3, render_size=32, texture_size=16, block=3)
    model = recipe.build()
    stream = recipe.batches(0, 0, 0, 1, torch.device("cpu"))
    batch = next(stream)
    stream.close()
    assert batch["known"].shape == (3, 5) and batch["target"].shape[1] == 9
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = recipe.loss(model, batch, 0.5)
    loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent and torch.isfinite(loss) and {"psnr_known", "psnr_unseen"} <= set(parts)
    assert float(model.conv.weight.grad[:, 14:].abs().max()) > 0
