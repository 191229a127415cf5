"""The work of ``bozzetto data sheet``, ``stats`` and ``verify``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .progress import Progress, human_size


def draw_sheet(options: argparse.Namespace, progress: Progress) -> None:
    """Draw what is in a dataset folder."""
    import random

    import torch

    from ..data.assets.catalogue import Dataset
    from ..data.assets.sheet import clip_sheet, object_sheet
    from ..errors import InputError
    from ..files.images import write_image

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


def print_stats(options: argparse.Namespace, progress: Progress) -> None:
    """Count what is in it."""
    from ..data.assets.catalogue import Dataset

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


def verify_folder(options: argparse.Namespace, progress: Progress) -> int:
    """Read all of it; 2 if there is damage, else 0."""
    import sys

    from ..data.assets.catalogue import Dataset

    dataset = Dataset(options.folder)
    progress("verifying", 0.0)
    problems = dataset.verify(progress)
    progress.clear()
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        progress.result(f"{len(dataset):,} objects in {len(dataset.shards)} shards are sound")
    return 2 if problems else 0
