"""Group normalisation: the kernels against plain PyTorch in float64, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bozzetto.nn.backend import kernels
from bozzetto.nn.group_norm import GroupNorm, group_norm, group_norm_torch, group_norm_triton

pytest.importorskip("triton")
group_norm_kernels = kernels()[0]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # on the CPU in Triton's interpreter

# pictures, channels of x, channels of skip, groups, height, width; three have more pixels than one program takes
SHAPES = [
    (2, 64, 0, 32, 4, 4),
    (1, 40, 0, 4, 5, 7),
    (2, 24, 40, 2, 4, 6),  # a group across the border of the two inputs
    (1, 100, 92, 32, 6, 4),  # 6 channels a group
    (2, 32, 0, 16, 33, 35),
    (1, 96, 64, 4, 40, 30),
    (1, 48, 32, 5, 36, 31),
    (1, 48, 0, 8, 20, 20),  # few enough for one program, whose loads would not be full: gradients go large maps' way
]


def maps(*shape: int, dtype: torch.dtype, mean: float = 0.3) -> Tensor:
    x = (torch.randn(shape) + mean).to(DEVICE, dtype)
    return x.contiguous(memory_format=torch.channels_last)


def case(shape, dtype, shift_dims):
    n, c1, c2, groups, h, w = shape
    x = maps(n, c1, h, w, dtype=dtype)
    skip = maps(n, c2, h, w, dtype=dtype) if c2 else None
    shift = torch.randn((n, c1 + c2)[2 - shift_dims :], device=DEVICE).to(dtype) if shift_dims else None
    weight, bias = torch.randn(2, c1 + c2, device=DEVICE).to(dtype).unbind(0)
    return [x, skip, shift, weight.contiguous(), bias.contiguous()], groups


def run(function, inputs, groups, silu, grad=None):
    """Result, and gradients of the inputs that there are."""
    leaves = [None if t is None else t.detach().clone(memory_format=torch.preserve_format) for t in inputs]
    for leaf in leaves:
        if leaf is not None:
            leaf.requires_grad_(grad is not None)
    x, skip, shift, weight, bias = leaves
    y = function(x, groups, weight, bias, 1e-5, silu=silu, skip=skip, shift=shift)
    if grad is None:
        return y, []
    y.backward(grad.to(y.dtype))
    return y.detach(), [None if t is None else t.grad for t in leaves]


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("shape", [(12, 64, 0, 8, 3, 5), (12, 32, 32, 8, 33, 32)], ids=str)
def test_pictures_turned(shape):
    torch.manual_seed(5)
    (x, skip, _, weight, bias), groups = case(shape, torch.float32, 0)
    plain = group_norm_triton(x, groups, weight, bias, skip=skip)
    both = [f(x, groups, weight, bias, skip=skip, turn=(3, 2)) for f in (group_norm_triton, group_norm_torch)]
    assert torch.equal(both[0], plain.unflatten(0, (2, 3, 2)).transpose(1, 2).flatten(0, 2))
    assert relative(both[0], both[1]) < 1e-5
    leaf = x.clone().requires_grad_()
    assert relative(group_norm_triton(leaf, groups, weight, bias, skip=skip, turn=(3, 2)), both[1]) < 1e-5


CASES = [(shape, silu, dims) for shape in SHAPES[:4] for silu in (False, True) for dims in (0, 1, 2)]
CASES += [(SHAPES[4], True, 0), (SHAPES[5], False, 1), (SHAPES[6], True, 2)]


@pytest.mark.parametrize("shape, silu, shift_dims", CASES, ids=str)
def test_values_and_gradients(monkeypatch, shape, silu, shift_dims):
    torch.manual_seed(0)
    monkeypatch.setattr(group_norm_kernels, "CHUNKS", 8)  # several tiles a chunk
    inputs, groups = case(shape, torch.float32, shift_dims)
    grad = torch.randn(shape[0], shape[1] + shape[2], *shape[4:], device=DEVICE)
    doubles = [None if t is None else t.double() for t in inputs]
    expected, wanted = run(group_norm_torch, doubles, groups, silu, grad)
    got, gradients = run(group_norm_triton, inputs, groups, silu, grad)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert relative(got, expected) < 1e-6
    for g, w in zip(gradients, wanted):
        assert (g is None) == (w is None)
        # The gradient by a vector of the whole group cancels to nearly nothing: measured on the scale of its terms.
        assert g is None or (g.double() - w).abs().max() < 2e-6 * max(
            float(w.abs().max()), float(grad.abs().sum() / 1e2)
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_float32_statistics(dtype):
    """Rounding of the result is all that is lost, also where the mean is large beside the spread."""
    torch.manual_seed(1)
    for shape in SHAPES[2], SHAPES[5]:
        inputs, groups = case(shape, dtype, 2)
        inputs[0] += 30.0
        expected, _ = run(group_norm_torch, [t.double() for t in inputs], groups, True)
        got, _ = run(group_norm_triton, inputs, groups, True)
        assert got.dtype == dtype
        assert relative(got, expected) < (4e-4 if dtype == torch.float16 else 4e-3)


def test_a_mean_far_from_zero_costs_no_digits():
    torch.manual_seed(2)
    x = maps(1, 32, 40, 40, dtype=torch.float32) + 1e4
    one = torch.ones(32, device=DEVICE)
    expected, _ = run(group_norm_torch, [x.double(), None, None, one.double(), one.double()], 8, False)
    got, _ = run(group_norm_triton, [x, None, None, one, one], 8, False)
    assert relative(got, expected) < 6e-4  # the mean itself is a float32, whose spacing at 1e4 is 1e-3


def test_parameters_of_another_dtype():
    torch.manual_seed(3)
    x = maps(2, 32, 6, 6, dtype=torch.bfloat16)
    norm = GroupNorm(8, 32, silu=True).to(DEVICE)
    torch.nn.init.normal_(norm.weight)
    expected = group_norm_torch(x.double(), 8, norm.weight.double(), norm.bias.double(), silu=True)
    got = group_norm_triton(x, 8, norm.weight, norm.bias, silu=True)
    assert got.dtype == torch.bfloat16 and relative(got, expected) < 4e-3


def test_module_is_torchs_with_silu():
    torch.manual_seed(4)
    norm, theirs = GroupNorm(4, 16, silu=True), torch.nn.GroupNorm(4, 16)
    theirs.load_state_dict(norm.state_dict())
    x = torch.randn(2, 16, 5, 5)
    assert torch.allclose(norm(x), torch.nn.functional.silu(theirs(x)))
    assert torch.allclose(norm(x[:, :6], skip=x[:, 6:]), norm(x), atol=1e-6)


def test_the_cpu_takes_the_plain_path():
    x = maps(1, 16, 4, 4, dtype=torch.float32).cpu()
    one = torch.ones(16)
    assert torch.equal(group_norm(x, 4, one, one), torch.nn.functional.group_norm(x, 4, one, one))


@pytest.mark.parametrize("many", [False, True], ids=["four warps a group", "one"])
def test_a_chunk_far_from_the_others(monkeypatch, many):
    """Moments are joined about the mean of the first chunk: all digits are there when that one stands alone."""
    monkeypatch.setattr(group_norm_kernels, "MANY_GROUPS", 1 if many else 100)
    torch.manual_seed(6)
    x = maps(1, 16, 96, 64, dtype=torch.float32) * 0.1
    x[:, 0, 0] += 40.0  # of the first group, a part of the first chunk
    weight = torch.ones(16, device=DEVICE)
    exact = group_norm_torch(x.double(), 4, weight.double(), weight.double())
    got = group_norm_triton(x, 4, weight, weight)
    assert relative(got, exact) < 4e-5


def test_first_launches_run():
    """What compiles the kernels before a network's first call; an error there would leave them unused."""
    for task in group_norm_kernels.first_launches(torch.device(DEVICE), torch.float16):
        task()
