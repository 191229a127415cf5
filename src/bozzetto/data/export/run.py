"""A dataset folder -> rendered data on disk, object by object. An interrupted export goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch

from ...errors import InputError
from ...files.atomic import atomic_write_text
from ...files.inputs import read_input
from ..assets.catalogue import ATTRIBUTION, CATALOGUE, Dataset, attribution
from ..assets.splits import SPLITS
from ..render.surroundings import load_light
from .cameras import LGM_VIEWS
from .layouts import Drawing, shard_members, write_l4gm, write_lgm
from .pictures import write_tar

FORMATS = ("lgm", "l4gm", "webdataset")
LIGHTS = ("default", "random", "surroundings")
MANIFEST = "render.json"
_VIEWS = {"lgm": LGM_VIEWS, "l4gm": 48, "webdataset": 32}


@dataclass(frozen=True)
class RenderOptions:
    """What is rendered, and how.

    Attributes:
        format: "lgm" (a folder for each object), "l4gm" (tar files for each clip), "webdataset" (shards of still objects).
        size: side of a picture in pixels. views: of each still object; 0 is the format's own number (100; 32 for shards).
        split: "train", "val" or "test". sources: only these collections; empty for all.
        without: flags of objects to leave out.
        light: "default", "random" (other lamps for each object, from the seed) or "surroundings" (other skies, rooms, streets).
        surroundings: file of ``bozzetto data light`` whose surroundings are used instead of this package's 26; "" for those.
        per_shard: objects in a shard. limit: only the first so many objects; 0 for all.
        seed: of lights and random cameras.
    """

    format: str = "lgm"
    size: int = 512
    views: int = 0
    split: str = "train"
    sources: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    light: str = "default"
    surroundings: str = ""
    per_shard: int = 64
    limit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"unknown format {self.format!r}; known: {', '.join(FORMATS)}")
        if self.split not in SPLITS:
            raise InputError(f"unknown split {self.split!r}; known: {', '.join(SPLITS)}")
        if self.light not in LIGHTS:
            raise InputError(f"light is one of {', '.join(LIGHTS)}, not {self.light!r}")
        if self.surroundings and self.light != "surroundings":
            raise InputError("a file of surroundings is used with light 'surroundings' only")
        if not 16 <= self.size <= 4096 or not 0 <= self.views <= 1000 or self.per_shard < 1 or self.limit < 0:
            raise InputError("size must be 16 to 4096, views 0 to 1000, per_shard at least 1, limit at least 0")
        if self.format == "l4gm" and self.views not in (0, 48):
            raise InputError("L4GM's data has 16 fixed and 32 random views; leave out the number of views")

    @property
    def identity(self) -> dict[str, object]:
        """What must not change when an export goes on; ``limit`` may grow."""
        values = {k: v for k, v in asdict(self).items() if k not in ("limit", "surroundings")}
        if self.surroundings:  # by what the file holds
            content = read_input(self.surroundings, "a file of `bozzetto data light`", InputError)
            values["surroundings"] = hashlib.sha256(content).hexdigest()[:16]
        return values | {
            "views": self.views or _VIEWS[self.format],
            "sources": sorted(self.sources),
            "without": sorted(self.without),
        }


@dataclass
class RenderReport:
    """Objects in the export, how many of them were there before, and pictures drawn now."""

    objects: int
    skipped: int
    pictures: int


def render_dataset(
    dataset: str | PathLike[str] | Dataset,
    folder: str | PathLike[str],
    options: RenderOptions | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[str, float], None] | None = None,
) -> RenderReport:
    """Render the objects of a split into ``folder``.

    Every object (for shards: every shard) is written whole or not at all; one that is there is not drawn again. ``render.json``
    remembers the options, ``ATTRIBUTION.md`` names authors and licences.

    Raises:
        InputError: no object fits, or ``folder`` is a dataset or holds an export with other options. DatasetError: damaged data.
        OutputError: the folder cannot be written.
    """
    options = options or RenderOptions()
    photographed = load_light(options.surroundings) if options.surroundings else None
    data = dataset if isinstance(dataset, Dataset) else Dataset(dataset, list(options.sources) or None)
    folder = Path(folder)
    if (folder / CATALOGUE).is_file():  # its ATTRIBUTION.md would be overwritten
        raise InputError(f"{folder} is a dataset folder; give another one for its pictures")
    numbers = data.select(options.split, animated=True if options.format == "l4gm" else None, without=options.without)
    numbers = numbers[: options.limit] if options.limit else numbers
    if not numbers:
        what = "animated objects" if options.format == "l4gm" else "objects"
        raise InputError(f"{data.folder} has no {what} of the split {options.split} that fit")
    _check_manifest(folder, options, data, len(numbers))
    atomic_write_text(
        folder / ATTRIBUTION, attribution([data.record(n) for n in numbers])
    )  # before what it is owed for
    tell = progress or (lambda stage, share: None)
    drawing = Drawing(
        options.size, options.light, options.identity["views"], options.seed, torch.device(device), photographed
    )
    report = RenderReport(len(numbers), 0, 0)
    if options.format == "webdataset":
        _shards(folder, data, numbers, options, drawing, report, tell)
    else:
        write = write_lgm if options.format == "lgm" else write_l4gm
        for done, number in enumerate(numbers):
            tell(f"rendering {done + 1:,} of {len(numbers):,}", done / len(numbers))
            drawn = write(folder, data[number], number, drawing)
            report.pictures += drawn
            report.skipped += drawn == 0
    return report


def _shards(
    folder: Path,
    data: Dataset,
    numbers: list[int],
    options: RenderOptions,
    drawing: Drawing,
    report: RenderReport,
    tell: Callable[[str, float], None],
) -> None:
    """``<split>-000000.tar`` and so on; a last one that is not full is written again when there are more objects."""
    for index, start in enumerate(range(0, len(numbers), options.per_shard)):
        chosen = numbers[start : start + options.per_shard]
        path = folder / f"{options.split}-{index:06d}.tar"
        beside = path.with_suffix(".json")
        if path.is_file() and _read_json(beside) == chosen:
            report.skipped += len(chosen)
            continue

        def members(chosen: list[int] = chosen, start: int = start):
            for done, number in enumerate(chosen):
                tell(f"rendering {start + done + 1:,} of {len(numbers):,}", (start + done) / len(numbers))
                sample = shard_members(data[number], number, drawing)
                report.pictures += len(sample) - 2
                yield from sample

        write_tar(path, members())
        atomic_write_text(beside, json.dumps(chosen) + "\n")


def _read_json(path: Path) -> object:
    """What a JSON file holds; None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_manifest(folder: Path, options: RenderOptions, data: Dataset, count: int) -> None:
    """Go on only with the same options and at least as many objects; the file is made, or remembers the larger ``count``."""
    path = folder / MANIFEST
    sizes = {name: entry["bytes"] for name, entry in data.catalogue["sources"].items()}
    wanted = json.loads(json.dumps({**options.identity, "dataset": sizes}))
    if path.is_file():
        before = _read_json(path)
        if not isinstance(before, dict):
            raise InputError(f"{path} cannot be read; delete it or choose another folder")
        if changed := [k for k in wanted if before.get(k) != wanted[k]]:
            raise InputError(
                f"{folder} holds an export with another {', '.join(changed)}; use the same options to go on, or another folder"
            )
        if count < before.get("objects", 0):
            raise InputError(
                f"{folder} holds an export of {before['objects']:,} objects, more than these {count:,}; "
                "leave out --limit, or use another folder"
            )
        if count == before.get("objects"):
            return
    atomic_write_text(path, json.dumps(wanted | {"objects": count}, indent=1) + "\n")
