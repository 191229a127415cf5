"""Views per second of the training-data renderer: ``python benchmarks/data_render.py``; prints markdown tables.

Procedural objects, each seen by random orbit cameras, two by two samples a pixel. On CUDA the time includes everything
after the scene is on the device; the passes are timed on their own with the profiler.
"""

from __future__ import annotations

import argparse
import platform
import time

import torch

from bozzetto.camera import Cameras
from bozzetto.data.procedural.generate import generate_object
from bozzetto.data.render import Lights, PackedObject, SceneBatch, render_objects

CASES = {
    "rgba uint8": {"outputs": ("rgba",), "dtype": torch.uint8},
    "rgba float32": {"outputs": ("rgba",)},
    "depth": {"outputs": ("depth",)},
    "rgba, depth, normals": {},
}


def seconds(work, device: torch.device, least: float = 1.0) -> float:
    """Mean time of ``work()`` after one warm-up call, over at least ``least`` seconds."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    work()
    wait()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < least:
        for _ in range(5 if device.type == "cuda" else 1):
            work()
            count += 1
        wait()
    return (time.perf_counter() - begin) / count


def passes(work) -> list[tuple[str, float]]:
    """Time of each kernel of one call in milliseconds, the longest first (CUDA)."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as record:
        work()
        torch.cuda.synchronize()
    times = [(e.key, e.device_time_total / 1e3) for e in record.key_averages()]
    return sorted(((k, t) for k, t in times if t > 0), key=lambda x: -x[1])[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    count = arguments.objects or (32 if device.type == "cuda" else 4)

    objects = [generate_object(seed) for seed in range(count)]
    PackedObject.pack(objects[0])
    begin = time.perf_counter()
    packed = [PackedObject.pack(obj) for obj in objects]
    packing = (time.perf_counter() - begin) / count
    begin = time.perf_counter()
    scene = SceneBatch.collate(packed)
    collating = (time.perf_counter() - begin) / count
    size = sum(x.nbytes for x in vars(scene).values() if isinstance(x, torch.Tensor)) / count
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; {platform.machine()}\n")
    print(
        f"{count} objects of {len(scene.faces) / count:.0f} triangles and {size / 1e6:.2f} MB on average; packing "
        f"{packing * 1e3:.2f} ms, collating {collating * 1e3:.2f} ms an object; {arguments.views} views each\n"
    )
    generator = torch.Generator().manual_seed(0)
    azimuth = 360 * torch.rand(count, arguments.views, generator=generator)
    elevation = 60 * torch.rand(count, arguments.views, generator=generator) - 20
    scene = scene.to(device)
    cameras, lights = Cameras.orbit(azimuth, elevation).to(device), Lights.random(count, generator).to(device)
    print("| size | outputs | ms a view | views/s |\n|---|---|---|---|")
    for pixels in arguments.sizes:
        for title, options in CASES.items():
            time_taken = seconds(lambda p=pixels, o=options: render_objects(scene, cameras, p, lights, **o), device)
            views = count * arguments.views
            print(f"| {pixels} | {title} | {time_taken / views * 1e3:.4f} | {views / time_taken:.0f} |", flush=True)
    if device.type == "cuda":
        print("\n| kernel (rgba uint8, one batch) | ms |\n|---|---|")
        for key, milliseconds in passes(
            lambda: render_objects(scene, cameras, arguments.sizes[0], lights, **CASES["rgba uint8"])
        ):
            print(f"| {key[:60]} | {milliseconds:.3f} |")


if __name__ == "__main__":
    main()
