"""A shard: one file that holds many packed objects, read in any order through a memory map.

Layout (numbers little-endian; the whole format is stated in docs/data.md)::

    8 bytes   magic "BZASSETS"
    4 bytes   version
    ...       blobs (geometry, clips, pictures), each stored once however many objects name it
    ...       blob table: per blob offset (8), size (8), crc32 (4)
    ...       records: zlib-compressed JSON, one record per object; they name blobs by their number
    48 bytes  footer: offset of the table (8), number of blobs (8), offset of the records (8), their size (8),
              crc32 of table and records (4), version (4), magic (8)
"""

from __future__ import annotations

import contextlib
import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import InputError
from ...files.atomic import atomic_path
from ...files.inputs import check_input

MAGIC, VERSION = b"BZASSETS", 1
SUFFIX = ".assets"
_HEAD, _FOOT = struct.Struct("<8sI"), struct.Struct("<QQQQII8s")
_TABLE = np.dtype([("offset", "<u8"), ("size", "<u8"), ("crc", "<u4")])


class DatasetError(InputError):
    """A shard or a dataset folder is missing, damaged, or of another version."""


class ShardWriter:
    """Appends blobs and records to an open file; :func:`write_shard` makes one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._keys: dict[bytes | str, int] = {}
        self._table: list[tuple[int, int, int]] = []
        self.records: list[dict[str, Any]] = []
        self.size = file.write(_HEAD.pack(MAGIC, VERSION))

    def blob(self, key: bytes | str, data: bytes) -> int:
        """The number of the blob ``data``; it is written unless a blob of the same ``key`` has been."""
        if key not in self._keys:
            self._keys[key] = len(self._table)
            self._table.append((self.size, len(data), zlib.crc32(data)))
            self.size += self._file.write(data)
        return self._keys[key]

    def holds(self, key: bytes | str) -> bool:
        """Whether a blob of this key has been written."""
        return key in self._keys

    def record(self, record: dict[str, Any]) -> None:
        """Add an object's record (plain JSON values)."""
        self.records.append(record)

    def finish(self) -> None:
        """Write the index. Nothing may follow."""
        table = np.array(self._table, _TABLE).tobytes()
        text = json.dumps(self.records, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        records = zlib.compress(text.encode("utf-8"), 9)
        crc = zlib.crc32(records, zlib.crc32(table))
        places = (self.size, len(self._table), self.size + len(table), len(records))
        self._file.write(table + records + _FOOT.pack(*places, crc, VERSION, MAGIC))


@contextlib.contextmanager
def write_shard(path: str | PathLike[str]) -> Iterator[ShardWriter]:
    """A :class:`ShardWriter` whose file appears at ``path``, whole, when the block ends well; else nothing appears."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = ShardWriter(file)
        yield writer
        writer.finish()


class Shard:
    """A shard opened for reading. Cheap to open: blobs are read from the memory map when asked for.

    Safe to use from several threads, and to pickle (the copy opens the file again).

    Attributes:
        records: one dictionary per object.

    Raises:
        DatasetError: the file is missing, truncated, damaged in its index, or of a newer version.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = check_input(path, f"a {SUFFIX} file", DatasetError)
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            if size < _HEAD.size + _FOOT.size:
                raise DatasetError(f"{path} is too short to be a {SUFFIX} file; convert it again")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version = _HEAD.unpack_from(self._map)
        if magic != MAGIC:
            raise DatasetError(f"{path} is not a {SUFFIX} file")
        if version != VERSION:
            raise DatasetError(f"{path} has format version {version}; this program reads {VERSION}: convert it again")
        table, count, records, length, crc, _, end = _FOOT.unpack_from(self._map, size - _FOOT.size)
        sound = end == MAGIC and table + count * _TABLE.itemsize == records and records + length == size - _FOOT.size
        if not sound or zlib.crc32(self._map[table : records + length]) != crc:
            raise DatasetError(f"{path} is truncated or damaged; convert or copy it again")
        self._table = np.frombuffer(self._map[table:records], _TABLE)
        self.records: list[dict[str, Any]] = json.loads(zlib.decompress(self._map[records : records + length]))

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.records)

    def __reduce__(self) -> tuple[type[Shard], tuple[Path]]:
        return Shard, (self.path,)

    @property
    def blob_count(self) -> int:
        """Number of blobs."""
        return len(self._table)

    def blob_size(self, number: int) -> int:
        """Bytes of one blob."""
        return int(self._table[number]["size"])

    def blob(self, number: int) -> bytes:
        """The bytes of one blob, as they are; :meth:`sound_blob` and :meth:`damaged` check them."""
        offset, size, _ = (int(x) for x in self._table[number])
        return self._map[offset : offset + size]

    def sound_blob(self, number: int) -> bytes:
        """The bytes of one blob, compared with their checksum. Raises :class:`DatasetError` where they differ."""
        data = self.blob(number)
        if zlib.crc32(data) != int(self._table[number]["crc"]):
            raise DatasetError(f"{self.path}: blob {number} is damaged; convert or copy the file again")
        return data

    def damaged(self) -> list[int]:
        """Numbers of the blobs whose checksum is wrong; reads the whole file."""
        return [i for i in range(len(self._table)) if zlib.crc32(self.blob(i)) != int(self._table[i]["crc"])]
