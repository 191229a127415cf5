"""The kernel of the evidence around given depths against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.systems.lgm.cascade import cascade_torch
from bozzetto.systems.lgm.plane_sweep import _half_size

kernels = pytest.importorskip("bozzetto.systems.lgm.cascade_triton", reason="Triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = {  # objects, slots, size, depths, distance, field of view, which slots are known
    "four pictures": (1, 4, 32, 8, 1.5, 49.1, [[1, 1, 1, 1]]),
    "a photo, and nothing at all": (2, 4, 32, 4, 1.5, 49.1, [[1, 0, 0, 0], [0, 0, 0, 0]]),
    "unlike objects": (2, 3, 40, 8, 1.5, 20.0, [[1, 1, 0], [0, 1, 1]]),
    "within the object": (1, 3, 32, 16, 0.05, 120.0, [[1, 1, 1]]),
    "one slot": (3, 1, 16, 4, 5.0, 10.0, [[1], [0], [1]]),
}


def scene(objects, slots, size, depths, distance, fov, known):
    generator = torch.Generator().manual_seed(objects + slots + size)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    rgba = draw(objects, slots, 4, size, size)
    rgba[:, :, 3] = (3 * rgba[:, :, 3] - 1).clamp(0, 1)
    rgba[:, :, 3, : size // 4] = 0
    known = torch.tensor(known, dtype=torch.float32)
    cameras = Cameras.orbit(360 * draw(objects * slots), 120 * draw(objects * slots) - 60, distance, fov)
    cameras.intrinsics = cameras.intrinsics * (1 + 0.1 * draw(objects * slots, 4))
    cameras = cameras.reshape(objects, slots)
    along = distance + 0.4 * draw(objects, slots, size // 2, size // 2) - 0.2
    pictures = _half_size(rgba, known)
    return pictures.to(DEVICE), known.to(DEVICE), cameras.to(DEVICE), along.to(DEVICE), depths


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_kernel_equals_plain_pytorch(case):
    given = scene(*case)
    expected, made = cascade_torch(*given, torch.float32), kernels.cascade(*given, torch.float32)
    assert made.shape == expected.shape and made.stride() == expected.stride() and bool(made.isfinite().all())
    assert case[1] == 1 or float(expected.std()) > 0.03
    assert torch.allclose(made, expected, atol=2e-4)


def test_other_precisions():
    given = scene(*CASES["unlike objects"])
    expected = kernels.cascade(*given, torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        made = kernels.cascade(*given, dtype)
        assert made.dtype == dtype and torch.allclose(made.float(), expected, rtol=1e-2, atol=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="graphs are CUDA's")
def test_a_graph_replays_with_other_depths():
    pictures, known, cameras, along, depths = scene(*CASES["four pictures"])
    kernels.cascade(pictures, known, cameras, along, depths, torch.bfloat16)
    given, graph = along.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = kernels.cascade(pictures, known, cameras, given, depths, torch.bfloat16)
    given.copy_(along + 0.1)
    graph.replay()
    assert torch.equal(made, kernels.cascade(pictures, known, cameras, along + 0.1, depths, torch.bfloat16))
