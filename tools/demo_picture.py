"""Makes docs/images/demo.jpg: for each example photo the photo, its splats from four sides and its mesh from two.

bozzetto image examples/coffee_cup.png examples/pink_handbag.jpg examples/kitten.jpg -o out/pictures
python tools/demo_picture.py out/pictures docs/images/demo.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

import bozzetto as bz
from bozzetto.evaluation.mesh_pictures import draw_mesh
from bozzetto.surface import gaussians_to_mesh

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = ("coffee_cup.png", "pink_handbag.jpg", "kitten.jpg")
SIDE = 225  # pixels of a cell
SPLATS, MESH = [0.0, 45.0, 180.0, 315.0], [0.0, 45.0]  # azimuths, degrees


def cell(picture: torch.Tensor) -> Image.Image:
    """[S, S, 3 or more] in 0..1 on white -> a cell."""
    levels = (picture[..., :3].clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def row(name: str, folder: Path) -> list[Image.Image]:
    photo = Image.open(EXAMPLES / name).convert("RGB")
    splats = bz.Gaussians.load(folder / Path(name).stem / "splats.ply")
    extent = float(splats.means[splats.opacities > 0.3].norm(dim=-1).quantile(0.98))

    def around(azimuths: list[float]) -> bz.Cameras:
        return bz.Cameras.orbit(azimuths, 10.0, 3.1 * extent, 49.1)

    seen = bz.rasterize(splats, around(SPLATS), 2 * SIDE, background=(1.0, 1.0, 1.0)).rgb
    mesh = draw_mesh(gaussians_to_mesh(splats), around(MESH), 2 * SIDE)
    fitted = ImageOps.pad(photo, (SIDE, SIDE), color="white")
    return [fitted, *(cell(x) for x in seen), *(cell(x) for x in mesh)]


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [row(name, folder) for name in NAMES]
    sheet = Image.new("RGB", (SIDE * len(rows[0]), SIDE * len(rows)), "white")
    for y, cells in enumerate(rows):
        for x, picture in enumerate(cells):
            sheet.paste(picture, (x * SIDE, y * SIDE))
    sheet.save(target, quality=88)


if __name__ == "__main__":
    main()
