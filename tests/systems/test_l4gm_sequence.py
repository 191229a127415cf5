"""A clip through L4GM, chunk by chunk: what goes into which network, in which order, and what comes out."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from micro_lgm import fill_seeded
from torch import nn

from bozzetto import Cameras, Gaussians
from bozzetto.errors import BozzettoError
from bozzetto.systems.l4gm import sequence
from bozzetto.systems.l4gm.azimuth import find_azimuth, render, ring_cameras, tilt
from bozzetto.systems.l4gm.inputs import RING
from bozzetto.systems.l4gm.network import L4GM
from bozzetto.systems.lgm.network import LGMConfig

CONFIG = LGMConfig(
    input_size=32,
    down_channels=(32, 32, 64),
    down_attention=(False, False, True),
    up_channels=(64, 32),
    up_attention=(True, False),
    layers_per_block=1,
    splat_size=16,
    output_size=64,
)


class StandIn(nn.Module):
    """Remembers what it was given; the one Gaussian of a set lies at the mean of its first view."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(input_size=4, output_size=4, radius=1.5, fov_y=49.1, znear=0.5, zfar=2.5)
        self.calls: list[torch.Tensor] = []


@pytest.fixture
def stand_ins(monkeypatch):
    """Networks and a renderer that carry frame numbers: frame i is a constant picture of value i / 100."""

    def predict(model, rgb, rays=None, same=0):
        model.calls.append(rgb)
        assert torch.equal(rgb[:, :, 4 - same :], rgb[:, :1, 4 - same :].expand_as(rgb[:, :, 4 - same :]))
        value = rgb[:, :, 0].mean((-3, -2, -1))[..., None]  # [B, T, 1]
        point = value[..., None].expand(*value.shape, 3)
        return Gaussians.from_rgb(point, torch.ones_like(point), torch.ones(*value.shape, 4), value, point)

    def render(gaussians, cameras, config, nearest=False):
        value = gaussians.means[..., 0, 0]
        return value[..., None, None, None, None].expand(*value.shape, len(cameras), 3, 4, 4)

    monkeypatch.setattr(sequence, "predict", predict)
    monkeypatch.setattr(sequence, "render", render)
    return StandIn(), StandIn()


def clip_of(count: int) -> torch.Tensor:
    frames = (torch.arange(count) / 100.0)[:, None, None, None].repeat(1, 4, 4, 4)
    frames[:, 3] = 1.0
    return frames


def moments(result) -> list[float]:
    return [round(100 * v, 3) for v in result.gaussians.means[:, 0, 0].tolist()]


@pytest.mark.parametrize("case", range(6))
def test_published_control_flow(shared, stand_ins, case):
    expected = json.loads((shared / "parity/l4gm/chunk_plan.json").read_text())["cases"][case]
    recon, interp = stand_ins
    views = torch.full((4, 3, 4, 4), 0.77)
    result = sequence.reconstruct_clip(
        recon,
        interp if expected["interpolation"] else None,
        clip_of(expected["video_frames"]),
        views,
        fps=expected["video_fps"],
        compat=True,
    )
    key = "interp" if expected["interpolation"] else "key"
    assert moments(result) == pytest.approx(expected[f"{key}_times"], abs=2e-3)
    assert result.times == pytest.approx(expected[f"{key}_times"], abs=6e-4)
    film = expected["outputs"]["w_interp_clip_fixed.mp4" if expected["interpolation"] else "wo_interp_clip_fixed.mp4"]
    assert result.fps == pytest.approx(film["fps"], rel=1e-12) and len(result.times) == film["frames"]
    # The last recorded forward pass is thrown away by the script, and not made here.
    recorded = expected["chunk_inputs"][:-1]
    assert len(recon.calls) == len(recorded)
    for call, chunk in zip(recon.calls, recorded):
        values = (100 * call[0, :, :, 0, 0, 0]).round().tolist()  # [T, 4]
        assert [v[0] for v in values] == chunk["view0"]
        assert [values[0][1], values[-1][3]] == chunk["views123"]


@pytest.mark.parametrize("frames, chunk", [(1, 16), (2, 16), (5, 16), (16, 16), (17, 16), (40, 16), (40, 5), (7, 2)])
def test_every_moment_once(stand_ins, frames, chunk):
    recon, interp = stand_ins
    told = []
    result = sequence.reconstruct_clip(
        recon, interp, clip_of(frames), torch.full((4, 3, 4, 4), 0.77), fps=10.0, chunk=chunk, progress=told.append
    )
    wanted = [i / 3 for i in range(3 * (frames - 1) + 1)]
    assert moments(result) == pytest.approx(wanted, abs=2e-3) and result.times == pytest.approx(wanted)
    assert result.fps == (30.0 if frames > 1 else 10.0)
    assert told[-1] == 1.0 and told == sorted(told)
    # Every chunk but the first sees the sides of the set that its own first frame got before.
    for number, call in enumerate(recon.calls):
        values = (100 * call[0, :, :, 0, 0, 0]).round()
        assert set(values[:, 1:].flatten().tolist()) == ({77.0} if number == 0 else {float(values[0, 0])})
        assert call.shape[1] <= chunk
    pairs = torch.cat(interp.calls) if interp.calls else torch.empty(0, 4, 4, 3, 4, 4)
    assert len(pairs) == frames - 1


