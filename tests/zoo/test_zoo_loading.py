"""Checkpoints: strict, listing what is wrong, and never running code."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import save_file

from bozzetto.errors import CheckpointError, InputError, UnknownModelError
from bozzetto.systems.lgm.checkpoint import load_lgm, save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.zoo import load, weights_file
from bozzetto.zoo.loading import place_state, read_tensors


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


def test_of_a_training_checkpoint_the_averaged_weights_are_taken(model, tmp_path):
    weights = model.state_dict()
    average = {k: v + 1 for k, v in weights.items()}
    torch.save({"model": weights, "ema": average, "optimizer": {}, "step": 3}, tmp_path / "w.pt")
    assert torch.equal(load_lgm(tmp_path / "w.pt").conv.weight, model.conv.weight + 1)
    torch.save({"model": weights, "ema": {"decay": 0.9, "shadow": average}}, tmp_path / "w.pt")  # another trainer's
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
    with pytest.raises(CheckpointError, match="not an LGM"):
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


def test_offline_error_says_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    with pytest.raises(InputError, match="BOZZETTO_WEIGHTS"):
        weights_file("lgm-big")


def saved(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    state = {"conv.weight": torch.zeros(4, 3), "bias": torch.zeros(4)}
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_any_damage_to_a_torch_file_is_a_checkpoint_error(zipped, tmp_path):
    """Cut short anywhere or with any byte of its head changed: tensors or CheckpointError, never another exception."""
    content, path, refused = saved(zipped), tmp_path / "w.pt", 0
    cut = [content[:i] for i in range(7, len(content), 7)]
    changed = [content[:i] + bytes([content[i] ^ 0x41]) + content[i + 1 :] for i in range(min(len(content), 600))]
    for damaged in cut + changed:
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > len(cut)


def test_running_out_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError

    for name, place in (("w.pt", "torch.load"), ("w.safetensors", "safetensors.torch.load_file")):
        (tmp_path / name).write_bytes(b"x")
        monkeypatch.setattr(place, full)
        with pytest.raises(MemoryError):
            read_tensors(tmp_path / name)


def test_a_mapping_without_names_is_no_state_dict(tmp_path):
    torch.save({0: torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_tensors(tmp_path / "w.pt")


def test_place_state_takes_tensors_as_they_are_and_casts_the_others(tmp_path):
    def make() -> torch.nn.Module:
        with torch.device("meta"):
            module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        return module

    with torch.no_grad():
        state = {k: torch.rand(v.shape).to(v.dtype) for k, v in make().state_dict().items()}
    own = place_state(make(), state, "here")
    assert not own.training and not any(p.requires_grad for p in own.parameters())
    assert all(torch.equal(v, state[k]) and v.dtype == state[k].dtype for k, v in own.state_dict().items())
    assert own[0].weight.data_ptr() == state["0.weight"].data_ptr()
    save_file(state, tmp_path / "w.safetensors")
    windows = read_tensors(tmp_path / "w.safetensors")
    own = place_state(make(), windows, "here")
    windows["0.weight"].zero_()  # as if the file that it is a window into changed
    assert torch.equal(own[0].weight, state["0.weight"])
    half = place_state(make(), state, "here", device="cpu", dtype=torch.float16)
    assert half[0].weight.dtype == torch.float16 and half[1].num_batches_tracked.dtype == torch.int64
    module = make()
    with pytest.raises(CheckpointError, match=r"1 missing: 0\.bias"):
        place_state(module, {k: v for k, v in state.items() if k != "0.bias"}, "here")
    assert module[0].weight.is_meta


def test_place_state_does_not_forget_buffers_that_no_file_holds():
    module = torch.nn.Module()
    module.register_buffer("positions", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(RuntimeError, match="positions"):
        place_state(module, {}, "here")


def test_loading_a_network_needs_no_symbolic_algebra(tmp_path):
    """sympy alone takes a third of a second to import; some operations on the meta device need it."""
    script = "import sys; from bozzetto.zoo import load; load('lgm-mini'); print('sympy' in sys.modules)"
    plain = "import sys, torch; print('sympy' in sys.modules)"
    told = [
        subprocess.run([sys.executable, "-c", s], capture_output=True, text=True, check=True) for s in (script, plain)
    ]
    assert told[0].stdout == told[1].stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_straight_to_the_gpu(model, tmp_path, name):
    state = {k: v.half() for k, v in model.state_dict().items()}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    assert all(t.is_cuda for t in read_tensors(tmp_path / name, "cuda").values())
    loaded = load_lgm(tmp_path / name, device="cuda")
    for key, value in loaded.state_dict().items():
        assert value.is_cuda and value.dtype == torch.float32 and torch.equal(value.cpu(), state[key].float())
    state["conv.bias"][0] = float("inf")
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in conv\.bias"):
        load_lgm(tmp_path / name, device="cuda")


def test_reading_to_the_cpu_starts_no_thread(model, tmp_path):
    save_lgm(model, tmp_path / "w.safetensors")
    before = threading.active_count()
    load_lgm(tmp_path / "w.safetensors")
    assert threading.active_count() == before
