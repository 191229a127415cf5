"""Commands do what they were asked or say that they cannot: names, copies, layouts, quiet."""

from __future__ import annotations

import ast
import json
import tomllib
import types
from pathlib import Path

import pytest
import torch

import bozzetto
from bozzetto import Gaussians
from bozzetto.app import cli
from bozzetto.app.cli import main
from bozzetto.app.commands import image
from bozzetto.app.many import folders
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset


@pytest.fixture
def splats(tmp_path) -> Path:
    torch.manual_seed(0)
    means = torch.randn(50, 3) * 0.3
    quats = torch.tensor([1.0, 0, 0, 0]).expand(50, 4)
    gaussians = Gaussians.from_rgb(means, torch.full((50, 3), 0.05), quats, torch.full((50,), 0.9), torch.rand(50, 3))
    gaussians.save(tmp_path / "splats.ply")
    return tmp_path / "splats.ply"


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["x/a.png", "y/a.png", "z/a_2.png"], ["a", "a_2", "a_2_2"]),
        (["a_2.png", "a.png", "b/a.png"], ["a_2", "a", "a_3"]),
        (["Cup.png", "cup.jpg", "CUP.webp"], ["Cup", "cup_2", "CUP_3"]),
        (["caf\u00e9.png", "cafe\u0301.png"], ["caf\u00e9", "cafe\u0301_2"]),  # one name, two spellings in Unicode
    ],
)
def test_no_two_photos_share_a_folder(photos, names):
    assert folders([Path(p).stem for p in photos], "out") == [Path("out") / n for n in names]


def test_one_photo_takes_the_folder_itself():
    assert folders(["a"], "out") == [Path("out")]


def test_ctrl_c_claims_only_what_is_true(monkeypatch, capsys):
    """Earlier photos' results stay, so the message must not say that nothing was written."""

    def stop(options, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "run", stop)
    assert cli.main(["image", "a.png", "b.png", "-o", "out"]) == 130
    err = capsys.readouterr().err
    assert "stopped" in err and "partial" in err and "nothing" not in err


@pytest.mark.parametrize("given", ["page", "folder"])
def test_view_copies_an_existing_page(given, splats, tmp_path, capsys):
    folder = tmp_path / "result"
    assert main(["view", str(splats), "-o", str(folder / "viewer.html"), "--no-open"]) == 0
    source = folder if given == "folder" else folder / "viewer.html"
    target = tmp_path / "new" / "copy.html"
    capsys.readouterr()
    assert main(["view", str(source), "-o", str(target), "--no-open"]) == 0
    assert target.read_bytes() == (folder / "viewer.html").read_bytes()
    assert capsys.readouterr().out.strip() == str(target)
    assert [p.name for p in target.parent.iterdir()] == ["copy.html"]
    # onto itself, and under a name that no browser opens as a page
    assert main(["view", str(source), "-o", str(folder / "viewer.html"), "--no-open"]) == 0
    assert (folder / "viewer.html").stat().st_size == target.stat().st_size
    assert main(["view", str(source), "-o", str(tmp_path / "copy.txt"), "--no-open"]) == 4
    assert not (tmp_path / "copy.txt").exists()


@pytest.mark.parametrize("target", ["a.splat", "a.html", "a.glb"])
def test_layout_is_refused_where_it_means_nothing(target, splats, tmp_path, capsys):
    assert main(["convert", str(splats), str(tmp_path / target), "--layout", "lgm"]) == 2
    assert "--layout" in capsys.readouterr().err and not (tmp_path / target).exists()


def test_layout_of_a_mesh_ply_is_refused(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "m.glb"), str(tmp_path / "m.ply"), "--layout", "lgm"]) == 2
    assert "--layout" in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_quiet_evaluation_prints_nothing(quiet, tmp_path, monkeypatch, capsys):
    numbers = types.SimpleNamespace(numbers={"four_views_novel": 20.5}, sheet=torch.zeros(4, 4, 3))
    with torch.device("meta"):
        model = LGM(preset("debug"))
    monkeypatch.setattr("bozzetto.zoo.load", lambda *a: model)
    monkeypatch.setattr("bozzetto.systems.lgm.evaluation.evaluate_procedural", lambda *a, **k: numbers)
    out = tmp_path / "report"
    assert main(["evaluate", "lgm-mini", "-o", str(out), "--objects", "1", "--device", "cpu", *quiet]) == 0
    printed = capsys.readouterr().out
    assert ("20.50 dB" in printed) is not bool(quiet)
    assert bool(printed) is not bool(quiet)
    assert json.loads((out / "evaluation.json").read_text())["psnr"] == numbers.numbers


def test_quiet_still_lists_the_models(capsys):
    assert main(["models", "-q"]) == 0
    assert "lgm-mini" in capsys.readouterr().out


def test_every_module_says_what_it_is_for():
    source = Path(bozzetto.__file__).parent
    bare = [p for p in source.rglob("*.py") if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert bare == []


def test_package_data_names_files_that_exist():
    """And every file of the package that is no module is named."""
    source = Path(bozzetto.__file__).parent
    project = source.parent.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("bozzetto is not run from its repository")
    patterns = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["bozzetto"]
    named = {pattern: set(source.glob(pattern)) for pattern in patterns}
    assert all(named.values()), named
    other = {p for p in source.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".nbi", ".nbc")}
    assert other == set().union(*named.values())


def test_a_missing_model_file_is_refused_once_and_before_any_photo(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bozzetto.api.image_to_3d", lambda *a, **k: pytest.fail("a photo was looked at"))
    model = str(tmp_path / "none.safetensors")
    assert main(["image", "a.png", "b.png", "-o", str(tmp_path / "out"), "--model", model]) == 2
    assert capsys.readouterr().err.count("no such file") == 1
