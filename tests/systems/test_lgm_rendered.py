"""LGM-style rendered folders, and the training item made of one, against the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bozzetto import Cameras, framing
from bozzetto.app.cli import main
from bozzetto.camera.lgm_folder import is_lgm_folder, poses_to_house, read_lgm_folder
from bozzetto.errors import CameraError
from bozzetto.files.images import read_image, write_image
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.rendered import rendered_item


def write_folder(folder, poses, pictures):
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    for i, (pose, picture) in enumerate(zip(poses, pictures)):
        write_image(folder / "rgb" / f"{i:03d}.png", picture)
        (folder / "pose" / f"{i:03d}.txt").write_text("\n".join(" ".join(map(repr, row)) for row in pose.tolist()))


def test_item(shared, fill, tmp_path):
    """Through files on disk: 8-bit pictures and poses as text."""
    golden = np.load(shared / "parity/lgm/dataset.npz")
    stored = [np.floor(255 * fill.test_input(f"data/view{i}", (48, 48, 4))) / 255 for i in range(6)]
    write_folder(tmp_path / "object", golden["poses_in"], [torch.from_numpy(p).float() for p in stored])
    posed = read_lgm_folder(tmp_path / "object")
    rgba = torch.stack([read_image(p).rgba for p in posed.paths]).permute(0, 3, 1, 2)
    config = replace(preset("small"), input_size=32, output_size=24)
    item = rendered_item(rgba, posed.cameras, config)
    assert np.abs(item.images.numpy() - golden["images_output"]).max() < 1e-5
    assert np.abs(item.masks.numpy() - golden["masks_output"]).max() < 1e-5
    assert np.abs(item.inputs.numpy() - golden["input"]).max() < 2e-5
    view = item.cameras.view_matrices()
    assert np.abs(view.transpose(-1, -2).numpy() - golden["cam_view"]).max() < 2e-6
    # The published camera position has the opposite sign (colours do not depend on it there).
    assert np.abs(item.cameras.positions.numpy() + golden["cam_pos"]).max() < 2e-6
    near, far, f = config.znear, config.zfar, 1 / np.tan(np.radians(config.fov_y) / 2)
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = f
    projection[2, 2], projection[3, 2], projection[2, 3] = (far + near) / (far - near), -far * near / (far - near), 1
    ours = view.transpose(-1, -2).double().numpy() @ projection
    assert np.abs(ours - golden["cam_view_proj"]).max() < 5e-6


def test_poses_are_blenders(tmp_path):
    """A Blender camera on -y (the front) looking at the origin, upright: stands on +z of the house's world."""
    opencv = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, -1.5], [0, -1, 0, 0], [0, 0, 0, 1]])
    assert torch.allclose(poses_to_house(opencv), Cameras.orbit([0.0]).camera_to_world[0], atol=1e-6)


def test_views_command_reads_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(framing.turntable, "__defaults__", (2, 32, *framing.turntable.__defaults__[2:]))
    cameras = Cameras.orbit([0.0, 90.0])
    to_blender = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    poses = to_blender @ (cameras.camera_to_world * torch.tensor([1.0, -1, -1, 1]))
    y, x = np.mgrid[:64, :64] - 31.5
    disc = torch.from_numpy(np.stack([x * 0 + 0.8, x * 0 + 0.2, y * 0 + 0.1, x**2 + y**2 < 400], axis=-1)).float()
    write_folder(tmp_path / "object", poses, [disc, disc])
    assert is_lgm_folder(tmp_path / "object")
    out = tmp_path / "out"
    assert not main(["views", str(tmp_path / "object"), "-o", str(out), "--no-mesh", "--device", "cpu", "--quiet"])
    assert (out / "splats.ply").is_file()


@pytest.mark.parametrize("text", ["1 2 3", "a b c", " ".join(["nan"] * 16)])
def test_bad_poses_are_named(tmp_path, text):
    write_folder(tmp_path / "object", torch.eye(4)[None], [torch.ones(8, 8, 4)])
    (tmp_path / "object" / "pose" / "000.txt").write_text(text)
    with pytest.raises(CameraError, match=r"000\.txt"):
        read_lgm_folder(tmp_path / "object")
