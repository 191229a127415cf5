"""From the start of Python to the first Gaussians: ``python benchmarks/cold_start.py [--model lgm-big]``; prints markdown tables.

Four posed pictures of 256² with an alpha channel go through an LGM network in new processes. The first table is what a user
waits for: ``bozzetto.views_to_3d`` and the command ``bozzetto views --no-mesh``, with the file of weights on disk but not in
memory (the system is asked to drop it from its cache), with it in memory, and with Triton's cache of compiled kernels empty
and filled. Python's modules are compiled, as an installation leaves them, and libraries were read before. The second table
takes the same work apart, one thing after the other, where the real run lets some overlap. lgm-big's weights are made up (see
full_size.py): time does not depend on them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTED = time.time()
VIEWS = 4
SIZE = 256


def make_scene(folder: Path) -> None:
    """Pictures of a disc, and cameras around it, in ``folder``; runs in a process of its own."""
    import torch

    from bozzetto.camera import Cameras
    from bozzetto.camera.transforms_json import write_transforms
    from bozzetto.files.images import write_image

    cameras = Cameras.orbit([90.0 * i for i in range(VIEWS)], 0.0, 1.5, 49.1)
    axis = torch.linspace(-1, 1, SIZE)
    inside = ((axis[:, None].square() + axis.square()) < 0.5).float()[..., None]
    noise = torch.rand(VIEWS, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    names = [f"{i}.png" for i in range(VIEWS)]
    for name, picture in zip(names, noise):
        write_image(folder / name, torch.cat([picture, inside], dim=-1))
    write_transforms(folder / "transforms.json", cameras, SIZE, files=names)


def whole(options: argparse.Namespace, began: float) -> dict[str, float]:
    """Seconds since ``began`` at which the Gaussians of the public call are there, and the stages it reports."""
    from bozzetto import views_to_3d
    from bozzetto.camera.transforms_json import read_transforms

    imported = time.time()
    posed = read_transforms(options.scene)
    asset = views_to_3d(
        posed.paths, posed.cameras, model=options.model, mesh=False, device=options.device, weights=given(options)
    )
    float(asset.gaussians.means.sum())  # waits for the device
    end = time.time()
    named = {f"of which {k}": v for k, v in asset.report["timings"].items()}
    return {"whole": end - began, "start and imports": imported - began, **named}


def given(options: argparse.Namespace) -> dict[str, str] | None:
    return {options.model: options.weights} if options.weights else None


def staged(options: argparse.Namespace, began: float) -> dict[str, float]:
    """Seconds of each part, one after the other."""
    spans, last = {"Python itself": STARTED - began}, time.time()

    def mark(name: str) -> None:
        nonlocal last
        if "torch" in sys.modules and options.device == "cuda" and sys.modules["torch"].cuda.is_initialized():
            sys.modules["torch"].cuda.synchronize()
        now = time.time()
        spans[name], last = now - last, now

    import torch

    mark("import torch")
    from bozzetto.camera.transforms_json import read_transforms
    from bozzetto.job import Job, silent
    from bozzetto.matting.cutout import cutout  # noqa: F401
    from bozzetto.systems.lgm.posed import from_views
    from bozzetto.zoo import load

    mark("import bozzetto")
    device = torch.device(options.device)
    torch.zeros(1, device=device)
    mark("CUDA context")
    if options.device == "cuda":
        ones = torch.ones(64, 64, device=device, dtype=torch.float16)
        ones @ ones
        mark("cuBLAS, first product")
        image = torch.ones(1, 64, 64, 64, device=device, dtype=torch.float16).to(memory_format=torch.channels_last)
        kernel = torch.ones(64, 64, 3, 3, device=device, dtype=torch.float16).to(memory_format=torch.channels_last)
        torch.nn.functional.conv2d(image, kernel, padding=1)
        mark("cuDNN, first convolution")
    network = load(options.model, options.device, options.weights)
    mark("weights to the device")
    posed = read_transforms(options.scene)
    mark("cameras")
    for name in ("pictures and network, first", "again", "and again"):
        job = Job(device, 0, silent, False, {})
        from_views(posed.paths, posed.cameras, network, True, job)
        mark(name)
        spans[f"{name}: network"] = job.timings["network"]
    return spans


def child(mode: str, options: argparse.Namespace, triton_cache: Path) -> dict[str, float]:
    """What :func:`whole` or :func:`staged` measures in a new process."""
    command = [sys.executable, __file__, "--child", mode, "--scene", options.scene, "--device", options.device]
    command += ["--model", options.model, *(["--weights", options.weights] if options.weights else [])]
    began = {"COLD_START_BEGAN": repr(time.time())}
    result = subprocess.run(command, env=environment(triton_cache) | began, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{mode} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def command_line(options: argparse.Namespace, triton_cache: Path, out: Path) -> dict[str, float]:
    """Seconds of ``bozzetto views --no-mesh``, with film and pages."""
    command = [sys.executable, "-m", "bozzetto", "views", options.scene, "-o", str(out), "--no-mesh", "-q"]
    command += ["--model", options.model, "--device", options.device]
    command += ["--weights", f"{options.model}={options.weights}"] if options.weights else []
    began = time.time()
    subprocess.run(command, env=environment(triton_cache), check=True)
    whole = time.time() - began
    report = json.loads((out / "report.json").read_text())
    return {"whole": whole} | {f"of which {k}": v for k, v in report["timings"].items()}


def environment(triton_cache: Path) -> dict[str, str]:
    """Of a new process: with this cache of kernels, and with one of compiled modules beside it."""
    given = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return given | {"TRITON_CACHE_DIR": str(triton_cache), "PYTHONPYCACHEPREFIX": str(triton_cache.parent / "modules")}


def forget(path: str) -> None:
    """Have the system drop a file from its cache, so that the next reader reads the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(columns: dict[str, dict[str, float]]) -> str:
    rows = list(dict.fromkeys(key for column in columns.values() for key in column))
    lines = ["| seconds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [f"{column[row]:.2f}" if row in column else "–" for column in columns.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="lgm-big with a GPU, else lgm-mini, whose weights are bundled")
    parser.add_argument("--weights", help="a file to use instead of made-up weights")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--scene", help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=("whole", "staged"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure = whole if options.child == "whole" else staged
        print(json.dumps(measure(options, float(os.environ["COLD_START_BEGAN"]))))
        return
    if options.device is None:  # asked elsewhere: this process stays without torch
        ask = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
        options.device = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip()
    options.model = options.model or ("lgm-big" if options.device == "cuda" else "lgm-mini")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options.scene = str(place / "scene")
        (place / "scene").mkdir()
        make = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cold_start, pathlib; "
        subprocess.run(
            [sys.executable, "-c", make + f"cold_start.make_scene(pathlib.Path({options.scene!r}))"], check=True
        )
        if options.model == "lgm-big" and not options.weights:
            script = str(Path(__file__).with_name("full_size.py"))
            done = subprocess.run(
                [sys.executable, script, folder, "lgm-big"], check=True, capture_output=True, text=True
            )
            options.weights = json.loads(done.stdout.splitlines()[-1])["path"]
        if options.weights:
            print(f"{options.model}: {os.path.getsize(options.weights) / 1e6:.0f} MB; {options.device}\n")
            forget(options.weights)
        kernels = place / "triton"
        child("whole", argparse.Namespace(**vars(options) | {"model": "lgm-mini", "weights": None}), place / "other")
        runs = {"file on disk, no kernels": child("whole", options, kernels)}
        runs["all cached"] = child("whole", options, kernels)
        if options.weights:
            forget(options.weights)
            runs["file on disk"] = child("whole", options, kernels)
        runs["all cached, again"] = child("whole", options, kernels)
        if importlib.util.find_spec("av") is not None:  # it writes the film
            runs["command, all cached"] = command_line(options, kernels, place / "out")
        print(table(runs), flush=True)
        parts = {"no kernels": child("staged", options, place / "triton2")}
        parts["all cached"] = child("staged", options, place / "triton2")
        print("\n" + table(parts))


if __name__ == "__main__":
    main()
