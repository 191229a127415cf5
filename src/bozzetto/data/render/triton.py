"""The renderer on CUDA: sizes buffers and launches the kernels of :mod:`.triton_visibility` and :mod:`.triton_shading`."""

from __future__ import annotations

import contextlib
import os

import torch
from torch import Tensor

from .scene import SceneBatch
from .triton_shading import TILE, shade_kernel
from .triton_visibility import queue_kernel, visibility_kernel

KEY_BYTES = 512 << 20  # memory for the samples of the views in flight; views beyond it are rendered in turns
CHUNK = 2048  # samples of a bounding box that one program may walk
QUEUE_CAPACITY = 1 << 18  # chunks; 3 MB
QUEUE_PROGRAMS = 1024


def render_triton(
    scene: SceneBatch, cameras: Tensor, lights: Tensor, lamps: Tensor, result, size: tuple[int, int],
    supersample: int, near: float, cull: bool,
) -> None:  # fmt: skip
    """Fill the tensors of ``result`` (see :func:`.api.render_objects`) on the scene's CUDA device, without waiting for it."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if scene.device.type != "cuda" and not interpreted:
        raise ValueError(f"the Triton renderer needs a scene on a CUDA device, this one is on {scene.device}")
    device = scene.device
    batch, views = cameras.shape[:2]
    height, width = size
    sample_height, sample_width = height * supersample, width * supersample
    per_view = batch * sample_height * sample_width * 8
    step = max(1, min(views, KEY_BYTES // per_view, 65535))
    keys = torch.empty(batch, step, sample_height, sample_width, dtype=torch.int64, device=device)
    queue = torch.empty(QUEUE_CAPACITY, 3, dtype=torch.int32, device=device)
    length = torch.empty(1, dtype=torch.int32, device=device)
    texels = scene.texels.contiguous().view(torch.int32)  # [N, 4] uint8 -> [N, 1] int32
    color = result.rgba is not None
    as_bytes = color and result.rgba.dtype == torch.uint8
    # An output that is not wanted is never written; any pointer will do.
    rgba = result.rgba.view(torch.int32) if as_bytes else (result.rgba if color else lights)
    depth = lights if result.depth is None else result.depth
    normal_map = lights if result.normals is None else result.normals
    tiles = -(-height // TILE) * -(-width // TILE)
    s = scene
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        for base in range(0, views, step):
            count = min(step, views - base)
            keys.zero_()
            length.zero_()
            if len(s.faces):
                shared = (
                    s.vertices, s.faces, s.uvs, s.material, s.face_object, s.levels, s.sizes, texels, cameras, keys, queue,
                    length, views, base, count, QUEUE_CAPACITY, sample_height, sample_width, near, cull, CHUNK,
                )  # fmt: skip
                visibility_kernel[(len(s.faces), count)](*shared, BLOCK=64, num_warps=1, num_stages=1)
                programs = 4 if interpreted else QUEUE_PROGRAMS
                queue_kernel[(programs,)](*shared, BLOCK=512, num_warps=4, num_stages=1)
            shade_kernel[(batch * count * tiles,)](
                s.vertices, s.faces, s.uvs, s.normals, s.material, s.levels, s.sizes, s.base_colors, texels, cameras,
                lights, lamps, keys, rgba, depth, normal_map, views, base, count, height, width,
                supersample, color, as_bytes, result.depth is not None, result.normals is not None, lamps.shape[1],
                lights.shape[1] > 12, TILE,
                num_warps=2, num_stages=1,
            )  # fmt: skip
