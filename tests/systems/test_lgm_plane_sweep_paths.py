"""Weights of a network that is given evidence about depth, through everything that takes weights of lgm-mini."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluation"))

from eval_shapes import write_gso

import bozzetto.evaluation.run as run
from bozzetto import Gaussians, image_to_3d, views_to_3d
from bozzetto.app.cli import main
from bozzetto.camera import Cameras
from bozzetto.camera.transforms_json import write_transforms
from bozzetto.data.procedural import generate_object
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.files.images import write_image
from bozzetto.systems.lgm.checkpoint import guess_preset, load_lgm, save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import PRESETS, preset
from bozzetto.systems.lgm.reconstruct import reconstruct
from bozzetto.zoo import load
from bozzetto.zoo.load import identify_file

SIZE = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = LGM(preset("debug-sweep"))
    with torch.no_grad():
        model.conv.bias[3] += 4.0  # opacity, so that nothing is pruned for lack of training
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_lgm(model, path)
    return path


@pytest.fixture(scope="module")
def pictures():
    """An object from four sides: [4, SIZE, SIZE, 4] with straight alpha, and the cameras (4,)."""
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0])
    drawn = render_objects(
        SceneBatch.pack([generate_object(3)]), cameras[None], SIZE, Lights.default(1), outputs=("rgba",)
    )
    return drawn.rgba[0], cameras


def test_tensors_tell_every_preset():
    for name, config in PRESETS.items():
        with torch.device("meta"):
            shapes = {k: tuple(v.shape) for k, v in LGM(config).state_dict().items()}
        assert guess_preset(shapes) == name


def test_a_file_is_recognised(weights):
    assert identify_file(str(weights))[0].entry == "lgm-mini"
    assert load(str(weights)).config == preset("debug-sweep") != preset("debug")


def test_a_photo_and_views(weights, pictures):
    rgba, cameras = pictures
    given = {"weights": {"lgm-mini": weights}, "mesh": False, "device": "cpu"}
    assert len(image_to_3d(rgba[0], **given).gaussians) > 500
    assert len(views_to_3d(list(rgba), cameras, **given).gaussians) > 500


def test_evaluate(weights, tmp_path, monkeypatch):
    given = ["--objects", "1", "--device", "cpu", "--quiet"]
    assert main(["evaluate", str(weights), "-o", str(tmp_path / "a"), *given, "--protocol", "procedural"]) == 0
    psnr = json.loads((tmp_path / "a" / "evaluation.json").read_text())["psnr"]
    assert psnr["novel_4view"] > 3 and psnr["novel_1view"] > 3
    monkeypatch.setattr(run, "measure_object", partial(run.measure_object, size=32))
    data = write_gso(tmp_path / "gso", 1)
    given += ["--perceptual", "none", "--data", str(data)]
    assert main(["evaluate", str(weights), "-o", str(tmp_path / "b"), *given]) == 0
    assert set(json.loads((tmp_path / "b" / "report.json").read_text())["sources"]) == {"procedural", "gso"}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_evidence_reaches_the_network(weights, pictures, count):
    """Without it, the same weights make other Gaussians; in bf16, nearly the same."""
    model = load_lgm(weights)
    rgba, cameras = pictures[0][:count].permute(0, 3, 1, 2)[None], pictures[1][:count][None]
    made = reconstruct(model, rgba, cameras, torch.float32)
    coarse = reconstruct(model, rgba, cameras, torch.bfloat16)
    edge = model.unet.conv_in
    columns = edge.weight.unflatten(1, (15, 16))
    with torch.no_grad():
        columns[:, 11:] = 0
    without = reconstruct(model, rgba, cameras, torch.float32)
    for a in (*made.tensors(), *coarse.tensors()):
        assert bool(a.isfinite().all())
    difference = (without.means - made.means).norm(dim=-1).mean()
    assert float((coarse.means - made.means).norm(dim=-1).mean()) < 0.2 * float(difference)


@pytest.mark.slow
def test_commands_from_training_to_objects(pictures, tmp_path):
    file = tmp_path / "made.safetensors"
    given = ["--preset", "debug-sweep", "--steps", "1", "--batch", "1", "--device", "cpu", "--export", str(file)]
    assert main(["train", "lgm-mini", "-o", str(tmp_path / "run"), *given, "--quiet"]) == 0
    assert load(str(file)).config == preset("debug-sweep")

    rgba, cameras = pictures
    files = [f"{i}.png" for i in range(4)]
    for name, picture in zip(files, rgba):
        write_image(tmp_path / name, picture)
    write_transforms(tmp_path / "transforms.json", cameras, (SIZE, SIZE), files)
    given = ["--weights", f"lgm-mini={file}", "--device", "cpu", "--no-mesh", "--quiet"]
    for command, source in (("image", tmp_path / "0.png"), ("views", tmp_path)):
        out = tmp_path / command
        assert main([command, str(source), "-o", str(out), *given]) == 0
        assert (
            len(Gaussians.load(out / "splats.ply")) == json.loads((out / "report.json").read_text())["gaussians"] > 100
        )
