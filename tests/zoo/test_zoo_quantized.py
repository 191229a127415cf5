"""8-bit weights in files: near the originals, seen by every reader as what they stand for, and damage told apart."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bozzetto.errors import CheckpointError, InputError
from bozzetto.systems.lgm.checkpoint import guess_preset, load_lgm, save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.training.checkpoint import load_training_state
from bozzetto.zoo.identify import identify, read_shapes, refuse_other_weights
from bozzetto.zoo.loading import read_metadata, read_tensors
from bozzetto.zoo.quantized import LAYOUT, MARK, SUFFIX, dequantised, is_large, quantise
from bozzetto.zoo.saving import save_weights


def error(weight: torch.Tensor, integers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Squared error of each channel."""
    made = integers.float() * scale.view(-1, *[1] * (weight.ndim - 1))
    return (made - weight).flatten(1).square().sum(1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LGM(preset("debug")).eval()


@pytest.fixture
def file(model, tmp_path):
    save_lgm(model, tmp_path / "w.safetensors", {"preset": "debug", "steps": 3}, torch.int8)
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize("shape", [(32, 16, 3, 3), (64, 80)])
def test_scales_are_the_best_of_many(shape):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator) * torch.logspace(-5, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))
    integers, scale = quantise(weight)
    assert integers.dtype == torch.int8 and integers.shape == weight.shape and scale.dtype == torch.float32
    assert int(integers.min()) >= -127 and scale.shape == shape[:1]
    own = error(weight, integers, scale)
    largest = weight.flatten(1).abs().amax(1)
    for factor in (1.0, 0.97, 0.9, 0.8):  # no other scale is much better, and the plain one is no better anywhere
        plain = (largest / 127 * factor).view(-1, *[1] * (len(shape) - 1))
        other = error(weight, (weight / plain).round().clamp(-127, 127), plain.flatten())
        assert bool((own < other * (1 + 1e-6 if factor == 1 else 1.1)).all())
    assert bool((own.sqrt() < 0.02 * weight.flatten(1).norm(dim=1)).all())


def test_a_lone_outlier_does_not_cost_the_rest():
    many = torch.randn(8, 200_000, generator=torch.Generator().manual_seed(0))
    weight = torch.cat([many, torch.full((8, 1), 9.0)], 1)
    plain = weight.abs().amax(1) / 127
    integers, scale = quantise(weight)
    assert bool((scale < 0.7 * plain).all()) and bool((integers[:, -1] == 127).all())
    largest_only = error(weight, (weight / plain[:, None]).round(), plain)
    assert bool((error(weight, integers, scale) < 0.6 * largest_only).all())


def test_zeros_and_numbers_that_are_none():
    weight = torch.ones(8, 600)
    weight[0], weight[1, 3], weight[2, 5] = 0, float("nan"), float("inf")
    integers, scale = quantise(weight)
    made = dequantised({"a": integers, "a" + SUFFIX: scale}, {}, "here")["a"]
    assert not bool(made[0].any()) and torch.allclose(made[3:], weight[3:])
    assert not bool(made[1].isfinite().all()) and not bool(made[2].isfinite().all())


def test_what_is_stored_as_integers():
    assert is_large(torch.zeros(64, 64)) and is_large(torch.zeros(16, 32, 3, 3).half())
    small = (
        torch.zeros(9000),
        torch.zeros(14, 14, 1, 1),
        torch.zeros(1, 256, 64),
        torch.zeros(64, 64, dtype=torch.int32),
    )
    assert not any(map(is_large, small))


def test_round_trip(model, file, tmp_path):
    save_lgm(model, tmp_path / "half.safetensors")
    assert file.stat().st_size < 0.56 * (tmp_path / "half.safetensors").stat().st_size
    loaded, large = load_lgm(file), 0
    assert loaded.config == preset("debug")
    for key, value in model.state_dict().items():
        got = loaded.state_dict()[key]
        assert got.dtype == torch.float32 and got.shape == value.shape
        if is_large(value):
            large += 1
            assert 0 < float((got - value).norm() / value.norm()) < 0.02
        else:
            assert torch.equal(got, value.half().float())
    assert large > 5
    about = read_metadata(file)
    assert about == {"preset": "debug", "steps": "3", MARK: LAYOUT} and json.loads(about["steps"]) == 3
    with safe_open(file, "pt") as opened:
        assert sum(opened.get_slice(k).get_dtype() == "I8" for k in opened.keys()) == large  # noqa: SIM118


