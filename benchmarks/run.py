"""All tables of docs/benchmarks.md that this machine can make: ``make bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
ALWAYS = ("image.py", "network.py", "raster_cpu.py", "data_render.py", "mesh.py", "imports.py")
WITH_CUDA = ("raster.py", "train_step.py", "train_step.py --compile")


def main() -> int:
    failed = []
    for entry in (*ALWAYS, *(WITH_CUDA if torch.cuda.is_available() else ())):
        print(f"\n## {entry}\n", flush=True)
        script, *arguments = entry.split()
        if subprocess.run([sys.executable, str(FOLDER / script), *arguments]).returncode:
            failed.append(entry)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
