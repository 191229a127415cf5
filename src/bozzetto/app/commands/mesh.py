"""Turn splats into a textured mesh (.glb, .usdz, .obj with .mtl and .png, or .ply with vertex colours)."""

from __future__ import annotations

import argparse

from ..options import add_device, positive
from ..progress import Progress

EXAMPLES = ("bozzetto mesh splats.ply -o mesh.glb", "bozzetto mesh splats.ply -o mesh.obj --faces 20000 --texture 2048")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("splats", metavar="SPLATS", help=".ply or .splat file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=".glb, .obj, .ply or .usdz")
    parser.add_argument("--faces", type=positive, metavar="N", help="at most this many triangles")
    parser.add_argument("--texture", type=positive, metavar="N", help="texture size in pixels")
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    from pathlib import Path

    from ...device import pick_device
    from ...files.meshes import check_suffix
    from ...gaussians import Gaussians
    from ...surface import gaussians_to_mesh

    check_suffix(options.output)
    gaussians = Gaussians.load(options.splats).to(pick_device(options.device))
    limits = {"max_faces": options.faces, "texture_size": options.texture}
    mesh = gaussians_to_mesh(
        gaussians,
        progress=lambda stage, share: progress(f"making the mesh: {stage}", share),
        **{k: v for k, v in limits.items() if v is not None},
    )
    mesh.save(options.output)
    progress.summary([Path(options.output)])
