"""Tables of docs/benchmarks.md for this machine: ``make bench``, or ``python benchmarks/run.py [--cpu] [WORD ...]``.

On a machine with a GPU those are the GPU's, the most telling first, and four minutes at most (``--seconds`` sets another limit);
elsewhere the CPU's. On a GPU, everything is started side by side first, with nothing shown and for a short time, so that
compiling keeps all cores busy instead of one; then each entry is measured alone, with its kernels in the cache.

Words choose among the entries below, such as ``raster`` or ``train_step``, and their order; ``--cpu`` takes the CPU's entries on
a machine with a GPU. An entry that fails, or takes longer than its limit and is stopped, does not keep the others from running.
Further rows: ``raster.py --growth``, ``train_step.py``, ``triposr.py``, ``diffusion.py``, ``cold_start.py``.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parent
ON_THE_CPU = {  # script and arguments -> what it shows, most seconds
    "image.py --device cpu": ("`bozzetto image` with the bundled model, by stages", 240),
    "network.py --device cpu --preset mini-sweep --preset mini-cascade": ("the bundled networks", 240),
    "raster_cpu.py": ("rasterizer", 240),
    "data_render.py --device cpu": ("triangle renderer of the training data", 240),
    "mesh.py": ("meshes from splats, by stages", 240),
    "marching_cubes.py --device cpu --sizes 128 256": ("marching cubes", 240),
    "cold_start.py --device cpu": ("from the start of the process to the first Gaussians", 240),
    "imports.py": ("imports", 240),
}
ON_THE_GPU = {  # also: arguments with which it is started beside the others first
    "raster.py --runs 11": (
        "rasterizer, beside gsplat where it is installed",
        20,
        "raster.py --runs 1 --row 8x8x256 --row 1x1x512",
    ),
    "train_step.py --model mini --preset mini-deep --optimizer muon --ways ours reference --no-parts --steps 10": (
        "a training step of lgm-mini",
        35,
        "train_step.py --model mini --preset mini-deep --optimizer muon --ways ours --no-parts --steps 1 --warm 1",
    ),
    "unet.py --no-errors": ("U-Nets of LGM, lgm-mini and L4GM", 25, "unet.py --no-errors"),
    "diffusion.py --only imagedream,vae,dreamer": (
        "diffusion models: a step, the VAE, an iteration of GaussianDreamer",
        35,
        "diffusion.py --only imagedream,vae,dreamer",
    ),
    "triposr.py --resolution 256 --resolution 512 --runs 5": (
        "TripoSR: network, density, meshes",
        25,
        "triposr.py --resolution 256 --runs 1",
    ),
    "mesh.py --device cuda --faces 50000 --rounds 2": (
        "meshes from splats, by stages",
        20,
        "mesh.py --device cuda --faces 50000",
    ),
    "image.py --device cuda --runs 1": (
        "`bozzetto image` with the bundled model, by stages",
        25,
        "image.py --device cuda --runs 1",
    ),
    "marching_cubes.py --sizes 256 512 1024 --no-compare": (
        "marching cubes",
        15,
        "marching_cubes.py --sizes 128 --no-compare",
    ),
    "data_render.py": ("triangle renderer of the training data", 15, "data_render.py"),
}
IN_ALL = 240.0  # seconds, on a GPU
FIRST = 50.0  # of them at most for what is started side by side


def start(entry: str, **options: Any) -> subprocess.Popen:
    """A script in a process that leads a group of its own, to which everything belongs that it starts."""
    script, *arguments = entry.split()
    group = {"start_new_session": True} if os.name == "posix" else {}
    return subprocess.Popen([sys.executable, "-u", str(FOLDER / script), *arguments], **group, **options)


def run(entry: str, limit: float) -> str | None:
    """Run a script; why it failed, or None."""
    with start(entry) as process:
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            _stop(process)
            return f"stopped after {limit:.0f} s"
        except KeyboardInterrupt:
            _stop(process)
            raise
    return f"exit status {code}" if code else None


def run_side_by_side(entries: list[str], limit: float) -> dict[str, str]:
    """Run scripts beside each other, unseen; what became of those that did not end well in time."""
    cores = max(1, (os.cpu_count() or 1) // len(entries))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = {e: start(e, env=os.environ | {"OMP_NUM_THREADS": str(cores)}, **quiet) for e in entries}
    end, told = time.perf_counter() + limit, {}
    try:
        for entry, process in processes.items():
            try:
                if code := process.wait(max(0.0, end - time.perf_counter())):
                    told[entry] = f"exit status {code}"
            except subprocess.TimeoutExpired:
                told[entry] = "still at work"
    finally:
        for process in processes.values():
            if process.poll() is None:
                _stop(process)
    return told


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
    parser.add_argument("--list", action="store_true", help="only name the entries")
    options = parser.parse_args(arguments)
    cuda = torch.cuda.is_available() and not options.cpu
    entries = ON_THE_GPU if cuda else ON_THE_CPU
    chosen = list(dict.fromkeys(e for word in options.words or [""] for e in entries if word in e))
    if not chosen:
        parser.error(f"no entry has {' or '.join(options.words)} in it: {', '.join(entries)}")
    if options.list:
        print("\n".join(chosen))
        return 0
    in_all = options.seconds or (IN_ALL if cuda else float("inf"))
    failed, started = [], time.perf_counter()
    where = f"{torch.cuda.get_device_name()}, " if cuda else ""
    print(
        f"{where}{os.cpu_count()} CPU cores, Python {platform.python_version()}, torch {torch.__version__}", flush=True
    )
    first = [entries[e][2] for e in chosen if len(entries[e]) > 2]
    if len(first) > 1:
        told = run_side_by_side(first, min(FIRST, in_all / 3))
        print(f"everything once, side by side: {time.perf_counter() - started:.0f} s", flush=True)
        for entry, what in told.items():
            print(f"  {what}: {entry}", flush=True)
    for entry in chosen:
        title, limit = entries[entry][:2]
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
