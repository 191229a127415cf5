"""CUDA graphs: replays give what the function gives; elsewhere the function itself runs."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from bozzetto.nn.graphs import Captured, captured

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_cpu_is_eager():
    calls = []

    def double(x, by=2):
        calls.append(by)
        return {"twice": x * by, "same": [x, None]}

    call = Captured(double)
    for _ in range(3):
        out = call(torch.ones(2), by=3)
    assert out["twice"].tolist() == [3, 3] and out["same"][1] is None and calls == [3, 3, 3]


def test_a_module_has_one_and_takes_it_along():
    module = torch.nn.Linear(2, 2)
    call = captured(module)
    assert captured(module) is call
    x = torch.randn(3, 2)
    assert torch.equal(call(x), module(x))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


@pytest.mark.gpu
@gpu
def test_replays_follow_inputs_shapes_and_parameters():
    torch.manual_seed(0)
    net = (
        torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.SiLU(), torch.nn.Linear(8, 4)).cuda().requires_grad_(False)
    )
    runs = []

    def function(x, scale, parts):
        runs.append(1)
        return net(x) * scale, {"sum": parts[0] + parts[1]}

    call = Captured(function)
    kept = []
    for i in range(6):
        x, a, b = (torch.randn(5 + i % 2, 8, device="cuda") for _ in range(3))
        y, rest = call(x, 2.0, [a, b])
        kept.append((y, net(x) * 2))
        assert torch.allclose(rest["sum"], a + b)
    assert call.reason is None
    assert len(runs) == 4  # per shape: one eager call, one recording
    for y, expected in kept:  # results are fresh tensors, not the recording's
        assert torch.allclose(y, expected, atol=1e-6)
    net[0].weight.mul_(2)  # in place: replays see it
    x = torch.randn(5, 8, device="cuda")
    assert torch.allclose(call(x, 2.0, [x, x])[0], net(x) * 2, atol=1e-6)
    assert len(runs) == 4


@pytest.mark.gpu
@gpu
def test_replaced_parameters_are_noticed():
    net = torch.nn.Linear(4, 4).cuda().requires_grad_(False)
    call, x = captured(net), torch.randn(2, 4, device="cuda")
    for _ in range(3):
        call(x)
    net.weight = torch.nn.Parameter(torch.randn(4, 4, device="cuda"), requires_grad=False)
    for _ in range(3):
        assert torch.allclose(call(x), net(x), atol=1e-6)


@pytest.mark.gpu
@gpu
def test_under_autocast_and_in_inference_mode():
    net = torch.nn.Conv2d(8, 8, 3, padding=1).cuda().requires_grad_(False)
    call = Captured(net)
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        for _ in range(4):
            x = torch.randn(1, 8, 6, 6, device="cuda")
            assert torch.equal(call(x), net(x)) and call(x).dtype == torch.bfloat16
    assert call.reason is None


@pytest.mark.gpu
@gpu
def test_what_cannot_be_recorded_runs_eagerly_and_says_why():
    def peeks(x):
        return x * 2 if float(x.sum()) > 0 else x

    call, x = Captured(peeks), torch.ones(4, device="cuda")
    for _ in range(3):
        assert call(x).tolist() == [2, 2, 2, 2]
    assert "cannot be recorded" in call.reason
    y = x.clone().requires_grad_()
    call = Captured(lambda t: t * 3)
    for _ in range(3):
        call(y).sum().backward()
    assert y.grad.tolist() == [9, 9, 9, 9]


@pytest.mark.gpu
@gpu
def test_few_shapes_are_kept_and_memory_is_given_back():
    call = Captured(lambda t: t.exp().sum(0), limit=2)
    for size in (3, 4, 5, 6):
        for _ in range(2):
            call(torch.zeros(size, 2, device="cuda"))
    assert len(call._recordings) == 2
    big = Captured(lambda t: (t * 2).cumsum(0) + 1)
    before = torch.cuda.memory_allocated()
    x = torch.zeros(1 << 22, device="cuda")
    for _ in range(2):
        big(x)
    del big, x
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + 4096
