"""Folding pixels into channels: the values of PyTorch's, laid out channels-last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bozzetto.nn.fold import fold_pixels


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_values_and_gradients(patch, dtype, last):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, 16).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    x.requires_grad_()
    got = fold_pixels(x, patch, dtype)
    want = F.pixel_unshuffle(x, patch).to(dtype or x.dtype)
    assert torch.equal(got, want) and got.is_contiguous(memory_format=torch.channels_last)
    by = torch.randn(want.shape)
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
