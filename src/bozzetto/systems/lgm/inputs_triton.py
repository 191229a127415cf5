"""lgm-mini's first eleven input channels in one Triton kernel: pictures and cameras are read once, every channel is written once.

A program owns a block of pixels of one slot; a thread has a few of them in registers, with their ray. Programs share nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...camera import Cameras
from ...nn.launch import cdiv, launch

BLOCK = 512  # pixels a program


@triton.jit(do_not_specialize=["size", "channels"])
def input_kernel(
    rgba, poses, intrinsics, known, out, size, channels, mean_r, mean_g, mean_b, std_r, std_g, std_b, BLOCK: tl.constexpr
):  # fmt: skip
    """Grid (blocks of pixels, slots of all objects)."""
    slot = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = size * size
    mask = pixel < plane
    row = pixel // size
    column = pixel - row * size
    at = rgba + slot.to(tl.int64) * (4 * plane) + pixel
    red = tl.load(at, mask=mask, other=0.0)
    green = tl.load(at + plane, mask=mask, other=0.0)
    blue = tl.load(at + 2 * plane, mask=mask, other=0.0)
    alpha = tl.load(at + 3 * plane, mask=mask, other=0.0)
    flag = tl.load(known + slot)
    to = out + slot.to(tl.int64) * channels * plane + pixel
    tl.store(to, (red * alpha + 1.0 - alpha - mean_r) / std_r * flag, mask=mask)
    tl.store(to + plane, (green * alpha + 1.0 - alpha - mean_g) / std_g * flag, mask=mask)
    tl.store(to + 2 * plane, (blue * alpha + 1.0 - alpha - mean_b) / std_b * flag, mask=mask)
    tl.store(to + 3 * plane, alpha * flag, mask=mask)
    tl.store(to + 4 * plane, tl.zeros([BLOCK], tl.float32) + flag, mask=mask)
    pose, lens = poses + slot * 16, intrinsics + slot * 4
    x = ((column.to(tl.float32) + 0.5) / size - tl.load(lens + 2)) / tl.load(lens)
    y = -((row.to(tl.float32) + 0.5) / size - tl.load(lens + 3)) / tl.load(lens + 1)
    dx = tl.load(pose) * x + tl.load(pose + 1) * y - tl.load(pose + 2)
    dy = tl.load(pose + 4) * x + tl.load(pose + 5) * y - tl.load(pose + 6)
    dz = tl.load(pose + 8) * x + tl.load(pose + 9) * y - tl.load(pose + 10)
    inverse = tl.rsqrt(tl.maximum(dx * dx + dy * dy + dz * dz, 1e-20))
    dx, dy, dz = dx * inverse, dy * inverse, dz * inverse
    ox, oy, oz = tl.load(pose + 3), tl.load(pose + 7), tl.load(pose + 11)
    tl.store(to + 5 * plane, oy * dz - oz * dy, mask=mask)
    tl.store(to + 6 * plane, oz * dx - ox * dz, mask=mask)
    tl.store(to + 7 * plane, ox * dy - oy * dx, mask=mask)
    tl.store(to + 8 * plane, dx, mask=mask)
    tl.store(to + 9 * plane, dy, mask=mask)
    tl.store(to + 10 * plane, dz, mask=mask)


def input_channels(
    rgba: Tensor, cameras: Cameras, known: Tensor, more: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """:func:`.inputs.mini_inputs` for float32 pictures: [B, V, 11 + more, S, S], of which ``more`` channels are not written."""
    b, v, _, size, _ = rgba.shape
    out = torch.empty((b, v, 11 + more, size, size), dtype=torch.float32, device=rgba.device)
    poses, lenses = (t.float().contiguous() for t in (cameras.camera_to_world, cameras.intrinsics))
    args = (rgba.contiguous(), poses, lenses, known.float().contiguous(), out, size, 11 + more, *mean, *std)
    launch(input_kernel, (cdiv(size * size, BLOCK), b * v, 1), args, (BLOCK,), 4)
    return out
