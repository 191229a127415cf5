"""The renderer's first pass alone: which triangle is nearest at every pixel centre. For rendering that is differentiated."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import torch
from torch import Tensor

from ...camera import Cameras, as_size
from ...camera.cameras import Size
from ...errors import InputError
from ...nn.triton_support import require_triton
from .api import camera_table


@torch.no_grad()
def visible_faces(
    vertices: Tensor, faces: Tensor, cameras: Cameras, size: Size, *, near: float = 0.05, backend: str = "auto"
) -> Tensor:
    """The nearest triangle of one mesh at every pixel centre.

    Args:
        vertices: [N, 3], world. faces: [F, 3]; seen from both sides, left out whole where a corner is closer than ``near``.
        cameras: batch shape (V,). size: int or (height, width).
        backend: "auto" (by device), "cpu", or "triton" (CUDA, or the CPU with ``TRITON_INTERPRET=1``).

    Returns:
        [V, H, W] int64 on the mesh's device: the face, or -1 where there is none.
    """
    height, width = as_size(size)
    device = vertices.device
    vertices, faces = vertices.float().contiguous(), faces.to(torch.int32).contiguous()
    table = camera_table(cameras, 1, (height, width), device)[0]  # [1, V, 20] -> [V, 20]
    if backend == "auto":
        backend = "triton" if device.type == "cuda" else "cpu"
    if backend not in ("cpu", "triton"):
        raise InputError(f"unknown renderer backend {backend!r}; known: auto, cpu, triton")
    count = len(faces)
    # No texture: the passes read only that the material has no holes.
    uvs = torch.zeros(1, 3, 2, device=device)
    material = torch.zeros(count, dtype=torch.int32, device=device)
    levels = torch.zeros(1, 16, dtype=torch.int64, device=device)
    sizes = torch.zeros(1, 4, dtype=torch.int32, device=device)
    if backend == "triton":
        require_triton("rendering meshes")
        return _triton(vertices, faces, uvs, material, levels, sizes, table, height, width, near)
    return _cpu(vertices, faces, uvs, material, levels, sizes, table, height, width, near)


def _cpu(
    vertices: Tensor, faces: Tensor, uvs: Tensor, material: Tensor, levels: Tensor, sizes: Tensor, table: Tensor,
    height: int, width: int, near: float,
) -> Tensor:  # fmt: skip
    """The nearest face [V, H, W] of one mesh from cameras [V, 20], -1 where there is none. One thread."""
    from .cpu import _project, _visibility

    v, f, u, m, lv, sz = (t.numpy() for t in (vertices, faces, uvs, material, levels, sizes))
    ids = np.zeros((len(table), height, width), np.int32)
    screen, texels = np.empty((len(v), 4), np.float32), np.zeros(1, np.uint32)
    for camera, own in zip(table.numpy(), ids, strict=True):
        _project(v, camera, screen)
        inverse_z = np.zeros((height, width), np.float32)
        _visibility(screen, f, u, m, lv, sz, texels, 0, height, width, np.float32(near), False, inverse_z, own)
    return torch.from_numpy(ids).long() - 1


def _triton(
    vertices: Tensor, faces: Tensor, uvs: Tensor, material: Tensor, levels: Tensor, sizes: Tensor, table: Tensor,
    height: int, width: int, near: float,
) -> Tensor:  # fmt: skip
    from .triton import CHUNK, QUEUE_CAPACITY, QUEUE_PROGRAMS
    from .triton_visibility import queue_kernel, visibility_kernel

    device, views, count = vertices.device, len(table), len(faces)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    keys = torch.zeros(views, height, width, dtype=torch.int64, device=device)
    if count and views:
        queue = torch.empty(QUEUE_CAPACITY, 3, dtype=torch.int32, device=device)
        length = torch.zeros(1, dtype=torch.int32, device=device)
        shared = (
            vertices, faces, uvs, material, material, levels, sizes, sizes, table, keys, queue, length, views, 0, views,
            QUEUE_CAPACITY, height, width, near, False, CHUNK,
        )  # fmt: skip
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            visibility_kernel[(count, views)](*shared, BLOCK=64, num_warps=1, num_stages=1)
            programs = 4 if interpreted else QUEUE_PROGRAMS
            queue_kernel[(programs,)](*shared, BLOCK=512, num_warps=4, num_stages=1)
    return (keys & 0xFFFFFFFF) - 1
