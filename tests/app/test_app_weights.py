"""Weights in other precisions: `bozzetto convert --dtype` and `bozzetto train --export-dtype`."""

from __future__ import annotations

import pytest
import torch

from bozzetto.app.cli import main
from bozzetto.systems.lgm.checkpoint import load_lgm, save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.zoo.loading import read_metadata, read_tensors
from bozzetto.zoo.quantized import LAYOUT, MARK


def test_convert_weights(tmp_path):
    torch.manual_seed(0)
    model = LGM(preset("debug"))
    save_lgm(model, tmp_path / "a.safetensors", {"note": "mine"}, torch.float32)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.ckpt")
    for source in ("a.safetensors", "a.ckpt"):
        for dtype, most in (("fp16", 1e-3), ("fp32", 1e-7), ("int8", 0.02)):
            target = tmp_path / f"{dtype}.safetensors"
            assert main(["convert", str(tmp_path / source), str(target), "--dtype", dtype, "-q"]) == 0
            about = read_metadata(target)
            assert about.get("note") == ("mine" if source == "a.safetensors" else None)
            assert about.get(MARK) == (LAYOUT if dtype == "int8" else None)
            for key, value in model.state_dict().items():
                assert float((read_tensors(target)[key].float() - value).norm()) <= most * float(value.norm()) + 1e-8
    assert main(["convert", str(tmp_path / "int8.safetensors"), str(tmp_path / "b.safetensors"), "-q"]) == 0
    assert {t.dtype for t in read_tensors(tmp_path / "b.safetensors").values()} == {torch.float16}
    assert MARK not in read_metadata(tmp_path / "b.safetensors")


def test_convert_averages(tmp_path):
    """The metadata are those of A, whose continuation the mean is."""
    files = [str(tmp_path / f"{name}.safetensors") for name in "abc"]
    for i, file in enumerate(files):
        torch.manual_seed(i)
        save_lgm(LGM(preset("debug")), file, {"note": str(i)}, torch.float32)
    target = tmp_path / "mean.safetensors"
    assert main(["convert", files[0], str(target), "--average", *files[1:], "--dtype", "fp32", "-q"]) == 0
    assert read_metadata(target)["note"] == "0"
    load_lgm(target)
    parts, mean = [read_tensors(f) for f in files], read_tensors(target)
    for name, value in mean.items():
        assert torch.allclose(value, (parts[0][name] + parts[1][name] + parts[2][name]) / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["convert", "a.ply", "b.splat", "--dtype", "int8"], "--dtype is about the weights"),
        (["convert", "a.safetensors", "b.ply", "--dtype", "int8"], "--dtype is about the weights"),
        (["convert", "a.safetensors", "b.ply"], "weights: .safetensors"),
        (["convert", "none.safetensors", "b.safetensors"], "no checkpoint at"),
        (["convert", "a.ply", "b.splat", "--average", "c.ply"], "--average is about the weights"),
        (["convert", "none.safetensors", "b.safetensors", "--average", "c.safetensors"], "no checkpoint at"),
        (["train", "lgm-mini", "-o", "run", "--export-dtype", "int8"], "--export-dtype is about the file of --export"),
        (["train", "lgm-mini", "-o", "run", "--export", "mini.pt"], "must end in .safetensors"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    assert main(command) != 0
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_run_is_not_begun_whose_weights_could_not_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "mini.safetensors")
    assert main(["train", "lgm-mini", "-o", str(tmp_path / "run"), "--preset", "debug", "--export", target]) != 0
    assert "is a file; give the name of a folder" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_run_that_goes_on_says_that_init_is_left_aside(tmp_path, capsys):
    run = ["train", "lgm-mini", "-o", str(tmp_path / "run"), "--preset", "debug", "--batch", "1", "--device", "cpu"]
    run += ["--block", "1", "--eval-objects", "1", "--sample-every", "0", "--init", "other.safetensors"]
    (tmp_path / "run").mkdir()
    assert main([*run[:-2], "--steps", "1", "-q"]) == 0
    capsys.readouterr()
    assert main([*run, "--steps", "2"]) == 0
    assert "other.safetensors is for a new folder and is left aside" in capsys.readouterr().out


def test_training_exports_8_bit_weights_and_convert_makes_the_same(tmp_path):
    run = ["train", "lgm-mini", "-o", str(tmp_path / "run"), "--preset", "debug-tokens", "--steps", "1", "--batch", "1"]
    run += ["--device", "cpu", "--block", "1", "--eval-objects", "1", "--sample-every", "0", "-q"]
    assert main([*run, "--export", str(tmp_path / "m.safetensors"), "--export-dtype", "int8"]) == 0
    about = read_metadata(tmp_path / "m.safetensors")
    assert about == {MARK: LAYOUT, "preset": "debug-tokens", "checkpoint": "checkpoint-00000001.pt"}
    assert load_lgm(tmp_path / "m.safetensors").config == preset("debug-tokens")

    state = torch.load(tmp_path / "run" / "checkpoint-00000001.pt", weights_only=True)
    assert not all(torch.equal(value, state["model"][key]) for key, value in state["ema"].items())
    source, made = str(tmp_path / "run" / "checkpoint-00000001.pt"), tmp_path / "c.safetensors"
    assert main(["convert", source, str(made), "--dtype", "int8", "-q"]) == 0
    exported, converted = read_tensors(tmp_path / "m.safetensors"), read_tensors(made)
    assert exported.keys() == converted.keys() and all(torch.equal(exported[k], converted[k]) for k in exported)
