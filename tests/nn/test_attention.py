"""Attention: the kernel for narrow heads against plain PyTorch in float64."""

from __future__ import annotations

import pytest
import torch

from bozzetto.nn.attention import self_attention, self_attention_torch
from bozzetto.nn.backend import attention_kernel

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("channels", [32, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_heads(dtype, channels):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 matrices as integers")
    torch.manual_seed(0)
    qkv = (torch.randn(2, 256, 3, 2, channels, device=DEVICE) * 2).to(dtype)  # scores of several units: not a mere mean
    expected = self_attention_torch(qkv.double())
    got = attention_kernel().attention(qkv)
    assert got.dtype == dtype and got.shape == (2, 256, 2, channels) and got.is_contiguous()
    error = float((got.double() - expected).norm() / expected.norm())
    assert error < (1e-3 if dtype == torch.float16 else 8e-3)


def test_large_scores_do_not_overflow():
    torch.manual_seed(1)
    qkv = (torch.randn(1, 128, 3, 1, 32, device=DEVICE) * 30).half()
    expected = self_attention_torch(qkv.double())
    got = attention_kernel().attention(qkv)
    assert float((got.double() - expected).norm() / expected.norm()) < 2e-2
    assert bool(torch.isfinite(got).all())


@pytest.mark.parametrize("share", [8, 2])
def test_queries_whose_best_key_was_not_sampled_are_computed_again(monkeypatch, share):
    """By a program that looks after all blocks of queries of a head, and by several."""
    monkeypatch.setattr(attention_kernel(), "SHARE", share)
    torch.manual_seed(3)
    qkv = torch.randn(1, 256, 3, 2, 32, device=DEVICE)
    qkv[:, ::4, 1, :, 1] += 60.0  # the longest keys of their parts, which no query looks for
    qkv[:, 5, 1, 1] = 0.0
    qkv[:, 5, 1, 1, 0] = 40.0  # a shorter one, in the second head
    qkv[:, :70, 0, 1, 0] = 4.0  # what the first queries look for
    qkv[:, :, 0, :, 1] = 0.0
    qkv = qkv.half()
    got, flags = attention_kernel().attention_and_flags(qkv)
    expected = self_attention_torch(qkv.double())
    assert bool(flags[1, 0]) and not bool(flags[0].any())
    assert float((got.double() - expected).norm() / expected.norm()) < 1e-3


def test_nothing_is_computed_again_for_ordinary_scores():
    torch.manual_seed(4)
    qkv = (torch.randn(1, 256, 3, 2, 32, device=DEVICE) * 1.5).half()
    assert not bool(attention_kernel().attention_and_flags(qkv)[1].any())


@pytest.mark.parametrize("length", [64, 2048])
def test_shapes_that_others_take(length):
    torch.manual_seed(2)
    qkv = torch.randn(1, length, 3, 2, 32, device=DEVICE, requires_grad=True)
    out = self_attention(qkv)
    assert out.shape == (1, length, 2, 32)
    out.sum().backward()
    assert qkv.grad is not None
