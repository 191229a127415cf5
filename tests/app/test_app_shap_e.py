"""``bozzetto text|image --model shap-e``: the whole path, with checkpoints of toy size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("transformers")

from bozzetto.app.cli import main
from bozzetto.mesh import Mesh
from bozzetto.pipelines import PIPELINES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "systems"))
from micro_shap_e import RADIUS, write_micro_shap_e

SMALL = ["--device", "cpu", "--steps", "3", "--resolution", "20", "--texture-size", "128", "-q"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_micro_shap_e(tmp_path_factory.mktemp("shap_e"))


@pytest.fixture(scope="module")
def weights(files):
    return [a for name, path in files.items() for a in ("--weights", f"{name}={path}")]


@pytest.fixture(autouse=True)
def small_film(monkeypatch):
    """Three small frames instead of four seconds, and a coarse grid under them."""
    from bozzetto import framing
    from bozzetto.systems.shap_e import field

    monkeypatch.setattr(framing.turntable, "__defaults__", (3, 32, *framing.turntable.__defaults__[2:]))
    monkeypatch.setattr(framing.preview, "__defaults__", (32, *framing.preview.__defaults__[1:]))
    monkeypatch.setattr(field, "COARSE_GRID", 24)


def text(weights, out, *more, prompt="a chair"):
    return main(["text", prompt, "--model", "shap-e", *weights, "-o", str(out), *SMALL, *more])


def test_text_to_textured_mesh_and_film(weights, tmp_path):
    assert text(weights, tmp_path / "out") == 0
    mesh = Mesh.load(tmp_path / "out" / "mesh.glb")
    assert mesh.texture.shape == (128, 128, 3) and mesh.texture.std() > 0.01
    assert float((mesh.vertices.norm(dim=-1) - RADIUS).abs().mean()) < 0.2
    assert (tmp_path / "out" / "turntable.mp4").stat().st_size > 0
    preview = np.asarray(Image.open(tmp_path / "out" / "preview.png"))
    assert preview.shape == (32, 128, 3) and preview[0, 0].min() > 250 and preview[16, 16].min() < 250
    assert not (tmp_path / "out" / "splats.ply").exists()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"] == "shap-e" and report["shap_e"]["weights"] == "shap-e-text"
    assert {"load_model", "sample", "decode", "mesh", "film"} <= report["timings"].keys()


def test_seed_and_weights_variant_decide_the_shape(weights, tmp_path):
    def vertices(name, *more):
        assert text(weights, tmp_path / name, "--texture", "vertex", *more) == 0
        return Mesh.load(tmp_path / name / "mesh.glb").vertices

    first = vertices("a", "--seed", "1")
    assert torch.equal(first, vertices("b", "--seed", "1"))
    for more in (["--seed", "2"], ["--seed", "1", "--weights-variant", "cap3d"], ["--seed", "1", "--guidance", "1"]):
        other = vertices("c", *more)
        assert other.shape != first.shape or not torch.allclose(other, first)
    assert json.loads((tmp_path / "a" / "report.json").read_text())["seed"] == 1


def test_photo_to_obj_with_fewer_faces(weights, tmp_path):
    row, column = np.mgrid[:60, :80] / 60
    rgba = np.stack([row, column / 2, 1 - row, ((row - 0.5) ** 2 + (column - 0.6) ** 2 < 0.1).astype(float)], axis=-1)
    Image.fromarray((rgba.clip(0, 1) * 255).astype(np.uint8)).save(tmp_path / "photo.png")
    run = ["image", str(tmp_path / "photo.png"), "--model", "shap-e", *weights, "-o", str(tmp_path / "out"), *SMALL]
    assert main([*run, "--mesh-format", "obj", "--texture", "vertex", "--max-faces", "300"]) == 0
    mesh = Mesh.load(tmp_path / "out" / "mesh.obj")
    assert mesh.colors is not None and mesh.texture is None and 4 <= len(mesh.faces) <= 300


@pytest.mark.parametrize("prompt", ["", "   ", "&nbsp;"])
def test_empty_prompt(weights, tmp_path, capsys, prompt):
    assert text(weights, tmp_path / "out", prompt=prompt) == 2
    assert "prompt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:the prompt")
def test_long_and_foreign_prompts(weights, tmp_path):
    assert text(weights, tmp_path / "long", "--texture", "vertex", prompt="a chair " * 1250) == 0
    assert text(weights, tmp_path / "foreign", "--texture", "vertex", prompt="木の椅子 🪑") == 0


def test_wrong_checkpoint_is_named(files, weights, tmp_path, capsys):
    wrong = [*weights, "--weights", f"shap-e-text={files['shap-e-transmitter']}"]
    assert text(wrong, tmp_path / "out") == 2
    assert "is a Shap-E transmitter, not Shap-E text300M" in capsys.readouterr().err


def test_nan_weights_are_reported(files, weights, tmp_path, capsys):
    state = torch.load(files["shap-e-text"], weights_only=True)
    state["wrapped.ln_post.weight"][0] = torch.nan
    torch.save(state, tmp_path / "text_cond.pt")
    assert text([*weights, "--weights", f"shap-e-text={tmp_path / 'text_cond.pt'}"], tmp_path / "out") == 2
    assert "NaN" in capsys.readouterr().err


def test_exploding_latents_are_reported(files, weights, tmp_path, capsys):
    """Finite weights whose products are not."""
    state = torch.load(files["shap-e-text"], weights_only=True)
    state["wrapped.output_proj.weight"] *= 1e38
    state["wrapped.ln_post.weight"] *= 1e38
    torch.save(state, tmp_path / "text_cond.pt")
    assert text([*weights, "--weights", f"shap-e-text={tmp_path / 'text_cond.pt'}"], tmp_path / "out") == 2
    assert "NaN or infinity; try another seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [["--steps", "0"], ["--guidance", "-1"], ["--max-faces", "2"], ["--resolution", "9"]]
)
def test_options_out_of_range(weights, tmp_path, option):
    assert text(weights, tmp_path / "out", *option) == 2
    assert not (tmp_path / "out").exists()


def test_defaults_are_the_published_ones():
    photo, words = (PIPELINES["shap-e"].options_class(kind)() for kind in ("photo", "text"))
    assert (photo.guidance, words.guidance) == (3.0, 15.0)
    assert (words.steps, words.resolution, words.weights_variant) == (64, 128, "openai")
