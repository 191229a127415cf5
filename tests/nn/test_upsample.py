"""Upsampling as four small convolutions: the arithmetic identity, and the kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bozzetto.nn.backend import kernels
from bozzetto.nn.layout import for_inference
from bozzetto.nn.upsample import UpsampleConv, interleave_torch, quarter_weights, transposed_weights

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_four_convolutions_equal_one():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, 4, 3).double(), torch.randn(6, 5, 3, 3).double(), torch.randn(6).double()
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    got = interleave_torch(F.conv2d(x, quarter_weights(weight), padding=1), bias)
    assert (got - expected).abs().max() < 1e-12


def test_one_transposed_convolution_equals_one():
    torch.manual_seed(4)
    x, weight = torch.randn(2, 5, 4, 3).double(), torch.randn(6, 5, 3, 3).double()
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1)
    got = F.conv_transpose2d(x, transposed_weights(weight), stride=2, padding=1)
    assert got.shape == expected.shape and (got - expected).abs().max() < 1e-12


@pytest.mark.parametrize("autocast", [False, True])
def test_training_takes_the_transposed_convolution(monkeypatch, autocast):
    """Values and gradients, on a CPU with the kernels of the bias left out."""
    torch.manual_seed(5)
    if DEVICE == "cpu":
        monkeypatch.setattr("bozzetto.nn.upsample.use_kernels", lambda x: True)
    layer = UpsampleConv(32, 48).to(DEVICE)
    x = torch.randn(2, 32, 6, 5, device=DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
    by = torch.randn(2, 48, 12, 10, device=DEVICE)
    called = []
    monkeypatch.setattr(layer, "_transposed", lambda y, f=layer._transposed: called.append(1) or f(y))
    with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast and DEVICE == "cuda"):
        got = layer(x)
    expected = F.conv2d(
        F.interpolate(x.double(), scale_factor=2.0), *(p.double() for p in (layer.weight, layer.bias)), padding=1
    )
    leaves = (x, layer.weight, layer.bias)
    gradients = [torch.autograd.grad(y, leaves, by.to(y.dtype)) for y in (got, expected)]
    for a, b in ((got, expected), *zip(*gradients)):
        a, b = a.detach().double(), b.detach().double()
        error = float((a - b).norm() / b.norm())
        assert error < (1e-2 if autocast and DEVICE == "cuda" else 2e-3 if DEVICE == "cuda" else 1e-5)
    assert called


@pytest.mark.parametrize("biased", [True, False])
def test_kernel(biased):
    pytest.importorskip("triton")
    torch.manual_seed(1)
    z = torch.randn(2, 4 * 24, 6, 5, device=DEVICE).contiguous(memory_format=torch.channels_last)
    bias = torch.randn(24, device=DEVICE) if biased else None
    got = kernels()[3].interleave(z, bias)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(got, interleave_torch(z, bias), atol=1e-6)


def test_module_keeps_its_keys_and_forgets_sums_of_old_weights():
    torch.manual_seed(2)
    layer = UpsampleConv(4, 4)
    assert list(layer.state_dict()) == ["weight", "bias"]
    x = torch.randn(1, 4, 3, 3)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    for_inference(layer)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    layer.quarters = torch.zeros(16, 4, 2, 2)
    layer.load_state_dict(layer.state_dict())
    assert layer.quarters is None
    layer.quarters = torch.zeros(16, 4, 2, 2)
    assert layer.train().quarters is None


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_folded_layer_on_the_device():
    torch.manual_seed(3)
    layer = UpsampleConv(64, 64)
    x = torch.randn(2, 64, 8, 8).cuda().half().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = layer.double()(x.double().cpu())
    for_inference(layer, "cuda", torch.float16)
    assert layer.quarters is not None
    got = layer(x).double().cpu()
    assert float((got - expected).norm() / expected.norm()) < 2e-3
