"""L4GM around its networks, with an object that is known from all sides: sides, times and angles up to the written files."""

from __future__ import annotations

import av
import pytest
import torch
from known_object import CONFIG, MAGENTA, RING, KnownDiffusion, column, known_object, look, white
from torch import nn

from bozzetto import Gaussians, video_to_4d
from bozzetto.asset4d import Asset4D
from bozzetto.camera import Cameras
from bozzetto.files.images import read_image, write_image
from bozzetto.systems.l4gm import pipeline, sequence
from bozzetto.systems.l4gm.azimuth import render, ring_cameras, tilt

OFF = 35.0  # degrees by which the diffusion's front lies beside the video's
MOMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Known(nn.Module):
    """In place of a network: only its device and sizes are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = CONFIG


def small(pictures):  # [..., 3, 256, 256] -> [..., 3, 64, 64]
    return nn.functional.avg_pool2d(pictures.flatten(0, -4), 4).unflatten(0, pictures.shape[:-3])


def difference(a, b):
    return float((a - b).square().mean())


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Networks that recognise the object in their views; ``asked`` lists what each frame's views showed."""
    asked = []

    def predict(model, rgb, rays=None, same=0):
        b, t = rgb.shape[:2]
        elevation = float(model.config.elevation)
        sets = []
        for views in small(rgb).flatten(0, 1):  # [4, 3, 64, 64]
            seen = {}
            for moment in MOMENTS:
                for azimuth in (0.0, OFF):
                    cameras = ring_cameras(CONFIG, azimuth, elevation)
                    if rays is not None:  # the diffusion's own ring stands upright in the world
                        ring = [azimuth + a for a in RING]
                        cameras = Cameras.orbit(ring, elevation, CONFIG.radius, CONFIG.fov_y)
                    seen[moment, azimuth] = small(render(known_object(moment), cameras, CONFIG))
            front = min(seen, key=lambda key: difference(seen[key][0], views[0]))
            sides = min(seen, key=lambda key: difference(seen[key][1:], views[1:]))
            asked.append((front, sides, difference(seen[sides][1:], views[1:]) < 1e-3))
            world = tilt(front[1], elevation)
            sets.append(known_object(front[0]).transformed(torch.linalg.inv(world)))
        return Gaussians(*(torch.stack(parts).unflatten(0, (b, t)) for parts in zip(*(s.tensors() for s in sets))))

    monkeypatch.setattr("bozzetto.systems.mvdream.checkpoint.load_mvdream", lambda *_: KnownDiffusion(OFF))
    monkeypatch.setattr(sequence, "predict", predict)
    monkeypatch.setattr(pipeline, "load_l4gm", lambda *_: Known())
    weights = dict.fromkeys(("imagedream", "l4gm-recon", "l4gm-interp"), tmp_path)
    return asked, weights


@pytest.mark.parametrize("elevation", [0.0, 20.0])
def test_sides_times_and_angles(stand_ins, monkeypatch, tmp_path, elevation):
    asked, weights = stand_ins
    monkeypatch.setattr(CONFIG, "elevation", elevation, raising=False)
    for number, moment in enumerate(MOMENTS):
        write_image(tmp_path / "clip" / f"f{number}.png", look(known_object(moment), 0.0, elevation))
    asset = video_to_4d(
        tmp_path / "clip",
        device="cpu",
        fps=15,
        chunk=3,
        interpolate=False,
        elevation=elevation,
        weights=weights,
    )
    assert abs(asset.report["azimuth"] + OFF) <= 2
    # The diffusion's views as it numbers them, then every frame with the sides of its chunk's first moment.
    assert asked[0] == ((0.0, OFF), (0.0, OFF), True)
    assert [front for front, *_ in asked[1:]] == [(m, 0.0) for m in (0.0, 0.25, 0.5, 0.5, 0.75, 1.0)]
    assert [sides for _, sides, _ in asked[1:]] == [(m, 0.0) for m in (0.0, 0.0, 0.0, 0.5, 0.5, 0.5)]
    assert all(alike for *_, alike in asked)

    folder = tmp_path / "out"
    asset.save(folder)
    stored = Asset4D.load(folder / "splats.4dgs")
    for number, moment in enumerate(MOMENTS):
        truth = known_object(moment)
        frame = Gaussians.load(folder / "frames" / f"{number:04d}.ply")
        assert torch.allclose(frame.means, truth.means, atol=1e-5)  # upright, the video's side facing +z
        assert torch.allclose(stored.gaussians.means[number], truth.means, atol=1e-4)
    with av.open(str(folder / "fixed.mp4")) as film:
        pictures = [torch.from_numpy(f.to_ndarray(format="rgb24")) / 255 for f in film.decode(video=0)]
    for picture in pictures:
        front, right, back, left = picture.split(384, dim=1)
        assert column(front, "yellow") < column(front, "red") < column(front, "green")
        assert column(right, "red") < column(right, "green") < column(right, "blue")
        assert column(back, "green") < column(back, "blue") < column(back, "yellow")
        assert column(left, "blue") < column(left, "yellow") < column(left, "red")
    ways = [column(picture[:, :384], MAGENTA) for picture in pictures]
    assert ways == sorted(ways) and ways[-1] - ways[0] > 60
    sheet = read_image(folder / "preview.png").rgba[..., :3]
    assert column(sheet[:256, :256], MAGENTA) < column(sheet[:256, :256], "red") < column(sheet[-256:, :256], MAGENTA)
    with av.open(str(folder / "turntable.mp4")) as film:
        quarter = next(f for i, f in enumerate(film.decode(video=0)) if i == 15)
    quarter = torch.from_numpy(quarter.to_ndarray(format="rgb24")) / 255
    assert column(quarter, "red") < column(quarter, "green") < column(quarter, "blue")


def test_an_object_on_white_needs_no_matting(stand_ins, monkeypatch, tmp_path):
    """Without alpha and without matting the pictures reach the network as they are."""
    asked, weights = stand_ins
    monkeypatch.setattr(CONFIG, "elevation", 0.0, raising=False)
    for number, moment in enumerate(MOMENTS[:2]):
        write_image(tmp_path / "clip" / f"f{number}.png", white(look(known_object(moment))))
    asset = video_to_4d(
        tmp_path / "clip", device="cpu", matting=False, interpolate=False, weights=weights, compat=True, chunk=2
    )
    assert asset.report["azimuth"] == -OFF and asset.report["matting"] is False
    assert [front for front, *_ in asked] == [(0.0, OFF), (0.0, 0.0), (0.25, 0.0)]


def test_matting_runs_where_the_networks_run(stand_ins, monkeypatch, tmp_path):
    given = {}

    def matte_clip(clip, **arguments):
        given.update(arguments)
        return clip

    _, weights = stand_ins
    monkeypatch.setattr(CONFIG, "elevation", 0.0, raising=False)
    monkeypatch.setattr("bozzetto.matting.video.matte_clip", matte_clip)
    write_image(tmp_path / "clip" / "0.png", white(look(known_object())))
    video_to_4d(tmp_path / "clip", device="cpu", interpolate=False, weights=weights)
    assert given["device"] == torch.device("cpu")
