"""The one rasterizer call and the contract that every back end fulfils.

A back end is a function with autograd support::

    backend(means, quats, scales, opacities, sh, view, intrinsics, background, height, width, near, far)
        means      [S, N, 3]     quats [S, N, 4] (any length)   scales [S, N, 3]   opacities [S, N]
        sh         [S, N, K, 3]  K in 1, 4, 9, 16
        view       [S, V, 4, 4]  world to camera, OpenCV axes
        intrinsics [S, V, 4]     fx, fy, cx, cy in pixels
        background [S, V, 3]
        -> rgb [S, V, H, W, 3] (composited on the background), alpha [S, V, H, W], depth [S, V, H, W]

All float32 and contiguous; differentiable in means, quats, scales, opacities, sh and background (not in the cameras).
The image formation model (equations, thresholds) is stated in :mod:`bozzetto.raster.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera import Cameras, as_size
from ..camera.cameras import Size
from ..gaussians import Gaussians


@dataclass
class Rendering:
    """Pictures of Gaussians, channels last.

    Attributes:
        rgb: [*scenes, V, H, W, 3], composited on the background; may exceed 1 with SH colours.
        alpha: [*scenes, V, H, W], 0..1.
        depth: [*scenes, V, H, W], sum of weight x camera z in world units; divide by alpha for the mean depth.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor


def _reference() -> Callable:
    from .reference import rasterize_reference

    return rasterize_reference


def _cpu() -> Callable:
    from .cpu import rasterize_cpu

    return rasterize_cpu


def _triton() -> Callable:
    from .triton import rasterize_triton

    return rasterize_triton


BACKENDS: dict[str, Callable[[], Callable]] = {"reference": _reference, "cpu": _cpu, "triton": _triton}


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    size: Size,
    background: Tensor | Sequence[float] | None = None,
    *,
    near: float = 0.01,
    far: float = 1e10,
    backend: str = "auto",
) -> Rendering:
    """Render every scene from every of its cameras in one call.

    Args:
        gaussians: batch shape ``*scenes`` (() for one object).
        cameras: batch shape ``(*scenes, V)``, or ``(V,)`` to share the cameras among all scenes.
        size: picture size, int or (height, width).
        background: rgb broadcastable to [*scenes, V, 3]; None is black.
        near, far: Gaussians whose camera z is not inside (near, far) are dropped. World units.
        backend: "auto", "reference", "cpu" or "triton".

    Returns:
        :class:`Rendering` with shapes [*scenes, V, H, W, ...]. Gradients flow to every Gaussian parameter and to the
        background. Non-finite Gaussians are skipped, never drawn.
    """
    height, width = as_size(size)
    scenes = gaussians.batch_shape
    views = cameras.batch_shape[-1:] if cameras.batch_shape else None
    if views is None:
        raise ValueError("cameras need a views dimension: use cameras[None] for a single one")
    if backend == "auto":
        backend = "triton" if gaussians.device.type == "cuda" else "cpu"
    if backend not in BACKENDS:
        raise ValueError(f"unknown rasterizer backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    device = gaussians.device
    cameras = cameras.to(device=device, dtype=torch.float32)
    s, v, n = scenes.numel(), views[0], len(gaussians)  # numel of an empty shape is 1
    if cameras.batch_shape not in ((v,), (*scenes, v)):
        raise ValueError(
            f"cameras of shape {tuple(cameras.batch_shape)} do not fit Gaussians of batch shape {tuple(scenes)}: "
            "give (*scenes, V) or (V,)"
        )

    def per_view(x: Tensor, *tail: int) -> Tensor:
        return x.expand(*scenes, v, *tail).reshape(s, v, *tail).float().contiguous()

    k = gaussians.sh.shape[-2]
    if background is None:
        background = torch.zeros(3, device=device)
    background = torch.as_tensor(background, dtype=torch.float32, device=device)
    with torch.autocast(device.type, enabled=False):  # geometry in bf16 would move splats by whole pixels
        rgb, alpha, depth = BACKENDS[backend]()(
            gaussians.means.reshape(s, n, 3).float().contiguous(),
            gaussians.quats.reshape(s, n, 4).float().contiguous(),
            gaussians.scales.reshape(s, n, 3).float().contiguous(),
            gaussians.opacities.reshape(s, n).float().contiguous(),
            gaussians.sh.reshape(s, n, k, 3).float().contiguous(),
            per_view(cameras.view_matrices(), 4, 4),
            per_view(cameras.pixel_intrinsics((height, width)), 4),
            per_view(background, 3),
            height,
            width,
            float(near),
            float(far),
        )
    return Rendering(
        rgb.reshape(*scenes, v, height, width, 3),
        alpha.reshape(*scenes, v, height, width),
        depth.reshape(*scenes, v, height, width),
    )
