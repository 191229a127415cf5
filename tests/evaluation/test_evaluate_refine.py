"""``bozzetto evaluate --refine``: what is refined, what the report says, where it is refused."""

from __future__ import annotations

import json
from functools import partial

import pytest
from eval_shapes import write_gso

from bozzetto.app.cli import main
from bozzetto.evaluation import models, run
from bozzetto.fitting import refine as fitting_refine
from bozzetto.systems.lgm.checkpoint import save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset


@pytest.mark.parametrize(
    ("more", "steps", "calls"), [([], 20, 2), (["--refine", "3"], 3, 2), (["--refine", "0"], 0, 0)]
)
def test_several_given_views_are_refined_on(tmp_path, monkeypatch, more, steps, calls):
    seen = []

    def refined(gaussians, rgba, cameras, count):
        assert rgba.shape == (4, 4, 32, 32) and cameras.batch_shape == (4,)
        seen.append(count)
        return gaussians

    monkeypatch.setattr(fitting_refine, "refine_gaussians", refined)
    monkeypatch.setattr(run, "measure_object", partial(run.measure_object, size=32))
    save_lgm(LGM(preset("debug")), tmp_path / "own.safetensors")
    command = ["evaluate", str(tmp_path / "own.safetensors"), "--data", str(write_gso(tmp_path / "gso"))]
    command += ["-o", str(tmp_path / "out"), "--objects", "1", "--perceptual", "none", "--device", "cpu", *more]
    assert main(command) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["refine"] == steps and seen == [steps] * calls  # one object of each source, its four views only


def test_refused_where_it_would_do_nothing(tmp_path, capsys, monkeypatch):
    def mesh_only(name, device):
        return models.Measured(name, device, None, (), lambda picture: None)

    command = ["evaluate", "triposr", "-o", str(tmp_path / "out"), "--device", "cpu", "--perceptual", "none"]
    assert main(["evaluate", "lgm-mini", *command[2:], "--refine", "5"]) != 0
    assert "the network alone" in capsys.readouterr().err
    monkeypatch.setattr(models, "photo_model", mesh_only)
    assert main([*command, "--data", str(write_gso(tmp_path / "gso")), "--refine", "5"]) != 0
    assert "--refine does nothing" in capsys.readouterr().err and not (tmp_path / "out").exists()
