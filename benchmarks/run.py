"""All tables of docs/benchmarks.md that this machine can make: ``make bench``, or ``python benchmarks/run.py [WORD ...]``.

Words choose among the entries below, such as ``raster`` or ``train_step``. On a machine with a GPU its tables come first.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
ON_THE_CPU = (
    "image.py --device cpu",
    "network.py --device cpu",
    "raster_cpu.py",
    "data_render.py --device cpu",
    "mesh.py",
    "marching_cubes.py --device cpu --sizes 128 256",
    "cold_start.py --device cpu",
    "imports.py",
)
ON_THE_GPU = (
    "raster.py",
    "unet.py",
    "diffusion.py",
    "triposr.py",
    "marching_cubes.py",
    "data_render.py",
    "train_step.py",
    "train_step.py --model mini --compile",
    "cold_start.py",
    "image.py",
)


def main() -> int:
    words, failed = sys.argv[1:], []
    entries = (*(ON_THE_GPU if torch.cuda.is_available() else ()), *ON_THE_CPU)
    for entry in entries:
        if words and not any(word in entry for word in words):
            continue
        print(f"\n## {entry}\n", flush=True)
        script, *arguments = entry.split()
        began = time.perf_counter()
        if subprocess.run([sys.executable, str(FOLDER / script), *arguments]).returncode:
            failed.append(entry)
        print(f"\n({time.perf_counter() - began:.0f} s)", flush=True)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
