"""Sums of residual branches: the kernel against plain PyTorch, values and gradients."""

from __future__ import annotations

import pytest
import torch

from bozzetto.nn.backend import kernels
from bozzetto.nn.residual import add_scaled, add_scaled_torch, add_scaled_triton

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(2, 24, 9, 10), (3, 50, 72)], ids=["maps", "tokens"])
def test_values_and_gradients(shape, biased):
    torch.manual_seed(0)
    channels = shape[1] if len(shape) == 4 else shape[2]
    inputs = [torch.randn(shape, device=DEVICE), torch.randn(shape, device=DEVICE)]
    if len(shape) == 4:
        inputs = [t.contiguous(memory_format=torch.channels_last) for t in inputs]
    inputs.append(torch.randn(channels, device=DEVICE) if biased else None)
    grad = torch.randn(shape, device=DEVICE)
    results = []
    for function in add_scaled_torch, add_scaled_triton, add_scaled:
        leaves = [None if t is None else t.detach().clone().requires_grad_() for t in inputs]
        out = function(*leaves, 0.7)
        out.backward(grad)
        results.append([out.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    for other in results[1:]:
        for a, b in zip(other, results[0]):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [16, 70])
def test_a_bias_added_in_place(channels):
    torch.manual_seed(2)
    x = torch.randn(2, channels, 9, 8, device=DEVICE).half().contiguous(memory_format=torch.channels_last)
    bias = torch.randn(channels, device=DEVICE)
    wanted = (x.double() + bias.double()[:, None, None]).half()
    got = kernels()[2].add_bias(x, bias)
    assert got is x and torch.equal(got, wanted)


def test_a_bias_added_with_moments(monkeypatch):
    """Those of the map as it was rounded; maps that are too small for it are given none."""
    from bozzetto.nn import residual_kernel
    from bozzetto.nn.moments import CHUNK, recall

    torch.manual_seed(2)
    x = torch.randn(2, 70, 32, 32, device=DEVICE).half().contiguous(memory_format=torch.channels_last)
    bias = torch.randn(70, device=DEVICE) * 3
    wanted = (x.double() + bias.double()[:, None, None]).half()
    assert recall(kernels()[2].add_bias(x.clone(memory_format=torch.preserve_format), bias, moments=True)) is None
    monkeypatch.setattr(residual_kernel, "PROGRAMS", 1)
    got = kernels()[2].add_bias(x, bias, moments=True)
    chunks = wanted.double().permute(0, 2, 3, 1).reshape(2, -1, CHUNK, 70)
    assert torch.equal(got, wanted)
    assert torch.allclose(recall(got).means.double(), chunks.mean(2), atol=1e-5)
    assert torch.allclose(recall(got).m2s.double(), chunks.var(2, correction=0) * CHUNK, rtol=1e-4)


def test_half_precision_is_rounded_once():
    torch.manual_seed(1)
    x, y = torch.randn(2, 16, 5, 5, device=DEVICE).half().contiguous(memory_format=torch.channels_last), None
    y, bias = torch.randn_like(x), torch.randn(16, device=DEVICE).half()
    exact = ((x.double() + y.double() + bias.double()[:, None, None]) * 0.5**0.5).half()
    assert (add_scaled_triton(x, y, bias, 0.5**0.5) - exact).abs().max() <= 2e-3
    assert add_scaled_triton(x, y, bias, 0.5**0.5).is_contiguous(memory_format=torch.channels_last)


def test_pictures_turned():
    """The second operand comes back from (batch, views, frames) to (batch, frames, views)."""
    torch.manual_seed(3)
    x, y = (torch.randn(12, 40, 9, 8, device=DEVICE).contiguous(memory_format=torch.channels_last) for _ in range(2))
    expected = x + y.unflatten(0, (2, 2, 3)).transpose(1, 2).flatten(0, 2)
    for function in add_scaled_torch, add_scaled_triton, add_scaled:
        assert torch.allclose(function(x, y, turn=(2, 3)), expected, atol=1e-6)
        leaf = y.clone().requires_grad_()
        result = function(x, leaf, turn=(2, 3))
        assert torch.allclose(result, expected, atol=1e-6)
        result.backward(x)
        assert torch.allclose(leaf.grad, x.unflatten(0, (2, 3, 2)).transpose(1, 2).flatten(0, 2), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 72, 21, 10), (700, 130)], ids=["maps", "tokens"])
def test_column_sums(monkeypatch, shape):
    torch.manual_seed(2)
    kernel = kernels()[2]
    monkeypatch.setattr(kernel, "PROGRAMS", 6)  # several tiles a program
    x = torch.randn(shape, device=DEVICE).half()
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = x.double().sum((0, 2, 3) if len(shape) == 4 else 0)
    assert (kernel.column_sums(x, shape[1]) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(3, 72, 21, 10), (700, 130)], ids=["maps", "tokens"])
def test_scaled_with_its_column_sums(monkeypatch, shape):
    torch.manual_seed(2)
    kernel = kernels()[2]
    monkeypatch.setattr(kernel, "PROGRAMS", 6)
    x = torch.randn(shape, device=DEVICE).half()
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    scaled, sums = kernel.scaled_with_sums(x, shape[1], 0.7)
    exact = x.double() * 0.7
    assert torch.equal(x, before) and scaled.stride() == x.stride()
    assert (scaled - exact).abs().max() < 2e-3
    assert (sums - exact.sum((0, 2, 3) if len(shape) == 4 else 0)).abs().max() < 1e-3


def test_moments_go_along_in_training(monkeypatch):
    """And the norm that finds them gives what it gives without."""
    from bozzetto.nn import residual_kernel
    from bozzetto.nn.group_norm import group_norm_triton
    from bozzetto.nn.moments import recall

    torch.manual_seed(4)
    monkeypatch.setattr(residual_kernel, "PROGRAMS", 1)
    shape = (2, 64, 64, 32)
    x, y = (torch.randn(shape, device=DEVICE).half().contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight, bias = (torch.rand(64, device=DEVICE).requires_grad_() for _ in range(2))
    results = []
    for moments in (False, True):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        total = add_scaled_triton(leaf, y, bias, 0.5**0.5, moments=moments)
        assert (recall(total) is not None) == moments
        out = group_norm_triton(total, 32, weight, bias, silu=True)
        results.append([out.detach(), *torch.autograd.grad(out.float().square().sum(), (leaf, weight, bias))])
    for got, want in zip(*results[::-1]):
        assert (got - want).float().norm() <= 2e-3 * want.float().norm()
