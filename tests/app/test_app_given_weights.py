"""Weights and models given by name or file are checked before any work, and put where they belong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bozzetto import image_to_3d, load, text_to_3d, views_to_3d
from bozzetto.app.cli import main
from bozzetto.camera import Cameras
from bozzetto.errors import CheckpointError, InputError
from bozzetto.pipelines import find_pipeline
from bozzetto.systems.lgm.checkpoint import save_lgm
from bozzetto.systems.lgm.network import LGM, LGMConfig
from bozzetto.systems.lgm.presets import preset
from bozzetto.zoo import ENTRIES


@pytest.fixture
def triposr_file(tmp_path) -> Path:
    """A file with the tensors by which TripoSR's checkpoint is known."""
    tensors = {"image_tokenizer.model.norm.weight": torch.zeros(2), "tokenizer.embeddings": torch.zeros(3, 4, 2, 2)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_clean_weights_take_lgm_mini_s_place():
    """By their name alone, for photos and for views; what they make is theirs, not that of the default."""
    pipeline, weights = find_pipeline("lgm-mini-clean", "photo")
    assert pipeline.name == "lgm-mini" and Path(weights["lgm-mini"]).name == "lgm-mini-clean.safetensors"
    assert find_pipeline("lgm-mini-clean", "views")[1] == weights
    with pytest.raises(InputError, match="cannot turn a text prompt into 3D"):
        find_pipeline("lgm-mini-clean", "text")
    photo = torch.zeros(64, 64, 4)
    photo[16:48, 16:48] = torch.tensor([0.8, 0.3, 0.2, 1.0])
    clean, own = (image_to_3d(photo, model=m, mesh=False, device="cpu") for m in ("lgm-mini-clean", "lgm-mini"))
    assert len(clean.gaussians) != len(own.gaussians) or not torch.allclose(clean.gaussians.means, own.gaussians.means)


def test_weights_that_are_not_used_are_refused(no_weights, triposr_file, tmp_path):
    with pytest.raises(InputError, match="lgm-mini does not use triposr; it uses lgm-mini"):
        image_to_3d(torch.rand(8, 8, 4), weights={"triposr": triposr_file})
    with pytest.raises(InputError, match="no such file"):
        image_to_3d(torch.rand(8, 8, 4), weights={"lgm-mini": tmp_path / "none"})
    with pytest.raises(InputError, match="both stand for triposr"):
        image_to_3d(torch.rand(8, 8, 4), model=str(triposr_file), weights={"triposr": triposr_file})
    with pytest.raises(InputError, match="does not use triposr"):
        views_to_3d([], Cameras.orbit([0.0]), weights={"triposr": triposr_file})


def test_weights_of_another_system_are_named_before_any_work(no_weights, triposr_file, tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(CheckpointError, match="is a TripoSR checkpoint, not LGM; use --model triposr"):
        text_to_3d("a cat", weights={"lgm-big": triposr_file})
    with pytest.raises(CheckpointError, match="is a TripoSR checkpoint, not Shap-E text300M"):
        text_to_3d("a cat", model="shap-e", weights={"shap-e-text": triposr_file})
    folders = {"imagedream": '{"model_channels": 32, "ip_dim": 4}', "mvdream": '{"model_channels": 32}', "sd": "{}"}
    for name, config in folders.items():
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="is a folder of ImageDream, not MVDream"):
        text_to_3d("a cat", weights={"mvdream": tmp_path / "imagedream"})
    with pytest.raises(CheckpointError, match="is a folder of Stable Diffusion, not ImageDream"):
        image_to_3d(torch.rand(8, 8, 4), model="lgm", weights={"imagedream": tmp_path / "sd"})
    with pytest.raises(CheckpointError, match=r"is a folder of MVDream, not Stable Diffusion.*--prior mvdream"):
        text_to_3d("a cat", model="gaussian-dreamer", weights={"sd21-base": tmp_path / "mvdream"})


def test_a_model_file_of_another_kind_is_named(triposr_file, tmp_path, capsys):
    for command in ("text", "video"):
        assert main([command, "a", "--model", str(triposr_file), "-o", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert "does not exist" in err or "is a TripoSR checkpoint" in err
    with pytest.raises(InputError, match=r"is a TripoSR checkpoint, which alone cannot.*Use --model triposr"):
        text_to_3d("a cat", model=str(triposr_file))
    with pytest.raises(CheckpointError, match="is a folder"):
        text_to_3d("a cat", model=str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    with pytest.raises(CheckpointError, match="is no checkpoint; give"):
        text_to_3d("a cat", model=str(tmp_path / "a.png"))


def test_evaluate_refuses_other_models_before_it_fetches_them(no_weights, triposr_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys.modules["bozzetto.zoo.load"], "locate", lambda name, *a: pytest.fail(f"{name} was looked for")
    )
    for name in ("triposr", "imagedream", "l4gm", "u2netp"):
        assert main(["evaluate", name, "-o", str(tmp_path / "out")]) == 2
        assert "lgm-big" in capsys.readouterr().err


def test_views_take_weights_of_one_s_own(tmp_path):
    torch.manual_seed(0)
    small = LGMConfig(
        down_channels=(32, 32), down_attention=(False, False), up_channels=(32,), up_attention=(False,),
        mid_attention=False, layers_per_block=1,
    )  # fmt: skip
    save_lgm(LGM(small), tmp_path / "own.safetensors")
    save_lgm(LGM(preset("debug")), tmp_path / "debug.safetensors")
    own = load("lgm-big-legacy", override=tmp_path / "own.safetensors")
    assert own.config.rotation == "legacy" and own.config.down_channels == (32, 32)
    pictures = [np.pad(np.full((16, 16, 4), 200, np.uint8), ((8, 8), (8, 8), (0, 0)))] * 4
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0])
    asset = views_to_3d(
        pictures, cameras, weights={"lgm-mini": tmp_path / "debug.safetensors"}, mesh=False, device="cpu"
    )
    assert len(asset.gaussians) <= 4 * 16 * 16
    with pytest.raises(CheckpointError, match="not lgm-mini"):
        views_to_3d(pictures, cameras, weights={"lgm-mini": tmp_path / "own.safetensors"}, device="cpu")


def test_every_entry_can_be_loaded_or_says_that_it_is_a_part():
    parts = {name for name, e in ENTRIES.items() if e.system not in sys.modules["bozzetto.zoo.load"].LOADERS}
    assert parts == {n for n in ENTRIES if n.startswith(("shap-e", "clip", "sd21"))}
    for name in parts:
        with pytest.raises(InputError, match="one part of a model"):
            load(name)
    assert isinstance(load("lgm-mini"), LGM) and not load("u2netp").training
