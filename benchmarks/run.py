"""Tables of docs/benchmarks.md for this machine: ``make bench``, or ``python benchmarks/run.py [--cpu] [WORD ...]``.

On a machine with a GPU those are the GPU's, the most telling first, and eight minutes at most (one H100 should need about
four; ``--seconds`` sets another limit); elsewhere the CPU's. Words choose among the entries below, such as ``raster`` or
``train_step``, and their order; ``--cpu`` takes the CPU's entries on a machine with a GPU. An entry that fails, or takes longer
than its limit and is stopped, does not keep the others from running. Further rows: ``raster.py --growth``,
``train_step.py --model big``, ``triposr.py``, ``diffusion.py``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
ON_THE_CPU = {  # script and arguments -> what it shows, most seconds
    "image.py --device cpu": ("`bozzetto image` with the bundled model, by stages", 120),
    "network.py --device cpu": ("lgm-mini's network", 120),
    "raster_cpu.py": ("rasterizer", 180),
    "data_render.py --device cpu": ("triangle renderer of the training data", 180),
    "mesh.py": ("meshes from splats, by stages", 120),
    "marching_cubes.py --device cpu --sizes 128 256": ("marching cubes", 180),
    "cold_start.py --device cpu": ("from the start of the process to the first Gaussians", 120),
    "imports.py": ("imports", 120),
}
ON_THE_GPU = {
    "raster.py --runs 11": ("rasterizer, beside gsplat where it is installed", 50),
    "unet.py": ("U-Nets of LGM, lgm-mini and L4GM", 60),
    "diffusion.py --only imagedream,vae,dreamer,photo": (
        "diffusion models: a step, the VAE, GaussianDreamer, a photo",
        80,
    ),
    "triposr.py --resolution 256 --resolution 512 --runs 5": ("TripoSR: network, density, meshes", 50),
    "train_step.py --model mini --steps 12 --warm 3 --ways ours reference --no-parts": (
        "a training step of lgm-mini",
        75,
    ),
    "cold_start.py": ("from the start of the process to the first Gaussians", 75),
    "marching_cubes.py --sizes 256 512 1024 --no-compare": ("marching cubes", 25),
    "data_render.py": ("triangle renderer of the training data", 25),
    "mesh.py --device cuda --faces 50000 --rounds 2": ("meshes from splats, by stages", 45),
    "image.py --device cuda": ("`bozzetto image` with the bundled model, by stages", 50),
}
IN_ALL = 480.0  # seconds, on a GPU


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of an entry; none: all")
    parser.add_argument("--cpu", action="store_true", help="the CPU's entries")
    parser.add_argument("--seconds", type=float, help=f"for all together ({IN_ALL:.0f} on a GPU)")
    options = parser.parse_args(arguments)
    cuda = torch.cuda.is_available() and not options.cpu
    entries = ON_THE_GPU if cuda else ON_THE_CPU
    chosen = dict.fromkeys(e for word in options.words or [""] for e in entries if word in e)
    if not chosen:
        parser.error(f"no entry has {' or '.join(options.words)} in it: {', '.join(entries)}")
    in_all = options.seconds or (IN_ALL if cuda else float("inf"))
    failed, started = [], time.perf_counter()
    for entry in chosen:
        title, limit = entries[entry]
        began = time.perf_counter()
        limit = min(limit, in_all - (began - started))
        print(f"\n## {title[:1].upper()}{title[1:]}: `{entry}`\n", flush=True)
        problem = run(entry, limit) if limit > 0 else "no time was left"
        print(f"\n({time.perf_counter() - began:.0f} s{f', {problem}' if problem else ''})", flush=True)
        if problem:
            failed.append(f"{entry} ({problem})")
    print(f"\n{time.perf_counter() - started:.0f} s in all", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
