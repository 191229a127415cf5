"""Folders of posed pictures are told apart by what is in them."""

from __future__ import annotations

import pytest
import torch

from bozzetto import Cameras
from bozzetto.camera import write_transforms
from bozzetto.camera.lgm_folder import house_to_poses
from bozzetto.camera.posed_folder import is_colmap, read_posed_folder
from bozzetto.errors import CameraError
from bozzetto.files.images import write_image


@pytest.fixture
def cameras() -> Cameras:
    orbit = Cameras.orbit([0.0, 100.0], [0.0, 30.0], 1.5, 49.1)
    return Cameras(orbit.camera_to_world, orbit.intrinsics, ("a", "b"))


def test_one_scene_in_two_layouts(cameras, tmp_path):
    plain, lgm = tmp_path / "plain", tmp_path / "lgm"
    for folder in (plain, lgm / "rgb", lgm / "pose"):
        folder.mkdir(parents=True)
    for name, pose in zip(cameras.names, house_to_poses(cameras.camera_to_world)):
        write_image(plain / f"{name}.png", torch.rand(8, 8, 4))
        write_image(lgm / "rgb" / f"{name}.png", torch.rand(8, 8, 4))
        (lgm / "pose" / f"{name}.txt").write_text(" ".join(str(x) for x in pose.flatten().tolist()))
    write_transforms(plain / "transforms.json", cameras, (8, 8), ["a.png", "b.png"])
    for place in (plain, plain / "transforms.json", lgm):
        posed = read_posed_folder(place)
        assert [p.name for p in posed.paths] == ["a.png", "b.png"] and posed.sizes == [(8, 8), (8, 8)]
        assert torch.allclose(posed.cameras.camera_to_world, cameras.camera_to_world, atol=1e-5)
        assert torch.allclose(posed.cameras.intrinsics, cameras.intrinsics, atol=1e-4)
    assert not is_colmap(plain) and not is_colmap(lgm)
    (plain / "cameras.txt").write_text(
        "1 FULL_OPENCV 8 8 1 1 4 4 0.5 0 0 0 0 0 0 0"
    )  # a model left there that is not asked for
    assert is_colmap(plain) and read_posed_folder(plain).sizes == [(8, 8), (8, 8)]


def test_pictures_may_be_missing_where_cameras_are_enough(cameras, tmp_path):
    write_transforms(tmp_path / "transforms.json", cameras, (8, 8), ["a.png", "b.png"])
    assert len(read_posed_folder(tmp_path, require_images=False).cameras) == 2
    with pytest.raises(CameraError, match=r"a\.png"):
        read_posed_folder(tmp_path)


def test_a_folder_of_none_of_these_says_what_it_needs(tmp_path):
    with pytest.raises(CameraError, match=r"needs transforms\.json, rgb/ and pose/, or a COLMAP model"):
        read_posed_folder(tmp_path)
    with pytest.raises(CameraError):
        read_posed_folder(tmp_path / "none")
