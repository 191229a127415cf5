"""The kernels for tokens against their plain twins: in the interpreter without a GPU, natively with one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bozzetto.nn import tokens

triton = pytest.importorskip("triton")
from bozzetto.nn import tokens_kernels as kernels  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16, torch.float32] if DEVICE == "cpu" else [torch.float16, torch.bfloat16, torch.float32]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE, dtype)


def near(ours: torch.Tensor, double: torch.Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Within a few roundings of ``dtype`` of the twin in float64."""
    assert ours.dtype == dtype and ours.shape == double.shape
    tolerance = factor * {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 2e-6}[dtype]
    error = (ours.double() - double).abs().max() / double.abs().max()
    assert float(error) < tolerance, float(error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 512), (1, 9, 24), (5, 1280)])
def test_geglu(dtype, shape):
    x = draw(*shape, dtype=dtype, scale=2.0)
    near(kernels.geglu(x), tokens.geglu_torch(x.double()), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 7, 320), (3, 32), (1, 5, 1280)])
def test_add_layer_norm(dtype, shape):
    norm = nn.LayerNorm(shape[-1]).to(DEVICE, dtype).requires_grad_(False)
    norm.weight.data = draw(shape[-1], dtype=dtype, seed=3)
    norm.bias.data = draw(shape[-1], dtype=dtype, seed=4)
    x, y = draw(*shape, dtype=dtype) + 3, draw(*shape, dtype=dtype, seed=1)
    total, normed = kernels.add_layer_norm(x, y, norm.weight, norm.bias, norm.eps)
    assert torch.equal(total, x + y)
    near(normed, nn.LayerNorm.forward(norm.double(), (x + y).double()), dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16] if DEVICE == "cuda" else [torch.float16])
@pytest.mark.parametrize(
    ("batch", "rows", "length", "keys", "more", "heads", "dim"),
    [(4, 2, 70, 77, 16, 2, 64), (3, 3, 5, 1, 0, 1, 16), (2, 1, 64, 128, 4, 3, 32), (2, 2, 9, 77, 0, 2, 128)],
)
def test_cross_attention(dtype, batch, rows, length, keys, more, heads, dim):
    c = heads * dim
    q = draw(batch, length, c, dtype=dtype, scale=2.0)
    k, v = draw(rows, keys, 2 * c, dtype=dtype, seed=1).chunk(2, dim=-1)  # not packed: rows are 2 c apart
    second = (draw(rows, more, c, dtype=dtype, seed=2), draw(rows, more, c, dtype=dtype, seed=3)) if more else None
    out = kernels.attend(q, k, v, heads, second, 0.7)
    double = second and tuple(t.double() for t in second)
    near(out, tokens.cross_attention_torch(q.double(), k.double(), v.double(), heads, double, 0.7), dtype, 2.0)


def test_each_row_of_keys_serves_its_neighbours():
    q, k, v = draw(6, 4, 32), draw(2, 3, 32, seed=1), draw(2, 3, 32, seed=2)
    shared = tokens.cross_attention(q, k, v, 2)
    repeated = tokens.cross_attention(q, k.repeat_interleave(3, 0), v.repeat_interleave(3, 0), 2)
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=0)


def test_what_the_kernels_cannot_take_goes_to_the_twin():
    x = draw(4, 64).requires_grad_()
    tokens.geglu(x).sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0
    assert not kernels.attends(40, 77, 0) and not kernels.attends(64, 129, 0) and kernels.attends(64, 77, 16)
    q, k = draw(1, 4, 80), draw(1, 3, 80, seed=1)
    assert tokens.cross_attention(q, k, k, 2).shape == q.shape  # heads of 40 channels


@pytest.mark.parametrize("more", [0, 4])
def test_first_launches_run(more):
    for task in kernels.first_launches(torch.device(DEVICE), torch.float16, [64, 128], 32, 77, more):
        task()
