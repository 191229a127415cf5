"""Parts of dataset folders as a new one: some sources, a split, smaller pictures, fewer clips, shards of a given size.

Geometry and clips are copied as they are, so nothing is lost twice; pictures are encoded anew only where they shrink.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.atomic import output_folder
from .catalogue import ATTRIBUTION, CATALOGUE, VERSION, Dataset, attribution
from .licence_choice import check_licences
from .pack import PackOptions
from .pictures import decode_picture, encode_picture
from .shard import SUFFIX, Shard, ShardWriter, write_shard


@dataclass(frozen=True)
class CopyOptions:
    """What is copied.

    Attributes:
        split: only this split as today's rules have it ("train" never holds what is held out); None for all.
        without: leave out objects with one of these flags.
        licences: only objects that can be used under these alone, "clean" among them; None for all.
        texture_size: longest side of a picture, a power of two; None: as they are.
        clips: of an object, keep this many, those that move most; None for all.
        shard_bytes: a new shard is begun before this size is passed.
    """

    split: str | None = None
    without: tuple[str, ...] = ()
    licences: tuple[str, ...] | None = None
    texture_size: int | None = None
    clips: int | None = None
    shard_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.texture_size is not None:
            PackOptions(texture_size=self.texture_size)  # says what is wrong with it
        if self.clips is not None and self.clips < 0:
            raise InputError(f"clips must be at least 0, not {self.clips}")
        if self.shard_bytes < 1 << 20:
            raise InputError(f"a shard must be allowed at least 1 MB, not {self.shard_bytes} bytes")


def copy_dataset(
    datasets: Sequence[Dataset],
    folder: str | PathLike[str],
    options: CopyOptions | None = None,
    tell: Callable[[str, float], None] | None = None,
) -> dict[str, int]:
    """Write the chosen objects of ``datasets`` into the new dataset folder ``folder``; how many of each source.

    Raises:
        InputError: ``folder`` is a dataset already, a source is in two datasets, no object is under one of the licences, or
            nothing is chosen.
        DatasetError: what is to be copied is damaged.
    """
    options, tell, folder = options or CopyOptions(), tell or (lambda what, share: None), Path(folder)
    if (folder / CATALOGUE).is_file():
        raise InputError(f"{folder} is a dataset already; give a new folder")
    check_licences(options.licences or (), [r["licence"] for data in datasets for r in data.records()])
    chosen: dict[str, tuple[Dataset, list[int]]] = {}
    for data in datasets:
        for i in data.select(options.split, without=options.without, licences=options.licences):
            owner, numbers = chosen.setdefault(data.record(i)["source"], (data, []))
            if owner is not data:
                raise InputError(f"{data.record(i)['source']} is in {owner.folder} and in {data.folder}; give it once")
            numbers.append(i)
    if not chosen:
        raise InputError("no object fits; leave out --split, --source, --without or --licences")
    total, done = sum(len(n) for _, n in chosen.values()), 0
    catalogue: dict[str, Any] = {"version": VERSION, "sources": {}}
    records = []
    with output_folder(folder) as work:
        for source, (data, numbers) in chosen.items():
            shards: list[str] = []
            with ExitStack() as stack:
                writer, shrink = None, _Shrink(options.texture_size)
                for i in numbers:
                    shard, inside = data.place(i)
                    record, blobs = _chosen(shard, shard.records[inside], options, shrink)
                    record["split"] = data.split(record)  # by today's rules
                    added = sum(len(b) for key, b in blobs.values() if writer is None or not writer.holds(key))
                    if writer is None or writer.size + added > options.shard_bytes:
                        stack.close()
                        shards.append(f"{source}-{len(shards):05d}{SUFFIX}")
                        writer = stack.enter_context(write_shard(work / shards[-1]))
                    _write(writer, record, blobs)
                    done += 1
                    tell("copying", done / total)
            opened = [Shard(work / name) for name in shards]
            own = [r for s in opened for r in s.records]
            entry = dict(data.catalogue["sources"][source])
            entry |= {
                "shards": shards,
                "objects": len(own),
                "clips": sum(len(r["clips"]) for r in own),
                "bytes": sum(s.path.stat().st_size for s in opened),
                "licences": dict(Counter(r["licence"] or "not stated" for r in own).most_common()),
                "splits": dict(Counter(r["split"] for r in own).most_common()),
            }
            catalogue["sources"][source] = entry
            records += own
        (work / ATTRIBUTION).write_text(attribution(records), encoding="utf-8")
        text = json.dumps(catalogue, indent=1, ensure_ascii=False) + "\n"
        (work / CATALOGUE).write_text(text, encoding="utf-8")
    return {source: len(numbers) for source, (_, numbers) in chosen.items()}


class _Shrink:
    """Makes each picture small once."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._made = limit, {}

    def __call__(self, shard: Shard, number: int) -> bytes:
        if self._limit is None:
            return shard.sound_blob(number)
        key = (shard.path, number)
        if key not in self._made:
            data = shard.sound_blob(number)
            picture = decode_picture(data)
            small = max(picture.shape[:2]) <= self._limit
            self._made[key] = data if small else encode_picture(picture, self._limit, True)
        return self._made[key]


def _chosen(
    shard: Shard, record: dict[str, Any], options: CopyOptions, shrink: _Shrink
) -> tuple[dict[str, Any], dict[int, tuple[bytes, bytes]]]:
    """A record, and per blob number that it names the blob's key and bytes."""
    record = dict(record)
    if options.clips is not None:
        by_motion = sorted(range(len(record["clips"])), key=lambda k: -record["clips"][k].get("motion", 0.0))
        record["clips"] = [record["clips"][k] for k in sorted(by_motion[: options.clips])]
    blobs = {b: shrink(shard, b) for b in record["textures"]}
    for number in [p["geometry"] for p in record["parts"]] + [c["blob"] for c in record["clips"]]:
        blobs[number] = shard.sound_blob(number)
    return record, {n: (hashlib.sha256(b).digest(), b) for n, b in blobs.items()}


def _write(writer: ShardWriter, record: dict[str, Any], blobs: dict[int, tuple[bytes, bytes]]) -> None:
    numbers = {n: writer.blob(key, data) for n, (key, data) in blobs.items()}
    record["textures"] = [numbers[b] for b in record["textures"]]
    record["parts"] = [p | {"geometry": numbers[p["geometry"]]} for p in record["parts"]]
    record["clips"] = [c | {"blob": numbers[c["blob"]]} for c in record["clips"]]
    writer.record(record)
