"""Small functions that the rasterizer's Triton kernels share; through Triton's interpreter where there is no device."""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")
import triton.language as tl  # noqa: E402

from bozzetto.raster.triton_numbers import highest_bit, number_of_bits, sum_two  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []


@triton.jit
def bits_kernel(words, highest, number):
    i = tl.arange(0, 64)
    word = tl.load(words + i)
    tl.store(highest + i, highest_bit(word))
    tl.store(number + i, number_of_bits(word))


def test_bits_of_words():
    g = torch.Generator().manual_seed(0)
    values = [1 << k for k in range(32)] + torch.randint(1, 2**32, (31,), generator=g).tolist() + [2**32 - 1]
    words = torch.tensor([v - 2**32 if v >= 2**31 else v for v in values], dtype=torch.int32, device=DEVICE)
    highest, number = torch.zeros_like(words), torch.zeros_like(words)
    bits_kernel[(1,)](words, highest, number)
    assert highest.tolist() == [v.bit_length() - 1 for v in values]
    assert number.tolist() == [bin(v).count("1") for v in values]


@triton.jit
def sum_kernel(a, b, out, DISTANCE: tl.constexpr):
    i = tl.arange(0, 32)
    tl.store(out + i, sum_two(tl.load(a + i), tl.load(b + i), DISTANCE))


@pytest.mark.parametrize("distance", [1, 2])
def test_sum_of_two_threads(distance):
    a, b = torch.randn(2, 32, generator=torch.Generator().manual_seed(distance)).to(DEVICE)
    out = torch.zeros_like(a)
    sum_kernel[(1,)](a, b, out, DISTANCE=distance)
    i = torch.arange(32, device=DEVICE)
    expected = torch.where(i & distance == 0, a + a[i ^ distance], b + b[i ^ distance])
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
