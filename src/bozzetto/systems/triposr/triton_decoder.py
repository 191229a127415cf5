"""Triton kernels: the decoder at the samples of a regular grid, and at any points.

The first layer is already in the planes (:mod:`.planes`), so a program begins with sums of plane values: 64 of them for each
of its points. These stay in registers through all hidden layers. A layer is one activation and one matrix product with
64 x 64 weights, which the tensor cores read from shared memory. At the end one column (density) or four (density, colour) are
summed up. Programs share nothing; inside of one, warps wait for each other only where the planes' values change their layout.

The products are half precision, but nothing is lost: numbers and weights are each split into the nearest float16 and what
remains, and the three products of which the sum has float32's digits are added up in float32. A number beyond float16's range
(65,504) gives NaN, never a wrong finite number.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .config import RendererConfig
from .network import NeRFMLP
from .planes import GridPlanes

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
GRID_TILE, GRID_WARPS = 128, 8  # samples of a program of the grid kernel; 80 registers a thread, so three programs fit
POINTS_TILE, POINTS_WARPS = 64, 4


@triton.jit
def silu(x):
    """x / (1 + e^-x); two neighbours share one reciprocal, for special functions are what the kernel waits for."""
    if INTERPRETED:
        return x * tl.sigmoid(x)
    else:
        # 0fBFB8AA3B is -log2(e); the exponent is at most 60 (0f42700000), so that the product of two sums is finite.
        return tl.inline_asm_elementwise(
            """{
            .reg .f32 a, b, p;
            mul.ftz.f32 a, $2, 0fBFB8AA3B;
            mul.ftz.f32 b, $3, 0fBFB8AA3B;
            min.ftz.f32 a, a, 0f42700000;
            min.ftz.f32 b, b, 0f42700000;
            ex2.approx.ftz.f32 a, a;
            ex2.approx.ftz.f32 b, b;
            add.ftz.f32 a, a, 0f3F800000;
            add.ftz.f32 b, b, 0f3F800000;
            mul.ftz.f32 p, a, b;
            rcp.approx.ftz.f32 p, p;
            mul.ftz.f32 b, $2, b;
            mul.ftz.f32 a, $3, a;
            mul.ftz.f32 $0, b, p;
            mul.ftz.f32 $1, a, p;
            }""",
            "=&f,=&f,f,f",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=2,
        )


@triton.jit
def activate(x, RELU: tl.constexpr):
    if RELU:
        return tl.where(x < 0.0, 0.0, x)  # keeps NaN, as a maximum would not
    else:
        return silu(x)


@triton.jit
def hidden_layers(x, weights, biases, LAYERS: tl.constexpr, F: tl.constexpr, RELU: tl.constexpr):
    """x [M, F] before its activation -> the last hidden layer after its own."""
    f = tl.arange(0, F)
    tile = weights + f[:, None] * F + f[None, :]
    for layer in tl.range(0, LAYERS, num_stages=1):  # other programs hide the wait
        high = tl.load(tile + layer * (F * F))
        low = tl.load(tile + (LAYERS + layer) * (F * F))
        h = activate(x, RELU)
        h_high = h.to(tl.float16)
        h_low = (h - h_high.to(tl.float32)).to(tl.float16)
        x = tl.dot(h_low, high) + tl.load(biases + layer * F + f)[None, :]
        x = tl.dot(h_high, low, x)
        x = tl.dot(h_high, high, x)
    return activate(x, RELU)


@triton.jit
def density_activation(raw, shift):
    exponent = raw + shift
    return tl.exp(tl.where(exponent > 80.0, 80.0, exponent))  # keeps NaN


@triton.jit
def grid_kernel(
    a, b, c, weights, biases, last, last_bias, out, height, depth, shift,
    M: tl.constexpr, F: tl.constexpr, LAYERS: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """One program: M samples along z at one x and one y."""
    x, y = tl.program_id(0), tl.program_id(2)
    z = tl.program_id(1) * M + tl.arange(0, M)
    f = tl.arange(0, F)
    inside = z < depth
    place = z[:, None] * F + f[None, :]
    xy = tl.load(a + (x.to(tl.int64) * height + y) * F + f)
    xz = tl.load(b + x.to(tl.int64) * depth * F + place, mask=inside[:, None], other=0.0)
    yz = tl.load(c + y.to(tl.int64) * depth * F + place, mask=inside[:, None], other=0.0)
    h = hidden_layers(xy[None, :] + (xz + yz), weights, biases, LAYERS, F, RELU)
    raw = tl.sum(h * tl.load(last + f)[None, :], axis=1) + tl.load(last_bias)
    at = (x.to(tl.int64) * height + y) * depth + z
    tl.store(out + at, density_activation(raw, shift), mask=inside)


@triton.jit
def read_planes(planes, x, y, z, width, height, F: tl.constexpr):
    """Sum [M, F] of the bilinear values of three planes [width, height, F] at points in -1..1; zero outside of a plane."""
    f = tl.arange(0, F)
    total = tl.zeros([x.shape[0], F], tl.float32)
    for k in tl.range(0, 12):  # a corner of a cell of a plane
        plane = k // 4
        i = ((tl.where(plane == 2, y, x) + 1.0) * width - 1.0) * 0.5
        j = ((tl.where(plane == 0, y, z) + 1.0) * height - 1.0) * 0.5
        # A float32 keeps far points from overflowing the integers.
        left = tl.minimum(tl.maximum(tl.floor(i), -2.0), width + 1.0)
        top = tl.minimum(tl.maximum(tl.floor(j), -2.0), height + 1.0)
        column = left.to(tl.int32) + k // 2 % 2
        line = top.to(tl.int32) + k % 2
        there = (column >= 0) & (column < width) & (line >= 0) & (line < height)
        share = (1.0 - tl.abs(i - column)) * (1.0 - tl.abs(j - line))
        at = ((plane * width + column) * height + line) * F
        total += tl.where(there, share, 0.0)[:, None] * tl.load(
            planes + at[:, None] + f[None, :], mask=there[:, None], other=0.0
        )
    return total


@triton.jit(do_not_specialize=["count"])
def points_kernel(
    points, planes, first_bias, weights, biases, last, last_bias, out, count, width, height, scale, shift,
    M: tl.constexpr, F: tl.constexpr, LAYERS: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """One program: M points; writes density and colour [M, 4]."""
    n = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    inside = n < count
    f = tl.arange(0, F)
    x = tl.load(points + n * 3, mask=inside, other=0.0) * scale
    y = tl.load(points + n * 3 + 1, mask=inside, other=0.0) * scale
    z = tl.load(points + n * 3 + 2, mask=inside, other=0.0) * scale
    h = read_planes(planes, x, y, z, width, height, F) + tl.load(first_bias + f)[None, :]
    h = hidden_layers(h, weights, biases, LAYERS, F, RELU)
    raw = tl.sum(h * tl.load(last + f)[None, :], axis=1) + tl.load(last_bias)
    tl.store(out + n * 4, density_activation(raw, shift), mask=inside)
    for k in tl.static_range(1, 4):
        raw = tl.sum(h * tl.load(last + k * F + f)[None, :], axis=1) + tl.load(last_bias + k)
        tl.store(out + n * 4 + k, tl.sigmoid(raw), mask=inside)


class DecoderKernels:
    """A decoder and its projected planes, in the form that the kernels take."""

    def __init__(self, decoder: NeRFMLP, projected: Tensor, config: RendererConfig) -> None:
        """
        Args:
            projected: [3, W, H, F] of :func:`.planes.project_planes`; its device is where the kernels run.
        """
        linears = [layer for layer in decoder.layers if isinstance(layer, torch.nn.Linear)]
        middle, channels = linears[1:-1], projected.shape[-1]
        self.projected, self.config = projected, config
        self.first_bias = linears[0].bias.detach().float().contiguous()
        weights = projected.new_empty(len(middle), channels, channels)  # [L, inputs, outputs]
        self.biases = projected.new_empty(len(middle), channels)
        for i, linear in enumerate(middle):
            weights[i], self.biases[i] = linear.weight.T, linear.bias
        high = weights.half()
        self.weights = torch.stack([high, (weights - high.float()).half()])  # [2, L, inputs, outputs]
        self.last, self.last_bias = (t.detach().float().contiguous() for t in (linears[-1].weight, linears[-1].bias))
        relu = isinstance(decoder.layers[1], torch.nn.ReLU)
        self.shape = {"F": channels, "LAYERS": len(middle), "RELU": relu}

    @staticmethod
    def take(decoder: torch.nn.Module) -> bool:
        """Whether the kernels know decoders of this shape."""
        if not isinstance(decoder, NeRFMLP):
            return False
        sizes = {layer.out_features for layer in decoder.layers[:-1] if isinstance(layer, torch.nn.Linear)}
        return sizes <= {16, 32, 64} and len(sizes) == 1

    def points(self, points: Tensor) -> Tensor:
        """Density, red, green, blue [N, 4] at ``points`` [N, 3] in the field's frame; NaN where numbers grew too large."""
        points = points.float().contiguous()
        out = points.new_empty(len(points), 4)
        _, width, height, _ = self.projected.shape
        with torch.cuda.device_of(points):
            points_kernel[(triton.cdiv(len(points), POINTS_TILE),)](
                points, self.projected, self.first_bias, self.weights, self.biases, self.last, self.last_bias, out,
                len(points), width, height, 1.0 / self.config.radius, self.config.density_bias,
                M=POINTS_TILE, **self.shape, num_warps=POINTS_WARPS,
            )  # fmt: skip
        return out

    def grid(self, planes: GridPlanes, first: int, stop: int) -> Tensor:
        """Densities [stop - first, Y, Z] at a grid's samples first <= x < stop; NaN where numbers grew too large."""
        a, b = planes.slab(first, stop)
        height, depth, _ = planes.c.shape
        out = a.new_empty(stop - first, height, depth)
        # Neighbours in x run at the same time and share C.
        tiles = stop - first, triton.cdiv(depth, GRID_TILE), height
        with torch.cuda.device_of(a):
            grid_kernel[tiles](
                a, b, planes.c, self.weights, self.biases, self.last, self.last_bias, out,
                height, depth, self.config.density_bias,
                M=GRID_TILE, **self.shape, num_warps=GRID_WARPS,
            )  # fmt: skip
        return out
