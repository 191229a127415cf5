"""How long each part of the radiance field route takes.

python benchmarks/nerf_mesh.py splats.ply [--device cuda] [--faces 50000] [--runs 2] [--set resolution=128 ...] [-o mesh.glb]

The first run holds imports, compilation and the recording of CUDA graphs; --picture draws the mesh from four sides.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from pathlib import Path

import torch

from bozzetto import Cameras, Gaussians, Mesh
from bozzetto.surface.nerf import NerfSettings, pipeline, prepare, recorded_step, refine, texture

# Where a part is called from, and its name there.
PARTS = (
    (pipeline, "prepare_kernels"), (pipeline, "normalise_object"),
    (pipeline, "depth_guide"), (pipeline, "train_field"),
    (pipeline, "_surface"), (pipeline, "keep_large_components"), (pipeline, "taubin_smooth"), (pipeline, "decimate"),
    (pipeline, "make_manifold"), (pipeline, "refine_mesh"), (refine, "tidy"), (refine, "_fit"), (pipeline, "unwrap"),
    (pipeline, "fit_texture"), (texture, "field_texture"), (texture, "_fit"), (texture, "fill_texture"),
)  # fmt: skip


class Clock:
    """Seconds by part, of functions that are replaced by timed ones; parts within parts count in both."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict(float)
        for module, name in PARTS:
            setattr(module, name, self.timed(f"{module.__name__.rsplit('.', 1)[1]}.{name}", getattr(module, name)))

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, name: str, function):
        def call(*args, **kwargs):
            began = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                took = self.now() - began
                self.seconds[name] += took
                print(f"  {name:48s} {took:7.2f}", flush=True)

        return call


def watch_preparation() -> None:
    """Print when each task of the preparation begins and ends, in seconds from now."""
    start, run = time.perf_counter(), prepare._quietly

    def watched(task, device: torch.device) -> None:
        began = time.perf_counter() - start
        run(task, device)
        name = " ".join([task.__name__, *task.__code__.co_names[-2:]])
        print(f"    {began:5.2f} .. {time.perf_counter() - start:5.2f} {name}", flush=True)

    prepare._quietly = watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splats")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=NUMBER", help="fields of NerfSettings, as hardness=1.0"
    )
    parser.add_argument("--gpu-work", action="store_true", help="the amount of work of a GPU on any device")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="a GLB file")
    args = parser.parse_args()
    device = torch.device(args.device)
    changes = {n: (float if "." in v else int)(v) for n, v in (c.split("=") for c in args.set)}
    settings = NerfSettings() if args.gpu_work else NerfSettings.for_device(device)
    settings = dataclasses.replace(settings, **changes)
    gaussians = Gaussians.load(args.splats).to(device)
    print(f"{len(gaussians):,} Gaussians, {settings}", flush=True)
    if args.eager:
        recorded_step.EAGER_CALLS = 1 << 60
    clock = Clock(device)
    watch_preparation()
    for run in range(args.runs):
        clock.seconds.clear()
        began = clock.now()
        mesh: Mesh = pipeline.gaussians_to_mesh_by_nerf(gaussians, settings=settings, max_faces=args.faces)
        print(f"run {run}: {clock.now() - began:.2f} s, {len(mesh.faces):,} faces", flush=True)
        if device.type == "cuda":
            held = [f(device) / 2**30 for f in (torch.cuda.memory_allocated, torch.cuda.memory_reserved)]
            print(f"  memory: {held[0]:.2f} GiB in use, {held[1]:.2f} GiB kept", flush=True)
    print("\n| part | s |\n|---|---|")
    for name, seconds in clock.seconds.items():
        print(f"| {name} | {seconds:.2f} |")
    if args.output:
        mesh.save(args.output)
    if args.picture:
        from bozzetto.evaluation.mesh_pictures import draw_mesh
        from bozzetto.files.images import write_image

        pictures = draw_mesh(mesh, Cameras.orbit([0, 90, 180, 270], elevation=10), 384)
        write_image(args.picture, torch.cat(list(pictures), dim=1))


if __name__ == "__main__":
    main()
