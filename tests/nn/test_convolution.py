"""A network's input padded to whole multiples of channels: the kernel against plain PyTorch, and the convolution itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bozzetto.nn import convolution
from bozzetto.nn.backend import pad_kernel
from bozzetto.nn.convolution import convolve_padded, pad_torch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("shape, wide", [((3, 9, 16, 20), 16), ((2, 3, 5, 7), 8), ((1, 11, 1, 300), 48)])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "part of more channels"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_padding(shape, wide, layout, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape, device=DEVICE).to(dtype)
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "part of more channels":
        x = torch.cat([x, x], dim=1)[:, 2 : 2 + shape[1]]
    assert pad_kernel().fits(x)
    got = pad_kernel().pad(x, wide)
    assert got.is_contiguous(memory_format=torch.channels_last) and torch.equal(got, pad_torch(x, wide))


def test_turned_pictures_are_left_to_pytorch():
    assert not pad_kernel().fits(torch.zeros(2, 9, 8, 12).transpose(2, 3))


@pytest.mark.parametrize("kernels", [False, True])
def test_padded_convolution(monkeypatch, kernels):
    torch.manual_seed(1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(convolution, "use_kernels", lambda x: kernels)
    conv, x = nn.Conv2d(9, 32, 3, padding=1).to(DEVICE), torch.randn(2, 9, 12, 12, device=DEVICE)
    expected = conv(x)
    assert torch.allclose(convolve_padded(x, conv), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(convolve_padded(x, conv), expected, atol=1e-5)
    x.requires_grad_()
    slope, _ = torch.autograd.grad(convolve_padded(x, conv).square().sum(), [x, conv.weight])
    assert torch.allclose(slope, torch.autograd.grad(conv(x).square().sum(), x)[0], rtol=1e-4, atol=1e-3)
