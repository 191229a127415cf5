"""The reference rasterizer against stored pictures and gradients, and on degenerate input."""

from __future__ import annotations

import math

import pytest
import torch
from degenerate import CASES, NAMES, check_case, random_scene, run, without_skipped
from scenes import LOCAL, LOCAL_FOLDER, SCENES, check_scene

from bozzetto.raster.reference import rasterize_reference


@pytest.mark.parametrize("name", LOCAL)
def test_local_scene_float32(name):
    check_scene(rasterize_reference, LOCAL_FOLDER / f"{name}.npz")


@pytest.mark.parametrize("name", SCENES)
def test_shared_scene_float64(shared, name):
    path = shared / "parity" / "rasterizer" / f"{name}.npz"
    check_scene(rasterize_reference, path, torch.float64, picture_limit=2e-7, gradient_limit=2e-7)


@pytest.mark.parametrize("name", CASES)
def test_degenerate(name):
    check_case(rasterize_reference, name)


def test_skipped_gaussians_change_nothing():
    scene, pictures, gradients = check_case(rasterize_reference, "NaN mean")
    clean, clean_gradients = run(rasterize_reference, without_skipped(scene))
    assert torch.equal(pictures["rgb"], clean["rgb"])
    assert float(gradients["sh"].abs().sum()) == pytest.approx(float(clean_gradients["sh"].abs().sum()), rel=1e-5)


def one_gaussian(opacity: float, z: float, shift: float = 0.0) -> dict:
    """A Gaussian of variance 1 px^2 + low-pass on the optical axis of an 8 x 8 picture, at camera depth z."""
    return {
        "means": torch.tensor([[[shift, 0.0, z]]], dtype=torch.float64),
        "quats": torch.tensor([[[1.0, 0, 0, 0]]], dtype=torch.float64),
        "scales": torch.full((1, 1, 3), z / 8, dtype=torch.float64),
        "opacities": torch.tensor([[opacity]], dtype=torch.float64),
        "sh": torch.full((1, 1, 1, 3), 1.0, dtype=torch.float64),
        "view": torch.eye(4, dtype=torch.float64).expand(1, 1, 4, 4),
        "intrinsics": torch.tensor([[[8.0, 8.0, 4.0, 4.0]]], dtype=torch.float64),
        "background": torch.zeros(1, 1, 3, dtype=torch.float64),
    }


def test_one_gaussian_by_hand():
    rgb, alpha, depth = rasterize_reference(*one_gaussian(0.8, 2.0).values(), 8, 8, 0.01, 100.0)
    expected = 0.8 * math.exp(-0.5 * (0.5**2 + 0.5**2) / 1.3)  # the pixel next to the axis, half a pixel off both ways
    assert float(alpha[0, 0, 4, 4]) == pytest.approx(expected, rel=1e-12)
    assert float(depth[0, 0, 4, 4]) == pytest.approx(2 * expected, rel=1e-12)
    assert float(rgb[0, 0, 4, 4, 1]) == pytest.approx(expected * (0.5 + 0.28209479177387814), rel=1e-12)
    assert float(alpha[0, 0, 0, 0]) == 0.0  # sigma = 9.4: under 1/255


@pytest.mark.parametrize(("near", "far", "drawn"), [(0.1, 5.0, True), (2.5, 5.0, False), (0.1, 1.5, False)])
def test_near_and_far(near, far, drawn):
    _, alpha, _ = rasterize_reference(*one_gaussian(0.8, 2.0).values(), 8, 8, near, far)
    assert bool(alpha.max() > 0) == drawn


def test_negative_near_does_not_show_what_lies_behind():
    inputs = one_gaussian(0.8, -2.0)
    inputs["scales"] = inputs["scales"].abs()
    _, alpha, _ = rasterize_reference(*inputs.values(), 8, 8, -10.0, 100.0)
    assert float(alpha.max()) == 0.0


def test_equal_depth_keeps_index_order():
    first, second = one_gaussian(1.0, 2.0), one_gaussian(1.0, 2.0)
    second["sh"] = torch.zeros_like(second["sh"])
    inputs = {k: torch.cat([first[k], second[k]], 1) if k in NAMES[:5] else first[k] for k in NAMES}
    rgb, _, _ = rasterize_reference(*inputs.values(), 8, 8, 0.01, 100.0)
    flipped = {k: torch.cat([second[k], first[k]], 1) if k in NAMES[:5] else first[k] for k in NAMES}
    assert float((rgb - rasterize_reference(*flipped.values(), 8, 8, 0.01, 100.0)[0]).max()) > 0.1


def test_gradient_by_differences():
    scene = random_scene(count=4, height=3, width=4, sh_count=9, scale=0.2)
    inputs = [scene[name].double() for name in NAMES]
    for i in (0, 1, 2, 3, 4, 7):
        inputs[i].requires_grad_()

    def pictures(*tensors):
        return torch.cat([p.flatten() for p in rasterize_reference(*tensors, 3, 4, 0.01, 100.0)])

    assert torch.autograd.gradcheck(pictures, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_chunks_change_nothing(monkeypatch):
    scene = random_scene()
    whole = run(rasterize_reference, scene)
    monkeypatch.setattr("bozzetto.raster.reference._CHUNK", 1000)
    pieces = run(rasterize_reference, scene)
    for a, b in zip(whole, pieces):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
