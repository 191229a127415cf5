"""Volume rendering in Triton: :mod:`.march` without tables of every ray's every step.

A program owns a ray and works on it in pieces of BLOCK samples side by side; sums along the ray go from piece to piece in a
register.

* ``count_kernel`` counts the samples in full cells, ``place_kernel`` writes them to where the host's running sum of the counts
  says that the ray begins.
* ``seen_kernel`` counts how many of a ray's samples lie before it is opaque, which are its first ones; ``shorten_kernel`` copies
  them to a shorter list.
* ``composite_kernel`` sums a ray's colours; ``composite_gradient_kernel`` finds the sum of what its samples weigh, then each
  sample's part of it.

No two programs write the same place; nothing is shared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from .march import OPAQUE, Occupancy

BLOCK = 128


@triton.jit
def _vector(at):
    return tl.load(at), tl.load(at + 1), tl.load(at + 2)


@triton.jit
def _slab(low, high, origin, direction):
    """Where a ray enters and leaves the space between two planes."""
    inverse = 1.0 / tl.where(tl.abs(direction) < 1e-9, 1e-9, direction)
    a = (low - origin) * inverse
    b = (high - origin) * inverse
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _ray(origins, directions, box, ray):
    """Origin, direction, and where the box of the full cells begins and ends."""
    ox, oy, oz = _vector(origins + ray * 3)
    dx, dy, dz = _vector(directions + ray * 3)
    lx, ly, lz = _vector(box)
    hx, hy, hz = _vector(box + 3)
    near_x, far_x = _slab(lx, hx, ox, dx)
    near_y, far_y = _slab(ly, hy, oy, dy)
    near_z, far_z = _slab(lz, hz, oz, dz)
    near = tl.maximum(tl.maximum(near_x, tl.maximum(near_y, near_z)), 0.01)
    # Bounded, so that no input makes an endless loop; the cube's diagonal is shorter.
    return ox, oy, oz, dx, dy, dz, near, tl.minimum(tl.minimum(far_x, tl.minimum(far_y, far_z)), near + 4.0)


@triton.jit
def _cell(x, side):
    """Cell number along one axis."""
    cell = ((x + 1.0) * (side.to(tl.float32) * 0.5)).to(tl.int32)
    return tl.minimum(tl.maximum(cell, 0), side - 1)


@triton.jit
def _full(full, x, y, z, inside, side):
    cell = (_cell(x, side) * side + _cell(y, side)) * side + _cell(z, side)
    return inside & (tl.load(full + cell, mask=inside, other=0) != 0)


@triton.jit(do_not_specialize=["side"])
def count_kernel(origins, directions, jitter, box, full, counts, step, side, BLOCK: tl.constexpr):
    """Grid (rays)."""
    ray = tl.program_id(0)
    ox, oy, oz, dx, dy, dz, near, far = _ray(origins, directions, box, ray)
    shift = tl.load(jitter + ray)
    total = ray * 0
    first = ray * 0
    while near + first.to(tl.float32) * step < far:
        t = near + ((first + tl.arange(0, BLOCK)).to(tl.float32) + shift) * step
        inside = _full(full, ox + dx * t, oy + dy * t, oz + dz * t, t < far, side)
        total += tl.sum(inside.to(tl.int32), axis=0)
        first += BLOCK
    tl.store(counts + ray, total)


@triton.jit(do_not_specialize=["side"])
def place_kernel(origins, directions, jitter, box, full, ends, points, step, side, BLOCK: tl.constexpr):
    """Grid (rays). ``ends``: running sum of the counts."""
    ray = tl.program_id(0)
    slot = tl.load(ends + ray - 1, mask=ray > 0, other=0)
    last = tl.load(ends + ray)
    if slot < last:
        ox, oy, oz, dx, dy, dz, near, far = _ray(origins, directions, box, ray)
        shift = tl.load(jitter + ray)
        first = ray * 0
        while (slot < last) & (near + first.to(tl.float32) * step < far):
            t = near + ((first + tl.arange(0, BLOCK)).to(tl.float32) + shift) * step
            x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
            inside = _full(full, x, y, z, t < far, side)
            number = inside.to(tl.int32)
            at = points + (slot + tl.cumsum(number, axis=0) - 1) * 3
            tl.store(at, x, mask=inside)
            tl.store(at + 1, y, mask=inside)
            tl.store(at + 2, z, mask=inside)
            slot += tl.sum(number, axis=0)
            first += BLOCK


@triton.jit
def seen_kernel(depth, ends, counts, OPAQUE: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (rays)."""
    ray = tl.program_id(0)
    first = tl.load(ends + ray - 1, mask=ray > 0, other=0)
    last = tl.load(ends + ray)
    before = 0.0
    total = ray * 0
    while first < last:
        index = first + tl.arange(0, BLOCK)
        d = tl.load(depth + index, mask=index < last, other=0.0)
        light = tl.exp(-(before + tl.cumsum(d, axis=0) - d))
        total += tl.sum(((light > OPAQUE) & (index < last)).to(tl.int32), axis=0)
        before += tl.sum(d, axis=0)
        first += BLOCK
    tl.store(counts + ray, total)