def test_everyone_sees_the_weights_that_they_stand_for(model, file):
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert read_shapes(file) == shapes == {k: tuple(v.shape) for k, v in read_tensors(file).items()}
    assert guess_preset(read_shapes(file)) == "debug"
    assert identify(read_shapes(file), "w").entry == "lgm-mini"
    refuse_other_weights("lgm-mini", file)
    with pytest.raises(CheckpointError, match="not TripoSR"):
        refuse_other_weights("triposr", file)
    assert {t.dtype for t in read_tensors(file).values()} == {torch.float32, torch.float16}
    assert {t.dtype for t in read_tensors(file, dtype=torch.float16).values()} == {torch.float16}
    assert all(t.dtype == torch.bfloat16 for t in load_lgm(file, dtype=torch.bfloat16).state_dict().values())


def test_training_starts_from_them(model, file):
    own, average = LGM(preset("debug")), LGM(preset("debug"))
    assert load_training_state(file, own, average, None) == 0
    want = read_tensors(file)
    for key, value in average.state_dict().items():
        assert torch.equal(value, want[key].float()) and torch.equal(own.state_dict()[key], value)


KEY = "unet.conv_in.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(KEY + SUFFIX), rf"damaged or half file.* 1 weights without their scales: {KEY}; get"),
        (lambda s: s.pop(KEY), rf"1 scales without their int8 weights: {KEY}; get"),
        (lambda s: s.update({KEY: s[KEY].half()}), "scales without their int8 weights"),
        (lambda s: s.update({KEY + SUFFIX: s[KEY + SUFFIX][1:].clone()}), r"do not fit their weights: unet.conv_in.weight \("),
        (lambda s: s.update({KEY + SUFFIX: torch.ones_like(s[KEY + SUFFIX], dtype=torch.int32)}), "do not fit"),
        (lambda s: [s.pop(KEY), s.pop(KEY + SUFFIX)], f"1 missing: {KEY}"),
        (lambda s: [s.pop(k) for k in list(s) if k.endswith(SUFFIX)], r"\d+ weights without their scales: .* and \d+ more"),
        (lambda s: s[KEY + SUFFIX].fill_(float("nan")), f"NaN or infinity in {KEY}"),
    ],
)  # fmt: skip
def test_a_broken_or_half_file_says_what_is_missing(file, change, message):
    stored = {k: v.clone() for k, v in load_file(file).items()}
    change(stored)
    save_file(stored, file, {MARK: LAYOUT})
    with pytest.raises(CheckpointError, match=message):
        load_lgm(file, "debug")


def test_cut_anywhere_it_is_refused(file):
    content = file.read_bytes()
    for part in (4, 40, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:part])
        for read in (read_tensors, read_shapes):
            with pytest.raises(CheckpointError, match="not a valid safetensors file"):
                read(file)


def test_the_mark(file):
    stored, want = load_file(file), read_tensors(file)
    save_file(stored, file)  # by a tool that keeps no metadata
    got = read_tensors(file)
    assert all(torch.equal(got[k], v) for k, v in want.items()) and got.keys() == want.keys()
    save_file(stored, file, {MARK: "int2"})
    with pytest.raises(CheckpointError, match="'int2', which this version cannot read"):
        read_tensors(file)
    save_file({k: v for k, v in stored.items() if not k.endswith(SUFFIX)}, file)
    with pytest.raises(CheckpointError, match=r"\d+ of whole numbers: unet\.conv_in\.weight"):
        load_lgm(file, "debug")


def test_saving(tmp_path):
    state = {"a": torch.ones(3), "steps": torch.tensor(7)}
    state["tied"] = state["a"]
    path = tmp_path / "w.safetensors"
    for dtype in (torch.float16, torch.float32, torch.bfloat16, torch.int8):
        save_weights(state, path, dtype=dtype)
        got = read_tensors(path)
        assert got["a"].dtype == (torch.float16 if dtype == torch.int8 else dtype) and int(got["steps"]) == 7
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"too large are numbers of b; use fp32"):
        save_weights({"b": torch.full((2,), 1e6), "c": torch.full((2,), float("inf"))}, path)
    with pytest.raises(ValueError, match="float16, bfloat16, float32 or int8"):
        save_weights(state, path, dtype=torch.float64)
    assert path.read_bytes() == before
    save_weights(read_tensors(path), path, {**read_metadata(path), "kept": "yes"}, torch.float32)
    assert read_metadata(path) == {"kept": "yes"}  # the mark is of the file that was read


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_what_was_saved(tmp_path):
    (tmp_path / "any").touch()
    save_weights({"a": torch.ones(3)}, tmp_path / "w.safetensors")
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == stat.S_IMODE((tmp_path / "any").stat().st_mode)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_multiplied_out_on_the_gpu(file, dtype):
    here, there = read_tensors(file, dtype=dtype), read_tensors(file, "cuda", dtype)
    assert all(there[k].is_cuda and torch.equal(there[k].cpu(), v) for k, v in here.items())
    loaded = load_lgm(file, device="cuda", dtype=dtype).state_dict()
    assert all(torch.equal(loaded[k].cpu(), v.to(dtype)) for k, v in here.items())
