"""The rasterizer for the CPU: numba kernels on 16 pixels at a time, all cores, gradients by hand.

The image is that of :mod:`bozzetto.raster.reference`. Per view: project and cull, sort by depth, then for every band
(row of 16 x 16 tiles) list the splats of each tile by the exact extent of alpha >= 1/255 and composite. The result does
not depend on the number of threads (``torch.set_num_threads``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .cpu_forward import forward_band
from .cpu_project import HIDDEN, gather_sorted, project_range
from .lanes import RECORD, TILE
from .reference import BORDER
from .threads import run_tasks, spans, waves


@dataclass
class View:
    """One view of one scene; what the backward pass needs of the forward pass."""

    scene: int
    matrix: np.ndarray  # [4, 4] float64, world to camera
    centre: np.ndarray  # [3] float64, of the camera
    camera: np.ndarray  # [8] float64: fx, fy, cx, cy, bounds of u and v
    background: np.ndarray  # [3]
    ranks: np.ndarray | None = None  # [N] int32, place in records, -1: not drawn
    records: np.ndarray | None = None  # [M, 16], in compositing order
    rows: np.ndarray | None = None  # [M, 2] int32, bands
    ends: np.ndarray | None = None  # [H, W] final transmittance
    stops: np.ndarray | None = None  # [H, W] int32
    bands: list[tuple] = field(default_factory=list)  # starts, ids


@dataclass
class Scenes:
    """The Gaussians as arrays, [S, N, ...]."""

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    sh: np.ndarray

    @classmethod
    def of(cls, *tensors: Tensor) -> Scenes:
        return cls(*(t.detach().numpy() for t in tensors))


def rasterize_cpu(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    height: int,
    width: int,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Render S scenes from V views each; shapes as in :mod:`bozzetto.raster.api`, float32 on the CPU.

    Returns:
        rgb [S, V, H, W, 3], alpha [S, V, H, W], depth [S, V, H, W]; differentiable once in everything but the cameras.
    """
    parameters = (means, quats, scales, opacities, sh, background)
    for tensor in (*parameters, view, intrinsics):
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise ValueError(
                f"the cpu rasterizer takes float32 tensors on the CPU, got {tensor.dtype} on {tensor.device}"
            )
    parameters = tuple(t.contiguous() for t in parameters)
    views = _views(view, intrinsics, parameters[5], height, width)
    shape = (*view.shape[:2], height, width)
    near, far = float(near), float(far)  # an int would compile the kernels once more
    if torch.is_grad_enabled() and any(t.requires_grad for t in parameters):
        return _Rasterize.apply(*parameters, views, shape, near, far)
    return _forward(Scenes.of(*parameters[:5]), views, shape, near, far, keep=False)


def _views(view: Tensor, intrinsics: Tensor, background: Tensor, height: int, width: int) -> list[View]:
    matrices = view.detach().double()
    centres = torch.linalg.inv(matrices)[..., :3, 3].contiguous().numpy()
    matrices, background = matrices.contiguous().numpy(), background.detach().numpy()
    lenses = intrinsics.detach().double().numpy()
    out = []
    for s, v in np.ndindex(*view.shape[:2]):
        fx, fy, cx, cy = lenses[s, v]
        margin_x, margin_y = BORDER * width, BORDER * height
        bounds = [
            -(cx + margin_x) / fx,
            (width - cx + margin_x) / fx,
            -(cy + margin_y) / fy,
            (height - cy + margin_y) / fy,
        ]
        camera = np.array([fx, fy, cx, cy, *bounds])
        out.append(View(s, matrices[s, v], centres[s, v], camera, background[s, v]))
    return out


def _forward(
    scenes: Scenes, views: list[View], shape: tuple[int, ...], near: float, far: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of all views; their lists and stops stay in ``views`` if ``keep``."""
    height, width = shape[2:]
    rgb, alpha, depth = torch.empty(*shape, 3), torch.empty(shape), torch.empty(shape)
    pictures = [t.view(len(views), height, width, *t.shape[4:]).numpy() for t in (rgb, alpha, depth)]
    for part in waves(len(views)):
        wave = views[part]
        _project(scenes, wave, height, width, near, far)
        tasks = []
        for view, *planes in zip(wave, *(p[part] for p in pictures)):
            view.ends, view.stops = np.empty((height, width), np.float32), np.empty((height, width), np.int32)
            tasks += [
                (forward_band, view.records, view.rows, band, view.background, *planes, view.ends, view.stops)
                for band in range(math.ceil(height / TILE))
            ]
        bands = iter(run_tasks(tasks))
        for view in wave:
            view.bands = [next(bands) for _ in range(math.ceil(height / TILE))]
            view.rows = None
            if not keep:
                view.ranks = view.records = view.ends = view.stops = None
                view.bands = []
    return rgb, alpha, depth


def _project(scenes: Scenes, wave: list[View], height: int, width: int, near: float, far: float) -> None:
    """Fill ranks, records and rows of every view."""
    count = scenes.means.shape[1]
    scratch = [(np.empty((count, RECORD), np.float32), np.empty(count, np.uint64)) for _ in wave]
    tasks = []
    for view, (records, keys) in zip(wave, scratch):
        s = view.scene
        gaussians = (scenes.means[s], scenes.quats[s], scenes.scales[s], scenes.opacities[s], scenes.sh[s])
        camera = (view.matrix, view.centre, view.camera, height, width, near, far)
        tasks += [(project_range, *span, *gaussians, *camera, records, keys) for span in spans(count)]
    run_tasks(tasks)
    run_tasks([(_sort, view, records, keys, height) for view, (records, keys) in zip(wave, scratch)])


def _sort(view: View, records: np.ndarray, keys: np.ndarray, height: int) -> None:
    keys.sort()
    order = keys[: np.searchsorted(keys, HIDDEN)]
    view.records = np.empty((len(order), RECORD), np.float32)
    view.rows = np.empty((len(order), 2), np.int32)
    view.ranks = np.full(len(keys), -1, np.int32)
    gather_sorted(order, records, height, view.records, view.rows, view.ranks)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, sh, background, views, shape, near, far):
        ctx.save_for_backward(means, quats, scales, opacities, sh, background)
        ctx.views, ctx.shape = views, shape
        return _forward(Scenes.of(means, quats, scales, opacities, sh), views, shape, near, far, keep=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_rgb, grad_alpha, grad_depth):
        from .cpu_gradients import gradients  # its kernels are compiled only where they are needed

        *gaussians, background = ctx.saved_tensors
        pictures = [
            g.contiguous().view(len(ctx.views), *ctx.shape[2:], *g.shape[4:]).numpy()
            for g in (grad_rgb, grad_alpha, grad_depth)
        ]
        results = gradients(Scenes.of(*gaussians), ctx.views, pictures)
        results[-1] = results[-1].reshape(background.shape)
        kept = [r if needed else None for r, needed in zip(results, ctx.needs_input_grad)]
        return (*kept, None, None, None, None)
