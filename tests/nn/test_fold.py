"""Folding pixels into channels: the values of PyTorch's, laid out channels-last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bozzetto.nn.convolution import convolve_wide
from bozzetto.nn.fold import convolve_folded, fold_pixels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_values_and_gradients(patch, dtype, last):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, 16).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    x = x.to(DEVICE).requires_grad_()
    got = fold_pixels(x, patch, dtype)
    want = F.pixel_unshuffle(x, patch).to(dtype or x.dtype)
    assert torch.equal(got, want) and got.is_contiguous(memory_format=torch.channels_last)
    by = torch.randn(want.shape, device=DEVICE)
    assert all(map(torch.equal, *(torch.autograd.grad(y, x, by.to(y.dtype)) for y in (got, want))))


def test_a_copy_is_made_once(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Log():
        fold_pixels(torch.randn(2, 3, 8, 8), 4, torch.bfloat16)
    assert sum("copy" in name or "clone" in name for name in seen) == 1, seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "c", "h", "w", "patch", "wide"),
    [(2, 3, 8, 12, 2, 16), (1, 4, 6, 10, 2, 16), (1, 5, 16, 8, 4, 80), (1, 27, 8, 136, 2, 112), (2, 27, 8, 16, 4, 432)],
)
def test_the_kernel_equals_plain_pytorch(n, c, h, w, patch, wide, dtype):
    kernels = pytest.importorskip("bozzetto.nn.fold_kernel", reason="Triton exists for Linux only")
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(c)).to(DEVICE)
    got, folded = kernels.fold(x, patch, wide, dtype), F.pixel_unshuffle(x, patch)
    count = c * patch * patch
    want = folded.to(dtype)
    assert got.shape == (n, wide, h // patch, w // patch) and got.is_contiguous(memory_format=torch.channels_last)
    if dtype == torch.bfloat16 and DEVICE == "cpu":  # Triton's interpreter does not round to the nearest
        assert torch.allclose(got[:, :count].float(), folded, rtol=2**-7)
    else:
        assert torch.equal(got[:, :count], want)
    assert bool((got[:, count : count + 1] == 1).all()) and bool((got[:, count + 1 :] == 0).all())


def test_one_picture_of_a_larger_tensor():
    kernels = pytest.importorskip("bozzetto.nn.fold_kernel", reason="Triton exists for Linux only")
    x = torch.randn(3, 6, 8, 8, device=DEVICE)[:, 2:5]
    assert kernels.fits(x, 2) and not kernels.fits(x, 3)
    assert not kernels.fits(x.transpose(2, 3), 2) and not kernels.fits(x[:, :, :4], 2)
    assert torch.equal(kernels.fold(x, 2, 12, torch.float32), F.pixel_unshuffle(x, 2))


@pytest.mark.parametrize("channels", [3, 4])  # 12 channels, which are padded, and 16
def test_folded_and_convolved(channels):
    torch.manual_seed(0)
    conv = nn.Conv2d(4 * channels, 5, 3, padding=1).to(DEVICE, memory_format=torch.channels_last)
    x = torch.randn(2, channels, 8, 8, device=DEVICE)
    folded = F.pixel_unshuffle(x, 2)
    want = conv(folded)
    wide = torch.cat([folded, torch.ones_like(folded[:, :1]), torch.zeros_like(folded[:, :3])], dim=1)
    for got in (convolve_folded(x, 2, conv), convolve_wide(wide, conv)):
        assert torch.allclose(got, want, atol=2e-3 if DEVICE == "cuda" else 1e-5)
        ours, theirs = (
            torch.autograd.grad(y.square().sum(), list(conv.parameters()), retain_graph=True) for y in (got, want)
        )
        assert all(float((a - b).norm()) <= 5e-3 * float(b.norm()) for a, b in zip(ours, theirs))
