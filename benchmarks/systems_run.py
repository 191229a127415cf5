"""One run of ``systems.py``, in a process of its own: the public function called on made-up weights, watched and checked."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        sizes: of a full-size result: the least and the most.
    """

    model: str
    kind: str
    entries: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    micro: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)


_SPLATS = 4 * 128 * 128  # of LGM, before the faint ones go
_TEXTURED = {"faces": (5_000, 1_000_000), "texture": (1024, 1024)}
_SHAP_E = {"steps": 2, "resolution": 20, "texture_size": 64}
CASES = {
    "lgm-photo": Case(
        "lgm",
        "photo",
        ("imagedream", "lgm-big"),
        {"mesh": False},
        {"steps": 1},
        "without mesh",
        {"gaussians": (_SPLATS // 10, _SPLATS)},
    ),
    "lgm-text": Case(
        "lgm",
        "text",
        ("mvdream", "lgm-big"),
        {"mesh": False, "cut_views": False},
        {"steps": 1},
        "without mesh, and without cutting out the views: made-up weights draw no object",
        {"gaussians": (_SPLATS // 10, _SPLATS)},
    ),
    "l4gm": Case(
        "l4gm",
        "video",
        ("imagedream", "l4gm-recon", "l4gm-interp"),
        {"matting": False, "fps": FPS},
        {"steps": 1, "chunk": 2},
        f"{FRAMES} frames with alpha at {FPS} a second, with interpolation, without matting",
        {"sets": (3 * FRAMES - 2, 3 * FRAMES - 2), "gaussians": (_SPLATS, _SPLATS)},
    ),
    "triposr": Case(
        "triposr",
        "photo",
        ("triposr",),
        {},
        {"resolution": 32, "texture_size": 64},
        "256³ samples, textured mesh",
        _TEXTURED,
    ),
    "shap-e-text": Case(
        "shap-e",
        "text",
        ("clip-vit-l14", "shap-e-text", "shap-e-transmitter"),
        {},
        _SHAP_E,
        "64 steps, textured mesh",
        _TEXTURED,
    ),
    "shap-e-photo": Case(
        "shap-e",
        "photo",
        ("clip-vit-l14", "shap-e-image", "shap-e-transmitter"),
        {},
        _SHAP_E,
        "64 steps, textured mesh",
        _TEXTURED,
    ),
    "gaussian-dreamer": Case(
        "gaussian-dreamer",
        "text",
        ("clip-vit-l14", "shap-e-text-cap3d", "shap-e-transmitter", "sd21-base"),
        {"mesh": False, "prior": "sd"},
        {"steps": 2, "size": 32, "batch": 2, "start_steps": 2, "grow_candidates": 2000},
        "without mesh; few steps",
        {"gaussians": (10_000, 1_000_000)},
    ),
}


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
            written = time.perf_counter()
            result = check(asset, case.kind, frames) | check_files(files, case, asset)
            check_sizes(result, {} if options.micro else case.sizes)
            timings = {k: v for k, v in asset.report["timings"].items() if k != "total"}
            run = {"seconds": made - begin, "seconds_with_files": written - begin, "timings": timings}
            run |= {"result": result, "peak_allocated": peaks.allocated, "peak_reserved": peaks.reserved}
            runs.append(run | {"stage_peaks": dict(peaks.stages)})
            if case.model == "gaussian-dreamer":
                step = timings["optimise"] / given["steps"]
                run = runs[-1] | {"steps": given["steps"], "seconds_per_step": step}
                runs[-1] = run | {"extrapolated_seconds_of_1200_steps": PUBLISHED_STEPS * step}
            del asset
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    machine = {"device": name, "torch": torch.__version__, "python": platform.python_version()}
    machine |= {"checkpoints": "toy checkpoints, see --micro" if options.micro else "full-size made-up weights"}
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
        require(int(faces.min()) >= 0 and int(faces.max()) < len(vertices), "faces name vertices that are not there")
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
        wanted |= {
            "preview.png",
            "turntable.mp4",
            "viewer.html",
            "mesh.glb" if asset.gaussians is None else "splats.ply",
        }
    require(wanted <= names, f"missing files: {', '.join(sorted(wanted - names))}")
    require(all(p.stat().st_size for p in written), "empty files")
    if case.kind == "video":
        sets = asset.gaussians.batch_shape[0]
        require(sum(n.endswith(".ply") for n in names) == sets, f"not {sets} splat files")
        require(any(n.endswith(".mp4") for n in names) and any(n.endswith(".html") for n in names), "no film or player")
    return {"files": len(written), "bytes": sum(p.stat().st_size for p in written)}


def check_sizes(result: dict[str, Any], sizes: dict[str, tuple[int, int]]) -> None:
    """Whether the numbers of a result lie where they must."""
    for name, (low, high) in sizes.items():
        require(low <= result.get(name, -1) <= high, f"{result.get(name, 'no')} {name}, not {low}..{high}")


def small_films() -> None:
    """Three small frames instead of four seconds, of coarse grids, for toy runs."""
    from bozzetto import framing
    from bozzetto.systems.shap_e import field as shap_e_field
    from bozzetto.systems.triposr import field as triposr_field

    framing.turntable.__defaults__ = (3, 32, *framing.turntable.__defaults__[2:])
    framing.preview.__defaults__ = (32, *framing.preview.__defaults__[1:])
    shap_e_field.COARSE_GRID, triposr_field.GRID = 24, 32


def child(options: argparse.Namespace) -> int:
    """The process of one case."""
    try:
        figures = run_case(CASES[options.case], json.loads(options.weights), options)
    except Exception as error:
        traceback.print_exc()
        figures = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    options.out.write_text(json.dumps(figures))
    return 1 if "error" in figures else 0
