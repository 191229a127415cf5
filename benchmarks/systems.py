"""One full-size run of every system: time by stage and peak memory, as markdown tables.

``python benchmarks/systems.py [--only lgm,triposr,shap-e-text] [--out FILE.json]`` needs a CUDA device with about 24 GB, about
12 GB of disk and no published weights: the checkpoints have made-up numbers (``full_size.py``), so the objects are blobs, while
time and memory are those of the true networks. Every result is checked: shapes, finite numbers, files.

Each run is a process of its own, in which the public function is called ``--runs`` times. The first call is what a user of the
command line waits for, imports and compilation of kernels included, but for reading weights from a cold disk: they were just
written. The device is synchronised at the end of each stage. ``--micro`` runs toy checkpoints on the CPU, to try this script.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
GIB = 2**30
PUBLISHED_STEPS = 1200  # of gaussian-dreamer
FRAMES, FPS = 16, 15


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        model: as ``--model`` takes it. kind: of the input: "photo", "text" or "video".
        entries: the zoo entries that it loads.
        options: keyword arguments beside the defaults. micro: those of toy runs, in addition.
        note: what differs from a user's run.
    """

    model: str
    kind: str
    entries: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    micro: dict[str, Any] = field(default_factory=dict)
    note: str = ""


_SHAP_E = {"steps": 2, "resolution": 20, "texture_size": 64}
CASES = {
    "lgm-photo": Case("lgm", "photo", ("imagedream", "lgm-big"), {"mesh": False}, {"steps": 1}, "without mesh"),
    "lgm-text": Case(
        "lgm",
        "text",
        ("mvdream", "lgm-big"),
        {"mesh": False, "cut_views": False},
        {"steps": 1},
        "without mesh, and without cutting out the views: made-up weights draw no object",
    ),
    "l4gm": Case(
        "l4gm",
        "video",
        ("imagedream", "l4gm-recon", "l4gm-interp"),
        {"matting": False, "fps": FPS},
        {"steps": 1, "chunk": 2},
        f"{FRAMES} frames with alpha at {FPS} a second, with interpolation, without matting",
    ),
    "triposr": Case(
        "triposr", "photo", ("triposr",), {}, {"resolution": 32, "texture_size": 64}, "256³ samples, textured mesh"
    ),
    "shap-e-text": Case(
        "shap-e", "text", ("clip-vit-l14", "shap-e-text", "shap-e-transmitter"), {}, _SHAP_E, "textured mesh"
    ),
    "shap-e-photo": Case(
        "shap-e", "photo", ("clip-vit-l14", "shap-e-image", "shap-e-transmitter"), {}, _SHAP_E, "textured mesh"
    ),
    "gaussian-dreamer": Case(
        "gaussian-dreamer",
        "text",
        ("clip-vit-l14", "shap-e-text-cap3d", "shap-e-transmitter", "sd21-base"),
        {"mesh": False, "prior": "sd"},
        {"steps": 2, "size": 32, "batch": 2, "start_steps": 2, "grow_candidates": 2000},
        "without mesh; few steps",
    ),
}


# In the process of one run ------------------------------------------------------------------------------------------------


class Peaks:
    """Peak device memory of each stage and of the whole; stages end when the device is done. Nested stages are fine."""

    def __init__(self, device: str) -> None:
        import torch

        self.cuda = torch.cuda if device == "cuda" else None
        self.open: list[tuple[str, int]] = []  # stage, highest value seen inside of it so far
        self.stages: dict[str, int] = {}
        self.allocated = self.reserved = 0

    def restart(self) -> None:
        """Forget what was seen (between runs)."""
        self.mark()
        self.stages, self.allocated, self.reserved = {}, 0, 0

    def mark(self) -> None:
        """Add what happened since the last mark to the open stages and to the whole."""
        if self.cuda is None:
            return
        self.cuda.synchronize()
        peak = self.cuda.max_memory_allocated()
        self.open = [(stage, max(seen, peak)) for stage, seen in self.open]
        self.allocated = max(self.allocated, peak)
        self.reserved = max(self.reserved, self.cuda.max_memory_reserved())
        self.cuda.reset_peak_memory_stats()

    def watch(self) -> None:
        """Follow the stages of all jobs in this process."""
        from bozzetto.job import timed

        enter, leave = timed.__enter__, timed.__exit__

        def watched_enter(stage: timed) -> None:
            self.mark()
            self.open.append((stage.stage, 0))
            enter(stage)

        def watched_leave(stage: timed, *exc: object) -> None:
            self.mark()
            leave(stage, *exc)
            name, peak = self.open.pop()
            self.stages[name] = max(self.stages.get(name, 0), peak)

        timed.__enter__, timed.__exit__ = watched_enter, watched_leave


