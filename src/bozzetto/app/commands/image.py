"""Turn a photo of one object into a 3D object.

Writes splats.ply, mesh.glb, turntable.mp4, preview.png, viewer.html and report.json into DIR; with several photos, into one
sub-folder per photo. A photo with a transparent background is used as it is; from any other the object is cut out first.
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from pathlib import Path

from ..options import add_reconstruction, box
from ..progress import Progress

EXAMPLES = (
    "bozzetto image photo.jpg -o out/",
    "bozzetto image cup.png chair.png -o out/ --no-mesh",
    "bozzetto image street.jpg -o out/ --crop 200,150,620,540",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="picture file(s)")
    parser.add_argument("--crop", type=box, metavar="X0,Y0,X1,Y1", help="look only inside this box, in pixels")
    parser.add_argument(
        "--elevation", type=float, default=0.0, metavar="DEGREES", help="how far from above the photo was taken (0)"
    )
    add_reconstruction(parser)


def folders(photos: list[str], output: str) -> list[Path]:
    """One result folder per photo: ``output`` itself for one, ``output/<name>`` for several, made unique by a number.

    Names that differ in case only count as the same: they are one folder on Windows and on most Macs.
    """
    if len(photos) == 1:
        return [Path(output)]
    taken: set[str] = set()
    out = []
    for photo in photos:
        stem = Path(photo).stem or "photo"
        name, number = stem, 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(key)
        out.append(Path(output) / name)
    return out


def run(options: argparse.Namespace, progress: Progress) -> int:
    """Reconstruct every photo; one that fails does not stop the others. Returns the exit code."""
    from ...api import image_to_3d
    from ...errors import BozzettoError
    from ...zoo import check_name

    check_name(options.model)  # once, and before any photo is read
    code = 0
    for photo, folder in zip(options.photos, folders(options.photos, options.output)):
        try:
            asset = image_to_3d(
                photo,
                model=options.model,
                seed=options.seed,
                mesh=options.mesh,
                matting=options.matting,
                crop=options.crop,
                elevation=options.elevation,
                device=options.device,
                progress=progress,
            )
            progress.summary(asset.save(folder, progress))
        except BozzettoError as error:
            if len(options.photos) == 1:
                raise
            progress.clear()  # one bad photo does not stop the others
            print(f"bozzetto: {photo}: {error}", file=sys.stderr)
            code = error.exit_code
    return code
