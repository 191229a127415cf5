"""The arguments and the work of ``bozzetto data render``, and the work of ``bozzetto data light``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .numbers import positive
from .options import add_device, add_without
from .progress import Progress


def add_render(one: argparse.ArgumentParser) -> None:
    """The arguments beside those of a dataset folder."""
    one.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write")
    one.add_argument("--format", choices=("lgm", "l4gm", "webdataset"), default="lgm", help="layout of the files (lgm)")
    one.add_argument("--size", type=positive, default=512, help="pixels along a side (512)")
    one.add_argument("--views", type=positive, help="of each still object (lgm 100, webdataset 32)")
    one.add_argument(
        "--light",
        choices=("default", "random", "surroundings"),
        default="default",
        help="the same for all, or other lamps, or other surroundings (skies, rooms, streets) for each object (default)",
    )
    one.add_argument(
        "--surroundings",
        default="",
        metavar="FILE",
        help="of `data light`, instead of this package's 26 (--light surroundings)",
    )
    add_without(one)
    one.add_argument("--per-shard", type=positive, default=64, help="objects in a shard (64)")
    one.add_argument("--limit", type=positive, help="only the first so many objects; may grow when a run goes on")
    one.add_argument("--seed", type=int, default=0, help="of random light and cameras (0)")
    add_device(one)


def render(options: argparse.Namespace, progress: Progress) -> None:
    """Draw a dataset folder to disk."""
    from ..data.export import RenderOptions, render_dataset
    from ..device import pick_device

    options.resumes = "the same command goes on with what is left"
    chosen = RenderOptions(
        format=options.format,
        size=options.size,
        views=options.views or 0,
        split=options.split or "train",
        sources=tuple(options.source or ()),
        without=tuple(options.without),
        light=options.light,
        surroundings=options.surroundings,
        per_shard=options.per_shard,
        limit=options.limit or 0,
        seed=options.seed,
    )
    done = render_dataset(options.folder, options.output, chosen, device=pick_device(options.device), progress=progress)
    before = f", {done.skipped:,} of them were there" if done.skipped else ""
    progress.result(f"{done.objects:,} objects{before}; {done.pictures:,} pictures drawn")
    progress.summary([Path(options.output)])


def measure_light(options: argparse.Namespace, progress: Progress) -> None:
    """Measure panoramas."""
    from ..data.render.surroundings import measure_panoramas, save_light

    light, left_out = measure_panoramas(options.folders, progress)
    save_light(options.output, light, options.licence)
    progress.result(f"{len(light):,} panoramas")
    if left_out:
        progress.result(f"left out {len(left_out):,} other pictures, such as {left_out[0]}")
    progress.summary([Path(options.output)])
