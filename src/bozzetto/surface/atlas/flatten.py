"""Charts → their faces in the plane: projected, turned, and split where a chart folds over itself."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .segment import chart_faces, connected_charts, dual_edges

ANGLES = 30  # tried to find the narrowest box
SAMPLES_PER_FACE = 4
LEAST_SAMPLES, MOST_SAMPLES = 1 << 14, 1 << 22  # over the whole surface, to find overlaps
MOST_ROUNDS = 64


def flatten(vertices: Tensor, faces: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Charts in the plane.

    Args:
        vertices: [V, 3]; faces: [F, 3], on the CPU.
        samples: points over the whole surface at which no chart may cover itself twice, roughly.

    Returns:
        chart: [F], the chart of each face, 0..C-1.
        flat: [F, 3, 2], float64, positions of the faces' corners in their chart's plane, x right and y down seen from
            outside, from 0 on; every chart covers about as much as its faces' area, in the unit of the vertices.
        extent: [C, 2], the boxes of the charts.
    """
    chart, axes = chart_faces(vertices, faces)
    first, second, _ = dual_edges(vertices, faces)
    edges = _face_neighbours(faces, first, second)
    samples = min(max(samples, SAMPLES_PER_FACE * len(faces), LEAST_SAMPLES), MOST_SAMPLES)
    done, todo = None, torch.ones(len(faces), dtype=torch.bool)
    for _ in range(MOST_ROUNDS):
        flat, extent, area = _project(vertices, faces, chart, axes)
        density = min(math.sqrt(samples / max(area, 1e-30)), MOST_SAMPLES**0.5 / max(float(extent.amax()), 1e-30))
        accepted = _accept(flat, extent, chart, edges, density, todo, done)
        done, todo = accepted, ~accepted
        if not bool(todo.any()):
            break
        # What was left out makes charts of its own, with the plane that it had.
        split = torch.where(todo, chart + len(axes), chart)
        number = connected_charts(split, first, second)
        fresh = axes.new_zeros(int(number.max()) + 1, 3)
        fresh[number] = axes[chart]
        chart, axes = number, fresh
    return chart, flat, extent


def _face_neighbours(faces: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours in rows of three: (face [2E] ascending, its neighbour [2E])."""
    face, other = torch.cat([first, second]), torch.cat([second, first])
    order = face.argsort(stable=True)
    return face[order], other[order]


def _project(vertices: Tensor, faces: Tensor, chart: Tensor, axes: Tensor) -> tuple[Tensor, Tensor, float]:
    count = len(axes)
    corners = vertices[faces].double()
    normal = axes.double()
    helper = F.one_hot(normal.abs().argmin(dim=1), 3).double()
    right = F.normalize(torch.linalg.cross(helper, normal), dim=-1)
    down = torch.linalg.cross(right, normal)  # right x up = towards the viewer, and down = -up
    frame = torch.stack([right, down], dim=1)[chart]  # [F, 2, 3]
    flat = corners @ frame.transpose(1, 2)  # [F, 3, 2]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1).norm(dim=-1) / 2
    a, b = (flat[:, 1] - flat[:, 0]).unbind(-1), (flat[:, 2] - flat[:, 0]).unbind(-1)
    shadow = (a[0] * b[1] - a[1] * b[0]).abs() / 2
    zeros = torch.zeros(count, dtype=torch.float64)
    grow = (zeros.index_add(0, chart, area) / zeros.index_add(0, chart, shadow).clamp_min(1e-30)).sqrt()
    flat = flat * grow.clamp(1, 2)[chart][:, None, None]
    # Turned into the narrowest box.
    points, owner = flat.reshape(-1, 2), chart.repeat_interleave(3)
    angles = torch.arange(ANGLES) * (math.pi / 2 / ANGLES)
    low = torch.full((ANGLES, count, 2), torch.inf, dtype=torch.float64)
    high = -low
    kernels.bounding_angles(points.numpy(), owner.numpy(), angles.double().numpy(), low.numpy(), high.numpy())
    best = (high - low).prod(dim=-1).argmin(dim=0)  # [C]
    c, s = angles.double()[best].cos(), angles.double()[best].sin()
    turn = torch.stack([torch.stack([c, -s], dim=-1), torch.stack([s, c], dim=-1)], dim=-2)  # [C, 2, 2]
    each = torch.arange(count)
    flat = flat @ turn[chart].transpose(1, 2) - low[best, each][chart][:, None]
    return flat.clamp_min(0), (high - low)[best, each], float(area.sum())


def _accept(
    flat: Tensor, extent: Tensor, chart: Tensor, edges: tuple[Tensor, Tensor], density: float, todo: Tensor, done
) -> Tensor:
    """Faces [F] that do not cover a sample which their chart has covered already."""
    face, other = edges
    inner = chart[face] == chart[other]
    face, other = face[inner], other[inner]
    starts = torch.searchsorted(face, torch.arange(len(chart) + 1))
    slot = torch.arange(len(face)) - starts[face]
    neighbours = torch.full((len(chart), 3), -1, dtype=torch.long)
    neighbours[face, slot] = other
    order = chart.argsort(stable=True)
    start = torch.searchsorted(chart[order], torch.arange(len(extent) + 1))
    cells = (extent * density).ceil().long() + 1
    accepted = np.zeros(len(chart), np.bool_)
    grid = np.zeros(int(cells.prod(dim=-1).max()) + 1, np.int32)
    kernels.accept_faces(
        (flat * density).numpy(), neighbours.numpy(), start.numpy(), order.numpy(), cells[:, 0].numpy(), grid, accepted
    )
    return torch.from_numpy(accepted)
