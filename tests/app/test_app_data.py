"""`bozzetto data` from end to end on a small folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bozzetto.app.cli import main
from bozzetto.app.commands import data as command
from bozzetto.data.assets.packages import MARK
from bozzetto.files.images import read_image


def ball_obj(radius: float) -> str:
    """A closed ball of 96 triangles."""
    lines = []
    for i in range(7):
        theta = np.pi * i / 6
        for j in range(8):
            phi = 2 * np.pi * j / 8
            point = radius * np.array([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)])
            lines.append("v " + " ".join(f"{x:.5f}" for x in point))
    for i in range(6):
        for j in range(8):
            a, b, c, d = 8 * i + j, 8 * i + (j + 1) % 8, 8 * (i + 1) + (j + 1) % 8, 8 * (i + 1) + j
            lines.append(f"f {a + 1} {b + 1} {c + 1} {d + 1}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "My models"
    folder.mkdir()
    for i, name in enumerate(("redBall", "blue_ball", "globe")):
        (folder / f"{name}.obj").write_text(ball_obj(1 + i))
    (folder / "broken.obj").write_text("v 1 2\nf 1 2 3\n")
    return folder


def test_convert_stats_sheet_verify(models, tmp_path, capsys):
    out = tmp_path / "assets"
    assert main(["data", "convert", str(models), "-o", str(out), "--licence", "CC0-1.0", "--author", "Jane"]) == 0
    said = capsys.readouterr().out
    assert "my_models: 3 objects" in said and "refused 1: cannot be read" in said
    assert (out / "my_models-00000.assets").is_file() and "CC0-1.0: Jane (3)" in (out / "ATTRIBUTION.md").read_text()
    assert main(["data", "stats", str(out), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)["my_models"]
    assert numbers["objects"] == 3 and numbers["licences"] == {"CC0-1.0": 3} and numbers["captioned"] == 3
    assert main(["data", "stats", str(out)]) == 0
    assert "3 objects in 3 groups" in capsys.readouterr().out
    picture = tmp_path / "sheet.png"
    assert main(["data", "sheet", str(out), "-o", str(picture), "--size", "32", "--columns", "2", "--count", "3"]) == 0
    assert read_image(picture).rgba.shape == (88, 64, 4)
    assert main(["data", "sheet", str(out), "-o", str(picture), "--size", "32", "--find", "GLOBE", "--views", "3"]) == 0
    assert read_image(picture).rgba.shape[:2] == (44, 96)  # no wider than it has cells
    assert main(["data", "verify", str(out)]) == 0
    shard = out / "my_models-00000.assets"
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 255
    shard.write_bytes(raw)
    assert main(["data", "verify", str(out)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_list_names_every_collection(tmp_path, capsys):
    from bozzetto.data.sources.registry import LIGHT, SOURCES

    (tmp_path / "sweethome3d-furniture").mkdir()
    (tmp_path / "sweethome3d-furniture" / MARK).write_text('{"version": "1", "size": 1, "sha256": "0"}')
    assert main(["data", "list", "--packages", str(tmp_path), "--json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert set(rows) == {*SOURCES, LIGHT.name} and rows[LIGHT.name]["use"] == "light"
    assert rows["sweethome3d"]["here"] and not rows["zeroad"]["here"]
    assert rows["ufoai"]["use"] == "test only" and rows["zeroad"]["use"] == "training"
    assert main(["data", "list"]) == 0
    assert "sweethome3d" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["convert", "sweethome3d", "-o", "OUT"], "--packages"),
        (["convert", "sweethome3d", "--packages", "EMPTY", "-o", "OUT"], "bozzetto data download sweethome3d"),
        (["convert", "ducks", "-o", "OUT"], "neither a folder nor a source"),
        (["convert", "EMPTY", "-o", "OUT"], "holds no objects"),
        (["convert", "MODELS", "-o", "OUT", "--name", "zeroad"], "known collection"),
        (["convert", "MODELS", "-o", "OUT", "--name", "infinigen"], "add --licence"),
        (["convert", "MODELS", "-o", "OUT", "--texture-size", "100"], "power of two"),
        (["convert", "MODELS", "-o", "OUT", "--name", "../up"], "cannot name a source"),
        (["convert", "MODELS", "-o", "OUT", "--turn", "nan"], "number of degrees"),
        (["convert", "MODELS", "MODELS", "-o", "OUT"], "same name"),
        (["download", "ducks", "-o", "OUT"], "no asset source is called"),
        (["stats", "EMPTY"], "not a dataset folder"),
        (["sheet", "EMPTY", "-o", "x.png"], "not a dataset folder"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(models, tmp_path, capsys, arguments, reason):
    (tmp_path / "empty").mkdir()
    places = {"OUT": tmp_path / "out", "EMPTY": tmp_path / "empty", "MODELS": models}
    assert main(["data", *(str(places.get(a, a)) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert reason in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_download_names_the_folders(tmp_path, capsys, monkeypatch):
    asked = []

    def fetch(package, folder, tell, keep=False):
        asked.append((package, keep))
        return tmp_path / package

    monkeypatch.setattr("bozzetto.data.assets.packages.fetch_package", fetch)
    assert main(["data", "download", "sweethome3d", "openarena", "-o", str(tmp_path), "--keep"]) == 0
    assert ("sweethome3d-furniture", True) in asked and len(asked) > 2
    assert str(tmp_path / "sweethome3d-furniture") in capsys.readouterr().out


def test_every_action_has_help_with_examples(capsys):
    for action in ("list", "download", "convert", "sheet", "stats", "verify"):
        with pytest.raises(SystemExit) as left:
            main(["data", action, "--help"])
        assert left.value.code == 0
        assert f"bozzetto data {action}" in capsys.readouterr().out
    assert all(example.startswith("bozzetto data ") for example in command.EXAMPLES)


@pytest.mark.parametrize("action", ["copy", "render"])
def test_a_flag_that_does_not_exist_is_refused(action, models, tmp_path, capsys):
    out = tmp_path / "assets"
    assert main(["data", "convert", str(models), "-o", str(out), "--licence", "CC0-1.0"]) == 0
    capsys.readouterr()
    new = tmp_path / "new"
    assert main(["data", action, str(out), "-o", str(new), "--without", "peices"]) == 2
    said = capsys.readouterr().err
    assert "'peices'" in said and "pieces, decimated" in said and not list(tmp_path.glob("new/*"))
