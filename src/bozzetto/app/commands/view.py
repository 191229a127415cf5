"""Open a result in the default browser: PATH is a .ply, .splat, .4dgs, .glb, .gltf or .obj file, a page, or a result folder.

The page is self-contained and needs no server and no network. It is written beside the file, or to --output; a page that
exists already is opened where it is, or copied to --output. A sequence (.4dgs) is played.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import Progress

EXAMPLES = ("bozzetto view out/", "bozzetto view splats.ply", "bozzetto view splats.4dgs -o page.html --no-open")
PAGES = (".html", ".htm")
MESHES = (".glb", ".gltf", ".obj")
IN_FOLDER = ("viewer.html", "player.html", "splats.ply", "splats.splat", "splats.4dgs", "mesh.glb", "mesh.obj")


def copied(page: Path, target: Path) -> Path:
    """Copy the page to ``target``, whole or not at all; returns ``target``. Its name must end in .html or .htm."""
    from ...errors import InputError, OutputError
    from ...files.atomic import atomic_write_bytes

    if target.suffix.lower() not in PAGES:
        raise OutputError(f"cannot write {target}: a viewer page's name must end in .html")
    if target.resolve() != page.resolve():
        try:
            content = page.read_bytes()
        except OSError as error:
            raise InputError(f"{page} cannot be read: {error.strerror or error}") from error
        atomic_write_bytes(target, content)
    return target


def write_page(path: Path, page: Path) -> None:
    """Write a page that shows the splats, the sequence or the mesh in the file ``path``."""
    from ...files.player import write_player
    from ...files.sequence import read_sequence
    from ...files.viewer import write_viewer
    from ...gaussians import Gaussians
    from ...mesh import Mesh

    if path.suffix.lower() == ".4dgs":
        sequence = read_sequence(path)
        frames = [sequence[k] for k in range(len(sequence))]
        write_player(page, frames, sequence.fps, title=path.stem, up=sequence.up)
    elif path.suffix.lower() in MESHES:
        write_viewer(page, mesh=Mesh.load(path), title=path.stem)
    else:
        write_viewer(page, Gaussians.load(path), title=path.stem)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", metavar="PATH", help="splats, sequence, mesh, page, or result folder")
    parser.add_argument("-o", "--output", metavar="HTML", help="where to write (or copy) the page")
    parser.add_argument("--no-open", dest="open", action="store_false", help="only write the page")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Write or copy the page where that is needed, and open it."""
    from ...errors import InputError

    path = Path(options.path)
    if path.is_dir():
        found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise InputError(f"{path} holds none of {', '.join(IN_FOLDER)}; give the file itself")
        path = found
    if path.suffix.lower() in PAGES:
        if not path.is_file():
            raise InputError(f"{path} does not exist; check the name and the folder")
        page = copied(path, Path(options.output)) if options.output else path
    else:
        page = Path(options.output) if options.output else path.with_suffix(".html")
        write_page(path, page)
    if options.open:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            progress.say("no browser could be started; open the page yourself:")
    progress.summary([page])
