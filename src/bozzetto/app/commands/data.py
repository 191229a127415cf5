"""Get, pack, look at and check collections of 3D objects for training.

list      which collections can be had, and which are here
download  fetch a collection's packages (Debian packages; nothing is installed)
convert   collections, or your own folders of GLB, OBJ, PLY, STL or USD files, into one compact dataset folder
copy      parts of dataset folders into a new one: a split, some sources, smaller pictures, small files
sheet     draw what is in a dataset folder
stats     count what is in it
verify    read all of it and report damage
render    draw it into LGM's or L4GM's folder layout, or into WebDataset shards
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..data_rendering import add_render, render
from ..options import positive
from ..progress import Progress, human_size

EXAMPLES = (
    "bozzetto data list",
    "bozzetto data download sweethome3d -o packages/",
    "bozzetto data convert sweethome3d zeroad --packages packages/ -o assets/",
    "bozzetto data convert ~/models --licence CC0-1.0 -o assets/",
    "bozzetto data copy assets/ -o light/ --split train --texture-size 128 --shard-mb 60",
    "bozzetto data sheet assets/ -o sheet.png --split test",
    "bozzetto data sheet assets/ -o moving.png --clips",
    "bozzetto data stats assets/",
    "bozzetto data verify assets/",
    "bozzetto data render assets/ -o rendered/ --format lgm --size 256",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str, *examples: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n" + "\n".join(f"  bozzetto data {e}" for e in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    one = action("list", "which collections can be had, and which are here", "list", "list --packages packages/")
    one.add_argument("--packages", metavar="DIR", help="where packages were downloaded to")
    one.add_argument("--json", action="store_true", help="print JSON")

    one = action(
        "download",
        "fetch and unpack the Debian packages of collections, with apt-get, without installing them",
        "download sweethome3d -o packages/",
        "download zeroad megaglest -o packages/ --keep",
    )
    one.add_argument("sources", nargs="+", metavar="SOURCE", help="a name from `bozzetto data list`")
    one.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the packages' files")
    one.add_argument("--keep", action="store_true", help="keep the .deb files, too")

    one = action(
        "convert",
        "pack collections or your own folders into a dataset folder; what is refused is listed with the reason",
        "convert sweethome3d --packages packages/ -o assets/",
        "convert ~/models -o assets/ --licence CC0-1.0 --author 'Jane Doe'",
        "convert ~/.objaverse/hf-objaverse-v1 -o assets/ --workers 8",
        "convert gso/ -o assets/ --texture-size 512",
    )
    one.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="a name from `bozzetto data list`, or a folder of meshes"
    )
    one.add_argument("-o", "--output", required=True, metavar="DIR", help="dataset folder, made or added to")
    one.add_argument("--packages", metavar="DIR", help="where packages were downloaded to")
    one.add_argument("--texture-size", type=int, default=256, help="longest side of a texture, a power of two (256)")
    one.add_argument(
        "--triangles", type=positive, default=20_000, help="objects with more are decimated to this (20000)"
    )
    one.add_argument("--clip-fps", type=float, default=15.0, help="frames per second that clips keep at most (15)")
    one.add_argument("--clips", type=int, default=6, help="clips that an object keeps at most (6)")
    one.add_argument("--limit", type=positive, help="only the first so many objects of each source")
    one.add_argument("--workers", type=int, default=0, help="processes that read and pack (0: none besides this one)")
    mine = one.add_argument_group("your own folders")
    mine.add_argument("--name", help="what to call the source (the folder's name)")
    mine.add_argument(
        "--kind",
        choices=("auto", "plain", "objaverse", "gso", "abo", "omniobject3d"),
        default="auto",
        help="layout (auto)",
    )
    mine.add_argument("--up", choices=("y", "z"), help="axis of the files that points up (y; z for .stl and gso)")
    mine.add_argument(
        "--turn", type=float, default=0.0, help="degrees about the up axis that bring the front to +z (0)"
    )
    mine.add_argument("--licence", default="", help="of files that state none (an SPDX identifier)")
    mine.add_argument("--author", default="", help="of files that state none")

    one = action(
        "copy",
        "copy parts of dataset folders into a new one, without loss but for pictures that are made smaller",
        "copy assets/ -o training/ --split train",
        "copy assets/ more/ -o light/ --texture-size 128 --clips 2 --shard-mb 60",
    )
    one.add_argument("folders", nargs="+", metavar="DIR", help="dataset folders")
    one.add_argument("-o", "--output", required=True, metavar="DIR", help="new dataset folder")
    one.add_argument("--source", action="append", help="only this source (may be given again)")
    one.add_argument("--split", choices=("train", "val", "test", "unused"), help="only this split, by today's rules")
    one.add_argument("--without", action="append", default=[], metavar="FLAG", help="leave out objects with this flag")
    one.add_argument("--texture-size", type=positive, help="longest side of a texture, a power of two (as it is)")
    one.add_argument("--clips", type=int, help="of an object, keep so many that move most (all)")
    one.add_argument("--shard-mb", type=positive, default=256, help="largest file, in megabytes of 2^20 bytes (256)")

    one = action(
        "sheet",
        "draw objects of a dataset folder as one picture",
        "sheet assets/ -o sheet.png",
        "sheet assets/ -o horses.png --find horse --views 4",
        "sheet assets/ -o moving.png --clips --count 12",
    )
    _add_dataset(one)
    one.add_argument("-o", "--output", required=True, metavar="PNG", help="picture to write")
    one.add_argument("--find", default="", help="only objects with this in their name, caption or category")
    one.add_argument("--count", type=positive, default=96, help="objects (or clips), drawn at random (96)")
    one.add_argument("--seed", type=int, default=0, help="of the random choice (0)")
    one.add_argument("--size", type=positive, default=128, help="pixels of a cell (128)")
    one.add_argument("--columns", type=positive, help="cells in a row (8 objects; 8 moments of a clip)")
    one.add_argument("--views", type=positive, default=1, help="pictures of each object, from all around (1)")
    one.add_argument("--clips", action="store_true", help="a row of moments for each clip instead")

    one = action("stats", "count what is in a dataset folder", "stats assets/", "stats assets/ --json")
    _add_dataset(one)
    one.add_argument("--json", action="store_true", help="print JSON")

    one = action("verify", "read a whole dataset folder and report damage and leaks between splits", "verify assets/")
    one.add_argument("folder", metavar="DIR", help="dataset folder")

    one = action(
        "render",
        "draw the objects of a dataset folder to disk; an interrupted run goes on where it stopped",
        "render assets/ -o rendered/ --format lgm",
        "render assets/ -o clips/ --format l4gm --source zeroad",
        "render assets/ -o shards/ --format webdataset --views 24 --size 256 --light random --device cuda",
    )
    _add_dataset(one)
    add_render(one)
    for one in actions.choices.values():
        one.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="dataset folder")
    parser.add_argument("--source", action="append", help="only this source (may be given again)")
    parser.add_argument("--split", choices=("train", "val", "test", "unused"), help="only this split")


def run(options: argparse.Namespace, progress: Progress) -> int | None:
    """Do what the action says."""
    actions = {
        "list": _list,
        "download": _download,
        "convert": _convert,
        "copy": _copy,
        "sheet": _sheet,
        "stats": _stats,
        "verify": _verify,
        "render": render,
    }
    return actions[options.action](options, progress)


# ---- list and download


def _list(options: argparse.Namespace, progress: Progress) -> None:
    from ...data.assets.packages import missing_packages
    from ...data.sources.registry import SOURCES

    rows: list[dict[str, Any]] = []
    for source in SOURCES.values():
        missing = missing_packages(source.packages, Path(options.packages)) if options.packages else None
        rows.append(
            {
                "name": source.name,
                "title": source.title,
                "packages": list(source.packages),
                "megabytes": source.megabytes,
                "licences": list(source.licences),
                "use": "test only" if source.held_out else "training",
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


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _download(options: argparse.Namespace, progress: Progress) -> None:
    from ...data.assets.packages import fetch_package
    from ...data.sources.registry import find_source

    sources = [find_source(name) for name in options.sources]
    places = []
    for source in sources:
        for package in source.packages:
            places.append(fetch_package(package, options.output, progress, keep=options.keep))
    progress.summary(places)


# ---- convert


def _convert(options: argparse.Namespace, progress: Progress) -> None:
    from itertools import islice

    from ...data.assets.checks import Limits
    from ...data.assets.convert import convert
    from ...data.assets.pack import PackOptions
    from ...errors import InputError

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
    progress.summary([Path(options.output)])


def _source(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A source by name, or a folder: what it is called and how its objects are had."""
    from ...data.assets.packages import installed, missing_packages
    from ...data.assets.user_folder import find_objects, source_name
    from ...data.sources.registry import SOURCES
    from ...errors import InputError

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
    tasks = find_objects(
        folder, called, kind=options.kind, up=options.up or "", licence=options.licence, author=options.author
    )
    return {"source": called, "tasks": lambda: tasks, "turn": options.turn, "origin": {"folder": folder.name}}


