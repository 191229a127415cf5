"""`bozzetto convert` with a sequence of splats: to a page, to a folder of frames, to one frame."""

from __future__ import annotations

import pytest
import torch

from bozzetto import Gaussians
from bozzetto.app.cli import main
from bozzetto.files.sequence import write_sequence


@pytest.fixture
def sequence(tmp_path):
    """Three frames of eight splats; the object is at x = 0, 1, 2."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.1, 0.1])] * 3)
    frames = []
    for k in range(3):
        quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(8, 1)
        rgb = torch.full((8, 3), 0.4)
        means = corners + torch.tensor([float(k), 0.0, 0.0])
        frames.append(Gaussians.from_rgb(means, torch.full((8, 3), 0.05), quats, torch.full((8,), 0.9), rgb))
    write_sequence(tmp_path / "a.4dgs", frames, 10.0)
    return tmp_path / "a.4dgs"


def place(path) -> float:
    return float(Gaussians.load(path).means[:, 0].mean())


def test_sequence_to_everything(sequence, tmp_path):
    assert main(["convert", str(sequence), str(tmp_path / "frames")]) == 0
    assert [place(tmp_path / "frames" / f"{k:04d}.ply") for k in range(3)] == pytest.approx([0, 1, 2], abs=1e-3)
    assert main(["convert", str(sequence), str(tmp_path / "player.html")]) == 0
    assert '"fps":10.0' in (tmp_path / "player.html").read_text()
    assert main(["convert", str(sequence), str(tmp_path / "one.ply"), "--frame", "1", "--layout", "lgm"]) == 0
    assert place(tmp_path / "one.ply") == pytest.approx(1, abs=1e-3)
    assert b"f_rest" not in (tmp_path / "one.ply").read_bytes()[:2000]
    assert main(["convert", str(sequence), str(tmp_path / "last.splat"), "--frame", "-1"]) == 0
    assert place(tmp_path / "last.splat") == pytest.approx(2, abs=1e-2)


@pytest.mark.parametrize(
    "arguments, hint",
    [
        (["a.4dgs", "b.ply"], "--frame"),
        (["a.4dgs", "b.ply", "--frame", "3"], "0 to 2"),
        (["a.4dgs", "b.html", "--frame", "0"], ".ply or .splat"),
        (["a.4dgs", "b.glb"], "--frame"),
        (["a.4dgs", "b.html", "--layout", "lgm"], "--layout"),
        (["b.ply", "c.ply", "--frame", "0"], "--frame"),
    ],
)
def test_what_a_sequence_cannot_become(sequence, tmp_path, capsys, arguments, hint):
    first, second, *rest = arguments
    assert main(["convert", str(tmp_path / first), str(tmp_path / second), *rest]) == 2
    assert hint in capsys.readouterr().err and not (tmp_path / second).exists()
