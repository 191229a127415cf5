"""Fit splats to pictures with known cameras, by optimisation (3D Gaussian Splatting).

FOLDER is a COLMAP project (sparse/0 and images), or holds transforms.json, or rgb/ and pose/ as LGM's training data. Slower
than `bozzetto views`, which lets a network guess from a few pictures, and exact where there are many: dozens of pictures of an
object, minutes on a CPU and seconds on a GPU. The world and its scale stay the caller's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..numbers import positive
from ..options import add_device, check_output
from ..progress import Progress

EXAMPLES = (
    "bozzetto fit scene/ -o out/",
    "bozzetto fit colmap/ -o out/ --steps 30000 --sh-degree 3 --device cuda",
    "bozzetto fit scene/ -o out/ --init splats.ply --hold-out 8 --mesh",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", help="posed pictures")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--steps", type=positive, default=3000, metavar="N", help="optimisation steps (3000)")
    parser.add_argument(
        "--sh-degree", type=int, choices=(0, 1, 2, 3), default=0, help="of view-dependent colour, 0 to 3 (0)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=800,
        metavar="N",
        help="longest side of a picture, from 16; larger are reduced, 0 for none (800)",
    )
    parser.add_argument(
        "--init",
        default="auto",
        metavar="START",
        help="points (COLMAP's), random, or a splat file to go on from (auto: points where there are some)",
    )
    parser.add_argument("--points", type=positive, default=5000, metavar="N", help="of a random start (5000)")
    parser.add_argument("--max-splats", type=positive, default=500_000, metavar="N", help="no more are made (500000)")
    parser.add_argument("--no-densify", dest="densify", action="store_false", help="make no new splats")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="views a step (1)")
    parser.add_argument(
        "--background",
        choices=("auto", "black", "white"),
        default="auto",
        help="what is behind the object (auto: random for pictures with alpha, black for others)",
    )
    parser.add_argument(
        "--hold-out", type=int, default=0, metavar="N", help="keep every Nth view aside and report its PSNR (0: none)"
    )
    parser.add_argument("--mesh", action="store_true", help="make a mesh, too")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (0)")
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Fit, and write what `bozzetto views` writes."""
    import torch

    from ...asset import Asset, versions
    from ...device import pick_device
    from ...errors import BozzettoError, InputError
    from ...fitting.fit import NEAR, fit_gaussians, scene_extent
    from ...fitting.folder import hold_out, mean_psnr, read_views
    from ...fitting.start import LEAST_POINTS
    from ...gaussians import Gaussians
    from ...job import timed
    from ...systems.lgm.views import common_up, snap_to_axis

    check_output(options.output)
    device = pick_device(options.device)
    if options.hold_out < 0 or options.hold_out == 1:
        raise InputError("--hold-out takes 0 or a number from 2: every Nth view is kept aside")
    progress("reading the pictures", 0.0)
    views = read_views(options.folder, options.size)
    start: object = options.init
    if options.init in ("auto", "points"):
        if views.points is None and options.init == "points":
            raise InputError(f"{options.folder} holds no points3D file of COLMAP; use --init random")
        enough = views.points is not None and len(views.points[0]) >= LEAST_POINTS
        if options.init == "points" and not enough:
            raise InputError(f"{options.folder} holds fewer than {LEAST_POINTS} points; use --init random")
        start = views.points if enough else "random"
    elif options.init != "random":
        start = Gaussians.load(options.init)
    used, aside = hold_out(len(views.images), options.hold_out)
    if not used:
        raise InputError("no views are left to fit; leave out --hold-out")
    background = {"auto": None, "black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}[options.background]
    timings: dict[str, float] = {}
    with timed(timings, "fit"):
        gaussians = fit_gaussians(
            [views.images[i] for i in used],
            views.cameras[used],
            init=start,
            steps=options.steps,
            sh_degree=options.sh_degree,
            densify=options.densify,
            points=options.points,
            max_gaussians=options.max_splats,
            batch=options.batch,
            background=background,
            seed=options.seed,
            device=device,
            progress=progress,
        )
    shown = torch.tensor(background if background is not None else (0.0, 0.0, 0.0))
    near = NEAR * scene_extent(views.cameras[used], gaussians)

    def quality(some: list[int]) -> float:
        return mean_psnr([views.images[i] for i in some], views.cameras[some], gaussians, shown, near)

    report = {
        "command": "fit",
        "input": Path(options.folder).name,
        "steps": options.steps,
        "sh_degree": options.sh_degree,
        "views": len(used),
        "splats": len(gaussians),
        "psnr": quality(used),
        "seed": options.seed,
        "device": str(device),
        "versions": versions(),
        "timings": timings,
    }
    progress.result(f"fitted views    {report['psnr']:6.2f} dB, {len(gaussians):,} splats, {timings['fit']:.0f} s")
    if aside:
        report["psnr_held_out"] = quality(aside)
        progress.result(f"held-out views  {report['psnr_held_out']:6.2f} dB")
    asset = Asset(gaussians, up=snap_to_axis(common_up(views.cameras)), report=report)
    failed: BozzettoError | None = None
    if options.mesh:
        from ...surface import gaussians_to_mesh

        try:
            with timed(timings, "mesh"):
                asset.mesh = gaussians_to_mesh(gaussians, progress=progress)
        except BozzettoError as error:  # the splats of a long run are kept
            failed = error
    progress.summary(asset.save(options.output, progress))
    if failed is not None:
        raise failed
