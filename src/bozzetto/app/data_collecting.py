"""The work of ``bozzetto data list``, ``download``, ``convert`` and ``copy``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .progress import Progress, human_size


def list_sources(options: argparse.Namespace, progress: Progress) -> None:
    """Which collections can be had."""
    from ..data.assets.packages import missing_packages
    from ..data.sources.registry import LIGHT, SOURCES

    rows: list[dict[str, Any]] = []
    for source in (*SOURCES.values(), LIGHT):
        missing = missing_packages(source.packages, Path(options.packages)) if options.packages else None
        rows.append(
            {
                "name": source.name,
                "title": source.title,
                "packages": list(source.packages),
                "megabytes": source.megabytes,
                "licences": list(source.licences),
                "use": "light" if source is LIGHT else "test only" if source.held_out else "training",
                "here": None if missing is None else not missing,
            }
        )
    progress.clear()
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = [("SOURCE", "SIZE", "USE", "HERE", "LICENCES")]
    for r in rows:
        here = "?" if r["here"] is None else "yes" if r["here"] else "no"
        table.append((r["name"], f"{r['megabytes']} MB", r["use"], here, ", ".join(r["licences"])))
    _print_table(table)
    print("\nfetch: bozzetto data download SOURCE -o DIR    (needs apt-get, or .deb files put into DIR)")
    if not options.packages:
        print("HERE is told with --packages DIR")


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def download(options: argparse.Namespace, progress: Progress) -> None:
    """Fetch and unpack packages."""
    from ..data.assets.packages import fetch_package
    from ..data.sources.registry import find_packages

    packages = [p for name in options.sources for p in find_packages(name)]
    places = [fetch_package(p, options.output, progress, keep=options.keep) for p in packages]
    progress.summary(places)


def convert_sources(options: argparse.Namespace, progress: Progress) -> None:
    """Pack collections and folders into a dataset folder."""
    from itertools import islice

    from ..data.assets.checks import Limits
    from ..data.assets.convert import convert, refused_name
    from ..data.assets.pack import PackOptions
    from ..errors import InputError

    if options.workers < 0:
        raise InputError("--workers must be at least 0")
    packing = PackOptions(
        texture_size=options.texture_size,
        clip_fps=options.clip_fps,
        most_clips=options.clips,
        limits=Limits(most_triangles=options.triangles),
    )
    made = [_source(name, options) for name in options.sources]  # all names are checked before work begins
    names = [m["source"] for m in made]
    if len(set(names)) < len(names):
        raise InputError(f"two sources have the same name ({', '.join(names)}); convert them one by one with --name")
    for entry in made:
        tasks = entry["tasks"]()
        total = len(tasks) if isinstance(tasks, list) else None
        if options.limit:
            tasks, total = islice(tasks, options.limit), min(total or options.limit, options.limit)
        report = convert(
            entry["source"],
            tasks,
            options.output,
            packing,
            turn=entry["turn"],
            total=total,
            workers=options.workers,
            origin=entry["origin"],
            tell=progress,
        )
        progress.result(f"{report.source}: {report.objects:,} objects, {human_size(report.bytes)}")
        for reason, count in report.refused.items():
            progress.result(f"  refused {count:,}: {reason}")
        if report.refused:
            progress.result(f"  each with its reason: {Path(options.output) / refused_name(report.source)}")
    progress.summary([Path(options.output)])


def _source(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A source by name, or a folder: what it is called and how its objects are had."""
    from ..data.assets.packages import installed, missing_packages
    from ..data.assets.splits import TRAINING_SOURCES
    from ..data.assets.user_folder import find_objects, source_name
    from ..data.sources.registry import SOURCES
    from ..errors import InputError

    if name in SOURCES:
        source = SOURCES[name]
        if not options.packages:
            raise InputError(
                f"say where the packages of {name} are: --packages DIR (bozzetto data download {name} -o DIR)"
            )
        folder = Path(options.packages)
        missing = missing_packages(source.packages, folder)
        if missing:
            raise InputError(f"{folder} lacks {', '.join(missing)}; fetch: bozzetto data download {name} -o {folder}")
        origin = {p: vars(installed(p, folder)) for p in source.packages}
        return {"source": name, "tasks": lambda: source.read(folder), "turn": 0.0, "origin": origin}
    folder = Path(name).expanduser()
    if not folder.exists() and len(Path(name).parts) == 1:
        raise InputError(f"{name!r} is neither a folder nor a source; sources: {', '.join(SOURCES)}")
    called = options.name or (source_name(folder) if folder.is_dir() else "")
    if called in SOURCES:
        raise InputError(f"{called!r} is the name of a known collection; give your folder another one with --name")
    if called in TRAINING_SOURCES and not options.licence:
        raise InputError(
            f"{called!r} is trained on whole, but only what has a licence; add --licence, or another --name"
        )
    tasks = find_objects(
        folder, called, kind=options.kind, up=options.up or "", licence=options.licence, author=options.author
    )
    return {"source": called, "tasks": lambda: tasks, "turn": options.turn, "origin": {"folder": folder.name}}


def copy_folders(options: argparse.Namespace, progress: Progress) -> None:
    """Copy parts of dataset folders."""
    from ..data.assets.catalogue import Dataset, read_catalogue
    from ..data.assets.copy import CopyOptions, copy_dataset
    from ..data.assets.licence_choice import parse_licences
    from ..errors import InputError

    datasets, found = [], set()
    for folder in options.folders:
        held = list(read_catalogue(folder)["sources"])
        found |= set(held)
        wanted = None if options.source is None else [s for s in options.source if s in held]
        datasets.append(Dataset(folder, wanted))
    if unknown := set(options.source or ()) - found:
        raise InputError(f"no folder has {', '.join(sorted(unknown))}; there are: {', '.join(sorted(found))}")
    chosen = CopyOptions(
        split=options.split,
        without=tuple(options.without),
        licences=parse_licences(options.licences) if options.licences is not None else None,
        texture_size=options.texture_size,
        clips=options.clips,
        shard_bytes=options.shard_mb << 20,
    )
    for source, count in copy_dataset(datasets, options.output, chosen, progress).items():
        progress.result(f"{source}: {count:,} objects")
    progress.summary([Path(options.output)])
