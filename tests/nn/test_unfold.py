"""A coarse map's channels as squares of pixels, added to a finer map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bozzetto.nn.unfold import add_unfolded, add_unfolded_torch, add_unfolded_triton, by_pixels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def made(n: int, c: int, h: int, w: int, patch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(c)

    def last(*shape: int) -> torch.Tensor:
        t = torch.randn(*shape, generator=generator).to(DEVICE)
        return t.contiguous(memory_format=torch.channels_last).requires_grad_()

    bias = torch.randn(patch * patch * c, generator=generator).to(DEVICE).requires_grad_()
    return [last(n, c, h, w), last(n, patch * patch * c, h // patch, w // patch), bias]


def test_plain_pytorch_is_a_convolution_and_a_shuffle():
    x, _, _ = made(2, 3, 8, 12, 2)
    features = torch.randn(2, 5, 4, 6, device=DEVICE)
    conv = torch.nn.Conv2d(5, 12, 1).to(DEVICE)
    want = x + F.pixel_shuffle(conv(features), 2)
    y = F.conv2d(features, by_pixels(conv.weight, 2))
    assert torch.allclose(add_unfolded(x, y, by_pixels(conv.bias, 2), 2), want, atol=1e-5)


@pytest.mark.parametrize("kept", [None, 2])
@pytest.mark.parametrize(("n", "c", "h", "w", "patch"), [(2, 3, 8, 12, 2), (1, 16, 6, 4, 2), (3, 8, 8, 4, 4)])
def test_the_kernel_equals_plain_pytorch(n, c, h, w, patch, kept):
    pytest.importorskip("bozzetto.nn.unfold_kernel", reason="Triton exists for Linux only")
    given = made(n, c, h, w, patch)
    want, got = add_unfolded_torch(*given, patch)[:, :kept], add_unfolded_triton(*given, patch, kept)
    assert torch.allclose(got, want, atol=1e-6) and got.stride() == (c * h * w, 1, c * w, c)
    by = torch.randn(want.shape, device=DEVICE)
    for a, b in zip(torch.autograd.grad(got, given, by), torch.autograd.grad(want, given, by)):
        assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-4)
