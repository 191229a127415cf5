"""Tables of docs/benchmarks.md for this machine: ``make bench``, or ``python benchmarks/run.py [--cpu] [WORD ...]``.

On a machine with a GPU those are the GPU's (at most eight minutes), elsewhere the CPU's. Words choose among the entries below,
such as ``raster`` or ``train_step``; ``--cpu`` takes the CPU's entries on a machine with a GPU. An entry that takes longer than
its limit is stopped and the others go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
ON_THE_CPU = {  # script and arguments -> most seconds
    "image.py --device cpu": 120,
    "network.py --device cpu": 120,
    "raster_cpu.py": 180,
    "data_render.py --device cpu": 180,
    "mesh.py": 120,
    "marching_cubes.py --device cpu --sizes 128 256": 180,
    "cold_start.py --device cpu": 120,
    "imports.py": 120,
}
ON_THE_GPU = {
    "raster.py": 60,
    "unet.py": 60,
    "diffusion.py": 80,
    "triposr.py": 50,
    "train_step.py --steps 8 --warm 2 --ways reference ours --no-parts": 90,
    "marching_cubes.py --compare-up-to 256": 40,
    "data_render.py": 20,
    "cold_start.py": 40,
    "image.py --device cuda": 40,
}


def run(entry: str, limit: float) -> str | None:
    """Run a script, with everything that it starts in a group of its own; why it failed, or None."""
    script, *arguments = entry.split()
    group = {"start_new_session": True} if os.name == "posix" else {}
    with subprocess.Popen([sys.executable, "-u", str(FOLDER / script), *arguments], **group) as process:
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            _stop(process)
            return f"stopped after {limit:.0f} s"
        except KeyboardInterrupt:
            _stop(process)
            raise
    return f"exit status {code}" if code else None


def _stop(process: subprocess.Popen) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)  # its own group: worker processes too
    else:
        process.kill()
    process.wait()


def main(arguments: list[str]) -> int:
    words = [word for word in arguments if word != "--cpu"]
    cuda = torch.cuda.is_available() and "--cpu" not in arguments
    failed = []
    for entry, limit in (ON_THE_GPU if cuda else ON_THE_CPU).items():
        if words and not any(word in entry for word in words):
            continue
        print(f"\n## {entry}\n", flush=True)
        began = time.perf_counter()
        problem = run(entry, limit)
        print(f"\n({time.perf_counter() - began:.0f} s{f', {problem}' if problem else ''})", flush=True)
        if problem:
            failed.append(f"{entry} ({problem})")
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
