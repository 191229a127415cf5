"""Open splats in the default browser: PATH is a .ply or .splat file, a viewer.html, or a result folder.

The page is self-contained and needs no server and no network. It is written beside the splats, or to --output; a page that
exists already is opened where it is, or copied to --output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import Progress

EXAMPLES = ("bozzetto view out/", "bozzetto view splats.ply", "bozzetto view splats.ply -o page.html --no-open")
PAGES = (".html", ".htm")


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


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", metavar="PATH", help="splats, viewer page, or result folder")
    parser.add_argument("-o", "--output", metavar="HTML", help="where to write (or copy) the page")
    parser.add_argument("--no-open", dest="open", action="store_false", help="only write the page")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Write or copy the page where that is needed, and open it."""
    from ...errors import InputError

    path = Path(options.path)
    if path.is_dir():
        found = next((path / n for n in ("viewer.html", "splats.ply", "splats.splat") if (path / n).is_file()), None)
        if found is None:
            raise InputError(f"{path} holds neither viewer.html nor splats.ply; give the file itself")
        path = found
    if path.suffix.lower() in PAGES:
        if not path.is_file():
            raise InputError(f"{path} does not exist; check the name and the folder")
        page = copied(path, Path(options.output)) if options.output else path
    else:
        from ...files.viewer import write_viewer
        from ...gaussians import Gaussians

        page = Path(options.output) if options.output else path.with_suffix(".html")
        write_viewer(page, Gaussians.load(path), title=path.stem)
    if options.open:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            progress.say("no browser could be started; open the page yourself:")
    progress.summary([page])
