"""The kernels of the evidence about depth against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.systems.lgm.plane_sweep import sweep_torch

kernels = pytest.importorskip("bozzetto.systems.lgm.plane_sweep_triton", reason="Triton exists for Linux only")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = {  # objects, slots, size, candidates, distance, field of view, which slots are known
    "four pictures": (1, 4, 32, 16, 1.5, 49.1, [[1, 1, 1, 1]]),
    "a photo, and nothing at all": (2, 4, 32, 8, 1.5, 49.1, [[1, 0, 0, 0], [0, 0, 0, 0]]),
    "unlike objects": (2, 3, 40, 8, 1.5, 20.0, [[1, 1, 0], [0, 1, 1]]),
    "within the object": (1, 3, 32, 16, 0.05, 120.0, [[1, 1, 1]]),
    "one slot": (3, 1, 16, 8, 5.0, 10.0, [[1], [0], [1]]),
    "two slots, one picture": (1, 2, 16, 8, 1.5, 49.1, [[1, 0]]),
}


def scene(objects, slots, size, candidates, distance, fov, known):
    generator = torch.Generator().manual_seed(objects + slots + size)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    rgba = draw(objects, slots, 4, size, size)
    rgba[:, :, 3] = (3 * rgba[:, :, 3] - 1).clamp(0, 1)
    rgba[:, :, 3, : size // 4] = 0
    cameras = Cameras.orbit(360 * draw(objects * slots), 120 * draw(objects * slots) - 60, distance, fov)
    cameras.intrinsics = cameras.intrinsics * (1 + 0.1 * draw(objects * slots, 4))
    cameras = cameras.reshape(objects, slots)
    return rgba.to(DEVICE), cameras.to(DEVICE), torch.tensor(known, dtype=torch.float32, device=DEVICE), candidates


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernels_equal_plain_pytorch(case):
    given = scene(*case)
    expected, made = sweep_torch(*given), kernels.sweep(*given)
    assert made.shape == expected.shape and bool(made.isfinite().all())
    assert float(expected.std()) > 0.03
    assert torch.allclose(made, expected, atol=2e-4)


def test_pictures_in_other_layouts_and_precisions():
    rgba, cameras, known, candidates = scene(*CASES["two slots, one picture"])
    expected = kernels.sweep(rgba, cameras, known, candidates)
    turned = rgba.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert torch.equal(kernels.sweep(turned, cameras, known.bool(), candidates), expected)
    coarse = rgba.half()
    expected = sweep_torch(coarse.float(), cameras, known, candidates)
    assert torch.allclose(kernels.sweep(coarse, cameras, known, candidates), expected, atol=2e-4)


def test_results_among_other_channels():
    given = scene(*CASES["unlike objects"])
    expected = kernels.sweep(*given)
    objects, slots, planes, size, _ = expected.shape
    wide = torch.full((objects, slots, planes + 5, size, size), 7.0, device=DEVICE)
    kernels.sweep(*given, wide[:, :, 3:-2])
    assert torch.equal(wide[:, :, 3:-2], expected)
    assert bool((wide[:, :, :3] == 7).all()) and bool((wide[:, :, -2:] == 7).all())
    with pytest.raises(ValueError, match="dense pictures"):
        kernels.sweep(*given, wide[:, :, 3:-2].transpose(3, 4))


def test_what_is_not_known_is_not_read():
    rgba, cameras, known, candidates = scene(*CASES["two slots, one picture"])
    expected = kernels.sweep(rgba, cameras, known, candidates)
    rgba[known == 0] = torch.nan
    assert torch.equal(kernels.sweep(rgba, cameras, known, candidates), expected)


def test_sizes_that_cells_do_not_divide_are_refused():
    rgba, cameras, known, candidates = scene(*CASES["one slot"])
    with pytest.raises(ValueError, match="multiple of 4"):
        kernels.sweep(rgba[..., :14, :14], cameras, known, candidates)


@pytest.mark.skipif(DEVICE == "cpu", reason="graphs are CUDA's")
def test_a_graph_replays_with_other_pictures():
    rgba, cameras, known, candidates = scene(*CASES["four pictures"])
    kernels.sweep(rgba, cameras, known, candidates)
    given, graph = rgba.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = kernels.sweep(given, cameras, known, candidates)
    given.copy_(rgba.flip(3))
    graph.replay()
    assert torch.equal(made, kernels.sweep(rgba.flip(3), cameras, known, candidates))
