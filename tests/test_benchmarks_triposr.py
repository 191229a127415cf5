"""``benchmarks/triposr.py``: a toy run of all of its tables."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "systems"))

import triposr
from micro_triposr import write_config

from bozzetto.systems.triposr.config import read_config


def test_toy_run(tmp_path, capsys):
    arguments = ["--resolution", "32", "--runs", "1"]
    assert triposr.main(arguments, read_config(write_config(tmp_path))) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    table = {row[0]: row[1:] for row in rows}
    assert float(table["plain, float32"][0]) > 0
    assert "crossings come or go" in table["ball, 32³"][-1] and "crossings come or go" in table["rough, 32³"][-1]
    vertices, faces = (int(cell.replace(",", "")) for cell in table["32³"][-2:])
    assert faces == 2 * vertices - 4  # one closed ball


def test_shift_of_a_surface():
    axis = torch.linspace(0, 40, 21)
    exact = axis[:, None, None].expand(21, 21, 21)
    assert "mean 1.0e-01, 99 % below 1.0e-01" in triposr.surface_shift(exact + 0.2, exact)  # a slope of 2 a voxel
    assert triposr.surface_shift(exact + 3.9, exact).startswith(
        "882 of 441 crossings"
    )  # two voxels away: none is the same


def test_photo_has_a_foreground():
    photo = triposr.made_up_photo(40)
    assert photo.shape == (40, 40, 4) and 0 < float(photo[..., 3].mean()) < 0.7
