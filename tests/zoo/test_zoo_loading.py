"""Checkpoints: strict, listing what is wrong, and never running code."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from bozzetto.errors import CheckpointError, InputError, UnknownModelError
from bozzetto.systems.lgm.checkpoint import load_lgm, save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.zoo import load, weights_file
from bozzetto.zoo.loading import read_tensors


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LGM(preset("debug")).eval()


def test_round_trip_recognises_the_preset(model, tmp_path):
    save_lgm(model, tmp_path / "w.safetensors", {"note": "test"})
    loaded = load_lgm(tmp_path / "w.safetensors")
    assert loaded.config == preset("debug")
    for key, value in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key], value, atol=2e-3)


def test_torch_checkpoint_with_loss_network_beside_it(model, tmp_path):
    state = {**model.state_dict(), "lpips_loss.net.weight": torch.zeros(3)}
    torch.save(state, tmp_path / "w.pt")
    assert torch.equal(load_lgm(tmp_path / "w.pt").conv.weight, model.conv.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv.bias"), r"1 missing: conv\.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda s: s.update({"conv.bias": torch.zeros(3)}), r"1 misshapen: conv\.bias \(3,\) instead of \(14,\)"),
        (lambda s: s.update({"conv.bias": torch.full((14,), float("nan"))}), "NaN"),
    ],
)
def test_mismatch_is_listed(model, tmp_path, change, message):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_lgm(tmp_path / "w.safetensors", "debug")


def test_foreign_tensors_fit_no_preset(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="fit none of the LGM presets"):
        load_lgm(tmp_path / "w.safetensors")


class Evil:
    def __reduce__(self):
        return (open, ("ran.txt", "w"))


def test_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(CheckpointError):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_missing_empty_and_truncated_files(model, tmp_path, name):
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_tensors(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        read_tensors(path)
    if name.endswith("pt"):
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError):
        read_tensors(path)


def test_unknown_name_lists_the_known():
    with pytest.raises(UnknownModelError, match="lgm-mini"):
        load("lgm-huge")


def test_hub_layout_in_a_local_folder(tmp_path, monkeypatch, shared, fill):
    """A hub entry is found in BOZZETTO_WEIGHTS, and its size is checked on download paths only."""
    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))
    folder = tmp_path / "ashawkey" / "LGM"
    folder.mkdir(parents=True)
    (folder / "model_fp16_fixrot.safetensors").write_bytes(b"x")
    assert weights_file("lgm-big") == folder / "model_fp16_fixrot.safetensors"
    with pytest.raises(CheckpointError):
        load("lgm-big")


def test_offline_error_says_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a: None)
    with pytest.raises(InputError, match="BOZZETTO_WEIGHTS"):
        weights_file("lgm-big")
