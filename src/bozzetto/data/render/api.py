"""The one call that turns a scene batch into pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera import Cameras, as_size
from ...camera.cameras import Size
from ...errors import CameraError, InputError
from ...nn.triton_support import require_triton
from .lights import Lights
from .scene import SceneBatch

OUTPUTS = ("rgba", "depth", "normals")


@dataclass
class RenderedViews:
    """Pictures of B objects from V cameras each, channels last. An output that was not asked for is None.

    Attributes:
        rgba: [B, V, H, W, 4], float32 in 0..1 or uint8. Straight alpha: alpha is the covered share of the pixel's samples,
            colour the mean of the covered ones, and 0 where alpha is 0.
        depth: [B, V, H, W] float32, mean camera z (distance along the viewing axis, world units) of the covered samples,
            0 where nothing is.
        normals: [B, V, H, W, 3] float32, unit shading normals in the world, turned towards the camera's side of the
            surface; 0 where nothing is.
    """

    rgba: Tensor | None
    depth: Tensor | None
    normals: Tensor | None


def _cpu() -> Callable:
    from .cpu import render_cpu

    return render_cpu


def _triton() -> Callable:
    from .triton import render_triton

    return render_triton


BACKENDS: dict[str, Callable[[], Callable]] = {"cpu": _cpu, "triton": _triton}


def camera_table(cameras: Cameras, batch: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """[B, V, 20] float32: the world-to-camera matrix's 12 numbers (rows), fx, fy, cx, cy in pixels, centre (3), 0."""
    cameras = cameras.to(device=device, dtype=torch.float32)
    shape = cameras.batch_shape
    if len(shape) == 1:
        shape = torch.Size((batch, *shape))
    if len(shape) != 2 or shape[0] != batch:
        raise CameraError(
            f"cameras of batch shape {tuple(cameras.batch_shape)} do not fit {batch} objects: "
            "give (B, V), or (V,) to share them among all objects"
        )
    view = cameras.view_matrices()[..., :3, :].flatten(-2)  # [..., 3, 4] -> [..., 12]
    zero = view.new_zeros(*view.shape[:-1], 1)
    table = torch.cat([view, cameras.pixel_intrinsics(size), cameras.positions, zero], dim=-1)
    return table.expand(*shape, 20).contiguous()


def render_objects(
    scene: SceneBatch,
    cameras: Cameras,
    size: Size,
    lights: Lights | None = None,
    *,
    supersample: int = 2,
    near: float = 0.05,
    cull_backfaces: bool = False,
    outputs: Sequence[str] = OUTPUTS,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> RenderedViews:
    """Render each object of ``scene`` from its own cameras. Not differentiable.

    Textures are sampled with trilinear filtering (mip level from the analytic screen footprint of each sample) and
    repeat. Where a material's texture has transparency, samples with bilinear alpha below 0.5 are holes. Everything is
    averaged and shaded on sRGB values; the light model is stated in :mod:`bozzetto.data.render.lights`.

    Args:
        scene: B objects; its device picks the implementation.
        cameras: batch shape (B, V), or (V,) shared by all objects.
        size: picture size, int or (height, width).
        lights: lights of the B scenes; None is ``Lights.default(B)``.
        supersample: samples along each side of a pixel, 1 to 8.
        near: triangles with a corner closer than this (camera z, world units) are left out whole.
        cull_backfaces: leave out triangles seen from behind (clockwise); otherwise they show with flipped normals.
        outputs: which of "rgba", "depth", "normals" to make; fewer is faster.
        dtype: of rgba, ``torch.float32`` or ``torch.uint8`` (rounded).
        backend: "auto" (by device), "cpu", or "triton" (a CUDA device, or the CPU with ``TRITON_INTERPRET=1``).

    Returns:
        :class:`RenderedViews` on the scene's device.

    Raises:
        CameraError: cameras do not fit the scene. InputError: an argument out of range.
    """
    height, width = as_size(size)
    if not 1 <= int(supersample) <= 8:
        raise InputError(f"supersample must be 1 to 8, got {supersample}")
    if not near > 0:
        raise InputError(f"near must be positive, got {near}")
    if unknown := set(outputs) - set(OUTPUTS):
        raise InputError(f"unknown outputs {sorted(unknown)}; known: {', '.join(OUTPUTS)}")
    if dtype not in (torch.float32, torch.uint8):
        raise InputError(f"rgba is made as torch.float32 or torch.uint8, not {dtype}")
    batch, device = len(scene), scene.device
    if backend == "auto":
        backend = "triton" if device.type == "cuda" else "cpu"
    if backend not in BACKENDS:
        raise InputError(f"unknown renderer backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    if backend == "triton":
        require_triton("rendering meshes")
    table = camera_table(cameras, batch, (height * supersample, width * supersample), device)
    views = table.shape[1]
    lights = Lights.default(batch) if lights is None else lights
    if len(lights.ambient) != batch:
        raise InputError(f"lights for {len(lights.ambient)} scenes do not fit {batch} objects")
    base, lamps = lights.tables(device)

    def empty(name: str, *tail: int, of: torch.dtype = torch.float32) -> Tensor | None:
        return torch.empty(batch, views, height, width, *tail, dtype=of, device=device) if name in outputs else None

    result = RenderedViews(empty("rgba", 4, of=dtype), empty("depth"), empty("normals", 3))
    if views and outputs:
        BACKENDS[backend]()(
            scene, table, base, lamps, result, (height, width), int(supersample), float(near), bool(cull_backfaces)
        )
    return result