@triton.jit
def shorten_kernel(points, ends, short_ends, out, BLOCK: tl.constexpr):
    """Grid (rays)."""
    ray = tl.program_id(0)
    source = tl.load(ends + ray - 1, mask=ray > 0, other=0)
    target = tl.load(short_ends + ray - 1, mask=ray > 0, other=0)
    count = (tl.load(short_ends + ray) - target) * 3
    first = count * 0
    while first < count:
        index = first + tl.arange(0, BLOCK)
        value = tl.load(points + source * 3 + index, mask=index < count, other=0.0)
        tl.store(out + target * 3 + index, value, mask=index < count)
        first += BLOCK


@triton.jit
def composite_kernel(depth, colour, ends, out, BLOCK: tl.constexpr):
    """Grid (rays). ``out``: [R, 4], colour on white and alpha."""
    ray = tl.program_id(0)
    first = tl.load(ends + ray - 1, mask=ray > 0, other=0)
    last = tl.load(ends + ray)
    before, red, green, blue, alpha = 0.0, 0.0, 0.0, 0.0, 0.0
    while first < last:
        index = first + tl.arange(0, BLOCK)
        mask = index < last
        d = tl.load(depth + index, mask=mask, other=0.0)
        weight = tl.exp(-(before + tl.cumsum(d, axis=0) - d)) * (1.0 - tl.exp(-d))
        red += tl.sum(weight * tl.load(colour + index * 3, mask=mask, other=0.0), axis=0)
        green += tl.sum(weight * tl.load(colour + index * 3 + 1, mask=mask, other=0.0), axis=0)
        blue += tl.sum(weight * tl.load(colour + index * 3 + 2, mask=mask, other=0.0), axis=0)
        alpha += tl.sum(weight, axis=0)
        before += tl.sum(d, axis=0)
        first += BLOCK
    tl.store(out + ray * 4, red + (1.0 - alpha))
    tl.store(out + ray * 4 + 1, green + (1.0 - alpha))
    tl.store(out + ray * 4 + 2, blue + (1.0 - alpha))
    tl.store(out + ray * 4 + 3, alpha)


