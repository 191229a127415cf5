"""Time of the Triton rasterizer on a CUDA device: ``python benchmarks/raster.py [--sweep]``; prints markdown tables.

65,536 Gaussians on a bumpy ball of radius 0.5 (standard deviations 0.006 to 0.01) from an orbit of radius 1.5 with a
field of view of 49.1 degrees. Times are medians between CUDA events, in milliseconds, gradients to every parameter of
the Gaussians. With gsplat installed, its times stand beside. ``--sweep`` times variants of the
blending kernel.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

CONFIGURATIONS = [(1, 1, 512), (1, 8, 512), (8, 8, 256), (4, 8, 512), (16, 8, 256)]  # scenes, views, size


def ball(scenes: int, n: int = 65536) -> Gaussians:
    """[scenes, n] Gaussians on the surface, opacities 0.3..1, random colours."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(scenes, n, 3, generator=g), dim=-1)
    radius = 0.45 + 0.05 * torch.sin(8 * direction).prod(-1, keepdim=True)
    return Gaussians.from_rgb(
        radius * direction,
        0.006 + 0.004 * torch.rand(scenes, n, 3, generator=g),
        torch.randn(scenes, n, 4, generator=g),
        0.3 + 0.7 * torch.rand(scenes, n, generator=g),
        torch.rand(scenes, n, 3, generator=g),
    )


def milliseconds(function: Callable[[], object], warm_up: int = 5, runs: int = 20) -> float:
    """Median time of ``function`` between CUDA events."""
    for _ in range(warm_up):
        function()
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def render_here(gaussians: Gaussians, cameras: Cameras, size: int) -> tuple[Tensor, Tensor]:
    picture = rasterize(gaussians, cameras, size, torch.ones(3, device="cuda"), backend="triton")
    return picture.rgb, picture.alpha


def render_gsplat(gaussians: Gaussians, cameras: Cameras, size: int) -> tuple[Tensor, Tensor]:
    from gsplat import rasterization

    k = torch.zeros(*cameras.batch_shape, 3, 3, device="cuda")
    pixels = cameras.pixel_intrinsics(size)
    k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2] = pixels.unbind(-1)
    k[..., 2, 2] = 1
    rgb, alpha, _ = rasterization(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
        cameras.view_matrices(),
        k,
        size,
        size,
        sh_degree=0,
        packed=False,
        backgrounds=torch.ones(*cameras.batch_shape, 3, device="cuda"),
    )
    return rgb, alpha[..., 0]


def measure(render: Callable, gaussians: Gaussians, cameras: Cameras, size: int) -> tuple[float, float, float]:
    """(forward ms, forward + backward ms, peak GiB above what the inputs take)."""
    with torch.no_grad():
        forward = milliseconds(lambda: render(gaussians, cameras, size))
    leaves = Gaussians(*(t.clone().requires_grad_() for t in gaussians.tensors()))
    rgb, alpha = render(leaves, cameras, size)
    grad_rgb, grad_alpha = torch.randn_like(rgb), torch.randn_like(alpha)
    del rgb, alpha

    def both() -> None:
        torch.autograd.grad(render(leaves, cameras, size), leaves.tensors(), (grad_rgb, grad_alpha))

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    total = milliseconds(both)
    return forward, total, (torch.cuda.max_memory_allocated() - before) / 2**30


