"""Residual branches that end in a 1x1 convolution, and moments that travel with maps: kernels against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from bozzetto.nn import backend
from bozzetto.nn import residual as module
from bozzetto.nn.convolution import pointwise
from bozzetto.nn.group_norm import group_norm_torch, group_norm_triton
from bozzetto.nn.moments import CHUNK, Moments, recall, remember
from bozzetto.nn.residual import add_pointwise, add_scaled, add_scaled_torch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def half_map(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).half().contiguous(memory_format=torch.channels_last)


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x.double() - y.double()).norm() / y.double().norm())


def check_moments(x: torch.Tensor) -> None:
    chunks = x.double().flatten(2).mT.unflatten(1, (-1, CHUNK))  # [N, chunks, CHUNK, C]
    kept = recall(x)
    assert kept is not None and (kept.means - chunks.mean(2)).abs().max() < 1e-5
    assert relative(kept.m2s, chunks.var(2, correction=0) * CHUNK) < 1e-5


@pytest.fixture
def everywhere(monkeypatch):
    """Kernels for CPU tensors too (in the interpreter), and for few pixels."""
    if not backend.pointwise_kernel().usable(torch.device(DEVICE)):
        pytest.skip("the kernel is not used on this device")
    monkeypatch.setattr(module, "use_kernels", lambda x: True)
    monkeypatch.setattr(backend.pointwise_kernel(), "PROGRAMS", 1)
    monkeypatch.setattr(backend.pointwise_kernel(), "LARGE", 128)


@pytest.mark.parametrize("turn", [(1, 1), (2, 3)], ids=["as they are", "turned"])
@pytest.mark.parametrize("more", [0, 64], ids=["one map", "two"])
def test_pointwise_sum(everywhere, monkeypatch, more, turn):
    torch.manual_seed(0)
    x, residual = half_map(6, 128, 16, 8), half_map(6, 64, 16, 8)
    skip = half_map(6, more, 16, 8) if more else None
    weight = (0.1 * torch.randn(64, 128 + more, 1, 1, device=DEVICE)).half()
    bias = torch.randn(64, device=DEVICE).half()
    monkeypatch.setattr(module, "pointwise", None)  # the plain way would fail
    result = add_pointwise(residual, x, weight, bias, 0.7, skip, turn, moments=True)
    product = pointwise(x.float(), weight.float(), None if skip is None else skip.float())
    exact = add_scaled_torch(residual.float(), product, bias.float(), 0.7, turn)
    assert relative(result, exact) < 4e-4
    assert result.is_contiguous(memory_format=torch.channels_last)
    check_moments(result)
    assert recall(add_pointwise(residual, x, weight.flatten(1), bias, 0.7, skip, turn)) is None
    monkeypatch.setattr(backend.pointwise_kernel(), "LARGE", 129)  # pixels
    assert recall(add_pointwise(residual, x, weight, bias, 0.7, skip, turn, moments=True)) is None


@pytest.mark.parametrize("offset", [0.0, 40.0])
def test_sum_with_moments(everywhere, monkeypatch, offset):
    monkeypatch.setattr(backend.kernels()[2], "PROGRAMS", 32)
    torch.manual_seed(5)
    x, y, bias = half_map(2, 72, 32, 32) + offset, half_map(2, 72, 32, 32), torch.randn(72, device=DEVICE).half()
    exact = add_scaled_torch(x.double(), y.double(), bias.double(), 0.7)
    result = add_scaled(x, y, bias, 0.7, moments=True)
    assert relative(result, exact) < 4e-4
    chunks, kept = result.double().flatten(2).mT.unflatten(1, (-1, CHUNK)), recall(result)
    assert (kept.means - chunks.mean(2)).abs().max() < 1e-5 * (1 + offset)
    assert relative(kept.m2s, chunks.var(2, correction=0) * CHUNK) < 1e-5 + 1e-7 * offset**2
    assert recall(add_scaled(x, y, bias, 0.7)) is None
    for few in (x[:, :, :16], x[:1], x.float()):  # too few pixels, too few tiles, not half precision
        few = few.contiguous(memory_format=torch.channels_last)
        assert recall(add_scaled(few, few, None, moments=True)) is None


def test_what_does_not_fit_is_computed_plainly(everywhere):
    torch.manual_seed(1)
    residual, weight = half_map(2, 40, 6, 5), (0.1 * torch.randn(40, 24, 1, 1, device=DEVICE)).half()
    x, bias = half_map(2, 24, 6, 5), torch.randn(40, device=DEVICE).half()
    exact = add_scaled_torch(residual.double(), pointwise(x.double(), weight.double()), bias.double(), 0.7)
    assert relative(add_pointwise(residual, x, weight, bias, 0.7, moments=True), exact) < 1e-3


def test_gradients(everywhere):
    torch.manual_seed(2)
    x, residual, skip = (torch.randn(2, c, 16, 8, device=DEVICE, requires_grad=True) for c in (64, 128, 64))
    weight = torch.randn(128, 128, 1, 1, device=DEVICE, requires_grad=True)
    bias = torch.randn(128, device=DEVICE, requires_grad=True)
    maps = [t.contiguous(memory_format=torch.channels_last) for t in (residual, x, skip)]
    result = add_pointwise(*maps[:2], weight, bias, 0.5, maps[2], moments=True)
    slopes = torch.autograd.grad(result.sin().sum(), (residual, x, weight, bias, skip))
    plain = (residual + torch.conv2d(torch.cat([x, skip], 1), weight, bias)) * 0.5
    assert torch.allclose(result, plain, atol=2e-2 if DEVICE == "cuda" else 1e-4)
    for slope, other in zip(slopes, torch.autograd.grad(plain.sin().sum(), (residual, x, weight, bias, skip))):
        assert relative(slope, other) < (5e-3 if DEVICE == "cuda" else 1e-5)


@pytest.mark.parametrize("side", [16, 72], ids=["few pixels", "many"])
@pytest.mark.parametrize("kept", ["x", "skip", "both", "one map"])
def test_norm_of_maps_with_moments(monkeypatch, kept, side):
    """The same as without; where moments came along, they are used."""
    norm = backend.kernels()[0]
    monkeypatch.setattr(norm, "HELD", 0)
    torch.manual_seed(3)

    def made(moments: bool) -> torch.Tensor:
        x = half_map(2, 64, side, 16) + 3
        chunks = x.double().flatten(2).mT.unflatten(1, (-1, CHUNK))
        kept = Moments(chunks.mean(2).float(), (chunks.var(2, correction=0) * CHUNK).float())
        return remember(x, kept) if moments else x

    x, skip = made(kept != "skip"), None if kept == "one map" else made(kept != "x")
    channels = 64 if skip is None else 128
    weight, shift = torch.rand(channels, device=DEVICE), torch.randn(2, channels, device=DEVICE).half()
    launched = []
    launch = norm.launch
    monkeypatch.setattr(norm, "launch", lambda kernel, *rest: (launched.append(kernel), launch(kernel, *rest)))
    result = group_norm_triton(x, 8, weight, weight - 0.5, silu=True, skip=skip, shift=shift)
    exact = group_norm_torch(
        *(x.double(), 8, weight.double(), weight.double() - 0.5),
        silu=True,
        skip=None if skip is None else skip.double(),
        shift=shift.double(),
    )
    assert relative(result, exact) < 4e-4
    if kept in ("both", "one map"):
        assert launched == [norm.join_kernel, norm.normalise_kernel]
    elif side == 16:
        assert launched == [norm.small_kernel]
    else:
        assert launched == [norm.moments_kernel, norm.join_kernel, norm.normalise_kernel]


def test_first_launches_run(everywhere):
    for task in backend.pointwise_kernel().first_launches(torch.device(DEVICE), torch.float16):
        task()
