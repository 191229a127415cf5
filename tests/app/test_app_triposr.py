"""``bozzetto image --model triposr``: the whole path, with a checkpoint of toy size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto import image_to_3d
from bozzetto.app.cli import main
from bozzetto.errors import InputError
from bozzetto.mesh import Mesh

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "systems"))
from micro_triposr import write_micro_triposr


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_micro_triposr(tmp_path_factory.mktemp("triposr"))["triposr"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A cut-out disc with a gradient."""
    row, column = np.mgrid[:80, :64] / 64
    rgba = np.stack([row, column, 1 - row, ((row - 0.6) ** 2 + (column - 0.5) ** 2 < 0.16).astype(float)], axis=-1)
    path = tmp_path_factory.mktemp("photo") / "disc.png"
    Image.fromarray((rgba.clip(0, 1) * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def small_film(monkeypatch):
    """Three small frames instead of four seconds, and a coarse grid to find what can be seen."""
    from bozzetto import framing
    from bozzetto.systems.triposr import field

    monkeypatch.setattr(field, "GRID", 32)
    monkeypatch.setattr(framing.turntable, "__defaults__", (3, 32, *framing.turntable.__defaults__[2:]))
    monkeypatch.setattr(framing.preview, "__defaults__", (32, *framing.preview.__defaults__[1:]))


def run(photo, weights, out, *more):
    common = ["--device", "cpu", "--resolution", "40", "--texture-size", "128", "-q"]
    return main(
        ["image", str(photo), "--model", "triposr", "--weights", f"triposr={weights}", "-o", str(out), *common, *more]
    )


def test_photo_to_textured_mesh_and_film(photo, weights, tmp_path):
    out = tmp_path / "out"
    assert run(photo, weights, out) == 0
    mesh = Mesh.load(out / "mesh.glb")
    assert mesh.texture.shape == (128, 128, 3) and mesh.uvs is not None
    assert mesh.texture.std() > 0.01 and bool(torch.isfinite(mesh.vertices).all())
    assert mesh.vertices.abs().max() <= 0.871
    assert (out / "turntable.mp4").stat().st_size > 0 and (out / "preview.png").is_file()
    assert not (out / "splats.ply").exists()
    report = json.loads((out / "report.json").read_text())
    assert report["model"] == "triposr" and report["resolution"] == 40
    assert report["mesh"]["faces"] == len(mesh.faces)
    assert {"load_model", "network", "mesh", "film"} <= report["timings"].keys()


def test_obj_with_vertex_colours(photo, weights, tmp_path):
    assert (
        run(photo, weights, tmp_path / "out", "--mesh-format", "obj", "--texture", "vertex", "--max-faces", "500") == 0
    )
    mesh = Mesh.load(tmp_path / "out" / "mesh.obj")
    assert mesh.colors is not None and mesh.texture is None and len(mesh.faces) <= 500
    assert not (tmp_path / "out" / "mesh.glb").exists()


def test_chunks_change_nothing(photo, weights):
    kind = {"model": "triposr", "weights": {"triposr": weights}, "resolution": 32, "texture": "vertex", "device": "cpu"}
    a, b = (image_to_3d(photo, chunk_size=size, **kind).mesh for size in (256, 1 << 20))
    assert torch.allclose(a.vertices, b.vertices, atol=1e-4) and torch.allclose(a.colors, b.colors, atol=1e-3)


def test_weights_file_alone(photo, weights):
    """``--model PATH``: what the file is, its tensors say."""
    asset = image_to_3d(photo, model=str(weights / "model.ckpt"), resolution=32, texture="vertex", device="cpu")
    assert asset.mesh is not None and asset.gaussians is None


def test_threshold_that_is_never_reached(photo, weights, tmp_path, capsys):
    assert run(photo, weights, tmp_path / "out", "--threshold", "1e6") != 0
    assert "lower the threshold" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more", [("--resolution", "31"), ("--texture", "paint"), ("--foreground-ratio", "0"), ("--steps", "3")]
)
def test_options_are_checked_before_anything_is_loaded(photo, tmp_path, more, capsys):
    try:
        code = run(photo, tmp_path, tmp_path / "out", *more)
    except SystemExit as stop:
        code = stop.code
    assert code not in (0, None)
    assert more[0] in capsys.readouterr().err


def test_max_faces_below_a_tetrahedron(photo, weights):
    with pytest.raises(InputError, match="max-faces"):
        image_to_3d(photo, model="triposr", weights={"triposr": weights}, max_faces=3)


def test_folder_without_weights(photo, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(photo, tmp_path / "empty", tmp_path / "out") != 0
    assert "model.ckpt" in capsys.readouterr().err
