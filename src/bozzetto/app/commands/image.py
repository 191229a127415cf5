"""Turn a photo of one object into a 3D object.

Writes splats.ply and mesh.glb (what the model makes of the two), turntable.mp4, preview.png, viewer.html and report.json into
DIR; with several photos, into one sub-folder per photo. A photo with a transparent background is used as it is; from any
other the object is cut out first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..many import folders, run_each
from ..options import (
    add_matting,
    add_mesh,
    add_output,
    add_system_options,
    add_weights,
    asset_options,
    box,
    check_output,
)
from ..progress import Progress

EXAMPLES = (
    "bozzetto image photo.jpg -o out/",
    "bozzetto image cup.png chair.png -o out/ --no-mesh",
    "bozzetto image street.jpg -o out/ --crop 200,150,620,540",
    "bozzetto image photo.jpg -o out/ --model triposr --mesh-format obj",
    "bozzetto image photo.jpg -o out/ --model lgm --steps 50 --seed 1",
)


def configure(parser: argparse.ArgumentParser, model: str | None = None) -> None:
    """Add the command's arguments; the help is about the options of ``model``."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="picture file(s)")
    parser.add_argument("--crop", type=box, metavar="X0,Y0,X1,Y1", help="look only inside this box, in pixels")
    add_output(parser, "lgm-mini", "photo")
    add_mesh(parser)
    add_matting(parser)
    add_weights(parser)
    add_system_options(parser, "photo", "lgm-mini", model)


def run(options: argparse.Namespace, progress: Progress) -> int:
    """Reconstruct every photo; one that fails does not stop the others. Returns the exit code."""
    from ...api import image_to_3d, prepare

    given = asset_options(options)
    targets = folders([Path(photo).stem or "photo" for photo in options.photos], options.output)
    check_output(targets[0])
    if len(targets) > 1:
        prepare("photo", progress=progress, **given)  # once, and before any photo is read

    def work(photo: str, folder: Path) -> None:
        asset = image_to_3d(photo, matting=options.matting, crop=options.crop, progress=progress, **given)
        progress.summary(asset.save(folder, progress))

    return run_each(options.photos, targets, work, progress)
