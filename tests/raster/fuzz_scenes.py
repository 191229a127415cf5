"""Scenes drawn at random from the whole contract, ugly ones included, and the comparison of a back end on them."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from random_scenes import PARAMETERS, evaluate, random_weights
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.raster.reference import rasterize_reference


def fuzz_inputs(seed: int, most: int, largest: int) -> tuple[dict[str, Tensor], tuple[int, int], float, float]:
    """Inputs of a back end (float64) with up to ``most`` Gaussians for pictures of up to ``largest`` pixels a side, the size
    (height, width), near and far."""
    choose = random.Random(seed)
    g = torch.Generator().manual_seed(seed)
    scenes, views, n = choose.choice((1, 1, 2)), choose.choice((1, 2, 3)), int(most ** choose.random()) + 1
    size = choose.randint(1, largest), choose.randint(1, largest)
    k = choose.choice((1, 4, 9, 16))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g, dtype=torch.float64)

    means = 0.4 * normal(scenes, n, 3)
    if choose.random() < 0.2:
        means[..., 2] = 0.1  # many at the same depth of a camera that looks along z
    scales = 10 ** (choose.uniform(-3, -0.5) + choose.choice((0.1, 0.5)) * normal(scenes, n, 3))
    quats = normal(scenes, n, 4)
    opacities = uniform(scenes, n) ** choose.choice((0.3, 1, 3))
    sh = torch.cat([normal(scenes, n, 1, 3), 0.3 * normal(scenes, n, k - 1, 3)], dim=2)

    def some(share: float) -> Tensor:
        return uniform(scenes, n) < share

    for _ in range(choose.randint(0, 4)):
        where, share = choose.randrange(9), 0.15
        if where == 0:
            scales[some(share)] *= 100
        elif where == 1:
            scales[some(share)] = 0.0
        elif where == 2:
            scales[..., 0][some(share)] *= 1e-6
        elif where == 3:
            opacities[some(share)] = choose.choice((0.0, 1.0, 1 / 255))
        elif where == 4:
            quats[some(share)] = 0.0
        elif where == 5:
            means[some(share)] *= 30
        elif where == 6:
            means[some(share)] = means[:, :1].expand(scenes, n, 3)[some(share)].mean()
        else:
            tensor = choose.choice((means, scales, quats, opacities, sh))
            tensor[some(share)] = choose.choice((float("nan"), float("inf"), float("-inf")))
    radius = choose.choice((0.05, 0.3, 1.5, 1.5, 4.0))  # the first two are inside the cloud
    azimuth = 360 * uniform(scenes, views) if choose.random() < 0.8 else torch.zeros(scenes, views)
    cameras = Cameras.orbit(azimuth, 160 * uniform(scenes, views) - 80, radius, choose.choice((20.0, 49.1, 90.0)))
    near, far = choose.choice(((0.01, 1e10), (0.2, 100.0), (0.5, 1.6)))
    inputs = {
        "means": means,
        "quats": quats,
        "scales": scales,
        "opacities": opacities,
        "sh": sh,
        "view": cameras.view_matrices().double(),
        "intrinsics": cameras.pixel_intrinsics(size).double() * (1 + 0.1 * normal(scenes, views, 4)),
        "background": uniform(scenes, views, 3),
    }
    # The same numbers for float32 and float64, so that both cull, order and skip alike but for rounding.
    return {name: t.float().double() for name, t in inputs.items()}, size, near, far


def check_fuzz(backend: Callable, seed: int, most: int, largest: int, device: str = "cpu") -> dict[str, float]:
    """Assert that ``backend`` is about as close to the float64 reference as the float32 reference is.

    Single pixels may differ where a decision (1/255, stop, order) is within rounding; they must be few, and not more than
    in plain float32. What is not finite has no gradient and shows nowhere.
    """
    inputs, size, near, far = fuzz_inputs(seed, most, largest)
    weights = random_weights(seed, torch.ones(*inputs["view"].shape[:2], *size, dtype=torch.bool))
    arguments = {"near": near, "far": far, "device": device}
    pictures, gradients = evaluate(backend, inputs, size, weights, **arguments)
    exact, exact_gradients = evaluate(rasterize_reference, inputs, size, weights, torch.float64, **arguments)
    single, single_gradients = evaluate(rasterize_reference, inputs, size, weights, torch.float32, **arguments)
    report = {}
    for name, got, expected, plain in zip(("rgb", "alpha", "depth"), pictures, exact, single):
        assert bool(torch.isfinite(got).all()), f"seed {seed}: {name} is not finite"
        scale = max(1.0, float(expected.abs().max()))
        error, usual = (got - expected).abs() / scale, (plain - expected).abs() / scale
        report[name] = float(error.mean())
        assert report[name] <= 4 * float(usual.mean()) + 5e-6, f"seed {seed}: {name} differs by {report[name]:.1e}"
        wrong, normally = int((error > 1e-3).sum()), int((usual > 1e-3).sum())
        assert wrong <= 3 * normally + 0.002 * error.numel() + 1, f"seed {seed}: {wrong} values of {name} are wrong"
    bad = torch.zeros(inputs["opacities"].shape, dtype=torch.bool)
    for name in PARAMETERS[:5]:
        bad |= ~torch.isfinite(inputs[name]).reshape(*bad.shape, -1).all(-1)
    for name, expected in exact_gradients.items():
        got = gradients[name]
        assert bool(torch.isfinite(got).all()), f"seed {seed}: gradient of {name} is not finite"
        if name != "background":
            assert not bool(got[bad].any()), f"seed {seed}: a Gaussian that is not finite has a gradient of {name}"
        usual = float((single_gradients[name] - expected).norm())
        report["grad_" + name] = float((got - expected).norm())
        limit = 4 * usual + 2e-3 * float(expected.norm()) + 1e-6
        assert report["grad_" + name] <= limit, (
            f"seed {seed}: gradient of {name} differs by {report['grad_' + name]:.1e}, that of float32 by {usual:.1e}, "
            f"of {float(expected.norm()):.1e}"
        )
    return report
