"""What the pixels of a picture of triangles show, in Triton: :mod:`.edges` with shapes that never depend on values.

``surface_kernel``: a lane owns a pixel. It reads the pixel's face, keeps the corners in registers and writes the surface point
and its 1 / z. Nothing is shared, so nothing synchronises.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128


@triton.jit
def screen_place(screen, index, mask):
    """Column and row of vertices on the screen."""
    at = screen + index.to(tl.int64) * 2
    return tl.load(at, mask=mask, other=0.0), tl.load(at + 1, mask=mask, other=0.0)


@triton.jit
def _position(vertices, a, b, c, wa, wb, wc, axis: tl.constexpr, mask):
    """One coordinate of the point with weights ``wa``, ``wb``, ``wc``, from -1..1 to 0..1."""
    x = wa * tl.load(vertices + a.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    x += wb * tl.load(vertices + b.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    x += wc * tl.load(vertices + c.to(tl.int64) * 3 + axis, mask=mask, other=0.0)
    return x


@triton.jit(do_not_specialize=["count", "width"])
def surface_kernel(face, faces, vertices, screen, inverse, points, depth, count, width, BLOCK: tl.constexpr):
    """Grid (blocks of pixels)."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < count
    own = tl.load(face + pixel, mask=mask, other=-1)
    shown = own >= 0
    at = faces + tl.maximum(own, 0).to(tl.int64) * 3
    a = tl.load(at, mask=shown, other=0)
    b = tl.load(at + 1, mask=shown, other=0)
    c = tl.load(at + 2, mask=shown, other=0)
    row = pixel // width
    x = (pixel - row * width).to(tl.float32) + 0.5
    y = row.to(tl.float32) + 0.5
    ax, ay = screen_place(screen, a, shown)
    bx, by = screen_place(screen, b, shown)
    cx, cy = screen_place(screen, c, shown)
    ax, bx, cx = ax - x, bx - x, cx - x
    ay, by, cy = ay - y, by - y, cy - y
    wa = bx * cy - by * cx
    wb = cx * ay - cy * ax
    wc = ax * by - ay * bx
    total = wa + wb + wc
    large = tl.abs(total) > 1e-9
    scale = 1.0 / tl.where(large, total, 1.0)
    third = 1.0 / 3.0
    wa = tl.minimum(tl.maximum(tl.where(large, wa * scale, third), 0.0), 1.0)
    wb = tl.minimum(tl.maximum(tl.where(large, wb * scale, third), 0.0), 1.0)
    wc = tl.minimum(tl.maximum(tl.where(large, wc * scale, third), 0.0), 1.0)
    wa *= tl.load(inverse + a, mask=shown, other=1.0)
    wb *= tl.load(inverse + b, mask=shown, other=1.0)
    wc *= tl.load(inverse + c, mask=shown, other=1.0)
    near = wa + wb + wc
    scale = 1.0 / tl.where(near != 0.0, near, 1.0)
    wa, wb, wc = wa * scale, wb * scale, wc * scale
    tl.store(depth + pixel, tl.where(shown, near, 0.0), mask=mask)
    target = points + pixel.to(tl.int64) * 3
    tl.store(target, tl.where(shown, _position(vertices, a, b, c, wa, wb, wc, 0, shown), 0.0), mask=mask)
    tl.store(target + 1, tl.where(shown, _position(vertices, a, b, c, wa, wb, wc, 1, shown), 0.0), mask=mask)
    tl.store(target + 2, tl.where(shown, _position(vertices, a, b, c, wa, wb, wc, 2, shown), 0.0), mask=mask)


def on(device: torch.device) -> contextlib.AbstractContextManager:
    """Where launches go to ``device``, which need not be the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def surface_points(
    vertices: Tensor, faces: Tensor, face: Tensor, screen: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """What pixels show: points [H * W, 3] (0 where there is nothing) and 1 / z [H * W] (likewise).

    Args:
        vertices: [N, 3]. faces: [F, 3] int32. face: [H, W] int32, -1 for none. screen, inverse: of :func:`.edges.project`.
    """
    count = face.numel()
    points = torch.empty(count, 3, device=face.device)
    depth = torch.empty(count, device=face.device)
    with on(face.device):
        surface_kernel[(triton.cdiv(count, BLOCK),)](
            face, faces, vertices, screen, inverse, points, depth, count, face.shape[1], BLOCK, num_warps=4
        )
    return points, depth
