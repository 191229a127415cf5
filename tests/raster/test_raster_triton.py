"""The Triton rasterizer: natively where there is a CUDA device, otherwise through Triton's interpreter (slow)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from degenerate_scenes import CASES, check_degenerate, check_empty
from random_scenes import NAMES, check_random, random_inputs
from scenes import LOCAL, LOCAL_FOLDER, SCENES, check_scene

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

pytest.importorskip("triton", reason="Triton exists for Linux only")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
pytestmark = [pytest.mark.gpu] if CUDA else []


def slow_without_cuda(*values: object) -> object:
    return pytest.param(*values, marks=[] if CUDA else [pytest.mark.slow])


@pytest.fixture(scope="module")
def backend():
    from bozzetto.raster.triton import INTERPRETED, rasterize_triton

    if not CUDA and not INTERPRETED:
        pytest.fail("Triton was imported before tests/conftest.py could set TRITON_INTERPRET=1")
    return rasterize_triton


@pytest.mark.parametrize("name", [slow_without_cuda(n) if n != "sh0_n50_64_black" else n for n in LOCAL])
def test_local_scene(backend, name):
    check_scene(backend, LOCAL_FOLDER / f"{name}.npz", device=DEVICE)


@pytest.mark.parametrize("name", [slow_without_cuda(n) for n in SCENES if n not in LOCAL])
def test_shared_scene(backend, shared, name):
    check_scene(backend, shared / "parity" / "rasterizer" / f"{name}.npz", device=DEVICE)


@pytest.mark.parametrize(
    ("seed", "scenes", "views", "n", "size", "k"),
    [
        (1, 1, 1, 12, (16, 16), 1),
        (2, 2, 2, 10, (9, 21), 4),
        (3, 1, 1, 20, (17, 30), 16),
        (4, 1, 2, 1, (1, 1), 9),
        (7, 1, 1, 40, (7, 9), 1),  # more than 32 in a cell's list, more than one for two pixels
        slow_without_cuda(5, 2, 3, 150, (40, 50), 9),
        pytest.param(6, 2, 2, 1000, (150, 203), 16, marks=pytest.mark.skipif(not CUDA, reason="needs a CUDA device")),
    ],
)
def test_random_scene(backend, seed, scenes, views, n, size, k):
    check_random(backend, seed, scenes, views, n, size, k, DEVICE)


QUICK = ("behind", "equal_depth", "zero_scale", "huge_scale", "nan_quat", "all_nan", "nan_sh")


@pytest.mark.parametrize("case", [c if c in QUICK else slow_without_cuda(c) for c in CASES])
def test_degenerate(backend, case):
    check_degenerate(backend, case, DEVICE, n=6)


def test_empty(backend):
    check_empty(backend, DEVICE)


def test_gradient_of_one_output_by_one_input(backend):
    inputs = {k: v.float().to(DEVICE) for k, v in random_inputs(0, 1, 1, 6, (8, 8), 1).items()}
    inputs["opacities"].requires_grad_()
    alpha = backend(*(inputs[k] for k in NAMES), 8, 8, 0.01, 1e10)[1]
    alpha.mean().backward()
    assert inputs["opacities"].grad.abs().sum() > 0
    assert all(t.grad is None for k, t in inputs.items() if k != "opacities")
    with torch.no_grad():
        again = backend(*(inputs[k] for k in NAMES), 8, 8, 0.01, 1e10)[1]
    assert torch.equal(again, alpha)


def test_through_the_public_call(backend):
    inputs = {k: v.float().to(DEVICE) for k, v in random_inputs(0, 2, 1, 6, (8, 12), 4).items()}
    gaussians = Gaussians(*(inputs[k] for k in ("means", "scales", "quats", "opacities", "sh")))
    cameras = Cameras.turntable(2)
    got = rasterize(gaussians, cameras, (8, 12), background=(1, 1, 1), backend="triton")
    expected = rasterize(gaussians, cameras, (8, 12), background=(1, 1, 1), backend="reference")
    assert got.rgb.shape == (2, 2, 8, 12, 3)
    assert float((got.rgb - expected.rgb).abs().max()) < 2e-5
    assert float((got.depth - expected.depth).abs().max()) < 2e-5


@pytest.mark.slow
def test_kernels_compile_for_cuda():
    """The interpreter accepts more than the compiler does."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).resolve().parent / "compile_kernels.py"
    subprocess.run([sys.executable, str(script)], check=True, env=environment, timeout=600)


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
def test_cpu_tensors_are_refused_without_the_interpreter():
    code = """
import torch
from bozzetto.raster.triton import rasterize_triton
z = torch.zeros
try:
    rasterize_triton(z(1, 1, 3), z(1, 1, 4), z(1, 1, 3), z(1, 1), z(1, 1, 1, 3), z(1, 1, 4, 4), z(1, 1, 4), z(1, 1, 3),
                     8, 8, 0.01, 1e10)
except ValueError as error:
    assert "CUDA" in str(error) and "backend='cpu'" in str(error), error
else:
    raise SystemExit("accepted")
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
