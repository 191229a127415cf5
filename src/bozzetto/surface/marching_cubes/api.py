"""``marching_cubes``: samples on a grid, given at once or slab by slab, -> vertices and faces of a level set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import MeshError
from ...nn.triton_support import triton_usable

Samples = Tensor | Callable[[int, int], Tensor]
Shape = tuple[int, int, int]

POINTS_PER_SLAB = 1 << 25  # 128 MiB of float32
READ_AS_THEY_ARE = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class GridSurface:
    """A level set of a grid [X, Y, Z], possibly empty.

    Attributes:
        vertices: [V, 3] float32 in grid steps: sample (i, j, k) lies at (i, j, k).
        faces: [F, 3] int64, counter-clockwise seen from outside (from where samples are at most the level).
        axes: [V] uint8, along which axis of the grid the edge runs that the vertex lies on.
        nans: how many samples were NaN.
        least, most: of the samples, where the surface is empty; else NaN.
    """

    vertices: Tensor
    faces: Tensor
    axes: Tensor
    nans: int
    least: float
    most: float


@torch.no_grad()
def marching_cubes(
    samples: Samples,
    level: float = 0.0,
    *,
    shape: Shape | None = None,
    slab: int | None = None,
    closed: bool = False,
    joined: bool = True,
    backend: str = "auto",
    progress: Callable[[float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Triangles of the surface on which the samples of a grid [X, Y, Z] cross ``level``.

    Every edge of the grid that is crossed holds one vertex, shared by all faces around it. The mesh is watertight and each of
    its edges belongs to exactly two faces, but for the border of an open grid. It is the same to the last bit for any ``slab``
    and for each back end. Lorensen and Cline 1987, with a table of 256 cases that agrees on the faces of neighbouring cubes.

    Args:
        samples: a tensor [X, Y, Z], inside where it is above the level; or a function (start, stop) -> planes of constant x,
            [stop - start, Y, Z], called once for each slab in ascending order; it may use the same memory again. The mesh is
            made on the device that the samples are on. NaN counts as outside (a warning says how many there were) and the
            surface then runs midway to its neighbours. Infinity keeps its sign.
        level: the value at the surface.
        shape: (X, Y, Z), for a function.
        slab: planes of a slab; bounds the memory for a function, whose slabs have some 2^25 points by default.
        closed: treat everything beyond the grid as outside, with lids on its border; else there are holes at the border.
            Where two lids meet, vertices of both lie at one place.
        joined: where the corners of a face are inside in one diagonal and outside in the other, connect the inside ones;
            else the outside ones.
        backend: "auto", "reference" (PyTorch on any device), "cpu" (numba) or "triton".
        progress: called with the share done, 0..1.

    Returns:
        vertices [V, 3] float32 in grid steps, (i, j, k) for sample (i, j, k), and faces [F, 3] int64, counter-clockwise seen from
        outside.

    Raises:
        MeshError: the level is never crossed, or the samples have no shape that holds a surface.
    """
    surface = grid_surface(
        samples,
        level,
        shape=shape,
        slab=slab,
        closed=closed,
        joined=joined,
        backend=backend,
        progress=progress,
    )
    if surface.nans:
        warnings.warn(f"{surface.nans} samples are NaN; they were taken as outside", RuntimeWarning, stacklevel=2)
    if len(surface.faces) == 0:
        raise MeshError(
            f"the samples never cross the level {level:g} (they lie in {surface.least:.4g}..{surface.most:.4g}), "
            "so there is no surface: choose a level between these, or a larger or finer grid"
        )
    return surface.vertices, surface.faces


@torch.no_grad()
def grid_surface(
    samples: Samples,
    level: float = 0.0,
    *,
    shape: Shape | None = None,
    slab: int | None = None,
    closed: bool = False,
    joined: bool = True,
    backend: str = "auto",
    progress: Callable[[float], None] | None = None,
) -> GridSurface:
    """As :func:`marching_cubes`, but an empty surface is no error, NaN is counted only, and more is told."""
    points = POINTS_PER_SLAB
    if isinstance(samples, Tensor):
        whole, shape = samples, tuple(samples.shape)
        if whole.dtype in READ_AS_THEY_ARE:  # the back ends divide it as suits them
            points = whole.numel()

        def samples(start: int, stop: int) -> Tensor:
            return whole[start:stop]

    _check(shape, slab, level, closed)
    report = progress or (lambda share: None)
    level = torch.tensor(level, dtype=torch.float32).item()
    slab = slab or max(1, points // (shape[1] * shape[2]))
    pieces: tuple[list[Tensor], ...] = ([], [], [])  # vertices, axes, faces
    extremes, slabs = [], None
    for start in range(0, shape[0], slab):
        stop = min(shape[0], start + slab)
        planes = samples(start, stop).detach()
        if tuple(planes.shape) != (stop - start, *shape[1:]):
            wanted = (stop - start, *shape[1:])
            raise MeshError(f"samples({start}, {stop}) must give planes {wanted}, got {tuple(planes.shape)}")
        slabs = slabs or _backend(backend, planes.device)(shape, level, closed, joined, planes.device)
        if planes.dtype not in READ_AS_THEY_ARE:
            planes = planes.float()
        for piece in slabs.add(planes):
            for kind, part in zip(pieces, piece, strict=True):
                kind.append(part)
        if extremes is not None:
            extremes = None if any(map(len, pieces[2])) else [*extremes, _extremes(planes)]
        report(stop / shape[0])
    vertices, axes, faces = map(_take, pieces)
    least, most = torch.stack(extremes).T.tolist() if extremes else ([math.nan], [math.nan])
    return GridSurface(vertices, faces, axes, int(slabs.nans), min(least), max(most))


def _take(parts: list[Tensor]) -> Tensor:
    """All parts in one tensor. They are let go of at once: a large mesh is in memory once, and a part of it twice."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    parts.clear()
    return whole


def _extremes(planes: Tensor) -> Tensor:
    """The lowest and the highest sample [2] that is not NaN; infinity and -infinity where all are."""
    missing = torch.isnan(planes)
    least = torch.where(missing, torch.inf, planes).amin()
    return torch.stack([least, torch.where(missing, -torch.inf, planes).amax()]).float()


def _check(shape: Shape | None, slab: int | None, level: float, closed: bool) -> None:
    if shape is None:
        raise MeshError("the shape (X, Y, Z) of the grid must be given with a function of samples")
    if len(shape) != 3 or min(shape) < (1 if closed else 2):
        raise MeshError(f"the grid must be [X, Y, Z] with at least two samples along each side, got {tuple(shape)}")
    if slab is not None and slab < 1:
        raise MeshError(f"slab must be at least one plane, got {slab}")
    if not math.isfinite(level):
        raise MeshError(f"the level must be finite, got {level}")


def _reference() -> type:
    from .reference import ReferenceSlabs

    return ReferenceSlabs


def _cpu() -> type:
    from .cpu import CpuSlabs

    return CpuSlabs


def _triton() -> type:
    from .triton import TritonSlabs

    return TritonSlabs


BACKENDS: dict[str, Callable[[], type]] = {"reference": _reference, "cpu": _cpu, "triton": _triton}


def _backend(name: str, device: torch.device) -> type:
    if name not in ("auto", *BACKENDS):
        raise MeshError(f"unknown back end {name!r} of marching cubes; known: auto, {', '.join(BACKENDS)}")
    if name != "auto":
        return BACKENDS[name]()
    if device.type == "cpu":
        return _cpu()
    if device.type == "cuda" and triton_usable():
        return _triton()
    return _reference()
