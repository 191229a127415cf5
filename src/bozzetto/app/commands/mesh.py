"""Turn splats into a textured mesh (.glb, .usdz, .obj with .mtl and .png, or .ply with vertex colours)."""

from __future__ import annotations

import argparse

from ..numbers import positive
from ..options import add_device
from ..progress import Progress

EXAMPLES = (
    "bozzetto mesh splats.ply -o mesh.glb",
    "bozzetto mesh splats.ply -o mesh.obj --faces 20000 --texture 2048",
    "bozzetto mesh splats.ply -o mesh.glb --method nerf --steps 1024",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("splats", metavar="SPLATS", help=".ply or .splat file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=".glb, .obj, .ply or .usdz")
    parser.add_argument("--faces", type=positive, metavar="N", help="at most this many triangles")
    parser.add_argument("--texture", type=positive, metavar="N", help="texture size in pixels")
    parser.add_argument(
        "--resolution",
        type=positive,
        metavar="N",
        help="voxels along the longest side (128; nerf: 256, 160 on a CPU); 512 takes minutes on a CPU, and over 5 GB",
    )
    parser.add_argument(
        "--method", choices=("fast", "nerf"), default="fast",
        help="fast: depth maps are fused (seconds); nerf: a radiance field is trained, then the mesh (minutes on a CPU) (fast)",
    )  # fmt: skip
    group = parser.add_argument_group("options of --method nerf")
    group.add_argument(
        "--steps", type=positive, metavar="N", help="of training the field; the rest in proportion (512; 256 on a CPU)"
    )
    group.add_argument(
        "--picture-size",
        type=positive,
        metavar="N",
        help="pixels of the pictures that the mesh is fitted to (512; 192 on a CPU)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of everything random (0)")
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    from pathlib import Path

    from ...device import pick_device
    from ...errors import InputError
    from ...files.meshes import check_suffix
    from ...gaussians import Gaussians
    from ...surface import gaussians_to_mesh

    check_suffix(options.output)
    own = {"--steps": options.steps, "--picture-size": options.picture_size, "--seed": options.seed}
    if options.method != "nerf" and (given := [name for name, value in own.items() if value is not None]):
        raise InputError(f"{', '.join(given)}: only --method nerf has this; leave it out, or add --method nerf")
    gaussians = Gaussians.load(options.splats).to(pick_device(options.device))
    limits = {"max_faces": options.faces, "texture_size": options.texture}
    chosen = {k: v for k, v in limits.items() if v is not None}

    def tell(stage: str, share: float) -> None:
        progress(f"making the mesh: {stage}", share)

    if options.method == "nerf":
        from ...surface.nerf import NerfSettings, gaussians_to_mesh_by_nerf

        settings = NerfSettings.for_device(gaussians.device)
        settings = settings.changed(options.steps, options.picture_size, options.resolution)
        mesh = gaussians_to_mesh_by_nerf(gaussians, settings=settings, seed=options.seed or 0, progress=tell, **chosen)
    else:
        mesh = gaussians_to_mesh(gaussians, resolution=options.resolution, progress=tell, **chosen)
    mesh.save(options.output)
    progress.summary([Path(options.output)])
