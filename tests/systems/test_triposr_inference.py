"""The network laid out for inference: the same numbers as the plain one, in each precision."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from bozzetto.errors import InputError
from bozzetto.systems.triposr import inference
from bozzetto.systems.triposr.checkpoint import load_triposr
from bozzetto.systems.triposr.config import read_config
from bozzetto.systems.triposr.inference import InferenceTripoSR, add_norm, add_norm_torch
from bozzetto.systems.triposr.network import TripoSR
from bozzetto.systems.triposr.pipeline import load_network, photos_to_fields
from bozzetto.systems.triposr.preprocess import resize_photos

sys.path.insert(0, str(Path(__file__).resolve().parent))
from micro_triposr import fill_seeded, write_config, write_micro_triposr

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISIONS = [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    model = TripoSR(read_config(write_config(tmp_path_factory.mktemp("micro"))))
    fill_seeded(model)
    return model.eval().requires_grad_(False).to(DEVICE)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)).to(DEVICE)


def distance(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_same_planes_as_the_plain_network(network, images, dtype, tolerance):
    expected = network(images)
    prepared = InferenceTripoSR(network, dtype)
    for _ in range(3):  # on a GPU: eagerly, recorded, replayed
        planes = prepared(images)
        assert planes.dtype == torch.float32 and planes.shape == expected.shape
        assert distance(planes, expected) < (tolerance if DEVICE.type == "cpu" else max(tolerance, 2e-3))
    assert distance(prepared(images[1:]), expected[1:]) < max(tolerance, 2e-3)
    with pytest.raises(ValueError, match="64, 64"):
        prepared(images[..., :32])


def test_reference_planes(shared, fill, tmp_path):
    """Against the outputs of the public code."""
    golden = np.load(shared / "parity" / "triposr" / "image_to_triplane.npz")
    import json

    spec = json.loads((shared / "parity" / "triposr" / "micro.json").read_text())["inputs"]["triposr/image"]
    photo = torch.from_numpy(fill.test_input("triposr/image", *spec))
    model = TripoSR(read_config(write_config(tmp_path)))
    fill.fill_module(model)
    images = resize_photos([photo], 64).to(DEVICE)
    expected = torch.from_numpy(golden["scene_codes"]).to(DEVICE)
    for dtype, tolerance in PRECISIONS:
        prepared = InferenceTripoSR(model.eval().requires_grad_(False).to(DEVICE), dtype)
        assert distance(prepared(images), expected) < (tolerance if DEVICE.type == "cpu" else max(tolerance, 2e-3))


def test_another_precision_from_the_same_weights(network, images):
    half = InferenceTripoSR(network, torch.float16)
    other = half.in_precision(torch.bfloat16)
    assert (half.dtype, other.dtype) == (torch.float16, torch.bfloat16)
    assert other.blocks[0].up[0].dtype == torch.bfloat16 and half.blocks[0].up[0].dtype == torch.float16
    assert other.start.dtype == torch.float32 and other.decoder is half.decoder
    assert distance(other(images), network(images)) < 2e-2


def test_overflow_of_float16_is_mended_by_bfloat16(tmp_path, monkeypatch):
    write_micro_triposr(tmp_path)
    model = load_triposr(tmp_path, DEVICE)
    photo = torch.rand(20, 20, 4)
    expected = photos_to_fields(model, [photo])[0].triplane
    for block in model.backbone.transformer_blocks:  # queries too large for float16, products with keys as before
        block.attn2.to_q.weight *= 2.0**17
        block.attn2.to_k.weight *= 2.0**-17
    half = InferenceTripoSR(model)
    images = torch.rand(1, 3, 64, 64, device=DEVICE)
    assert not torch.isfinite(half(images)).all()
    assert distance(photos_to_fields(half, [photo])[0].triplane, expected) < 3e-2
    half.last_bias[:] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        photos_to_fields(half, [photo])


def test_memory_is_free_when_the_network_is_let_go_of(network, images):
    prepared = InferenceTripoSR(network)
    prepared(images)
    weight = weakref.ref(prepared.blocks[0].up[0])
    gc.disable()
    try:
        del prepared
        assert weight() is None
    finally:
        gc.enable()


def test_network_of_a_device(tmp_path):
    write_micro_triposr(tmp_path)
    assert isinstance(load_network(tmp_path, torch.device("cpu")), TripoSR)
    if DEVICE.type == "cuda":
        assert load_network(tmp_path, DEVICE).dtype == torch.float16


@pytest.mark.parametrize("branch", [True, False])
def test_sum_and_norm(branch, monkeypatch):
    """The kernel (in Triton's interpreter where there is no GPU) and its twin."""
    pytest.importorskip("triton")
    monkeypatch.setattr(inference, "use_kernels", lambda x: True)
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(3, 5, 48, generator=generator) * 3 + 7).to(DEVICE)
    y = torch.randn(3, 5, 48, generator=generator).half().to(DEVICE) if branch else None
    norm = torch.rand(48, device=DEVICE), torch.rand(48, device=DEVICE), 1e-5
    sums = x.clone(), x.clone()
    found = add_norm(sums[0], y, norm, torch.float16)
    expected = add_norm_torch(sums[1], y, norm, torch.float32)
    assert found.dtype == torch.float16
    assert torch.allclose(sums[0], sums[1]) and torch.allclose(found.float(), expected, atol=2e-3)
    assert torch.equal(sums[0], x) != branch
