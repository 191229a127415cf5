"""The ray head in two Triton kernels: every channel is read once and every number of a Gaussian is written once.

A program owns a block of pixels of one slot; a thread has a few of them, all of their channels in registers. The gradient's
kernel computes the forward pass anew instead of reading what it kept. Programs share nothing and never synchronise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...nn.launch import cdiv, launch

BLOCK = 256  # pixels a program


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _ray(poses, lenses, slot, pixel, width, height):
    """Unit direction of a pixel's ray, the camera's right and up, its centre, and what a pixel is wide at distance 1."""
    pose, lens = poses + slot * 16, lenses + slot * 4
    row = pixel // width
    column = pixel - row * width
    fy = tl.load(lens + 1)
    x = ((column.to(tl.float32) + 0.5) / width - tl.load(lens + 2)) / tl.load(lens)
    y = -((row.to(tl.float32) + 0.5) / height - tl.load(lens + 3)) / fy
    rx, ux = tl.load(pose), tl.load(pose + 1)
    ry, uy = tl.load(pose + 4), tl.load(pose + 5)
    rz, uz = tl.load(pose + 8), tl.load(pose + 9)
    dx = rx * x + ux * y - tl.load(pose + 2)
    dy = ry * x + uy * y - tl.load(pose + 6)
    dz = rz * x + uz * y - tl.load(pose + 10)
    inverse = tl.rsqrt(tl.maximum(dx * dx + dy * dy + dz * dz, 1e-20))
    ox, oy, oz = tl.load(pose + 3), tl.load(pose + 7), tl.load(pose + 11)
    return dx * inverse, dy * inverse, dz * inverse, rx, ry, rz, ux, uy, uz, ox, oy, oz, 1.0 / (fy * height)


@triton.jit(do_not_specialize=["width", "height", "s_step", "c_step", "p_step"])
def head_kernel(
    raw, alphas, colours, known, poses, lenses, means, scales, quats, opacities, rgb,
    width, height, s_step, c_step, p_step, reach, sideways, bias, spread, gain, unseen, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of pixels, slots). Steps are elements of ``raw`` from one slot, channel and pixel to the next."""
    slot = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = width * height
    mask = pixel < plane
    dx, dy, dz, rx, ry, rz, ux, uy, uz, ox, oy, oz, wide = _ray(poses, lenses, slot, pixel, width, height)
    at = raw + slot.to(tl.int64) * s_step + pixel * p_step
    depth = tl.sqrt(ox * ox + oy * oy + oz * oz)
    depth += reach * _tanh(tl.load(at, mask=mask, other=0.0).to(tl.float32))
    foot = depth * wide
    right = sideways * _tanh(tl.load(at + c_step, mask=mask, other=0.0).to(tl.float32) / sideways)
    up = sideways * _tanh(tl.load(at + 2 * c_step, mask=mask, other=0.0).to(tl.float32) / sideways)
    to = slot.to(tl.int64) * plane + pixel
    tl.store(means + to * 3, ox + dx * depth + foot * (rx * right + ux * up), mask=mask)
    tl.store(means + to * 3 + 1, oy + dy * depth + foot * (ry * right + uy * up), mask=mask)
    tl.store(means + to * 3 + 2, oz + dz * depth + foot * (rz * right + uz * up), mask=mask)
    flag = tl.load(known + slot)
    alpha = tl.load(alphas + to, mask=mask, other=0.0)
    opacity = tl.load(at + 3 * c_step, mask=mask, other=0.0).to(tl.float32)
    opacity += flag * gain * (2.0 * alpha - 1.0) + (1.0 - flag) * unseen
    tl.store(opacities + to, tl.sigmoid(opacity), mask=mask)
    for k in tl.static_range(3):
        size = bias + spread * _tanh(tl.load(at + (4 + k) * c_step, mask=mask, other=0.0).to(tl.float32) / spread)
        tl.store(scales + to * 3 + k, foot * tl.exp(size), mask=mask)
        colour = tl.load(colours + slot.to(tl.int64) * (3 * plane) + k * plane + pixel, mask=mask, other=0.5)
        tint = tl.load(at + (11 + k) * c_step, mask=mask, other=0.0).to(tl.float32)
        tl.store(rgb + to * 3 + k, tl.sigmoid(tl.log(colour / (1.0 - colour)) + tint), mask=mask)
    w = tl.load(at + 7 * c_step, mask=mask, other=0.0).to(tl.float32) + 1.0
    i = tl.load(at + 8 * c_step, mask=mask, other=0.0).to(tl.float32)
    j = tl.load(at + 9 * c_step, mask=mask, other=0.0).to(tl.float32)
    k = tl.load(at + 10 * c_step, mask=mask, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.maximum(tl.sqrt(w * w + i * i + j * j + k * k), 1e-12)
    tl.store(quats + to * 4, w * inverse, mask=mask)
    tl.store(quats + to * 4 + 1, i * inverse, mask=mask)
    tl.store(quats + to * 4 + 2, j * inverse, mask=mask)
    tl.store(quats + to * 4 + 3, k * inverse, mask=mask)


@triton.jit(do_not_specialize=["width", "height", "s_step", "c_step", "p_step", "to_c", "to_p"])
def head_gradient_kernel(
    raw, alphas, colours, known, poses, lenses, means, scales, quats, opacities, rgb, out, to_c, to_p,
    width, height, s_step, c_step, p_step, reach, sideways, bias, spread, gain, unseen, BLOCK: tl.constexpr,
):  # fmt: skip
    """As :func:`head_kernel`, with gradients by its results in their places; ``out`` has its own steps and no gaps."""
    slot = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = width * height
    mask = pixel < plane
    dx, dy, dz, rx, ry, rz, ux, uy, uz, ox, oy, oz, wide = _ray(poses, lenses, slot, pixel, width, height)
    at = raw + slot.to(tl.int64) * s_step + pixel * p_step
    by = out + slot.to(tl.int64) * (14 * plane) + pixel * to_p
    kind = out.dtype.element_ty
    swing = _tanh(tl.load(at, mask=mask, other=0.0).to(tl.float32))
    depth = tl.sqrt(ox * ox + oy * oy + oz * oz) + reach * swing
    foot = depth * wide
    right = _tanh(tl.load(at + c_step, mask=mask, other=0.0).to(tl.float32) / sideways)
    up = _tanh(tl.load(at + 2 * c_step, mask=mask, other=0.0).to(tl.float32) / sideways)
    to = slot.to(tl.int64) * plane + pixel
    gx = tl.load(means + to * 3, mask=mask, other=0.0)
    gy = tl.load(means + to * 3 + 1, mask=mask, other=0.0)
    gz = tl.load(means + to * 3 + 2, mask=mask, other=0.0)
    by_right, by_up = gx * rx + gy * ry + gz * rz, gx * ux + gy * uy + gz * uz
    by_foot = sideways * (by_right * right + by_up * up)
    tl.store(by + to_c, (foot * by_right * (1.0 - right * right)).to(kind), mask=mask)
    tl.store(by + 2 * to_c, (foot * by_up * (1.0 - up * up)).to(kind), mask=mask)
    flag = tl.load(known + slot)
    alpha = tl.load(alphas + to, mask=mask, other=0.0)
    opacity = tl.load(at + 3 * c_step, mask=mask, other=0.0).to(tl.float32)
    opacity = tl.sigmoid(opacity + flag * gain * (2.0 * alpha - 1.0) + (1.0 - flag) * unseen)
    by_opacity = tl.load(opacities + to, mask=mask, other=0.0)
    tl.store(by + 3 * to_c, (by_opacity * opacity * (1.0 - opacity)).to(kind), mask=mask)
    for k in tl.static_range(3):
        size = _tanh(tl.load(at + (4 + k) * c_step, mask=mask, other=0.0).to(tl.float32) / spread)
        factor = tl.exp(bias + spread * size) * tl.load(scales + to * 3 + k, mask=mask, other=0.0)
        by_foot += factor
        tl.store(by + (4 + k) * to_c, (foot * factor * (1.0 - size * size)).to(kind), mask=mask)
        colour = tl.load(colours + slot.to(tl.int64) * (3 * plane) + k * plane + pixel, mask=mask, other=0.5)
        tint = tl.load(at + (11 + k) * c_step, mask=mask, other=0.0).to(tl.float32)
        colour = tl.sigmoid(tl.log(colour / (1.0 - colour)) + tint)
        by_colour = tl.load(rgb + to * 3 + k, mask=mask, other=0.0)
        tl.store(by + (11 + k) * to_c, (by_colour * colour * (1.0 - colour)).to(kind), mask=mask)
    by_depth = gx * dx + gy * dy + gz * dz + by_foot * wide
    tl.store(by, (by_depth * reach * (1.0 - swing * swing)).to(kind), mask=mask)
    w = tl.load(at + 7 * c_step, mask=mask, other=0.0).to(tl.float32) + 1.0
    i = tl.load(at + 8 * c_step, mask=mask, other=0.0).to(tl.float32)
    j = tl.load(at + 9 * c_step, mask=mask, other=0.0).to(tl.float32)
    k = tl.load(at + 10 * c_step, mask=mask, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.maximum(tl.sqrt(w * w + i * i + j * j + k * k), 1e-12)
    w, i, j, k = w * inverse, i * inverse, j * inverse, k * inverse
    gw = tl.load(quats + to * 4, mask=mask, other=0.0)
    gi = tl.load(quats + to * 4 + 1, mask=mask, other=0.0)
    gj = tl.load(quats + to * 4 + 2, mask=mask, other=0.0)
    gk = tl.load(quats + to * 4 + 3, mask=mask, other=0.0)
    along = w * gw + i * gi + j * gj + k * gk
    tl.store(by + 7 * to_c, ((gw - w * along) * inverse).to(kind), mask=mask)
    tl.store(by + 8 * to_c, ((gi - i * along) * inverse).to(kind), mask=mask)
    tl.store(by + 9 * to_c, ((gj - j * along) * inverse).to(kind), mask=mask)
    tl.store(by + 10 * to_c, ((gk - k * along) * inverse).to(kind), mask=mask)


class RayHead(torch.autograd.Function):
    """What :func:`.heads.ray_head` makes of ``raw`` [B, V, 14, h, w]: means [B, V*h*w, 3], scales, quats [.., 4], opacities, rgb.

    Takes alpha [B, V, 1, h, w] and colour [B, V, 3, h, w] of each Gaussian's pixel, known [B, V], poses [B, V, 4, 4], lenses
    [B, V, 4], and the six ranges of the head; only ``raw`` gets a gradient.
    """

    @staticmethod
    def forward(ctx, raw, alpha, colour, known, poses, lenses, ranges):
        b, v, _, h, w = raw.shape
        step, p = raw.stride(1), raw.stride(4)
        if raw.stride(3) != w * p or raw.stride(0) != v * step:
            raw = raw.contiguous()
            step, p = 14 * h * w, 1
        given = [t.float().contiguous() for t in (alpha, colour, known, poses, lenses)]
        out = [torch.empty((b, v * h * w, k), dtype=torch.float32, device=raw.device) for k in (3, 3, 4, 1, 3)]
        numbers = (w, h, step, raw.stride(2), p, *ranges)
        launch(head_kernel, (cdiv(h * w, BLOCK), b * v, 1), (raw, *given, *out, *numbers), (BLOCK,), 4)
        ctx.save_for_backward(raw, *given)
        ctx.numbers = numbers
        return tuple(out)

    @staticmethod
    def backward(ctx, *gradients):
        raw, *given = ctx.saved_tensors
        b, v, _, h, w = raw.shape
        last = raw.stride(2) == 1  # channels lie side by side
        by_raw = torch.empty((b, v, h, w, 14) if last else raw.shape, dtype=raw.dtype, device=raw.device)
        by_raw = by_raw.permute(0, 1, 4, 2, 3) if last else by_raw
        steps = by_raw.stride(2), by_raw.stride(4)
        gradients = [g.float().contiguous() for g in gradients]
        args = (raw, *given, *gradients, by_raw, *steps, *ctx.numbers)
        launch(head_gradient_kernel, (cdiv(h * w, BLOCK), b * v, 1), args, (BLOCK,), 4)
        return by_raw, None, None, None, None, None, None
