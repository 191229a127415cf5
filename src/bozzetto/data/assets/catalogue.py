"""A dataset folder: shards, and ``dataset.json`` that says what is in them."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .asset_object import AssetObject
from .checks import FLAGS
from .licence_choice import permits
from .pack import read_object
from .shard import DatasetError, Shard
from .splits import SPLITS, TEST, TRAIN, UNUSED, split_of

CATALOGUE, ATTRIBUTION, VERSION = "dataset.json", "ATTRIBUTION.md", 1


def read_catalogue(folder: str | PathLike[str]) -> dict[str, Any]:
    """``dataset.json`` of a folder. Raises :class:`DatasetError` when it is missing, damaged or of another version."""
    path = Path(folder) / CATALOGUE
    try:
        catalogue = json.loads(path.read_text(encoding="utf-8"))
        version = catalogue["version"]
    except FileNotFoundError:
        raise DatasetError(
            f"{folder} holds no {CATALOGUE}; it is not a dataset folder (bozzetto data convert makes one)"
        ) from None
    except NotADirectoryError:
        raise DatasetError(f"{folder} is a file, not a dataset folder (bozzetto data convert makes one)") from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DatasetError(f"{path} cannot be read ({problem}); convert or copy it again") from problem
    if version != VERSION:
        raise DatasetError(f"{path} has version {version}; this program reads {VERSION}: convert it again")
    return catalogue


class Dataset:
    """All objects of a dataset folder, in any order. Cheap to open and to pickle; objects are decoded when asked for.

    Args:
        folder: made by ``bozzetto data convert``.
        sources: only these collections; None for all.

    Raises:
        DatasetError: a file is missing or damaged.
    """

    def __init__(self, folder: str | PathLike[str], sources: list[str] | None = None) -> None:
        self.folder = Path(folder)
        self.chosen_sources = sources
        self.catalogue = read_catalogue(folder)
        entries = self.catalogue["sources"]
        if sources is not None and (unknown := set(sources) - set(entries)):
            raise DatasetError(f"{folder} has no source {', '.join(sorted(unknown))}; it has: {', '.join(entries)}")
        names = [s for n, entry in entries.items() if sources is None or n in sources for s in entry["shards"]]
        self.shards = [Shard(self.folder / name) for name in names]
        self._first = np.cumsum([0] + [len(s) for s in self.shards])
        sides: dict[tuple[str, str], set[str]] = {}
        for r in self.records():
            sides.setdefault((r["source"], r["group"]), set()).add(effective_split(r))
        self._mixed = {key for key, splits in sides.items() if TRAIN in splits and len(splits - {UNUSED}) > 1}

    def __len__(self) -> int:
        """Number of objects."""
        return int(self._first[-1])

    def place(self, number: int) -> tuple[Shard, int]:
        """The shard that holds an object, and its number there."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        which = bisect_right(self._first, number) - 1
        return self.shards[which], int(number - self._first[which])

    def record(self, number: int) -> dict[str, Any]:
        """What is known of an object without decoding it."""
        shard, inside = self.place(number)
        return shard.records[inside]

    def records(self) -> Iterator[dict[str, Any]]:
        """All records in order."""
        for shard in self.shards:
            yield from shard.records

    def __getitem__(self, number: int) -> AssetObject:
        """One object, decoded. Raises ``IndexError``, or :class:`DatasetError` when its bytes are damaged."""
        return read_object(*self.place(number))

    def split(self, record: dict[str, Any]) -> str:
        """Where an object counts: :func:`effective_split`, but "unused" for what shares its group with training data."""
        split = effective_split(record)
        mixed = split != TRAIN and (record["source"], record["group"]) in self._mixed
        return UNUSED if mixed else split

    def select(
        self,
        split: str | None = None,
        *,
        animated: bool | None = None,
        without: tuple[str, ...] = (),
        licences: tuple[str, ...] | None = None,
    ) -> list[int]:
        """Numbers of the objects of a split, with (or without) clips, that have none of the flags ``without``.

        ``licences``: only objects that can be used under these alone (:func:`licence_choice.permits`); None for all.

        "train" gives only objects that :func:`splits.split_of` lets train today, whatever the file says. A flag that does not
        exist raises :class:`InputError`.
        """
        if unknown := set(without) - set(FLAGS):
            names = ", ".join(repr(f) for f in sorted(unknown))
            raise InputError(f"there is no flag {names}; known: {', '.join(FLAGS)}")
        return [
            i
            for i, r in enumerate(self.records())
            if (split is None or self.split(r) == split)
            and (animated is None or bool(r["clips"]) == animated)
            and not set(without) & set(r["flags"])
            and (licences is None or permits(r["licence"], licences))
        ]

    def statistics(self, split: str | None = None) -> dict[str, Any]:
        """Counts, sizes and distributions of every source (of one split; the bytes are always those of the whole)."""
        out: dict[str, Any] = {}
        for name in dict.fromkeys(r["source"] for r in self.records()):
            rows = [r for r in self.records() if r["source"] == name and split in (None, self.split(r))]
            triangles = np.array([r["triangles"] for r in rows])
            sizes = self._bytes(name)
            out[name] = {
                "objects": len(rows),
                "groups": len({r["group"] for r in rows}),
                "splits": {s: n for s in SPLITS if (n := sum(self.split(r) == s for r in rows))},
                "licences": dict(Counter(r["licence"] or "not stated" for r in rows).most_common()),
                "triangles": dict(zip(("p5", "p50", "p95", "max"), _percentiles(triangles))),
                "textured": sum(bool(r["textures"]) for r in rows),
                "captioned": sum(bool(r["caption"]) for r in rows),
                "animated": sum(bool(r["clips"]) for r in rows),
                "clips": sum(len(r["clips"]) for r in rows),
                "clip_seconds": round(sum(c["seconds"] for r in rows for c in r["clips"]), 1),
                "flags": dict(Counter(f for r in rows for f in r["flags"]).most_common()),
                "refused": self.catalogue["sources"].get(name, {}).get("refused", {}),
                "bytes": sizes,
            }
        return out

    def _bytes(self, source: str) -> dict[str, int]:
        """Bytes of geometry, textures and clips, each blob counted once, and of the files."""
        out = {"geometry": 0, "textures": 0, "clips": 0, "files": 0}
        for shard in self.shards:
            rows = [r for r in shard.records if r["source"] == source]
            if not rows:
                continue
            blobs = {
                "geometry": {p["geometry"] for r in rows for p in r["parts"]},
                "textures": {t for r in rows for t in r["textures"]},
                "clips": {c["blob"] for r in rows for c in r["clips"]},
            }
            for kind, numbers in blobs.items():
                out[kind] += sum(shard.blob_size(b) for b in numbers)
            out["files"] += shard.path.stat().st_size
        return out

    def verify(self, tell: Callable[[str, float], None] | None = None) -> list[str]:
        """What is wrong: damaged blobs, objects that cannot be decoded, objects on the wrong side of a split. [] if nothing."""
        out, done = [], 0
        for shard in self.shards:
            out += [f"{shard.path.name}: blob {b} is damaged" for b in shard.damaged()]
            for i, record in enumerate(shard.records):
                done += 1
                if tell is not None:
                    tell("verifying", done / len(self))
                try:
                    obj = read_object(shard, i)
                except DatasetError as problem:
                    out.append(str(problem))
                    continue
                if not all(np.isfinite(p.vertices).all() for p in obj.parts):
                    out.append(f"{shard.path.name}: {record['name']} has vertices that are not finite")
                if record["split"] == TRAIN and effective_split(record) != TRAIN:
                    out.append(f"{shard.path.name}: {record['name']} is held out but stored as training data")
        return out

    def attribution(self) -> str:
        """Who made what under which licence, as Markdown."""
        return attribution(list(self.records()))


