"""Milliseconds of marching cubes, a function of position sampled slab by slab, as a markdown table.

python benchmarks/marching_cubes.py [--device cuda] [--sizes 128 256 512 1024] [--no-compare]

The last but one column is scikit-image (CPU) or the plain PyTorch back end (GPU), on samples in memory. "sampling" is the time of
the function alone; "peak" is this process's main memory, or what CUDA allocated, whichever device is measured.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor

from bozzetto.surface.marching_cubes import grid_surface


def ball(axis: Tensor, start: int, stop: int) -> Tensor:
    """Planes of 0.7 - |p|: a surface of about 4.6 N² cubes."""
    squares = axis * axis
    return 0.49 - squares[start:stop, None, None] - squares[:, None] - squares


def gyroid(axis: Tensor, start: int, stop: int) -> Tensor:
    """Planes of a gyroid with five periods: a surface of about 31 N² cubes."""
    s, c = torch.sin(5 * torch.pi * axis), torch.cos(5 * torch.pi * axis)
    x, cx = s[start:stop, None, None], c[start:stop, None, None]
    return x * c[:, None] + s[:, None] * c + s * cx


FIELDS = {"ball": ball, "gyroid": gyroid}


def timed(work: Callable[[], object], repeat: int, device: torch.device) -> float:
    """Median milliseconds of ``work`` after one run to warm up."""
    times = []
    for _ in range(repeat + 1):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    return median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--fields", nargs="+", choices=FIELDS, default=list(FIELDS))
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compare-up-to", type=int, default=512, help="largest grid for --compare")
    args = parser.parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    other = "PyTorch" if cuda else "scikit-image"
    print(
        f"torch {torch.__version__}, {torch.cuda.get_device_name() if cuda else f'{torch.get_num_threads()} threads'}\n"
    )
    print(f"| samples | field | faces | in memory, ms | by slabs, ms | sampling, ms | {other}, ms | peak, GB |")
    print("|---|---|---|---|---|---|---|---|")
    for size in args.sizes:
        for field in (FIELDS[name] for name in args.fields):
            axis = torch.linspace(-1, 1, size, device=device)
            shape = (size, size, size)
            repeat = 10 if cuda else max(1, min(5, 512 // size))
            planes = max(1, (1 << 25) // size**2)
            if cuda:
                torch.cuda.reset_peak_memory_stats()

            def read(start: int, stop: int, axis: Tensor = axis, field: Callable = field) -> Tensor:
                return field(axis, start, stop)

            def sample(size: int = size, planes: int = planes, read: Callable = read) -> None:
                for start in range(0, size, planes):
                    read(start, min(size, start + planes))

            sampling = timed(sample, repeat, device)
            faces = 0

            def by_slabs(shape: tuple = shape, read: Callable = read) -> None:
                nonlocal faces
                faces = len(grid_surface(read, shape=shape).faces)

            slabs = timed(by_slabs, repeat, device)
            peak = (
                torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            )
            whole = compared = float("nan")
            if size <= args.compare_up_to:
                volume = read(0, size)
                whole = timed(lambda volume=volume: grid_surface(volume), repeat, device)
                if args.compare and cuda:
                    compared = timed(lambda volume=volume: grid_surface(volume, backend="reference"), repeat, device)
                elif args.compare and find_spec("skimage"):
                    from skimage.measure import marching_cubes as skimage

                    array = volume.numpy()
                    compared = timed(lambda array=array: skimage(array, 0.0, method="lorensen"), min(2, repeat), device)
                del volume
            print(f"| {size}³ | {field.__name__} | {faces:,} | {whole:.2f} | {slabs:.2f} | {sampling:.2f} | {compared:.1f} "
                  f"| {peak / 1e9:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