# ---- copy


def _copy(options: argparse.Namespace, progress: Progress) -> None:
    from ...data.assets.catalogue import Dataset, read_catalogue
    from ...data.assets.copy import CopyOptions, copy_dataset
    from ...errors import InputError

    datasets, found = [], set()
    for folder in options.folders:
        held = list(read_catalogue(folder)["sources"])
        found |= set(held)
        wanted = None if options.source is None else [s for s in options.source if s in held]
        datasets.append(Dataset(folder, wanted))
    if unknown := set(options.source or ()) - found:
        raise InputError(f"no folder has {', '.join(sorted(unknown))}; there are: {', '.join(sorted(found))}")
    chosen = CopyOptions(
        options.split, tuple(options.without), options.texture_size, options.clips, options.shard_mb << 20
    )
    for source, count in copy_dataset(datasets, options.output, chosen, progress).items():
        progress.result(f"{source}: {count:,} objects")
    progress.summary([Path(options.output)])


# ---- looking


def _sheet(options: argparse.Namespace, progress: Progress) -> None:
    import random

    import torch

    from ...data.assets.catalogue import Dataset
    from ...data.assets.sheet import clip_sheet, object_sheet
    from ...errors import InputError
    from ...files.images import write_image

    dataset = Dataset(options.folder, options.source)
    chosen = dataset.select(options.split, animated=True if options.clips else None)
    if options.find:
        word = options.find.lower()
        keys = ("name", "caption", "category")
        chosen = [i for i in chosen if any(word in dataset.record(i)[k].lower() for k in keys)]
    if not chosen:
        raise InputError("no object fits; leave out --split, --find or --clips")
    rng = random.Random(options.seed)
    if options.clips:
        pairs = [(i, k) for i in chosen for k in range(len(dataset.record(i)["clips"]))]
        pairs = sorted(rng.sample(pairs, min(options.count, len(pairs))))
        picture = clip_sheet([(dataset[i], k) for i, k in pairs], options.size, options.columns or 8, progress)
    else:
        chosen = sorted(rng.sample(chosen, min(options.count, len(chosen))))
        objects = [dataset[i] for i in chosen]
        picture = object_sheet(objects, options.size, options.columns or 8, options.views, progress)
    write_image(options.output, torch.from_numpy(picture).float() / 255)
    progress.summary([Path(options.output)])


