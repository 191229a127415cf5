"""The backward pass of the CPU rasterizer: runs its kernels in an order that does not depend on the threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .cpu_backproject import backproject_range
from .cpu_backward import ROW, add_sums, backward_band
from .threads import run_tasks, spans, waves

if TYPE_CHECKING:
    from .cpu import Scenes, View


def gradients(scenes: Scenes, views: list[View], pictures: list[np.ndarray]) -> list[Tensor]:
    """Gradients of means, quats, scales, opacities, sh and background from those of the pictures.

    Args:
        scenes, views: of the forward pass. pictures: gradients of rgb [S * V, H, W, 3], alpha and depth [S * V, H, W].

    Returns:
        Six float32 tensors; the background's is [S * V, 3].
    """
    arrays = (scenes.means, scenes.quats, scenes.scales, scenes.opacities, scenes.sh)
    results = [np.zeros(a.shape, np.float32) for a in arrays]  # numpy: no thread team only to write zeros
    background = np.zeros((len(views), 3), np.float32)
    for part in waves(len(views)):
        wave = views[part]
        totals = _splat_gradients(wave, [p[part] for p in pictures], background[part])
        # A task adds the views of its Gaussians one after the other: always in the same order.
        tasks = []
        for s in sorted({view.scene for view in wave}):
            cameras = [
                (view.ranks, view.records, total, view.matrix, view.centre, view.camera)
                for view, total in zip(wave, totals)
                if view.scene == s
            ]
            inputs = (scenes.means[s], scenes.quats[s], scenes.scales[s], scenes.sh[s])
            out = [r[s] for r in results]
            tasks += [(_backproject_views, *span, cameras, inputs, out) for span in spans(scenes.means.shape[1])]
        run_tasks(tasks)
    return [torch.from_numpy(a) for a in (*results, background)]


def _splat_gradients(wave: list[View], pictures: list[np.ndarray], background: np.ndarray) -> list[np.ndarray]:
    """Sums [M, 16] of every view; fills ``background`` [views, 3]."""
    tasks = []
    for view, *planes in zip(wave, *pictures):
        common = (view.ends, view.stops, *planes)
        tasks += [
            (backward_band, view.records, band, view.background, *lists, *common)
            for band, lists in enumerate(view.bands)
        ]
    results = iter(run_tasks(tasks))
    totals, tasks = [], []
    for i, view in enumerate(wave):
        total = np.zeros((len(view.records), ROW), np.float32)
        totals.append(total)
        bands = [next(results) for _ in view.bands]
        background[i] = np.sum([band[2] for band in bands], axis=0)
        tasks += [(_add_bands, *span, bands, total) for span in spans(len(view.records), 32768)]
    run_tasks(tasks)
    return totals


def _add_bands(begin: int, end: int, bands: list[tuple], total: np.ndarray) -> None:
    for members, sums, _ in bands:
        add_sums(begin, end, members, sums, total)


def _backproject_views(begin: int, end: int, cameras: list[tuple], inputs: tuple, out: list[np.ndarray]) -> None:
    for ranks, records, total, *camera in cameras:
        backproject_range(begin, end, ranks, records, total, *inputs, *camera, *out)
