"""A moving object: the files of a result, and that nothing of it is cut off in any picture."""

import json
import math

import av
import pytest
import torch

from bozzetto import asset4d
from bozzetto.asset4d import Asset4D, contact_sheet, fixed_views, moving_turntable, swept_space
from bozzetto.errors import ForegroundError, SplatFileError
from bozzetto.files.images import read_image
from bozzetto.gaussians import Gaussians


def walking(frames=4, count=60, distance=1.5):
    """A red ball that walks to the right (+x): Gaussians [T, N]."""
    g = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1) * 0.2
    step = torch.linspace(-0.5, 0.5, frames)[:, None, None] * torch.tensor([distance, 0, 0])
    shape = (frames, count)
    rgb = torch.tensor([0.9, 0.1, 0.1]).expand(*shape, 3)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(*shape, 4)
    return Gaussians.from_rgb(means + step, torch.full((*shape, 3), 0.04), quats, torch.full(shape, 0.9), rgb)


def red(picture):
    return (picture[..., 0] - picture[..., 1]) > 0.1


def test_saved_files(tmp_path):
    asset = Asset4D(walking(), 6.0, report={"model": "test"}, pictures={"views.png": torch.zeros(4, 4, 3)})
    told = []
    paths = asset.save(tmp_path / "out", progress=lambda stage, share: told.append((stage, share)))
    names = {p.name for p in paths}
    assert names == {
        "splats.4dgs",
        "player.html",
        "fixed.mp4",
        "turntable.mp4",
        "preview.png",
        "report.json",
        "frames",
        "views.png",
    }
    assert all(p.exists() for p in paths)
    assert sorted(p.name for p in (tmp_path / "out" / "frames").iterdir()) == [f"{k:04d}.ply" for k in range(4)]
    loaded = Gaussians.load(tmp_path / "out" / "frames" / "0002.ply")
    assert torch.allclose(loaded.means, asset.gaussians.means[2], atol=1e-6)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["frames"], report["fps"], report["gaussians"], report["model"]) == (4, 6.0, 60, "test")
    assert set(report["files"]) == names - {"report.json", "frames"} | {"frames/*.ply"}
    assert {stage for stage, _ in told} >= {"writing frames", "writing player", "rendering fixed views"}
    for name, count, size in (("fixed.mp4", 4, (1536, 384)), ("turntable.mp4", 24, (512, 512))):
        with av.open(str(tmp_path / "out" / name)) as film:
            stream = film.streams.video[0]
            assert float(stream.average_rate) == pytest.approx(6.0)
            assert (stream.width, stream.height) == size
            assert sum(1 for _ in film.decode(stream)) == count
    assert read_image(tmp_path / "out" / "preview.png").rgba.shape == (1024, 1024, 4)
    again = Asset4D.load(tmp_path / "out" / "splats.4dgs")
    assert len(again) == 4 and again.fps == 6.0
    assert float((again.gaussians.means - asset.gaussians.means).abs().max()) < 1e-4
    # A shorter result in the same folder leaves no frames of the longer one.
    Asset4D(walking(2), 6.0).save(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "frames").iterdir()) == ["0000.ply", "0001.ply"]


def test_nothing_is_cut_off():
    asset = Asset4D(walking(5), 5.0)
    space = swept_space(asset.gaussians)
    assert abs(space.centre[0]) < 0.02 and 0.9 < space.radius < 1.4
    left, right = [], []
    for picture in fixed_views(asset, space, size=96):
        mask = red(picture)
        assert picture.shape == (96, 384, 3)
        assert not mask[0].any() and not mask[-1].any()
        for view in mask.split(96, dim=1):
            assert view.any() and not view[:, 0].any() and not view[:, -1].any()
        columns = torch.where(mask[:, :96].any(0))[0]
        left.append(int(columns[0]))
        right.append(int(columns[-1]))
    assert left == sorted(left) and left[0] < 8 and right[-1] > 88  # walks through the whole picture
    assert len(list(moving_turntable(asset, space, size=16, seconds=2.1))) == 15
    for picture in moving_turntable(asset, space, size=64, seconds=1.0):
        mask = red(picture)
        assert mask.any() and not (mask[0] | mask[-1] | mask[:, 0] | mask[:, -1]).any()


def test_contact_sheet_has_times_and_sides():
    asset = Asset4D(walking(9), 5.0)
    sheet = contact_sheet(asset, swept_space(asset.gaussians), size=64)
    assert sheet.shape == (256, 256, 3)
    centre = [float(torch.where(red(row[:, :64]).any(0))[0].float().mean()) for row in sheet.split(64)]
    assert centre == sorted(centre) and centre[-1] - centre[0] > 25
    back = [float(torch.where(red(row[:, 128:192]).any(0))[0].float().mean()) for row in sheet.split(64)]
    assert back == sorted(back, reverse=True)  # from behind it walks to the left
    assert contact_sheet(Asset4D(walking(2), 5.0), swept_space(walking(2)), size=16).shape == (32, 64, 3)


def test_z_up_world():
    upright = walking(3)
    turned = Gaussians(upright.means[..., [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0]), *upright.tensors()[1:])
    expected = list(fixed_views(Asset4D(upright, 5.0), swept_space(upright), size=32))
    found = list(fixed_views(Asset4D(turned, 5.0, (0, 0, 1)), swept_space(turned, (0, 0, 1)), size=32))
    assert float((torch.stack(expected) - torch.stack(found)).abs().max()) < 0.02


def test_frames_that_show_nothing():
    gaussians = walking(3)
    gaussians.opacities[1] = 0
    asset = Asset4D(gaussians, 5.0)
    pictures = list(fixed_views(asset, swept_space(gaussians), size=32))
    assert float(pictures[1].min()) == 1 and float(pictures[0].min()) < 0.9
    gaussians.opacities[:] = 0
    with pytest.raises(ForegroundError, match="nothing to see"):
        swept_space(gaussians)


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    gaussians = walking(3)
    gaussians.opacities[:] = 0
    with pytest.raises(ForegroundError):
        Asset4D(gaussians, 5.0).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\[T, N\]"):
        Asset4D(walking()[0], 5.0)
    for fps in (0, -1, math.nan):
        with pytest.raises(ValueError, match="fps"):
            Asset4D(walking(), fps)
    with pytest.raises(SplatFileError):
        Asset4D.load(tmp_path / "no.4dgs")


def test_pictures_are_drawn_where_the_asset_says(monkeypatch):
    """On a machine with an accelerator hundreds of frames on the CPU would take longer than their reconstruction."""
    seen = []

    def draw(gaussians, cameras, size, background, near):
        seen.append(gaussians.device.type)
        return torch.zeros(len(cameras), size, size, 3)

    monkeypatch.setattr(asset4d, "draw", draw)
    asset = Asset4D(walking(), 6.0, device="meta")
    space = swept_space(asset.gaussians)
    contact_sheet(asset, space, size=4)
    list(fixed_views(asset, space, size=4))
    list(moving_turntable(asset, space, size=4, seconds=0.1))
    assert set(seen) == {"meta"} and asset.gaussians.device.type == "cpu"
