"""A network laid out for inference."""

from __future__ import annotations

import contextlib
import inspect
import warnings

import pytest
import torch
from torch import nn

from bozzetto.nn import backend
from bozzetto.nn import group_norm as group_norm_module
from bozzetto.nn import residual as residual_module
from bozzetto.nn.group_norm import GroupNorm
from bozzetto.nn.layout import for_inference


def test_in_place_frozen_channels_last_and_folded():
    class Layer(nn.Conv2d):
        folded = None

        def fold_weights(self):
            self.folded = (self.weight.dtype, self.weight.requires_grad)

    net = nn.Sequential(Layer(4, 8, 3), GroupNorm(2, 8, silu=True), nn.BatchNorm2d(8)).train()
    assert for_inference(net, dtype=torch.bfloat16) is net
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.dtype == net[1].weight.dtype == torch.bfloat16
    assert net[2].num_batches_tracked.dtype == torch.int64
    assert net[0].folded == (torch.bfloat16, False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_are_compiled_before_the_first_call():
    from bozzetto.nn import launch

    launch._compiled.clear()
    net = for_inference(nn.Sequential(GroupNorm(8, 64, silu=True)), "cuda", torch.float16)
    before = {made[1] for made in launch._compiled.values()}
    assert backend.failure is None and len(before) >= 1
    x = torch.randn(2, 64, 40, 40, device="cuda").half().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        net(x)
    assert {made[1] for made in launch._compiled.values()} == before  # nothing new was compiled


def test_every_first_launch_fits_its_kernel(monkeypatch):
    """An error in their list would leave the kernels unused."""
    pytest.importorskip("triton")
    from bozzetto.nn import compilation
    from bozzetto.systems.l4gm.network import L4GM
    from bozzetto.systems.lgm.network import LGMConfig

    launched = []

    def check(kernel, grid, args, constants, warps, stages=3, registers=None):
        inspect.signature(kernel.fn).bind(*args, *constants)
        assert len(grid) == 3 and 1 <= warps <= 16
        launched.append(kernel)

    modules = (*backend.kernels(), backend.attention_kernel(), backend.pointwise_kernel(), backend.pad_kernel())
    for module in modules:
        if hasattr(module, "launch"):
            monkeypatch.setattr(module, "launch", check)
    monkeypatch.setattr(backend.pointwise_kernel(), "usable", lambda device: True)
    for module in (group_norm_module, residual_module):
        monkeypatch.setattr(module, "use_kernels", lambda x: True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device("meta"):
        network = L4GM(LGMConfig())
    tasks = compilation.first_launches(device, torch.float16, narrow_attention=True)
    with torch.no_grad():
        for task in tasks + network.first_launches(device, torch.float16):
            task()
    names = {kernel.fn.__name__ for kernel in launched}
    assert {"join_kernel", "held_kernel", "add_bias_kernel", "fast_kernel", "pointwise_kernel", "pad_kernel"} <= names


@pytest.mark.parametrize("where", ["while the list is made", "in a launch"])
def test_kernels_that_fail_are_told_of_once(monkeypatch, where):
    from bozzetto.nn import compilation

    def broken(*args):
        if where == "in a launch" and not args:
            raise TypeError("too few arguments")
        if where == "in a launch":
            return [broken]
        raise TypeError("too few arguments")

    for name in ("device", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda device: contextlib.nullcontext())
    monkeypatch.setattr(compilation, "_done", set())
    monkeypatch.setattr(compilation, "first_launches", broken)
    monkeypatch.setattr(backend, "failure", None)
    monkeypatch.setattr(backend, "kernels", lambda: ())
    with pytest.warns(UserWarning, match="without the fast kernels.*TypeError: too few arguments"):
        compilation.compile_kernels(torch.device("cuda"), torch.float16)
    assert "too few arguments" in backend.failure
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compilation.compile_kernels(torch.device("cuda"), torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_without_a_compiler_plain_layers_run(monkeypatch):
    from bozzetto.nn import compilation

    def broken(*args):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(compilation, "_done", set())
    monkeypatch.setattr(backend, "failure", None)
    monkeypatch.setattr(backend.kernels()[2], "add_scaled", broken)
    with pytest.warns(UserWarning, match="no C compiler"):
        net = for_inference(nn.Sequential(GroupNorm(8, 64, silu=True)), "cuda", torch.bfloat16)
    assert "no C compiler" in backend.failure
    x = torch.randn(1, 64, 8, 8, device="cuda").bfloat16()
    assert not backend.use_kernels(x) and bool(torch.isfinite(net(x)).all())
