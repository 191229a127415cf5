"""``bozzetto text --model gaussian-dreamer``: the whole path, with checkpoints of toy size."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto import Gaussians, text_to_3d
from bozzetto.app.cli import main
from bozzetto.errors import CheckpointError, InputError
from bozzetto.mesh import Mesh
from bozzetto.systems.gaussian_dreamer.state import FILE

pytest.importorskip("diffusers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "systems"))
from micro_gaussian_dreamer import write_micro_gaussian_dreamer
from micro_mvdream import write_micro_mvdream
from micro_shap_e import write_micro_shap_e

QUICK = {
    "steps": 4,
    "size": 32,
    "batch": 2,
    "start_steps": 2,
    "grow_candidates": 2000,
    "save_every": 2,
    "preview_every": 2,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    shap_e = write_micro_shap_e(folder / "shap_e")
    return {
        **{name: shap_e[name] for name in ("clip-vit-l14", "shap-e-text-cap3d", "shap-e-transmitter")},
        **write_micro_gaussian_dreamer(folder),
        "mvdream": write_micro_mvdream(folder / "mvdream")["mvdream"],
    }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A ball of coarse splats, quick to render."""
    path = tmp_path_factory.mktemp("start") / "ball.ply"
    random = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(300, 3, generator=random), dim=-1)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(300, 4)
    rgb = torch.rand(300, 3, generator=random)
    Gaussians.from_rgb(direction * 0.5, torch.full((300, 3), 0.05), quats, torch.full((300,), 0.8), rgb).save(path)
    return path


@pytest.fixture(autouse=True)
def small_film(monkeypatch):
    """Three small frames instead of four seconds, and a coarse mesh."""
    from bozzetto import framing, surface

    monkeypatch.setattr(framing.turntable, "__defaults__", (3, 32, *framing.turntable.__defaults__[2:]))
    monkeypatch.setattr(framing.preview, "__defaults__", (32, *framing.preview.__defaults__[1:]))
    coarse = functools.partial(surface.gaussians_to_mesh, resolution=24, texture_size=64, max_faces=1000)
    monkeypatch.setattr(surface, "gaussians_to_mesh", coarse)


def command(weights, out, *more, prompt="a red cat", **changes) -> int:
    given = [f"--{k.replace('_', '-')}={v}" for k, v in (QUICK | changes).items()]
    local = [x for name, path in weights.items() for x in ("--weights", f"{name}={path}")]
    return main(
        ["text", prompt, "--model", "gaussian-dreamer", "-o", str(out), "--device", "cpu", "-q", *local, *given, *more]
    )


def test_words_to_splats_mesh_and_film(weights, tmp_path):
    out = tmp_path / "cat"
    assert command(weights, out) == 0
    written = {p.name for p in out.iterdir()}
    assert {"splats.ply", "mesh.glb", "turntable.mp4", "preview.png", "viewer.html", "report.json"} <= written
    report = json.loads((out / "report.json").read_text())
    about = report["gaussian_dreamer"]
    assert about["start"] == "shap-e" and about["steps"] == 4 and about["non_finite_gradients"] == 0
    assert {"load_model", "start", "optimise", "mesh"} <= report["timings"].keys()
    assert report["prompt"] == "a red cat" and report["steps"] == 4
    gaussians = Gaussians.load(out / "splats.ply")
    middle = gaussians.means.median(0).values
    assert float(middle.abs().max()) < 0.2 and float(gaussians.means.abs().max()) < 1.2  # the toy shapes are balls
    assert len(Mesh.load(out / "mesh.glb").faces) > 100
    live = tmp_path / "cat.progress"
    assert {p.name for p in live.iterdir()} == {"preview_0002.png", "preview_0004.png", "latest.png", FILE}
    picture = np.asarray(Image.open(live / "latest.png").convert("RGB"))
    assert picture.shape[1] == 4 * picture.shape[0] and picture.std() > 4


class Stop(Exception):
    """What a user's Ctrl-C does."""


