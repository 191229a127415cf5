"""Where films and previews put the camera: nothing clipped, any scale, any place, y or z up."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto import Asset, Cameras, Gaussians, image_to_3d, views_to_3d
from bozzetto.app.cli import main
from bozzetto.camera.transforms_json import write_transforms
from bozzetto.errors import ForegroundError, InputError
from bozzetto.framing import _turn_to, framing_cameras, near_plane, preview, turntable
from bozzetto.raster import rasterize


def column(scale: float = 1.0, offset: tuple[float, float, float] = (0.0, 0.0, 0.0), axis: int = 1) -> Gaussians:
    """A column of splats along ``axis`` with a halo of wide faint ones, as fog behind a photo."""
    torch.manual_seed(0)
    means = (torch.rand(800, 3) - 0.5) * 0.3
    means[:, axis] *= 5
    scales = torch.full((800, 3), 0.03)
    opacities = torch.full((800,), 0.9)
    scales[:60], opacities[:60] = 0.25, 0.3
    quats = torch.tensor([1.0, 0, 0, 0]).expand(800, 4)
    rgb = torch.tensor([0.6, 0.1, 0.1]).expand(800, 3)
    return Gaussians.from_rgb(means * scale + torch.tensor(offset), scales * scale, quats, opacities, rgb)


@pytest.mark.parametrize("scale", [0.01, 1.0, 500.0])
def test_nothing_is_clipped_and_the_picture_is_used(scale):
    frames = torch.stack(list(turntable(column(scale, (3 * scale, 0, -7 * scale)), frames=6, size=96)))
    edge = torch.cat([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], dim=1)
    assert float(edge.min()) > 0.85  # white, but for the last trace of fog
    assert float(frames[:, 10:86, 40:56].amin()) < 0.8


@pytest.mark.parametrize("up", [(0, 1, 0), (0, 0, 1), (1, 0, 0), (0, -1, 0), (0.3, 0.8, -0.2)])
def test_turn_takes_y_to_up(up):
    turn = _turn_to(up)[:3, :3]
    target = torch.tensor(up, dtype=torch.float64)
    assert torch.allclose(turn @ torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), target / target.norm(), atol=1e-12)
    assert torch.allclose(turn @ turn.T, torch.eye(3, dtype=torch.float64), atol=1e-12) and torch.linalg.det(turn) > 0


def test_z_up_objects_stand_in_the_film():
    def tall(picture: torch.Tensor) -> bool:
        dark = picture.amin(-1) < 0.6
        return bool(dark.any(1).sum() > 1.5 * dark.any(0).sum())

    standing = preview(column(axis=2), size=64, up=(0, 0, 1)).split(64, dim=1)
    lying = preview(column(axis=2), size=64).split(64, dim=1)
    assert all(tall(p) for p in standing) and not all(tall(p) for p in lying)


def test_views_of_a_z_up_world_remember_their_up():
    object_ = column(axis=2)
    turn = _turn_to((0, 0, 1)).float()
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 10.0, 4.0, 40.0).transformed(turn)
    drawn = rasterize(object_, cameras, 96)
    alpha = drawn.alpha[..., None]
    pictures = list(torch.cat([drawn.rgb / alpha.clamp_min(1e-3), alpha], dim=-1).clamp(0, 1))
    asset = views_to_3d(pictures, cameras, mesh=False, device="cpu")
    assert asset.up == (0.0, 0.0, 1.0) and asset.report["up"] == asset.up


def test_render_far_from_the_origin(tmp_path):
    """A georeferenced scene, kilometres from the origin, is not lost before the near plane."""
    offset = (5000.0, 0.0, 3000.0)
    column(offset=offset).save(tmp_path / "far.ply")
    cameras = Cameras.orbit([0.0], 0.0, 3.0, 40.0, target=offset)
    write_transforms(tmp_path / "transforms.json", cameras, (64, 64), ["a.png"])
    command = ["render", str(tmp_path / "far.ply"), "-o", str(tmp_path / "o"), "--background", "black"]
    assert main([*command, "--cameras", str(tmp_path / "transforms.json")]) == 0
    assert np.asarray(Image.open(tmp_path / "o" / "a.png")).mean() > 5


def test_elevation_out_of_range_is_refused(tmp_path):
    for elevation in (math.nan, math.inf, 95.0):
        with pytest.raises(InputError, match="elevation"):
            framing_cameras(column(), [0.0], elevation)
        with pytest.raises(InputError, match="elevation"):
            image_to_3d(torch.rand(8, 8, 4), elevation=elevation)
    column().save(tmp_path / "a.ply")
    assert main(["render", str(tmp_path / "a.ply"), "-o", str(tmp_path / "a.mp4"), "--elevation", "nan"]) == 2
    assert not (tmp_path / "a.mp4").exists()


def test_invisible_splats_are_an_error():
    faint = column()
    faint.opacities = faint.opacities * 0
    with pytest.raises(ForegroundError):
        near_plane(faint)


def test_an_earlier_mesh_does_not_stay_beside_new_splats(tmp_path):
    """Nor is a user's own file taken for one of an earlier result, whatever its name."""
    for name in ("mesh.glb", "mesh.obj"):
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "report.json").write_text(json.dumps({"files": {"mesh.glb": 3, "notes.txt": 1, "../x": 1}}))
    (tmp_path / "notes.txt").write_text("mine")
    Asset(column()).save(tmp_path)
    assert not (tmp_path / "mesh.glb").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "mesh.obj").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["film.mp4", "one.png"])
def test_many_pictures_need_a_folder(tmp_path, name):
    column().save(tmp_path / "a.ply")
    write_transforms(tmp_path / "transforms.json", Cameras.orbit([0.0, 90.0], 0.0, 3.0), (32, 32), ["a.png", "b.png"])
    command = ["render", str(tmp_path / "a.ply"), "-o", str(tmp_path / name)]
    assert main([*command, "--cameras", str(tmp_path / "transforms.json")]) == 2
    assert not (tmp_path / name).exists()


def test_bad_arguments_of_the_api():
    with pytest.raises(InputError, match="device"):
        image_to_3d(torch.rand(8, 8, 4), device="tpu")
    with pytest.raises(InputError, match="seed"):
        image_to_3d(torch.rand(8, 8, 4), seed=2**70)
    with pytest.raises(InputError, match="crop"):
        image_to_3d(np.random.default_rng(0).random((20, 20, 3)), crop=(-50, -50, -5, -5), matting=False)
