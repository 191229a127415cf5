"""The objects that are measured: held-out parts of dataset folders, folders of benchmark meshes, procedural objects."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from ..data.assets.catalogue import CATALOGUE, Dataset
from ..data.assets.scene import SceneObject
from ..data.assets.splits import TEST, TRAIN
from ..data.objects import TexturedObject
from ..errors import InputError
from .protocol import HELD_OUT, OBJECTS, HeldOut, order_of, sample_records

PROCEDURAL = "procedural"  # the name of the objects that need no data
_TRAINED, _SEEN = "_train", "not held out"  # behind the name and in the title of what may have been trained on
_MOST_TRIANGLES = 100_000  # of benchmark meshes; finer ones are decimated to it
_TEXTURE_SIZE = 1024
_SPARE = 1.3  # benchmark meshes that are read for one that is measured: some are unfit


@dataclass
class Sample:
    """The objects of one source that are measured.

    Attributes:
        name: in reports. title: what it is.
        names: of the objects, in the order in which they are measured.
        available: how many objects could have been drawn.
        origin: of what the objects are, as text.
        split: "test", or "train" for objects that networks may have been trained on.
    """

    name: str
    title: str
    names: list[str]
    available: int
    origin: str
    split: str = TEST
    _numbers: list[int] = field(default_factory=list)
    _dataset: Dataset | None = None
    _kept: object = None  # a temporary folder that lives as long as this

    def __len__(self) -> int:
        return len(self.names)

    @property
    def counts(self) -> bool:
        """Whether it counts in the mean of the sources: what the protocol holds out, or a collection's training split."""
        return self.name in HELD_OUT or (self.split == TRAIN and self._dataset is not None)

    def make(self, place: int) -> TexturedObject:
        """One of the objects: at rest, bounding sphere of radius 0.6 around the origin."""
        number = self._numbers[place]
        if self._dataset is None:
            from ..data.procedural import generate_object

            return generate_object(number, texture_size=256)
        return SceneObject(self._dataset[number], fit="rest").at_rest()

    def objects(self) -> Iterator[TexturedObject]:
        """All of them, each made when asked for."""
        return map(self.make, range(len(self._numbers)))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": None}  # the folder stays with the process that made it


def own_name(called: str) -> str:
    """What a collection or folder of a user is called in reports: never as what the protocol holds out."""
    return f"{called}_folder" if called in HELD_OUT or called == PROCEDURAL else called


def procedural_sample(count: int = OBJECTS, split: str = TEST) -> Sample:
    """The first held-out procedural objects, or ("train") the first ones that training makes; they need no data."""
    from ..data.procedural import HELD_OUT_SEEDS

    if split == TRAIN:
        title, every = f"procedural, first seeds: {_SEEN}", range(HELD_OUT_SEEDS.start)
    else:
        title, every = "procedural, held-out seeds", HELD_OUT_SEEDS
    seeds = list(every[:count])
    name = PROCEDURAL if split == TEST else f"{PROCEDURAL}{_TRAINED}"
    return Sample(name, title, [str(s) for s in seeds], len(every), "generated", split, seeds)


def dataset_samples(folder: str | PathLike[str], count: int = OBJECTS, split: str = TEST) -> list[Sample]:
    """The held-out parts (:data:`protocol.HELD_OUT`) of a dataset folder, and test objects of users' own collections in it.

    ``split`` "train": of every collection the objects that :meth:`Dataset.select` gives for training, as ``<source>_train``.
    """
    dataset = Dataset(folder)
    records = [{**r, "split": dataset.split(r)} for r in dataset.records()]
    sources = dict.fromkeys(r["source"] for r in records)
    if split == TRAIN:
        parts = {f"{s}{_TRAINED}": HeldOut(f"{s}, training split: {_SEEN}", s) for s in sources}
    else:
        known = {p.source for p in HELD_OUT.values()}
        own = [s for s in sources if s not in known and not _curated(s)]
        parts = HELD_OUT | {own_name(s): HeldOut(f"{s}, test split", s) for s in own}
    origin = "held-out objects" if split == TEST else "objects of the training split"
    out = []
    for name, part in parts.items():
        inside = [i for i, r in enumerate(records) if part.holds(r)]
        usable = sample_records([records[i] for i in inside], len(records), split)
        if usable:
            numbers = [inside[i] for i in usable[:count]]
            names = [records[i]["name"] for i in numbers]
            out.append(Sample(name, part.title, names, len(usable), origin, split, numbers, dataset))
    return out