def test_a_stopped_run_goes_on_and_gives_the_same(weights, cloud, tmp_path):
    given = {
        **QUICK,
        "model": "gaussian-dreamer",
        "weights": weights,
        "start": str(cloud),
        "mesh": False,
        "device": "cpu",
    }
    whole = text_to_3d("a red cat", **given).gaussians

    def stop(stage: str, share: float) -> None:
        if share >= 0.75:
            raise Stop

    with pytest.raises(Stop):
        text_to_3d("a red cat", **given, workspace=tmp_path, progress=stop)
    assert (tmp_path / FILE).is_file()
    with pytest.raises(InputError, match="'a red cat' and is now 'a dog'"):
        text_to_3d("a dog", **given, workspace=tmp_path)
    again = text_to_3d("a red cat", **given, workspace=tmp_path)
    assert again.report["gaussian_dreamer"]["resumed_from_step"] == 2
    assert all(torch.equal(a, b) for a, b in zip(again.gaussians.tensors(), whole.tensors()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "changes",
    [
        {"start": "shap-e"},
        {"perp_neg": "on", "max_radius": 20, "lambda_sparsity": 1, "lambda_opaque": 1, "save_memory": True},
        {"prior": "mvdream", "batch": 4, "method": "sjc"},
    ],
)
def test_cuda_in_half_precision(weights, cloud, tmp_path, monkeypatch, changes):
    """Previews, densification, stop and resume, film; the result stays on the device, where film and mesh are made."""
    from bozzetto.systems.gaussian_dreamer import optimise

    often = functools.partial(optimise.DensifySchedule, until=30, after=0, every=2, size_rule_after=0)
    monkeypatch.setattr(optimise, "DensifySchedule", often)
    given = {**QUICK, "model": "gaussian-dreamer", "weights": weights, "start": str(cloud), "device": "cuda"} | changes
    first = text_to_3d("a red cat", **given, workspace=tmp_path)
    about = first.report["gaussian_dreamer"]
    assert first.gaussians.device.type == "cuda" and about["non_finite_gradients"] == 0
    assert len(first.gaussians) > 300 and first.mesh is not None
    longer = text_to_3d("a red cat", **given | {"steps": 6}, workspace=tmp_path)
    assert longer.report["gaussian_dreamer"]["resumed_from_step"] == 4
    assert all(bool(torch.isfinite(t).all()) for t in longer.gaussians.tensors())
    pytest.importorskip("av", reason="the film needs PyAV")
    longer.save(tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"perp_neg": "on"},
        {"perp_neg": "compat"},
        {"method": "sjc", "guidance_form": "usual", "guidance": 8},
        {"weighting": "fantasia3d", "lambda_sparsity": 1, "lambda_opaque": 1, "save_memory": True, "max_radius": 20},
        {"prior": "mvdream", "batch": 4, "steps": 1},
    ],
)
def test_every_option_changes_the_result(weights, cloud, changes):
    given = {
        **QUICK,
        "model": "gaussian-dreamer",
        "weights": weights,
        "start": str(cloud),
        "mesh": False,
        "device": "cpu",
    }
    plain = text_to_3d("a red cat", **given | {k: v for k, v in changes.items() if k in ("steps", "batch")})
    other = text_to_3d("a red cat", **given | changes)
    assert bool(torch.isfinite(other.gaussians.means).all())
    assert not torch.equal(plain.gaussians.sh, other.gaussians.sh)


@pytest.mark.parametrize("prompt", ["赤い猫", "cat " * 2400, "🦊 лиса"])
def test_odd_prompts(weights, cloud, tmp_path, prompt):
    asset = text_to_3d(
        prompt,
        **QUICK | {"steps": 1},
        model="gaussian-dreamer",
        weights=weights,
        start=str(cloud),
        mesh=False,
        device="cpu",
    )
    assert ("prompt_used" in asset.report["gaussian_dreamer"]) == (len(prompt) > 100)


def test_bad_input_is_refused_with_advice(weights, cloud, tmp_path, capsys):
    def fails(expected: str, *more: str, use=weights, **changes) -> None:
        assert command(use, tmp_path / "out", *more, **changes) == 2
        assert expected in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    fails("prompt is empty", prompt="  ")
    fails("at most 10,000", prompt="x" * 10_001)
    fails("does not exist", start=str(tmp_path / "none.ply"))
    fails("multiple of 4", prior="mvdream")
    fails("more than --max-gaussians", max_gaussians=1000)
    wrong = {**weights, "sd21-base": weights["mvdream"]}
    fails("--prior mvdream", use=wrong, start=str(cloud))
    fails("no Stable Diffusion folder", use={**weights, "sd21-base": tmp_path}, start=str(cloud))


def test_damaged_weights_are_named(weights, cloud, tmp_path):
    import shutil

    folder = tmp_path / "sd"
    shutil.copytree(weights["sd21-base"], folder)
    path = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="diffusion_pytorch_model"):
        text_to_3d(
            "a cat",
            **QUICK,
            model="gaussian-dreamer",
            weights={**weights, "sd21-base": folder},
            start=str(cloud),
            device="cpu",
        )


def test_the_published_networks_have_the_size_of_the_published_files():
    """Stable Diffusion 2.1 base as configured by its authors, without memory; 2 bytes a number."""
    from diffusers import UNet2DConditionModel

    from bozzetto.zoo.entries import ENTRIES

    config = {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    size = next(f.size for f in ENTRIES["sd21-base"].files if f.path.startswith("unet/diffusion"))
    assert 0 < size - 2 * sum(p.numel() for p in unet.parameters()) < 200_000  # the header of the file
