"""Seconds per stage of Gaussians -> textured mesh, as a markdown table.

python benchmarks/mesh.py [--gaussians 65536] [--faces 30000 50000] [--resolution 128] [--texture 1024]
                          [--device cuda] [--rounds 2]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch

from bozzetto.surface import gaussians_to_mesh

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "surface"))
import shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=65536)
    parser.add_argument("--faces", type=int, nargs="+", default=[30000, 50000])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--texture", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=1, help="how often each mesh is made; every round has a row")
    args = parser.parse_args()
    objects = {"chair": shapes.chair, "snowman": shapes.snowman, "torus": shapes.torus}
    warm_up = shapes.sphere(5000).gaussians().to(args.device)
    began = time.perf_counter()
    gaussians_to_mesh(warm_up, resolution=32, texture_size=64, max_faces=500)
    print(f"first mesh, which compiles kernels or loads them: {time.perf_counter() - began:.1f} s")
    print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores, {args.device}, {args.texture}² texture, "
          f"resolution {args.resolution}\n")  # fmt: skip
    header: list[str] = []
    for name, make in objects.items():
        shape = make(round(args.gaussians * 1.1))
        splats = shape.gaussians(noise=0.003, opacity=(0.3, 0.95))
        splats = splats.select(torch.randperm(len(splats))[: args.gaussians]).to(args.device)
        for faces in [faces for faces in args.faces for _ in range(args.rounds)]:
            starts: list[tuple[str, float]] = []

            def note(stage: str, fraction: float, starts: list = starts) -> None:
                if not starts or starts[-1][0] != stage:
                    starts.append((stage, time.perf_counter()))

            cpu = time.process_time()
            mesh = gaussians_to_mesh(
                splats, resolution=args.resolution, texture_size=args.texture, max_faces=faces, progress=note
            )
            cpu = time.process_time() - cpu
            stages = [(a[0], b[1] - a[1]) for a, b in pairwise(starts)]
            if not header:
                header = ["object", "Gaussians", "faces", *(s for s, _ in stages), "total s", "CPU s"]
                print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
            total = starts[-1][1] - starts[0][1]
            cells = [
                name,
                f"{len(splats):,}",
                f"{len(mesh.faces):,}",
                *(f"{t:.2f}" for _, t in stages),
                f"{total:.2f}",
                f"{cpu:.2f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