@triton.jit
def composite_gradient_kernel(depth, colour, ends, gradient, out_depth, out_colour, BLOCK: tl.constexpr):
    """Grid (rays)."""
    ray = tl.program_id(0)
    start = tl.load(ends + ray - 1, mask=ray > 0, other=0)
    last = tl.load(ends + ray)
    gr, gg, gb = _vector(gradient + ray * 4)
    of_alpha = tl.load(gradient + ray * 4 + 3) - gr - gg - gb  # white shows where a sample does not
    for pass_number in tl.static_range(2):
        first = start
        before = 0.0
        if pass_number == 0:
            total = 0.0
        else:
            done = 0.0
        while first < last:
            index = first + tl.arange(0, BLOCK)
            mask = index < last
            d = tl.load(depth + index, mask=mask, other=0.0)
            value = of_alpha + gr * tl.load(colour + index * 3, mask=mask, other=0.0)
            value += gg * tl.load(colour + index * 3 + 1, mask=mask, other=0.0)
            value += gb * tl.load(colour + index * 3 + 2, mask=mask, other=0.0)
            light = tl.exp(-(before + tl.cumsum(d, axis=0) - d))
            through = tl.exp(-d)
            weight = light * (1.0 - through)
            part = tl.where(mask, weight * value, 0.0)
            if pass_number == 0:
                total += tl.sum(part, axis=0)
            else:
                behind = total - done - tl.cumsum(part, axis=0)
                tl.store(out_depth + index, light * through * value - behind, mask=mask)
                tl.store(out_colour + index * 3, weight * gr, mask=mask)
                tl.store(out_colour + index * 3 + 1, weight * gg, mask=mask)
                tl.store(out_colour + index * 3 + 2, weight * gb, mask=mask)
                done += tl.sum(part, axis=0)
            before += tl.sum(d, axis=0)
            first += BLOCK


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def composite(depth: Tensor, colour: Tensor, ends: Tensor) -> Tensor:
    """Optical depths [P], colours [P, 3] and rays' ends [R] -> rgb on white and alpha [R, 4]."""
    out = torch.empty(len(ends), 4, device=depth.device)
    with _on(depth.device):
        composite_kernel[(len(ends),)](depth, colour, ends, out, BLOCK, num_warps=1)
    return out


def composite_gradient(depth: Tensor, colour: Tensor, ends: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of depths and colours from that of :func:`composite`'s result [R, 4]."""
    out_depth, out_colour = torch.empty_like(depth), torch.empty_like(colour)
    with _on(depth.device):
        composite_gradient_kernel[(len(ends),)](
            depth, colour, ends, gradient, out_depth, out_colour, BLOCK, num_warps=1
        )
    return out_depth, out_colour


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, depth: Tensor, colour: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(depth, colour, ends)
        return composite(depth, colour, ends)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *composite_gradient(*ctx.saved_tensors, gradient.contiguous()), None


@torch.no_grad()
def sample_rays(
    origins: Tensor, directions: Tensor, occupancy: Occupancy, step: float, jitter: Tensor
) -> tuple[Tensor, Tensor]:
    """Points [P, 3] as :func:`.march.sample_rays` takes them, ray after ray, and the running sum [R] of their numbers."""
    device, rays = origins.device, len(origins)
    box = torch.cat(occupancy.box())
    full = occupancy.full.contiguous().view(torch.uint8)
    counts = torch.empty(rays, dtype=torch.int32, device=device)
    shared = (origins.contiguous(), directions.contiguous(), jitter, box, full)
    with _on(device):
        count_kernel[(rays,)](*shared, counts, step, occupancy.side, BLOCK, num_warps=1)
        ends = counts.cumsum(0)
        points = torch.empty(int(ends[-1]), 3, device=device)
        place_kernel[(rays,)](*shared, ends, points, step, occupancy.side, BLOCK, num_warps=1)
    return points, ends


@torch.no_grad()
def before_opaque(points: Tensor, depth: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Those of a ray's samples that light still reaches, given the optical depth [P] of each: points and ends as above."""
    counts = torch.empty(len(ends), dtype=torch.int32, device=points.device)
    with _on(points.device):
        seen_kernel[(len(ends),)](depth, ends, counts, OPAQUE, BLOCK, num_warps=1)
        short_ends = counts.cumsum(0)
        short = torch.empty(int(short_ends[-1]), 3, device=points.device)
        shorten_kernel[(len(ends),)](points, ends, short_ends, short, BLOCK, num_warps=1)
    return short, short_ends


def render_rays(
    density: Callable[[Tensor], Tensor],
    colour: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor,
) -> tuple[Tensor, Tensor]:
    """See :func:`.march.render_rays`. Waits for the device twice, to know how many samples there are."""
    if len(origins) == 0:
        return origins.new_zeros(0, 3), origins.new_zeros(0)
    points, ends = sample_rays(origins, directions, occupancy, step, jitter)
    with torch.no_grad():
        depth = density(points) * step
    points, ends = before_opaque(points, depth.contiguous(), ends)
    made = _Composite.apply((density(points) * step).contiguous(), colour(points).contiguous(), ends)
    return made[:, :3], made[:, 3]
