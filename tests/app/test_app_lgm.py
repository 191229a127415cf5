"""`bozzetto image|text --model lgm` as a whole, with micro checkpoints in the published layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "systems"))

from micro_lgm import write_micro_lgm
from micro_mvdream import write_micro_mvdream

from bozzetto import Gaussians, image_to_3d, text_to_3d
from bozzetto.app.cli import main
from bozzetto.errors import InputError

SAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return write_micro_lgm(folder) | write_micro_mvdream(folder)


@pytest.fixture(scope="module")
def arguments(weights):
    given = ["--device", "cpu", "--steps", "2", "--no-mesh", "--quiet"]
    for name, path in weights.items():
        given += ["--weights", f"{name}={path}"]
    return given


@pytest.fixture(scope="module")
def photo():
    return sorted(SAMPLES.glob("*.png"))[0]


def check(folder: Path, **expected: object) -> dict:
    report = json.loads((folder / "report.json").read_text())
    for name in ("splats.ply", "turntable.mp4", "preview.png", "viewer.html"):
        assert (folder / name).stat().st_size > 1000, name
    assert len(Gaussians.load(folder / "splats.ply")) == report["gaussians"] > 500
    for key, value in expected.items():
        assert report[key] == value, key
    return report


def test_image(photo, arguments, tmp_path):
    code = main(["image", str(photo), "-o", str(tmp_path / "out"), "--model", "lgm", "--guidance", "3.5", *arguments])
    assert code == 0
    report = check(tmp_path / "out", model="lgm", steps=2, guidance=3.5, solver="ddim", elevation=0.0, seed=0)
    assert {"load_diffusion", "diffusion", "load_model", "network"} <= report["timings"].keys()


def test_text(arguments, tmp_path):
    prompt = "ein roter Stuhl 椅子"
    code = main(
        ["text", prompt, "-o", str(tmp_path / "out"), "--solver", "dpm++", "--no-cut-views", "--seed", "5", *arguments]
    )
    assert code == 0
    check(tmp_path / "out", model="lgm", prompt=prompt, guidance=7.5, solver="dpm++", seed=5, cut_views=False)


def test_a_weights_file_names_the_model(weights):
    """And the same seed gives the same object; another seed another one."""
    photo = torch.zeros(64, 64, 4)
    photo[16:48, 8:40] = torch.tensor([0.8, 0.3, 0.1, 1.0])
    common = {"device": "cpu", "steps": 1, "mesh": False, "weights": {"imagedream": weights["imagedream"]}}
    first = image_to_3d(photo, model=str(weights["lgm-big"]), seed=1, **common)
    again = image_to_3d(photo, model=str(weights["lgm-big"]), seed=1, **common)
    other = image_to_3d(photo, model=str(weights["lgm-big"]), seed=2, **common)
    assert first.gaussians.means.equal(again.gaussians.means)
    assert not (len(first.gaussians) == len(other.gaussians) and first.gaussians.means.equal(other.gaussians.means))


@pytest.mark.parametrize("prompt", ["", "   ", "x" * 10_001])
def test_bad_prompts(prompt, weights):
    with pytest.raises(InputError, match="prompt"):
        text_to_3d(prompt, device="cpu", weights=weights)


def test_options_that_cannot_be(photo, weights, capsys, tmp_path):
    assert main(["image", str(photo), "-o", str(tmp_path / "o"), "--model", "lgm", "--steps", "0"]) == 2
    assert "--steps" in capsys.readouterr().err
    folder = weights["mvdream"]
    code = main(
        [
            "image",
            str(photo),
            "-o",
            str(tmp_path / "o"),
            "--model",
            "lgm",
            "--weights",
            f"imagedream={folder}",
            "--quiet",
        ]
        + ["--weights", f"lgm-big={weights['lgm-big']}", "--device", "cpu"]
    )
    assert code == 2 and not (tmp_path / "o").exists()
