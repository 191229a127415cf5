"""Get, pack, look at and check collections of 3D objects for training.

A dataset folder is made of collections (Debian packages; nothing is installed) or of your own GLB, OBJ, PLY, STL or USD
files; `bozzetto train` and `bozzetto evaluate` take it as it is, other programs what `render` draws of it.
"""

from __future__ import annotations

import argparse

from ..data_collecting import convert_sources, copy_folders, download, list_sources
from ..data_looking import draw_sheet, print_stats, verify_folder
from ..data_rendering import add_render, measure_light, render
from ..numbers import positive
from ..options import add_licences, add_without
from ..progress import Progress

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
    one.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a name from `bozzetto data list`; surroundings: panoramas for `light`",
    )
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
        "copy assets/ -o clean/ --split train --licences clean",
    )
    one.add_argument("folders", nargs="+", metavar="DIR", help="dataset folders")
    one.add_argument("-o", "--output", required=True, metavar="DIR", help="new dataset folder")
    one.add_argument("--source", action="append", help="only this source (may be given again)")
    one.add_argument("--split", choices=("train", "val", "test", "unused"), help="only this split, by today's rules")
    add_without(one)
    add_licences(one)
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
        "light",
        "measure the light of panoramas (.hdr, .exr), as surroundings of scenes",
        "light packages/blender-data -o light.json --licence CC0-1.0",
        "light ~/hdris studio.hdr -o light.json",
    )
    one.add_argument("folders", nargs="+", metavar="PATH", help="panoramas, or folders of them")
    one.add_argument("-o", "--output", required=True, metavar="JSON", help="file to write")
    one.add_argument("--licence", default="", help="of the panoramas, to be written down")

    one = action(
        "render",
        "draw the objects of a dataset folder to disk, in LGM's or L4GM's layout or as WebDataset shards; an interrupted "
        "run goes on where it stopped",
        "render assets/ -o rendered/ --format lgm",
        "render assets/ -o clips/ --format l4gm --source zeroad",
        "render assets/ -o shards/ --format webdataset --views 24 --size 256 --light random --device cuda",
    )
    _add_dataset(one, usual=" (train)")
    add_render(one)
    for one in actions.choices.values():
        one.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_dataset(parser: argparse.ArgumentParser, usual: str = "") -> None:
    parser.add_argument("folder", metavar="DIR", help="dataset folder")
    parser.add_argument("--source", action="append", help="only this source (may be given again)")
    parser.add_argument("--split", choices=("train", "val", "test", "unused"), help=f"only this split{usual}")


def run(options: argparse.Namespace, progress: Progress) -> int | None:
    """Do what the action says."""
    actions = {
        "list": list_sources,
        "download": download,
        "convert": convert_sources,
        "copy": copy_folders,
        "sheet": draw_sheet,
        "stats": print_stats,
        "verify": verify_folder,
        "light": measure_light,
        "render": render,
    }
    return actions[options.action](options, progress)
