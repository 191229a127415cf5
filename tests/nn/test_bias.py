"""A bias added on its own: values and gradients of PyTorch's convolution."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bozzetto.nn.bias import AddBias, convolve_with_bias
from bozzetto.nn.upsample import UpsampleConv

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).norm()) <= (2e-3 if DEVICE == "cuda" else 1e-5) * float(b.norm())


@pytest.mark.parametrize("kind", ["strided", "doubling"])
def test_values_and_gradients_are_those_of_the_convolution(kind):
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 20, 3, stride=2, padding=1) if kind == "strided" else UpsampleConv(12, 20)
    conv = conv.to(DEVICE, memory_format=torch.channels_last)
    x = torch.randn(3, 12, 10, 6, device=DEVICE).to(memory_format=torch.channels_last).requires_grad_()
    twin, other = copy.deepcopy(conv), x.detach().clone().requires_grad_()
    wide = other if kind == "strided" else nn.functional.interpolate(other, scale_factor=2.0)
    want = nn.Conv2d.forward(twin, wide)
    got = convolve_with_bias(x, conv) if kind == "strided" else conv(x)
    weight = torch.randn_like(want)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    assert got.shape == want.shape and close(got, want) and close(x.grad, other.grad)
    assert close(conv.bias.grad, twin.bias.grad) and close(conv.weight.grad, twin.weight.grad)


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "frozen bias"])
def test_values_without_gradients(monkeypatch, grad):
    """By the kernel; the result is the convolution's, and the input is untouched."""
    from bozzetto.nn import bias as module

    if DEVICE == "cpu":
        monkeypatch.setattr(module, "use_kernels", lambda x: True)
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 20, 3, stride=2, padding=1).to(DEVICE, memory_format=torch.channels_last).requires_grad_(False)
    x = torch.randn(3, 12, 10, 6, device=DEVICE).to(memory_format=torch.channels_last).requires_grad_(grad)
    before, want = x.detach().clone(), nn.Conv2d.forward(conv, x)
    got = convolve_with_bias(x, conv, moments=True)
    assert close(got.detach(), want.detach()) and torch.equal(x.detach(), before) and got.requires_grad == grad
    if grad:
        got.sum().backward()
        assert x.grad is not None


def test_the_bias_alone():
    y, bias = (
        torch.randn(2, 5, 4, 3, device=DEVICE).to(memory_format=torch.channels_last),
        torch.randn(5, device=DEVICE),
    )
    bias.requires_grad_()
    scaled = (y * 1.0).requires_grad_()
    got = AddBias.apply(scaled * 1.0, bias)
    assert close(got, y + bias[:, None, None])
    weight = torch.randn_like(got)
    (got * weight).sum().backward()
    assert close(bias.grad, weight.sum((0, 2, 3))) and close(scaled.grad, weight)
