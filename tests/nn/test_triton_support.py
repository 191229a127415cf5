"""Where Triton's kernels can run, and the driver that spares the C compiler."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from bozzetto.nn import triton_support


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(triton_support, "_reason", [])


def test_without_triton_there_is_one_warning_on_a_gpu(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it fails
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="pip install triton"):
        assert not triton_support.triton_usable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "not installed" in triton_support.why_not()


def test_without_a_gpu_nothing_warns(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not triton_support.triton_usable()


def test_no_compiler_is_noticed(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C compiler" in triton_support.compiler_missing()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler" in triton_support.compiler_missing()


def test_no_headers_are_noticed(monkeypatch, tmp_path):
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(triton_support.sysconfig, "get_paths", lambda **_: {"include": str(tmp_path)})
    assert "Python.h" in triton_support.compiler_missing()
    (tmp_path / "Python.h").touch()
    assert triton_support.compiler_missing() is None


def test_when_both_ways_fail_the_reason_says_what_to_install(fresh, monkeypatch, tmp_path):
    pytest.importorskip("triton")
    from bozzetto.nn import triton_driver

    def broken():
        raise OSError("libcuda.so.1: cannot open")

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_driver, "CompilerFreeDriver", broken)
    with pytest.warns(UserWarning, match="no C compiler.*libcuda.*apt install gcc python3-dev"):
        assert not triton_support.triton_usable()


class FakeCuda:
    """Remembers what a launch of the driver's library was given, and reads the arguments through the pointers."""

    def __init__(self, codes=()):
        self.codes, self.launches, self.contexts = list(codes), [], 0

    def launch(self, function, x, y, z, threads, one, two, shared, stream, pointers, extra):
        assert (one, two, extra) == (1, 1, None)
        self.launches.append((function, (x, y, z), threads, shared, stream, list(pointers)))
        return self.codes.pop(0) if self.codes else 0

    def use_primary_context(self, device):
        self.contexts += 1

    def error(self, code):
        return f"error {code}"


@pytest.fixture
def cuda(monkeypatch):
    pytest.importorskip("triton")
    from bozzetto.nn import triton_driver

    fake = FakeCuda()
    monkeypatch.setattr(triton_driver, "utils", lambda: SimpleNamespace(cuda=fake))
    return fake


METADATA = SimpleNamespace(name="kernel", num_warps=4, shared=1024, num_ctas=1, global_scratch_size=0)


def read(kind, address):
    return kind.from_address(address).value


def test_launcher_packs_what_the_binary_expects(cuda):
    from bozzetto.nn.triton_driver import Launcher

    signature = {"x": "*fp16", "n": "i32", "one": "constexpr", "s": "fp32", "big": "i64", "flag": "i1", "y": "*fp32"}
    launcher = Launcher(SimpleNamespace(signature=signature, constants={(2,): 1}), METADATA)
    x, hook = torch.zeros(4), []
    launcher(3, 2, 1, 77, 5, None, "about", hook.append, hook.append, x, -7, 1, 0.5, 1 << 40, True, None, 64)
    function, grid, threads, shared, stream, pointers = cuda.launches[0]
    assert (function, grid, threads, shared, stream) == (5, (3, 2, 1), 128, 1024, 77)
    assert read(ctypes.c_void_p, pointers[0]) == x.data_ptr()
    assert read(ctypes.c_int32, pointers[1]) == -7
    assert read(ctypes.c_float, pointers[2]) == 0.5
    assert read(ctypes.c_int64, pointers[3]) == 1 << 40
    assert read(ctypes.c_int8, pointers[4]) == 1
    assert read(ctypes.c_void_p, pointers[5]) is None
    assert hook == ["about", "about"]
    launcher(0, 2, 1, 77, 5, None, None, None, None, x, -7, 1, 0.5, 1 << 40, True, None, 64)
    assert len(cuda.launches) == 1  # an empty grid starts nothing


def test_launcher_of_early_versions(cuda):
    """Triton 3.2 leaves constexprs out of the signature and names the arguments that equal 1 among the constants."""
    from bozzetto.nn.triton_driver import Launcher

    source = SimpleNamespace(signature={"x": "*fp32", "one": "i32", "n": "i32"}, constants={"one": 1, "BLOCK": 64})
    launcher = Launcher(source, METADATA)
    launcher(1, 1, 1, 0, 5, None, None, None, None, 4096, 1, 9)
    pointers = cuda.launches[0][-1]
    assert read(ctypes.c_void_p, pointers[0]) == 4096 and read(ctypes.c_int32, pointers[1]) == 9


