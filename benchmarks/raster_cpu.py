"""Time of the CPU rasterizer on an object: ``python benchmarks/raster_cpu.py [--quick]``; prints a markdown table.

The object is a torus knot tube covered evenly with Gaussians of about one pixel footprint; the camera is LGM's (radius
1.5, fov 49.1 degrees). ``--first-call`` times the first picture of a fresh process instead (compilation).
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster.api import rasterize


def knot(count: int, seed: int = 0) -> Gaussians:
    """``count`` Gaussians on the tube of a (2, 3) torus knot inside [-0.6, 0.6]^3, opacities 0.3..1, random colours.

    65,536 of them have standard deviations of 0.01 / 0.01 / 0.003 world units; other counts cover the same surface.
    """
    generator = torch.Generator().manual_seed(seed)
    u, v, jitter = (torch.rand(count, generator=generator) * 2 * math.pi for _ in range(3))

    def curve(t: torch.Tensor) -> torch.Tensor:
        r = 0.33 + 0.14 * torch.cos(3 * t)
        return torch.stack([r * torch.cos(2 * t), r * torch.sin(2 * t), 0.24 * torch.sin(3 * t)], dim=-1)

    tangent = torch.nn.functional.normalize(curve(u + 1e-3) - curve(u - 1e-3), dim=-1)
    side = torch.nn.functional.normalize(
        torch.linalg.cross(tangent, torch.tensor([0.0, 0.0, 1.0]).expand_as(tangent)), dim=-1
    )
    normal = torch.cos(v)[:, None] * side + torch.sin(v)[:, None] * torch.linalg.cross(tangent, side)
    size = math.sqrt(65536 / count)
    scales = torch.tensor([0.01, 0.01, 0.003]) * size * (0.7 + 0.6 * torch.rand(count, 1, generator=generator))
    # Rotate the thin z axis onto the surface normal.
    quats = torch.cat([1 + normal[:, 2:], -normal[:, 1:2], normal[:, :1], torch.zeros(count, 1)], dim=-1)
    opacities = 0.3 + 0.7 * torch.rand(count, generator=generator)
    rgb = 0.5 + 0.5 * torch.sin(torch.stack([3 * u, 5 * v, u + v + jitter], dim=-1))
    return Gaussians.from_rgb(curve(u) + 0.12 * normal, scales, quats, opacities, rgb)


def timings(count: int, size: int, backward: bool, runs: int) -> tuple[float, float]:
    """(median, fastest) seconds of one picture."""
    gaussians = knot(count)
    cameras = Cameras.orbit([30.0], 20.0)
    if backward:
        for tensor in gaussians.tensors():
            tensor.requires_grad_()
    gradients = [torch.randn(1, size, size, 3), torch.randn(1, size, size), torch.randn(1, size, size)]
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        picture = rasterize(gaussians, cameras, size, torch.ones(3), backend="cpu")
        if backward:
            torch.autograd.grad([picture.rgb, picture.alpha, picture.depth], gaussians.tensors(), gradients)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), min(seconds[1:])


def first_call() -> None:
    """Print the seconds of the first forward and the first backward in this process."""
    gaussians = knot(4096)
    for tensor in gaussians.tensors():
        tensor.requires_grad_()
    start, busy = time.perf_counter(), time.process_time()
    picture = rasterize(gaussians, Cameras.orbit([0.0]), 128, backend="cpu")
    middle, busy_middle = time.perf_counter(), time.process_time()
    picture.rgb.sum().backward()
    end, busy_end = time.perf_counter(), time.process_time()
    print(f"| {middle - start:.1f} ({busy_middle - busy:.1f}) | {end - middle:.1f} ({busy_end - busy_middle:.1f}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only 65,536 Gaussians, fewer runs")
    parser.add_argument("--first-call", action="store_true", help="time compilation in fresh processes")
    parser.add_argument("--first-call-child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_call_child:
        return first_call()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    if arguments.first_call:
        print("| cache | first forward, s (CPU s) | first backward, s (CPU s) |\n|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            for state in ("cold", "warm"):
                print(f"| {state} ", end="", flush=True)
                environment = os.environ | {"NUMBA_CACHE_DIR": folder}
                subprocess.run([sys.executable, __file__, "--first-call-child"], check=True, env=environment)
        return None
    runs = 5 if arguments.quick else 11
    print(
        "| Gaussians | size | threads | forward, ms (fastest) | forward + backward, ms (fastest) |\n|---|---|---|---|---|"
    )
    for count in (65536,) if arguments.quick else (16384, 65536, 262144):
        for threads in (1, os.cpu_count()):
            torch.set_num_threads(threads)
            cells = [timings(count, 512, backward, runs) for backward in (False, True)]
            text = " | ".join(f"{1e3 * median:.0f} ({1e3 * fastest:.0f})" for median, fastest in cells)
            print(f"| {count:,} | 512 | {threads} | {text} |", flush=True)
    return None


if __name__ == "__main__":
    main()
