"""Compiling the route's kernels before they are needed, all at once.

The first run on a machine compiles some 27 Triton kernels, with a launcher each, and the CPU's of the atlas. One after the other,
as they come up, that takes longer than all the work. Here every one of them is launched on next to nothing, in threads
of their own: compilers run as processes or without Python's lock, so that threads gain. In later processes, which find the
kernels in the caches on disk, it takes a moment. Where something fails, the run itself compiles what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ...gaussians import Gaussians
from .adam import Adam
from .edges import Topology
from .field import WIDTH
from .hash_grid import FEATURES, GridLayout, by_triton
from .march import Occupancy
from .settings import NerfSettings

Task = Callable[[], object]
_prepared: set[tuple] = set()


def prepare_kernels(gaussians: Gaussians, settings: NerfSettings) -> Callable[[], None]:
    """Start compiling what a run on these Gaussians needs; returns a function that waits until it is done.

    Once in a process for each device and kind of Gaussians; on the CPU there is nothing to do. Neither function raises.
    """
    device = gaussians.device
    coefficients = tuple(sorted({1, gaussians.sh.shape[-2]}))  # colours, and depths drawn as colours
    key = (device, coefficients, len(gaussians) > 1 << 16, settings.levels)
    if key in _prepared or not by_triton(device):
        return lambda: None
    _prepared.add(key)
    tasks = host_tasks() + device_tasks(device, len(gaussians), coefficients, settings.levels)
    pool = ThreadPoolExecutor(len(tasks), "kernels")  # most of them wait for compilers
    done = [pool.submit(_quietly, task, device) for task in tasks]
    pool.shutdown(wait=False)
    return lambda: _wait(done)


def _quietly(task: Task, device: torch.device) -> None:
    try:
        with torch.cuda.device(device), torch.no_grad():
            task()
    except Exception:
        pass  # the run meets it again, and says what is wrong


def _wait(done: list[Future]) -> None:
    for task in done:
        task.result()


def device_tasks(device: torch.device, count: int, coefficients: tuple[int, ...], levels: int) -> list[Task]:
    """Functions that launch the route's kernels, the slowest to compile first; together all of them.

    Args:
        count: Gaussians. coefficients: spherical harmonics that pictures are drawn with. levels: of the hash grids.
    """
    from ...raster.triton_prepare import preparations
    from . import edges_triton, hash_grid_triton, march_triton, surface_triton

    layout = GridLayout.make(levels, 2, 4, 64)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, device=device, dtype=dtype)

    table, features = (layout.rows, FEATURES), layout.levels * FEATURES
    # One triangle before one pixel, one ray with one sample.
    face = zeros(1, 1, dtype=torch.int32)
    topology = Topology(zeros(1, 3, dtype=torch.int32), zeros(1, 3, dtype=torch.int32) - 1, zeros(0, 2))
    picture, keys = zeros(1, 1, edges_triton.CHANNELS), zeros(4, dtype=torch.int64)
    ends = zeros(1, dtype=torch.int64) + 1

    def rays() -> None:
        occupancy = Occupancy(2, device)
        points, found = march_triton.sample_rays(zeros(1, 3) - 3, zeros(1, 3) + 0.5, occupancy, 0.5, zeros(1))
        march_triton.before_opaque(points, torch.zeros_like(points[:, 0]), found)

    def find_faces() -> None:
        from .draw_triton import Visibility

        Visibility(topology.faces, 1).find(zeros(3, 3), zeros(20))

    return [
        *preparations(count, coefficients, device),
        lambda: _marching_cubes(device),
        lambda: edges_triton.blend_gradient(picture, keys, topology.faces, zeros(3, 2), picture),
        find_faces,
        lambda: edges_triton.blend(picture, zeros(1), zeros(3, 2), zeros(3), topology),
        lambda: hash_grid_triton.encode(zeros(1, 3), zeros(*table), layout),
        lambda: hash_grid_triton.encode_gradient(zeros(1, 3), zeros(1, features), layout, table),
        lambda: hash_grid_triton.add_variation_gradient(zeros(1, 3), zeros(*table), zeros(*table), layout, 1e-8),
        rays,
        lambda: march_triton.composite_gradient(zeros(1), zeros(1, 3), ends, zeros(1, 4)),
        lambda: march_triton.composite(zeros(1), zeros(1, 3), ends),
        lambda: surface_triton.surface_points(zeros(3, 3), topology.faces, face, zeros(3, 2), zeros(3)),
        lambda: _networks(device),
    ]


def host_tasks() -> list[Task]:
    """Functions that bring what works on the CPU: the atlas' and the cleaning's compiled code, the decimation's package."""

    def unwrapping() -> None:
        from ..bake import fill_texture
        from ..coverage import covered_pixels
        from ..unwrap import unwrap

        vertices, faces = _solid()
        _, faces, uvs = unwrap(vertices, faces, 64)
        texel = covered_pixels(uvs[faces] * 64, 64, 64)[1].unique()
        fill_texture(torch.zeros(len(texel), 3), texel, 64)

    def cleaning() -> None:
        from ..clean import keep_large_components, taubin_smooth
        from ..simplify import decimate, make_manifold

        vertices, faces = keep_large_components(*_solid())
        make_manifold(*decimate(taubin_smooth(vertices, faces), faces, len(faces) // 2))

    return [unwrapping, cleaning]


def _solid() -> tuple[Tensor, Tensor]:
    """A small closed mesh: an octahedron, each face cut into 16."""
    corners = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]).float()
    faces = torch.tensor([[y, x, z] if (x + y + z) % 2 else [x, y, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)])
    for _ in range(2):
        a, b, c = corners[faces].unbind(dim=1)
        parts = [(a, (a + b) / 2, (a + c) / 2), (b, (b + c) / 2, (a + b) / 2), (c, (a + c) / 2, (b + c) / 2)]
        parts.append(((a + b) / 2, (b + c) / 2, (a + c) / 2))
        triangles = torch.cat([torch.stack(part, dim=1) for part in parts])  # [F, 3, 3]
        corners, faces = triangles.reshape(-1, 3).unique(dim=0, return_inverse=True)
        faces = faces.reshape(-1, 3)
    return corners, faces


def _marching_cubes(device: torch.device) -> None:
    from ..marching_cubes import grid_surface

    samples = torch.zeros(3, 3, 3, device=device)
    samples[1, 1, 1] = 1
    grid_surface(samples, 0.5, closed=True)


def _networks(device: torch.device) -> None:
    """PyTorch's own: a network of the field, forward and back, with its optimiser."""
    with torch.enable_grad():
        weight = torch.zeros(WIDTH, WIDTH, device=device, requires_grad=True)
        optimizer = Adam(([weight], 0.0))
        torch.relu(torch.zeros(WIDTH, WIDTH, device=device) @ weight).sum().backward()
        optimizer.step()
