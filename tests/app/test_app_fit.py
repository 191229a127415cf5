"""``bozzetto fit``: the three kinds of folders in, splats and a report out; bad arguments."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from bozzetto import Cameras, Gaussians, framing
from bozzetto.app.cli import main
from bozzetto.camera import write_transforms
from bozzetto.data.procedural import HELD_OUT_SEEDS, generate_object
from bozzetto.data.render import SceneBatch, render_objects
from bozzetto.errors import MeshError
from bozzetto.files.images import read_image, write_image
from bozzetto.fitting.folder import hold_out, read_views

AZIMUTHS = [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    cameras = Cameras.orbit(AZIMUTHS, [0.0, 20.0] * 3)
    cameras = Cameras(cameras.camera_to_world, cameras.intrinsics, tuple(f"view{i}" for i in range(6)))
    drawn = render_objects(SceneBatch.pack([generate_object(HELD_OUT_SEEDS[0])]), cameras, 32, outputs=("rgba",)).rgba[
        0
    ]
    for name, picture in zip(cameras.names, drawn):
        write_image(folder / f"{name}.png", picture)
    write_transforms(folder / "transforms.json", cameras, 32, [f"{n}.png" for n in cameras.names])
    return folder


@pytest.fixture(autouse=True)
def short_films(monkeypatch):
    monkeypatch.setattr(framing.turntable, "__defaults__", (2, 32, *framing.turntable.__defaults__[2:]))


def test_fit_writes_splats_and_report(scene, tmp_path, capsys):
    out = tmp_path / "out"
    command = [
        "fit",
        str(scene),
        "-o",
        str(out),
        "--steps",
        "30",
        "--points",
        "300",
        "--hold-out",
        "3",
        "--device",
        "cpu",
    ]
    assert main(command) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["views"] == 4 and report["splats"] == len(Gaussians.load(out / "splats.ply"))
    assert 10 < report["psnr"] < 50 and 10 < report["psnr_held_out"] < 50
    assert "held-out views" in capsys.readouterr().out
    again = tmp_path / "again"
    assert main(["fit", str(scene), "-o", str(again), "--init", str(out / "splats.ply"), "--steps", "2", "-q"]) == 0
    assert json.loads((again / "report.json").read_text())["psnr"] > report["psnr"] - 1


def test_colmap_projects_are_read_with_their_points(scene, tmp_path):
    sparse, images = tmp_path / "sparse" / "0", tmp_path / "images"
    sparse.mkdir(parents=True)
    images.mkdir()
    cameras = read_views(scene).cameras
    focal = float(cameras.intrinsics[0, 1]) * 32
    (sparse / "cameras.txt").write_text(f"1 PINHOLE 32 32 {focal} {focal} 16 16\n")
    lines = []
    for i, view in enumerate(cameras.view_matrices().double()):
        from bozzetto.gaussians import matrix_to_quaternion

        quat = matrix_to_quaternion(view[:3, :3]).tolist()
        lines += [" ".join(map(str, [i + 1, *quat, *view[:3, 3].tolist(), 1, f"view{i}.png"])), ""]
        (images / f"view{i}.png").write_bytes((scene / f"view{i}.png").read_bytes())
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [
        struct.pack("<Q3d3BdQ", k, *np.random.default_rng(k).uniform(-0.3, 0.3, 3), 200, 100, 50, 0.1, 0)
        for k in range(9)
    ]
    (sparse / "points3D.bin").write_bytes(struct.pack("<Q", len(rows)) + b"".join(rows))
    views = read_views(tmp_path, size=16)
    assert torch.allclose(views.cameras.camera_to_world, cameras.camera_to_world, atol=1e-5)
    assert len(views.points[0]) == 9 and tuple(views.images[0].shape) == (16, 16, 4)
    out = tmp_path / "out"
    assert main(["fit", str(tmp_path), "-o", str(out), "--steps", "2", "--init", "points", "--no-densify", "-q"]) == 0
    assert json.loads((out / "report.json").read_text())["splats"] == 9
    pictures = []
    for name, cameras in (("a", tmp_path), ("b", scene / "transforms.json")):
        assert (
            main(["render", str(out / "splats.ply"), "-o", str(tmp_path / name), "--cameras", str(cameras), "-q"]) == 0
        )
        pictures.append([read_image(tmp_path / name / f"view{i}.png").rgba for i in range(6)])
    assert all(a.shape == (32, 32, 4) and (a - b).abs().mean() < 1e-3 for a, b in zip(*pictures))
    assert main(["views", str(tmp_path), "-o", str(tmp_path / "views"), "--no-mesh", "--refine", "0", "-q"]) == 0
    assert len(Gaussians.load(tmp_path / "views" / "splats.ply"))


def test_a_mesh_that_fails_leaves_the_splats(scene, tmp_path, capsys, monkeypatch):
    def fails(*args, **options):
        raise MeshError("no surface")

    monkeypatch.setattr("bozzetto.surface.gaussians_to_mesh", fails)
    out = tmp_path / "out"
    assert main(["fit", str(scene), "-o", str(out), "--steps", "2", "--points", "50", "--mesh", "-q"]) == 2
    assert "no surface" in capsys.readouterr().err
    assert len(Gaussians.load(out / "splats.ply")) and json.loads((out / "report.json").read_text())["psnr"] > 0


def test_the_world_may_lie_anywhere(scene, tmp_path):
    """What is measured is drawn from the near plane that was fitted with: by the scene's extent, not its place."""
    moved = json.loads((scene / "transforms.json").read_text())
    for frame in moved["frames"]:
        frame["transform_matrix"][0][3] += 3000.0
        frame["file_path"] = str(scene / frame["file_path"])
    (tmp_path / "transforms.json").write_text(json.dumps(moved))
    psnr = []
    for folder in (scene, tmp_path):
        out = tmp_path / f"out{len(psnr)}"
        assert main(["fit", str(folder), "-o", str(out), "--steps", "10", "--points", "300", "-q"]) == 0
        psnr.append(json.loads((out / "report.json").read_text())["psnr"])
    assert abs(psnr[0] - psnr[1]) < 1.0, psnr


def test_views_kept_aside():
    assert hold_out(5, 0) == ([0, 1, 2, 3, 4], [])
    assert hold_out(5, 2) == ([1, 3], [0, 2, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hold-out", "1"], "--hold-out"),
        (["--init", "points"], "no points3D"),
        (["--init", "missing.ply"], "missing.ply"),
        (["--size", "-5"], "at least 16"),
        (["--points", "3"], "points must be at least 4"),
        (["--seed", str(2**70)], "seed 0 to"),
    ],
)
def test_bad_arguments(scene, tmp_path, capsys, arguments, message):
    assert main(["fit", str(scene), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_without_cameras(tmp_path, capsys):
    assert main(["fit", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "transforms.json" in capsys.readouterr().err