def _stats(options: argparse.Namespace, progress: Progress) -> None:
    from ...data.assets.catalogue import Dataset

    numbers = Dataset(options.folder, options.source).statistics(options.split)
    progress.clear()
    if options.json:
        print(json.dumps(numbers, indent=2))
        return
    for name, n in numbers.items():
        print(f"{name}: {n['objects']:,} objects in {n['groups']:,} groups, {human_size(n['bytes']['files'])}")
        print(f"  splits     {_counts(n['splits'])}")
        print(f"  licences   {_counts(n['licences'])}")
        print(f"  triangles  {', '.join(f'{k} {v:,}' for k, v in n['triangles'].items())}")
        print(f"  textured   {n['textured']:,}; with caption {n['captioned']:,}")
        print(f"  animated   {n['animated']:,}; {n['clips']:,} clips, {n['clip_seconds'] / 60:,.1f} minutes")
        sizes = {kind: human_size(n["bytes"][kind]) for kind in ("geometry", "textures", "clips")}
        print(f"  bytes      {', '.join(f'{kind} {size}' for kind, size in sizes.items())}")
        for what in ("flags", "refused"):
            if n[what]:
                print(f"  {what:9s}  {_counts(n[what])}")


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{k} {v:,}" for k, v in values.items())


def _verify(options: argparse.Namespace, progress: Progress) -> int:
    import sys

    from ...data.assets.catalogue import Dataset

    dataset = Dataset(options.folder)
    progress("verifying", 0.0)
    problems = dataset.verify(progress)
    progress.clear()
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        progress.result(f"{len(dataset):,} objects in {len(dataset.shards)} shards are sound")
    return 2 if problems else 0
