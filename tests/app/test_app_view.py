"""``bozzetto view``: which page is opened or written for what."""

import pytest
import torch

from bozzetto.app.cli import main
from bozzetto.files.sequence import write_sequence
from bozzetto.gaussians import Gaussians
from bozzetto.mesh import Mesh


def splats(count=20):
    g = torch.Generator().manual_seed(0)
    ones = torch.ones(count, 3)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    return Gaussians.from_rgb(
        torch.randn(count, 3, generator=g), ones * 0.05, quats, torch.full((count,), 0.9), ones * 0.5
    )


def triangle():
    return Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), colors=torch.eye(3))


def view(path, *more):
    return main(["view", str(path), "--no-open", *map(str, more)])


def test_result_folders(tmp_path, capsys):
    (tmp_path / "player.html").write_text("a player")
    assert view(tmp_path) == 0
    assert "player.html" in capsys.readouterr().out
    (tmp_path / "viewer.html").write_text("a viewer")
    assert view(tmp_path) == 0
    assert "viewer.html" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["splats.ply", "splats.4dgs", "mesh.glb", "mesh.obj"])
def test_files(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".4dgs"):
        write_sequence(path, [splats(), splats(5)], 10)
    elif name.startswith("mesh"):
        triangle().save(path)
    else:
        splats().save(path)
    assert view(tmp_path, "-o", tmp_path / "page.html") == 0  # found in the folder
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ('"film":null' in text) != name.endswith(".4dgs")
    assert ('"mesh":null' in text) != name.startswith("mesh")
    assert view(path) == 0
    assert path.with_suffix(".html").is_file()


def test_nothing_to_view(tmp_path, capsys):
    assert view(tmp_path) == 2
    assert "holds none of viewer.html, player.html" in capsys.readouterr().err