class Stages:
    """The stages of one forward and backward pass, each callable by itself on the results of those before it."""

    def __init__(self, gaussians: Gaussians, cameras: Cameras, size: int) -> None:
        from bozzetto.raster import (
            triton_bins,
            triton_blend,
            triton_blend_gradient,
            triton_project,
            triton_project_gradient,
        )

        views = cameras.batch_shape[-1]
        view = cameras.view_matrices().contiguous()
        intrinsics = cameras.pixel_intrinsics(size).contiguous()
        g = gaussians
        background = torch.ones(g.batch_shape[0], views, 3, device="cuda")
        self.project = lambda: triton_project.project(
            g.means, g.quats, g.scales, g.opacities, g.sh, view, intrinsics, size, size, 0.01, 1e10
        )
        records, keys, rectangles, counts = self.project()
        self.bins = lambda: triton_bins.bin_tiles(records, keys, rectangles, counts, size, size)
        ids, numbers, ends = self.bins()
        self.pairs, self.visible = int(numbers.sum()), int((counts > 0).sum())
        self.blend = lambda: triton_blend.blend(records, ids, numbers, ends, background, size, size, True)
        (rgb, alpha, depth), (transmittance, last) = self.blend()
        grads = torch.randn_like(rgb), torch.randn_like(alpha), torch.zeros_like(depth)
        self.blend_gradient = lambda: triton_blend_gradient.blend_gradient(
            records, ids, numbers, ends, background, transmittance, last, *grads
        )
        moments = self.blend_gradient()
        self.project_gradient = lambda: triton_project_gradient.project_gradient(
            g.means, g.quats, g.scales, g.sh, view, intrinsics, rectangles, records, moments, size, size
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", action="store_true", help="time variants of the blending kernel as well")
    arguments = parser.parse_args()
    renderers: dict[str, Callable] = {"bozzetto": render_here}
    try:
        import gsplat

        renderers[f"gsplat {gsplat.__version__}"] = render_gsplat
    except ImportError:
        print("gsplat is not installed: its columns are left out")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")

    print("| scenes × views × size | renderer | forward ms | forward + backward ms | peak GiB |\n|---|---|---|---|---|")
    for scenes, views, size in CONFIGURATIONS:
        gaussians = ball(scenes).to("cuda")
        cameras = Cameras.turntable(views, elevation=15).to(device="cuda")
        shared = Cameras(cameras.camera_to_world.expand(scenes, -1, -1, -1), cameras.intrinsics.expand(scenes, -1, -1))
        for name, render in renderers.items():
            forward, total, peak = measure(render, gaussians, shared, size)
            print(f"| {scenes}×{views}×{size}² | {name} | {forward:.2f} | {total:.2f} | {peak:.2f} |", flush=True)

    names = ("project", "bins", "blend", "blend_gradient", "project_gradient")
    print(f"\n| scenes × views × size | visible | cell pairs | {' | '.join(names)} |")
    print("|" + "---|" * (3 + len(names)))
    for scenes, views, size in CONFIGURATIONS:
        cameras = Cameras.turntable(views, elevation=15).to(device="cuda")
        shared = Cameras(cameras.camera_to_world.expand(scenes, -1, -1, -1), cameras.intrinsics.expand(scenes, -1, -1))
        stages = Stages(ball(scenes).to("cuda"), shared, size)
        counts = " | ".join(f"{x / 1e6:.2f} M" for x in (stages.visible, stages.pairs))
        times = " | ".join(f"{milliseconds(getattr(stages, name)):.2f}" for name in names)
        print(f"| {scenes}×{views}×{size}² | {counts} | {times} |", flush=True)
        if arguments.sweep:
            sweep(stages)


def sweep(stages: Stages) -> None:
    """Print the times of the blending kernel for other numbers of Gaussians that it takes at once."""
    from bozzetto.raster import triton_blend, triton_blend_gradient

    kept = triton_blend.UNROLL, triton_blend.CHUNK
    for unroll, chunk in ((1, 16), (2, 16), (2, 32), (3, 12), (4, 16)):
        triton_blend.UNROLL, triton_blend.CHUNK = unroll, chunk
        print(f"  {unroll} of {chunk} at once: blend {milliseconds(stages.blend):.2f} ms", flush=True)
    triton_blend.UNROLL, triton_blend.CHUNK = kept
    kept = triton_blend_gradient.REGISTERS
    for registers in (200, 168, 144):
        triton_blend_gradient.REGISTERS = registers
        print(f"  {registers} registers: gradient {milliseconds(stages.blend_gradient):.2f} ms", flush=True)
    triton_blend_gradient.REGISTERS = kept


if __name__ == "__main__":
    main()