def effective_split(record: dict[str, Any]) -> str:
    """The split of a record; the rules of today win over what was stored when they are stricter."""
    stored = record["split"]
    if stored != TRAIN:
        return stored
    ruled = split_of(record["source"], record["name"], record["group"], record["licence"])
    return ruled if ruled in (TEST, UNUSED) else stored


def attribution(records: list[dict[str, Any]]) -> str:
    """Markdown: sources, licences, authors and their objects."""
    lines = ["# Attribution", "", "Authors and licences of the objects in this folder."]
    for source in sorted({r["source"] for r in records}):
        rows = [r for r in records if r["source"] == source]
        lines += ["", f"## {source}: {len(rows)} objects"]
        makers: dict[tuple[str, str], list[str]] = {}
        for r in rows:
            makers.setdefault((r["licence"] or "licence not stated", r["author"] or ""), []).append(
                r["caption"] or r["name"]
            )
        for (licence, author), names in sorted(makers.items()):
            shown = ", ".join(sorted(set(names))[:12]) + (", …" if len(set(names)) > 12 else "")
            lines.append(f"- {licence}: {author or f'authors of {source}'} ({len(names)}): {shown}")
    return "\n".join(lines) + "\n"


def _percentiles(values: np.ndarray) -> list[int]:
    return [int(x) for x in np.percentile(values, [5, 50, 95, 100])] if len(values) else [0, 0, 0, 0]