def test_without_interpolation_views_are_renewed(stand_ins):
    recon, _ = stand_ins
    result = sequence.reconstruct_clip(recon, None, clip_of(9), torch.full((4, 3, 4, 4), 0.77), fps=10.0, chunk=5)
    assert moments(result) == [float(i) for i in range(9)] and result.fps == 10.0
    assert (100 * recon.calls[1][0, :, 1, 0, 0, 0]).round().tolist() == [4.0] * 5


@pytest.fixture(scope="module")
def networks():
    recon, interp = L4GM(CONFIG).eval().requires_grad_(False), L4GM(CONFIG).eval().requires_grad_(False)
    fill_seeded(recon, 0)
    fill_seeded(interp, 1)
    return recon, interp


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5))


def test_a_clip_through_real_networks(networks):
    result = sequence.reconstruct_clip(*networks, pictures(4, 4, 32, 32), pictures(4, 3, 32, 32), chunk=3)
    assert result.gaussians.batch_shape == (10,) and len(result.gaussians) == 4 * 256
    assert all(bool(torch.isfinite(t).all()) for t in result.gaussians.tensors())
    assert float((result.gaussians.means[0] - result.gaussians.means[-1]).abs().max()) > 1e-3


def test_one_frame_is_the_first_step(networks):
    frame, views = pictures(1, 4, 32, 32), pictures(4, 3, 32, 32)
    result = sequence.reconstruct_clip(*networks, frame, views)
    white = frame[:, :3] * frame[:, 3:] + 1 - frame[:, 3:]
    alone = sequence.predict(networks[0], torch.cat([white, views[1:]])[None, None])[0]
    assert torch.allclose(result.gaussians.means, alone.means)


def test_chunks_do_not_change_what_comes_before(networks):
    """The first chunk is the same whatever the clip's later frames hold."""
    clip = pictures(5, 4, 32, 32)
    other = clip.clone()
    other[3:] = 0.5
    views = pictures(4, 3, 32, 32)
    a = sequence.reconstruct_clip(*networks, clip, views, chunk=3).gaussians
    b = sequence.reconstruct_clip(*networks, other, views, chunk=3).gaussians
    assert torch.equal(a.means[:7], b.means[:7]) and not torch.equal(a.means[7:], b.means[7:])


def test_elevation_turns_the_result_upright(networks):
    clip, views = pictures(3, 4, 32, 32), pictures(4, 3, 32, 32)
    level = sequence.reconstruct_clip(*networks, clip, views).gaussians
    upright = sequence.reconstruct_clip(*networks, clip, views, elevation=30.0).gaussians
    seen_level = render(level[0], Cameras.orbit([0.0]), CONFIG)
    seen_above = render(upright[0], Cameras.orbit([0.0], 30.0), CONFIG)
    assert torch.allclose(seen_level, seen_above, atol=2e-3)


def test_ring_of_a_camera_above():
    ring = ring_cameras(CONFIG, 40.0, 25.0)
    assert torch.allclose(ring.camera_to_world[0], Cameras.orbit([40.0], 25.0).camera_to_world[0], atol=1e-6)
    back = ring.transformed(torch.linalg.inv(tilt(40.0, 25.0)))
    assert torch.allclose(back.camera_to_world, Cameras.orbit(RING).camera_to_world, atol=1e-6)


@pytest.mark.parametrize("azimuth, elevation, every", [(37, 0.0, True), (37, 0.0, False), (-122, 20.0, False)])
def test_azimuth_is_found(azimuth, elevation, every):
    generator = torch.Generator().manual_seed(3)
    means = torch.rand(60, 3, generator=generator) - 0.5
    rgb = torch.rand(60, 3, generator=generator)
    cloud = Gaussians.from_rgb(
        means, torch.full((60, 3), 0.05), torch.tensor([[1.0, 0, 0, 0]]).repeat(60, 1), torch.full((60,), 0.9), rgb
    )
    seen = render(cloud, Cameras.orbit([float(azimuth)], elevation), CONFIG)[0]
    assert find_azimuth(cloud, seen, CONFIG, elevation, every) == azimuth


def test_first_views_face_the_video(networks):
    """A frame that the reconstruction itself shows at 90 degrees is found there, and the ring starts there."""
    views = pictures(4, 3, 32, 32)
    plain = sequence.predict(networks[0], views[None, None])[0, 0]
    frame = render(plain, Cameras.orbit([90.0]), CONFIG)[0]
    first = sequence.views_of_first_frame(networks[0], views, frame)
    assert first.azimuth == 90 and first.views.shape == (4, 3, 32, 32)
    assert torch.allclose(first.views[0], frame, atol=1e-4)
    behind = render(plain, Cameras.orbit([-90.0]), CONFIG)[0]
    assert torch.allclose(first.views[2], behind, atol=1e-4)


def test_nan_is_reported(networks):
    clip = pictures(2, 4, 32, 32)
    clip[1, 0, 0, 0] = float("nan")
    with pytest.raises(BozzettoError, match="NaN"):
        sequence.reconstruct_clip(*networks, clip, pictures(4, 3, 32, 32))
