"""List the models: name, where the weights are, licence. With names, make sure those are on this machine (downloading)."""

from __future__ import annotations

import argparse

from ..progress import Progress, human_size

EXAMPLES = ("bozzetto models", "bozzetto models --download lgm-big")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--download", nargs="+", default=[], metavar="NAME", help="fetch and verify these weights")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Print the list (also with --quiet: it is what was asked for), or fetch and verify weights."""
    from ...zoo import ENTRIES, weights_file
    from ...zoo.load import check_file, local_path

    for name in options.download:
        progress(f"fetching {name}", 0.0)
        path = weights_file(name)
        check_file(ENTRIES[name], path)
        progress.summary([path])
    if options.download:
        return
    progress.clear()
    rows = [("name", "state", "size", "licence", "what it does")]
    for entry in ENTRIES.values():
        path = local_path(entry)
        state = (
            ("bundled" if entry.bundled else "downloaded") if path else ("missing" if entry.bundled else "on the hub")
        )
        size = path.stat().st_size if path else entry.size
        rows.append((entry.name, state, human_size(size) if size else "?", entry.licence, entry.summary))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + "  " + row[4])