def _curated(source: str) -> bool:
    from ..data.assets.splits import HELD_OUT_SOURCES, TRAINING_SOURCES

    return source in TRAINING_SOURCES | HELD_OUT_SOURCES


def folder_sample(folder: str | PathLike[str], count: int = OBJECTS, *, kind: str = "auto", up: str = "") -> Sample:
    """Objects of a folder of meshes as its downloader leaves it (GSO, ABO, OmniObject3D, Objaverse, or plain files).

    All objects of the folder may be drawn: whether a model was trained on them only its maker knows. They are packed into
    a temporary dataset first (textures of 1024, 100,000 triangles, 16 bits), as everything is that this package draws.

    Raises:
        InputError: there is no such folder, or nothing in it can be used.
    """
    from ..data.assets.checks import Limits
    from ..data.assets.convert import convert
    from ..data.assets.pack import PackOptions
    from ..data.assets.user_folder import find_objects, source_name

    called = source_name(Path(folder))
    tasks = sorted(find_objects(folder, called, kind=kind, up=up), key=lambda t: order_of(called, t.name))
    kept = tempfile.TemporaryDirectory(prefix="bozzetto-")
    options = PackOptions(
        texture_size=_TEXTURE_SIZE, position_bits=16, most_clips=0, limits=Limits(most_triangles=_MOST_TRIANGLES)
    )
    wanted = tasks[: round(_SPARE * count) + 1]
    convert(called, wanted, kept.name, options)
    dataset = Dataset(kept.name)
    records = [{**r, "split": TEST} for r in dataset.records()]
    numbers = sample_records(records, count)
    if not numbers:
        raise InputError(f"no object of {folder} has 100 triangles and a surface in one piece; nothing can be measured")
    names = [records[i]["name"] for i in numbers]
    title, origin = f"{called}, whole folder", "the whole folder"
    return Sample(own_name(called), title, names, len(tasks), origin, TEST, numbers, dataset, kept)


def find_samples(
    folders: Sequence[str | PathLike[str]],
    count: int = OBJECTS,
    *,
    procedural: bool = True,
    kind: str = "auto",
    up: str = "",
    split: str = TEST,
) -> list[Sample]:
    """All that is measured: procedural objects, and what each folder holds (a dataset folder, or a folder of meshes).

    Args:
        split: "test", which the protocol asks for, or "train", to compare held-out objects with those that were trained on;
            the latter only of dataset folders.

    Raises:
        InputError: a folder cannot be read, holds nothing to measure, or two have a source of the same name.
    """
    out = [procedural_sample(count, split)] if procedural else []
    for folder in folders:
        if (Path(folder) / CATALOGUE).is_file():
            found = dataset_samples(folder, count, split)
            if not found:
                which = "held-out objects" if split == TEST else "objects of the training split"
                raise InputError(f"{folder} holds no {which}; see `bozzetto data stats {folder} --split {split}`")
        elif split == TRAIN:
            raise InputError(
                f"{folder} is no dataset folder (bozzetto data convert), so nothing in it is a training split"
            )
        else:
            found = [folder_sample(folder, count, kind=kind, up=up)]
        out += found
    names = [s.name for s in out]
    if doubled := {n for n in names if names.count(n) > 1}:
        raise InputError(f"{', '.join(sorted(doubled))} is given twice; give every collection once")
    if not out:
        raise InputError("there is nothing to measure; give --data FOLDER")
    return out
