"""Convert between file formats.

Splats to splats (.ply, .splat), splats to a viewer page (.html), mesh to mesh (.glb, .obj, .ply).

`--layout lgm` writes the 14-property PLY of LGM instead of the standard 3DGS one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import Progress

EXAMPLES = (
    "bozzetto convert splats.ply splats.splat",
    "bozzetto convert splats.splat viewer.html",
    "bozzetto convert mesh.glb mesh.obj",
)
SPLATS, MESHES = (".ply", ".splat"), (".glb", ".obj")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", metavar="A", help="file to read")
    parser.add_argument("target", metavar="B", help="file to write")
    parser.add_argument("--layout", choices=("3dgs", "lgm"), help="of the splat .ply that is written (3dgs)")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Read A and write B in the format of its suffix."""
    from ...errors import InputError
    from ...gaussians import Gaussians
    from ...mesh import Mesh

    source, target = Path(options.source).suffix.lower(), Path(options.target).suffix.lower()
    if options.layout and not (source in SPLATS and target == ".ply"):
        raise InputError("--layout is about a splat .ply that is written; leave it out, or give B the suffix .ply")
    if source in MESHES and target in (*MESHES, ".ply"):
        Mesh.load(options.source).save(options.target)
    elif source in SPLATS and target == ".ply":
        from ...files.ply import write_ply

        write_ply(Gaussians.load(options.source), options.target, layout=options.layout or "3dgs")
    elif source in SPLATS and target == ".splat":
        Gaussians.load(options.source).save(options.target)
    elif source in SPLATS and target == ".html":
        from ...files.viewer import write_viewer

        write_viewer(options.target, Gaussians.load(options.source), title=Path(options.source).stem)
    elif source == ".ply" and target in MESHES and _is_mesh(options.source):
        Mesh.load(options.source).save(options.target)
    elif source in SPLATS and target in MESHES:
        raise InputError(f"splats become a mesh with: bozzetto mesh {options.source} -o {options.target}")
    else:
        raise InputError(
            f"cannot convert {source or 'a file without suffix'} to {target or 'a file without suffix'}; "
            f"splats: {', '.join(SPLATS)} -> {', '.join(SPLATS)}, .html; meshes: {', '.join(MESHES)} -> .glb, .obj, .ply"
        )
    progress.summary([Path(options.target)])


def _is_mesh(path: str) -> bool:
    """Whether a .ply file declares faces (both splats and meshes come as .ply)."""
    from ...errors import InputError
    from ...files.inputs import check_input

    with check_input(path, "a PLY file", InputError).open("rb") as file:
        head = file.read(65536)
    return b"element face" in head.split(b"end_header")[0]
