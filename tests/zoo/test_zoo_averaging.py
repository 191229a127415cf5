"""Means of weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from bozzetto.errors import CheckpointError
from bozzetto.zoo.averaging import mean_weights
from bozzetto.zoo.saving import save_weights


@pytest.fixture
def file(tmp_path):
    def write(name, **tensors):
        save_file(tensors, tmp_path / name)
        return str(tmp_path / name)

    return write


def test_mean_is_taken_in_float32_and_whole_numbers_stay(file):
    """In float16 the sum would overflow, and the second summand be lost in the first."""
    a = file("a.safetensors", w=torch.tensor([60000.0, 1.0]).half(), n=torch.tensor([3]))
    b = file("b.safetensors", w=torch.tensor([60000.0, 2.0]).half(), n=torch.tensor([3]))
    mean = mean_weights([a, b])
    assert mean["w"].tolist() == [60000.0, 1.5] and mean["w"].dtype == torch.float32
    assert mean["n"].tolist() == [3] and mean["n"].dtype == torch.int64
    assert mean_weights([a, b, b])["w"][1] == pytest.approx(5 / 3)
    assert mean_weights([a])["w"].tolist() == [60000.0, 1.0]


def test_files_of_8_bits_are_multiplied_out(tmp_path, file):
    torch.manual_seed(0)
    whole = torch.randn(64, 64)
    save_weights({"w": whole}, tmp_path / "a.safetensors", dtype=torch.int8)
    mean = mean_weights([str(tmp_path / "a.safetensors"), file("b.safetensors", w=torch.zeros(64, 64))])
    assert list(mean) == ["w"] and float((mean["w"] - whole / 2).abs().max()) < 0.02


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.zeros(2)}, "lacks n"),
        ({"w": torch.zeros(2), "n": torch.tensor([3]), "v": torch.zeros(1)}, "has v besides"),
        ({"w": torch.zeros(3), "n": torch.tensor([3])}, r"w is \[3\] instead of \[2\]"),
        ({"w": torch.zeros(2), "n": torch.tensor([4])}, "n has other whole numbers"),
    ],
)
def test_other_networks_have_no_mean(file, tensors, message):
    a = file("a.safetensors", w=torch.zeros(2), n=torch.tensor([3]))
    with pytest.raises(CheckpointError, match=message):
        mean_weights([a, file("b.safetensors", **tensors)])
