"""Random rasterizer inputs, and the comparison of a back end with the reference on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.raster.reference import MIN_ALPHA, MIN_TRANSMITTANCE, project, rasterize_reference

NAMES = ("means", "quats", "scales", "opacities", "sh", "view", "intrinsics", "background")
PARAMETERS = ("means", "quats", "scales", "opacities", "sh", "background")


def random_inputs(
    seed: int, scenes: int, views: int, n: int, size: tuple[int, int], k: int, scale: float = 0.04
) -> dict[str, Tensor]:
    """Inputs of a back end (float64): Gaussians in a ball of radius 0.5 seen from an orbit of radius 1.5."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g, dtype=torch.float64)

    means = 0.5 * torch.nn.functional.normalize(normal(scenes, n, 3), dim=-1) * uniform(scenes, n, 1) ** (1 / 3)
    cameras = Cameras.orbit(uniform(scenes, views) * 360, uniform(scenes, views) * 80 - 40)
    return {
        "means": means,
        "quats": normal(scenes, n, 4),
        "scales": scale * torch.exp(0.7 * normal(scenes, n, 3)),
        "opacities": uniform(scenes, n),
        "sh": torch.cat([normal(scenes, n, 1, 3), 0.3 * normal(scenes, n, k - 1, 3)], dim=2),
        "view": cameras.view_matrices().double(),
        "intrinsics": cameras.pixel_intrinsics(size).double() * (1 + 0.1 * normal(scenes, views, 4)),
        "background": uniform(scenes, views, 3),
    }


def evaluate(
    backend: Callable,
    inputs: dict[str, Tensor],
    size: tuple[int, int],
    weights: tuple[Tensor, Tensor, Tensor],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    near: float = 0.01,
    far: float = 1e10,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Pictures and the gradients of sum(weights * pictures), as float64 on the CPU."""
    tensors = {
        k: v.to(device=device, dtype=dtype).contiguous().requires_grad_(k in PARAMETERS) for k, v in inputs.items()
    }
    pictures = backend(*(tensors[k] for k in NAMES), *size, near, far)
    loss = sum((p * w.to(device=device, dtype=dtype)).sum() for p, w in zip(pictures, weights))
    gradients = torch.autograd.grad(loss, [tensors[k] for k in PARAMETERS])
    return [p.detach().double().cpu() for p in pictures], {k: v.double().cpu() for k, v in zip(PARAMETERS, gradients)}


def steady(inputs: dict[str, Tensor], size: tuple[int, int], device: str = "cpu") -> Tensor:
    """[S, V, H, W]: pixels where no decision (1/255 cut, transmittance stop, order in depth) is within reach of rounding."""
    height, width = size
    inputs = {k: v.to(device) for k, v in inputs.items()}
    columns, rows = torch.arange(width, device=device) + 0.5, torch.arange(height, device=device) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(-1, 1, 2).double()
    out = []
    for s in range(inputs["view"].shape[0]):
        for v in range(inputs["view"].shape[1]):
            gaussians = (inputs[k][s] for k in ("means", "quats", "scales", "sh"))
            centres, conics, _, z, _ = project(*gaussians, inputs["view"][s, v], inputs["intrinsics"][s, v], *size)
            order = torch.argsort(z)
            d = pixels - centres[order]
            xx, xy, yy = conics[order].unbind(-1)
            sigma = 0.5 * (xx * d[..., 0] ** 2 + yy * d[..., 1] ** 2) + xy * d[..., 0] * d[..., 1]
            alpha = (inputs["opacities"][s][order] * torch.exp(-sigma)).clamp_max(0.99)
            near_cut = ((alpha / MIN_ALPHA - 1).abs() < 2e-4).any(-1)
            light = torch.cumprod(1 - torch.where(alpha < MIN_ALPHA, 0.0, alpha), dim=-1)
            near_stop = ((light / MIN_TRANSMITTANCE - 1).abs() < 2e-3).any(-1)
            drawn, depth = alpha > 0.99 * MIN_ALPHA, z[order]
            near_tie = torch.zeros_like(near_cut)
            for gap in (1, 2):  # float32 cannot tell these depths apart, and both Gaussians show in the pixel
                tied = (depth[gap:] - depth[:-gap]) < 5e-7 * depth[gap:]
                near_tie |= (drawn[:, gap:] & drawn[:, :-gap] & tied).any(-1)
            out.append(~(near_cut | near_stop | near_tie))
    return torch.stack(out).reshape(*inputs["view"].shape[:2], height, width).cpu()


def random_weights(seed: int, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss weights for rgb, alpha and depth, zero where ``keep`` is False."""
    g = torch.Generator().manual_seed(seed)
    rgb = torch.rand((*keep.shape, 3), generator=g, dtype=torch.float64) * 2 - 1
    alpha, depth = (torch.rand(keep.shape, generator=g, dtype=torch.float64) * 2 - 1 for _ in range(2))
    return rgb * keep[..., None], alpha * keep, depth * keep


def check_random(
    backend: Callable, seed: int, scenes: int, views: int, n: int, size: tuple[int, int], k: int, device: str = "cpu"
) -> dict[str, float]:
    """Assert that a float32 ``backend`` agrees with the float64 reference on a random scene; return the differences."""
    inputs = random_inputs(seed, scenes, views, n, size, k)
    keep = steady(inputs, size, device)
    assert keep.float().mean() > 0.5, "the comparison would leave out most pixels"
    weights = random_weights(seed, keep)
    pictures, gradients = evaluate(backend, inputs, size, weights, device=device)
    expected_pictures, expected_gradients = evaluate(
        rasterize_reference, inputs, size, weights, torch.float64, device=device
    )
    worst = {}
    for name, got, expected in zip(("rgb", "alpha", "depth"), pictures, expected_pictures):
        worst[name] = float((got - expected)[keep].abs().max())
        assert worst[name] <= 5e-5, f"{name} differs by {worst[name]:.1e}"
    for name, expected in expected_gradients.items():
        worst["grad_" + name] = float((gradients[name] - expected).abs().max() / expected.abs().max())
        assert worst["grad_" + name] <= 2e-4, (
            f"gradient of {name} differs by {worst['grad_' + name]:.1e} of its largest"
        )
    return worst
