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
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..camera import Cameras, as_size
from ..camera.cameras import Size
from ..gaussians import Gaussians
from ..nn.triton_support import require_triton, triton_usable

if TYPE_CHECKING:
    from .triton_room import RecordedNeed


@dataclass
class Rendering:
    """Pictures of Gaussians, channels last.

    Attributes:
        rgb: [*scenes, V, H, W, 3], composited on the background; may exceed 1 with SH colours.
        alpha: [*scenes, V, H, W], 0..1.
        depth: [*scenes, V, H, W], sum of weight x camera z in world units; divide by alpha for the mean depth.
        recorded: None, or how much a call recorded in a CUDA graph has room for (see :meth:`check`).
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    recorded: RecordedNeed | None = field(default=None, repr=False, compare=False)

    def check(self) -> None:
        """Wait for the device and raise :class:`bozzetto.errors.CapacityError` if there was no room for the pictures.

        That can happen only to a rendering recorded in a CUDA graph whose latest replay drew much more than the calls
        before the recording did (over ``room`` times as many pairs of Gaussians and tiles, see :func:`rasterize`): all of
        its pixels and gradients are NaN. Record it again then. Elsewhere this does nothing: :func:`rasterize` itself gives
        such a call more memory.
        """
        if self.recorded is not None:
            self.recorded.check()


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
    room: float = 1.5,
) -> Rendering:
    """Render every scene from every of its cameras in one call.

    A call on a GPU, with its backward pass, may be recorded in a CUDA graph. Run the same once or twice before, with
    Gaussians like those to come (this compiles the kernels and finds out how long the lists become), and record then. The
    lists of a recording have a fixed place, ``room`` times what those calls needed; a replay that needs more draws NaN and
    has NaN gradients, and touches nothing else, so that later ones that fit are right again. Between replays,
    :meth:`Rendering.check` tells (and waits for the device); ``rendering.recorded`` holds the numbers on the device.

    Args:
        gaussians: batch shape ``*scenes`` (() for one object).
        cameras: batch shape ``(*scenes, V)``, or ``(V,)`` to share the cameras among all scenes.
        size: picture size, int or (height, width).
        background: rgb broadcastable to [*scenes, V, 3]; None is black.
        near, far: Gaussians whose camera z is not inside (near, far) are dropped. World units.
        backend: "auto" (by device; the CPU's for Gaussians on a GPU where Triton cannot run), "reference", "cpu" or "triton".
        room: of a call that is recorded in a CUDA graph, above 1; others take what they need. Lists take some 32 bytes
            for each pair of a Gaussian and a tile of 32 x 32 pixels that it meets. Choose 1.5 for the same kind of scenes,
            more where splats grow (the first steps of a training), and record again when :meth:`Rendering.check` says so.

    Returns:
        :class:`Rendering` with shapes [*scenes, V, H, W, ...]. Gradients flow to every Gaussian parameter and to the
        background. Non-finite Gaussians are skipped, never drawn. Do not change ``alpha`` in place before a backward pass:
        gradients are computed from it. The first backward pass frees the lists: a second one through the same pictures
        (``retain_graph=True``) draws them again.

    Raises:
        ValueError: for shapes that do not fit, an unknown back end, or ``room`` below 1.
        CapacityError: more list entries than can be counted, or a first call that is recorded.
    """
    height, width = as_size(size)
    if not room >= 1:
        raise ValueError(f"room is {room}; it must be at least 1")
    scenes, batch = gaussians.batch_shape, cameras.batch_shape
    if not batch:
        raise ValueError("cameras need a views dimension: use cameras[None] for a single one")
    if backend == "auto":
        backend = "triton" if gaussians.means.is_cuda and triton_usable() else "cpu"
    if backend not in BACKENDS:
        raise ValueError(f"unknown rasterizer backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    v = batch[-1]
    if len(batch) > 1 and batch[:-1] != scenes:
        raise ValueError(
            f"cameras of shape {tuple(batch)} do not fit Gaussians of batch shape {tuple(scenes)}: "
            "give (*scenes, V) or (V,)"
        )
    if backend == "cpu" and gaussians.device.type == "cuda":  # no Triton: there and back, gradients too
        page = background.cpu() if isinstance(background, Tensor) else background
        drawn = rasterize(gaussians.to("cpu"), cameras.to("cpu"), size, page, near=near, far=far, backend=backend)
        return Rendering(*(picture.to(gaussians.device) for picture in (drawn.rgb, drawn.alpha, drawn.depth)))
    if backend == "triton":
        require_triton("rasterizing")
        return _rasterize_triton(gaussians, scenes, cameras, v, height, width, background, near, far, room)
    device = gaussians.device
    cameras = cameras.to(device=device, dtype=torch.float32)
    s, n = scenes.numel(), len(gaussians)  # numel of an empty shape is 1

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


@cache
def _render() -> Callable:
    from .triton import render

    return render


def _rasterize_triton(
    gaussians: Gaussians,
    scenes: tuple[int, ...],
    cameras: Cameras,
    views: int,
    height: int,
    width: int,
    background: Tensor | Sequence[float] | None,
    near: float,
    far: float,
    room: float,
) -> Rendering:
    """:func:`rasterize` without an operation between the user's tensors and the kernels, which read them as they are."""
    means = gaussians.means
    device = means.device
    poses, intrinsics = cameras.camera_to_world, cameras.intrinsics
    if poses.device != device:
        poses, intrinsics = poses.to(device), intrinsics.to(device)
    if background is None:
        background = (0.0, 0.0, 0.0)
    elif isinstance(background, Tensor):
        if background.dtype is not torch.float32 or background.device != device:
            background = background.to(device, torch.float32)
    else:
        values = torch.as_tensor(background, dtype=torch.float32)
        background = tuple(values.tolist()) if values.shape == (3,) else values.to(device)
    return Rendering(
        *_render()(
            means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh,
            poses, intrinsics, background, scenes, views,
            height, width, near, far, True, room,
        )
    )  # fmt: skip
