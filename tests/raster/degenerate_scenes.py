"""Rasterizer inputs at the edges of the contract. Each case changes some Gaussians of a small random scene."""

from __future__ import annotations

from collections.abc import Callable

import torch
from random_scenes import NAMES, evaluate, random_inputs, random_weights
from torch import Tensor

from bozzetto.raster.reference import rasterize_reference

SIZE = (19, 37)  # neither square nor a multiple of any tile
NAN, INF = float("nan"), float("inf")


def _set(name: str, value: object, index: object = slice(0, 4)) -> Callable[[dict[str, Tensor]], None]:
    def change(inputs: dict[str, Tensor]) -> None:
        inputs[name][:, index] = torch.as_tensor(value, dtype=torch.float64)

    return change


def _behind(inputs: dict[str, Tensor]) -> None:
    inputs["means"] *= 20  # most are far outside the picture, many behind the camera, the rest clamped at its border


def _equal_depth(inputs: dict[str, Tensor]) -> None:
    inputs["means"][:] = inputs["means"][:, :1]


def _one_inside(inputs: dict[str, Tensor]) -> None:
    inputs["means"][:, 1:] = 1e3


CASES: dict[str, Callable[[dict[str, Tensor]], None]] = {
    "behind": _behind,
    "equal_depth": _equal_depth,
    "one_inside": _one_inside,
    "zero_scale": _set("scales", 0.0),
    "all_zero_scale": _set("scales", 0.0, slice(None)),
    "needle": _set("scales", [1.0, 1e-8, 1e-8]),
    "large_scale": _set("scales", 10.0),
    "huge_scale": _set("scales", 1e12),
    "infinite_scale": _set("scales", INF),
    "zero_opacity": _set("opacities", 0.0),
    "all_zero_opacity": _set("opacities", 0.0, slice(None)),
    "full_opacity": _set("opacities", 1.0, slice(None)),
    "nan_opacity": _set("opacities", NAN),
    "zero_quat": _set("quats", 0.0),
    "nan_quat": _set("quats", [1.0, NAN, 0.0, 0.0]),
    "nan_mean": _set("means", [0.0, NAN, 0.0]),
    "infinite_mean": _set("means", [INF, 0.0, 0.0]),
    "nan_scale": _set("scales", [NAN, 0.1, 0.1]),
    "nan_sh": _set("sh", NAN),
    "infinite_sh": _set("sh", INF),
    "all_nan": _set("means", NAN, slice(None)),
    "black": _set("sh", -10.0, slice(None)),
}


def check_degenerate(backend: Callable, case: str, device: str = "cpu", n: int = 12) -> None:
    """Assert that pictures and gradients are finite and those of the reference in float32 (overflow depends on it)."""
    inputs = random_inputs(5, 1, 2, n, SIZE, 4, scale=0.08)
    CASES[case](inputs)
    weights = random_weights(6, torch.ones(1, 2, *SIZE, dtype=torch.bool))
    pictures, gradients = evaluate(backend, inputs, SIZE, weights, device=device)
    expected_pictures, expected_gradients = evaluate(rasterize_reference, inputs, SIZE, weights)
    for got, expected in zip(pictures, expected_pictures):
        assert bool(torch.isfinite(got).all()), case
        # A flipped decision at the 1/255 cut moves a pixel by at most 1/255 times the depth.
        assert float((got - expected).abs().max()) < 0.02, case
        assert float((got - expected).abs().median()) < 2e-5, case
    for name, expected in expected_gradients.items():
        assert bool(torch.isfinite(gradients[name]).all()), f"{case}: gradient of {name} is not finite"
        largest = max(1.0, float(expected.abs().max()))
        assert float((gradients[name] - expected).abs().max()) < 0.02 * largest, f"{case}: gradient of {name}"


def check_empty(backend: Callable, device: str = "cpu") -> None:
    """No Gaussians, no scenes, no views: pictures of the background, gradients of the right shapes."""
    for scenes, views, n in ((1, 2, 0), (0, 2, 5), (2, 0, 5)):
        inputs = random_inputs(0, 1, 1, 5, SIZE, 1)
        shapes = {k: (scenes, views) if k in ("view", "intrinsics", "background") else (scenes, n) for k in NAMES}
        tensors = {
            k: inputs[k][:, :1].expand(1, max(shapes[k][1], 1), *inputs[k].shape[2:])[:scenes, : shapes[k][1]]
            for k in NAMES
        }
        tensors = {
            k: (v if len(v) == scenes else v.expand(scenes, *v.shape[1:])).float().to(device).contiguous()
            for k, v in tensors.items()
        }
        tensors["background"].requires_grad_()
        tensors["means"].requires_grad_()
        rgb, alpha, depth = backend(*(tensors[k] for k in NAMES), *SIZE, 0.01, 1e10)
        assert rgb.shape == (scenes, views, *SIZE, 3) and alpha.shape == depth.shape == (scenes, views, *SIZE)
        assert torch.equal(rgb, tensors["background"][:, :, None, None].expand_as(rgb))
        assert not alpha.any() and not depth.any()
        (gradient,) = torch.autograd.grad(rgb.sum(), tensors["background"])
        assert torch.equal(gradient, torch.full_like(gradient, SIZE[0] * SIZE[1]))