def test_launcher_takes_the_context_in_a_new_thread_and_reports_errors(cuda, monkeypatch):
    from bozzetto.nn.triton_driver import Launcher

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    launcher = Launcher(SimpleNamespace(signature={"x": "*fp32"}, constants={}), METADATA)
    cuda.codes = [201]
    launcher.launch(1, 1, 1, 0, 5, (4096,))
    assert cuda.contexts == 1 and len(cuda.launches) == 2
    cuda.codes = [700]
    with pytest.raises(RuntimeError, match="error 700"):
        launcher.launch(1, 1, 1, 0, 5, (4096,))


def test_launcher_refuses_what_it_cannot_do(cuda):
    from bozzetto.nn.triton_driver import Launcher

    with pytest.raises(NotImplementedError, match="C compiler"):
        Launcher(SimpleNamespace(signature={"x": "tensordesc<fp16[64, 64]>"}, constants={}), METADATA)


ALONE = """
import torch, warnings
warnings.filterwarnings("error", message="GPU work runs")
from bozzetto.nn.triton_support import triton_usable, compiler_missing
assert compiler_missing() and triton_usable(), compiler_missing()
import triton
assert type(triton.runtime.driver.active).__name__ == "CompilerFreeDriver"
from bozzetto.nn.group_norm import group_norm_torch, group_norm_triton
for side in (8, 40):
    x = torch.randn(2, 64, side, side, device="cuda").half().contiguous(memory_format=torch.channels_last)
    w, b = torch.rand(64, device="cuda").half(), torch.rand(64, device="cuda").half()
    y, expected = group_norm_triton(x, 8, w, b, silu=True), group_norm_torch(x.float(), 8, w.float(), b.float(), silu=True)
    assert float((y - expected).abs().max()) < 0.02
from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize
g = torch.Generator().manual_seed(0)
splats = [torch.randn(500, 3, generator=g) * 0.3, torch.rand(500, 3, generator=g) * 0.05, torch.randn(500, 4, generator=g),
          torch.rand(500, generator=g), torch.randn(500, 1, 3, generator=g)]
cameras = Cameras.orbit(torch.tensor([0.0, 90.0]), 10.0, 1.5, 49.1)
cpu = rasterize(Gaussians(*splats), cameras, 64).rgb
gpu = rasterize(Gaussians(*(s.cuda() for s in splats)), cameras.to("cuda"), 64).rgb.cpu()
assert float((cpu - gpu).abs().max()) < 0.02, float((cpu - gpu).abs().max())
print("fine")
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_run_without_a_compiler(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "CC"}
    environment |= {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_rasterizer_without_triton(monkeypatch):
    from bozzetto.camera import Cameras
    from bozzetto.gaussians import Gaussians
    from bozzetto.raster import api

    torch.manual_seed(0)
    splats = [
        torch.randn(300, 3) * 0.3,
        torch.full((300, 3), 0.03),
        torch.randn(300, 4),
        torch.rand(300),
        torch.rand(300, 1, 3),
    ]
    cameras = Cameras.orbit(torch.tensor([0.0, 90.0]), 10.0, 1.5, 49.1)
    monkeypatch.setattr(api, "triton_usable", lambda: False)
    there = [s.cuda().requires_grad_() for s in splats]
    here = [s.clone().requires_grad_() for s in splats]
    page = torch.tensor([1.0, 0.5, 0.0])
    pictures = [
        api.rasterize(Gaussians(*there), cameras.to("cuda"), 48, page.cuda()),
        api.rasterize(Gaussians(*here), cameras, 48, page),
    ]
    for drawn in pictures:
        (drawn.rgb.square().sum() + drawn.alpha.sum()).backward()
    assert pictures[0].rgb.is_cuda and torch.equal(pictures[0].rgb.cpu(), pictures[1].rgb)
    for a, b in zip(there, here):
        assert torch.allclose(a.grad.cpu(), b.grad, rtol=1e-5, atol=1e-6)
