"""Open splats in the default browser: PATH is a .ply or .splat file, a viewer.html, or a result folder.

The page is self-contained; it is written beside the splats (or to --output) and needs no server and no network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import Progress

EXAMPLES = ("bozzetto view out/", "bozzetto view splats.ply", "bozzetto view splats.ply -o page.html --no-open")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="splats, viewer page, or result folder")
    parser.add_argument("-o", "--output", metavar="HTML", help="where to write the page")
    parser.add_argument("--no-open", dest="open", action="store_false", help="only write the page")


def run(options: argparse.Namespace, progress: Progress) -> None:
    from ...errors import InputError

    path = Path(options.path)
    if path.is_dir():
        found = next((path / n for n in ("viewer.html", "splats.ply", "splats.splat") if (path / n).is_file()), None)
        if found is None:
            raise InputError(f"{path} holds neither viewer.html nor splats.ply; give the file itself")
        path = found
    if path.suffix.lower() == ".html":
        if not path.is_file():
            raise InputError(f"{path} does not exist")
        page = path
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