def run_case(case: Case, weights: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Call the public function ``options.runs`` times; figures of every run."""
    import torch

    if options.micro:
        small_films()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    peaks = Peaks(device)
    peaks.watch()
    given = {**case.options, "weights": weights, "device": device, "model": case.model}
    if case.model == "gaussian-dreamer":
        given["steps"] = options.steps
    given |= case.micro if options.micro else {}
    frames = 3 if options.micro else FRAMES
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        source = make_input(case.kind, Path(folder), frames)
        for number in range(options.runs):
            peaks.restart()
            begin = time.perf_counter()
            asset = call(case.kind, source, given)
            peaks.mark()
            made = time.perf_counter()
            files = asset.save(Path(folder) / f"out{number}")
            peaks.mark()
            result = check(asset, case.kind, frames) | check_files(files, case, asset)
            timings = {k: v for k, v in asset.report["timings"].items() if k != "total"}
            run = {"seconds": made - begin, "seconds_with_files": time.perf_counter() - begin, "timings": timings}
            run |= {"result": result, "peak_allocated": peaks.allocated, "peak_reserved": peaks.reserved}
            runs.append(run | {"stage_peaks": dict(peaks.stages)})
            if case.model == "gaussian-dreamer":
                step = timings["optimise"] / given["steps"]
                run = runs[-1] | {"steps": given["steps"], "seconds_per_step": step}
                runs[-1] = run | {"extrapolated_seconds_of_1200_steps": PUBLISHED_STEPS * step}
            del asset
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    machine = {"device": name, "torch": torch.__version__, "python": platform.python_version()}
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"runs": runs, "machine": machine, "peak_host": host}


def call(kind: str, source: str, given: dict[str, Any]) -> Any:
    """The public function for an input."""
    import bozzetto

    function = {"photo": bozzetto.image_to_3d, "text": bozzetto.text_to_3d, "video": bozzetto.video_to_4d}[kind]
    return function(source, **given)


def make_input(kind: str, folder: Path, frames: int) -> str:
    """A prompt, a photo with alpha, or a folder of such pictures: three coloured blobs, of which one wanders."""
    import numpy as np
    from PIL import Image

    if kind == "text":
        return "a red chair"
    size = 512
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    clip = folder / "clip"
    clip.mkdir()
    for frame in range(1 if kind == "photo" else frames):
        rgba = np.zeros((size, size, 4))
        angle = 2 * np.pi * frame / frames
        blobs = ((0, 0.25, 0.45, (0.8, 0.3, 0.2)), (0.1, -0.3, 0.3, (0.2, 0.5, 0.8)))
        wanderer = (0.45 * np.cos(angle), 0.1 + 0.3 * np.sin(angle), 0.18, (0.9, 0.8, 0.2))
        for cx, cy, radius, colour in (*blobs, wanderer):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            shade = 1 - 0.5 * ((x - cx + 0.3) ** 2 + (y - cy + 0.3) ** 2)[inside, None]
            rgba[inside] = np.concatenate([np.array(colour) * shade, np.ones_like(shade)], axis=-1)
        Image.fromarray((rgba.clip(0, 1) * 255).round().astype(np.uint8)).save(clip / f"{frame:03d}.png")
    return str(clip / "000.png") if kind == "photo" else str(clip)


def require(condition: bool, what: str) -> None:
    """Raise :class:`RuntimeError` where a result is not as it must be."""
    if not condition:
        raise RuntimeError(f"the result is wrong: {what}")


def check(asset: Any, kind: str, frames: int) -> dict[str, Any]:
    """Shapes and finiteness of an Asset or Asset4D; its sizes."""
    import torch

    sizes: dict[str, Any] = {}
    gaussians = asset.gaussians
    if gaussians is not None:
        batch = (3 * frames - 2,) if kind == "video" else ()
        require(tuple(gaussians.batch_shape) == batch, f"sets of Gaussians {tuple(gaussians.batch_shape)}, not {batch}")
        number = gaussians.opacities.shape[-1]
        require(number >= 100, f"only {number} Gaussians")
        for name in ("means", "scales", "quats", "opacities", "sh"):
            require(bool(torch.isfinite(getattr(gaussians, name)).all()), f"{name} are not finite")
        opacities = gaussians.opacities
        require(bool((opacities >= 0).all() and (opacities <= 1).all()), "opacities outside 0..1")
        sizes |= {"sets": batch[0]} if batch else {}
        sizes["gaussians"] = number
    mesh = getattr(asset, "mesh", None)
    if mesh is not None:
        vertices, faces = mesh.vertices, mesh.faces
        require(vertices.shape[1:] == (3,) and faces.shape[1:] == (3,), "vertices and faces must be [., 3]")
        require(len(faces) >= 100, f"only {len(faces)} triangles")
        require(bool(torch.isfinite(vertices).all()), "vertices are not finite")
        require(0 <= int(faces.min()) and int(faces.max()) < len(vertices), "faces name vertices that are not there")
        require(mesh.texture is not None and bool(torch.isfinite(mesh.texture.float()).all()), "no finite texture")
        sizes |= {"vertices": len(vertices), "faces": len(faces), "texture": mesh.texture.shape[0]}
    require(bool(sizes), "neither Gaussians nor a mesh")
    return sizes


def check_files(files: Iterable[Path], case: Case, asset: Any) -> dict[str, Any]:
    """Whether everything was written; the number of bytes."""
    written = [p for f in files for p in ([f] if f.is_file() else sorted(f.rglob("*"))) if p.is_file()]
    names = {p.name for p in written}
    wanted = {"report.json"}
    if case.kind != "video":
        wanted |= {"preview.png", "turntable.mp4", "viewer.html", "mesh.glb" if asset.gaussians is None else "splats.ply"}
    require(wanted <= names, f"missing files: {', '.join(sorted(wanted - names))}")
    require(all(p.stat().st_size for p in written), "empty files")
    if case.kind == "video":
        sets = asset.gaussians.batch_shape[0]
        require(sum(n.endswith(".ply") for n in names) == sets, f"not {sets} splat files")
        require(any(n.endswith(".mp4") for n in names) and any(n.endswith(".html") for n in names), "no film or player")
    return {"files": len(written), "bytes": sum(p.stat().st_size for p in written)}


def small_films() -> None:
    """Three small frames instead of four seconds, for toy runs."""
    from bozzetto import framing
    from bozzetto.systems.shap_e import field as shap_e_field

    framing.turntable.__defaults__ = (3, 32, *framing.turntable.__defaults__[2:])
    framing.preview.__defaults__ = (32, *framing.preview.__defaults__[1:])
    shap_e_field.COARSE_GRID = 24


# In the process that was started ------------------------------------------------------------------------------------------


def write_micro(entries: Iterable[str], folder: Path) -> dict[str, str]:
    """Toy checkpoints of the entries, made by the tests' writers."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "systems"))
    from importlib import import_module

    paths: dict[str, Path] = {}
    for system in ("lgm", "mvdream", "l4gm", "triposr", "shap_e", "gaussian_dreamer"):
        place = folder / system
        if not place.exists():
            place.mkdir(parents=True)
            paths |= getattr(import_module(f"micro_{system}"), f"write_micro_{system}")(place)
            (place / "paths.json").write_text(json.dumps({k: str(v) for k, v in paths.items()}))
        paths |= {k: Path(v) for k, v in json.loads((place / "paths.json").read_text()).items()}
    return {name: str(paths[name]) for name in entries}


def write_full(entries: Iterable[str], folder: Path, device: str | None) -> dict[str, str]:
    """Full-size checkpoints of the entries, in a process of its own; those that are there are kept."""
    out = {}
    for name in entries:
        done = folder / f"{name}.json"  # written last
        if not done.is_file():
            shutil.rmtree(folder / name, ignore_errors=True)
            command = [sys.executable, str(HERE.with_name("full_size.py")), str(folder), name]
            command += ["--device", device] if device else []
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            done.write_text(text.splitlines()[-1])
            about = json.loads(done.read_text())
            say(f"wrote {name}: {about['bytes'] / 1e9:.2f} GB in {about['seconds']:.1f} s")
        out[name] = json.loads(done.read_text())["path"]
    return out


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def start_case(name: str, weights: dict[str, str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case in a new process, within the time limit; its figures, or {"error": ...}."""
    result = folder / f"{name}.result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(HERE), "--case", name, "--weights", json.dumps(weights), "--out", str(result)]
    command += ["--steps", str(options.steps), "--runs", str(options.runs)]
    command += ["--device", options.device] if options.device else []
    command += ["--micro"] if options.micro else []
    try:
        code = subprocess.run(command, timeout=options.limit_seconds).returncode
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than --limit-seconds {options.limit_seconds:g}"}
    if result.is_file():
        return json.loads(result.read_text())
    return {"error": f"the process ended with {code} and without a result"}


def child(options: argparse.Namespace) -> int:
    """The process of one case."""
    try:
        figures = run_case(CASES[options.case], json.loads(options.weights), options)
    except Exception as error:
        traceback.print_exc()
        figures = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    options.out.write_text(json.dumps(figures))
    return 1 if "error" in figures else 0


def tables(results: dict[str, dict[str, Any]]) -> str:
    """The markdown tables of all results."""

    def gib(size: int) -> str:
        return f"{size / GIB:.2f}" if size else "–"

    good = {k: v for k, v in results.items() if "error" not in v}
    lines = []
    for about in {json.dumps(v["machine"]): v["machine"] for v in good.values()}.values():
        lines += [f"{about['device']}, torch {about['torch']}, Python {about['python']}", ""]
    if good:
        lines += ["| run | first, s | last, s | with files, s | allocated, GiB | reserved, GiB | host, GiB | result |"]
        lines += ["|---" * 8 + "|"]
    for name, figures in good.items():
        first, last = figures["runs"][0], figures["runs"][-1]
        peaks = [gib(max(r[k] for r in figures["runs"])) for k in ("peak_allocated", "peak_reserved")]
        made = ", ".join(f"{v:,} {k}" for k, v in last["result"].items() if k != "bytes")
        made += f", {last['result']['bytes'] / 1e6:.1f} MB"
        times = [f"{t:.2f}" for t in (first["seconds"], last["seconds"], last["seconds_with_files"])]
        lines.append(f"| {name} | " + " | ".join([*times, *peaks, gib(figures["peak_host"]), made]) + " |")
    if good:
        lines += ["", "| run | stage | first, s | last, s | allocated, GiB |", "|---" * 5 + "|"]
    for name, figures in good.items():
        first, last = figures["runs"][0], figures["runs"][-1]
        for stage, seconds in last["timings"].items():
            peak = gib(max(r["stage_peaks"].get(stage, 0) for r in figures["runs"]))
            lines.append(f"| {name} | {stage} | {first['timings'].get(stage, 0):.2f} | {seconds:.2f} | {peak} |")
    notes = [f"* {name}: {CASES[name].note}." for name in good if CASES[name].note]
    for name, figures in good.items():
        if "seconds_per_step" in (last := figures["runs"][-1]):
            minutes = last["extrapolated_seconds_of_1200_steps"] / 60
            notes.append(
                f"* {name}: {last['seconds_per_step']:.3f} s a step over {last['steps']} steps. Extrapolated, not "
                f"measured: {PUBLISHED_STEPS:,} steps would take {minutes:.1f} min if the splats stayed as many as at "
                "the start (densification changes their number)."
            )
    notes += [f"* {name}: FAILED: {figures['error']}" for name, figures in results.items() if "error" in figures]
    return "\n".join([*lines, "", *notes])


def chosen_cases(only: str | None) -> list[str]:
    """Cases by their names or their models' names, in the order of the table."""
    if not only:
        return list(CASES)
    wanted = {part.strip() for part in only.split(",")} - {""}
    if unknown := wanted - CASES.keys() - {c.model for c in CASES.values()}:
        raise SystemExit(f"--only: unknown: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}, or a model's name")
    return [name for name, case in CASES.items() if name in wanted or case.model in wanted]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(CASES)}, or models' names")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--folder", type=Path, help="for the checkpoints (a temporary one by default)")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there, and use them the next time")
    parser.add_argument("--device", help="cuda or cpu")
    parser.add_argument("--runs", type=int, default=2, help="calls in one process")
    parser.add_argument("--steps", type=int, default=20, help="of gaussian-dreamer")
    parser.add_argument("--limit-seconds", type=float, default=900, help="for each run of the list")
    parser.add_argument("--micro", action="store_true", help="toy checkpoints, to try this script")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        return child(options)
    if options.keep and options.folder is None:
        parser.error("--keep needs --folder")
    if min(options.runs, options.steps) < 1:
        parser.error("--runs and --steps must be at least 1")
    names = chosen_cases(options.only)
    folder = Path(tempfile.mkdtemp()) if options.folder is None else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    try:
        for number, name in enumerate(names):
            entries = CASES[name].entries
            say(f"-- {name}")
            try:
                weights = write_micro(entries, folder) if options.micro else write_full(entries, folder, options.device)
                results[name] = start_case(name, weights, folder, options)
            except Exception as error:
                traceback.print_exc()
                results[name] = {"error": f"{type(error).__name__}: {error}"}
            later = {e for other in names[number + 1 :] for e in CASES[other].entries}
            for entry in set(entries) - later if not (options.keep or options.micro) else ():
                shutil.rmtree(folder / entry, ignore_errors=True)
                (folder / f"{entry}.json").unlink(missing_ok=True)
            (folder / f"{name}.result.json").unlink(missing_ok=True)
            if options.out:
                options.out.write_text(json.dumps(results, indent=1))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(tables(results), flush=True)
    return 1 if any("error" in r for r in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
