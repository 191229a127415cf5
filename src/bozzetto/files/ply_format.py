"""The PLY container: header and tables of numbers, ASCII and binary, without knowing what they mean.

A PLY file is a text header that lists elements (tables) and their properties (columns), then the rows of every element
in that order. Source: Greg Turk's description of the format (1994).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from .atomic import atomic_path

SCALAR_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip
_TYPE_NAMES = {code: name for name, code in list(SCALAR_TYPES.items())[:8]}
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_ROWS = 1 << 16  # rows converted at a time, so that they stay in the processor's cache


class PlyError(Exception):
    """The file breaks the format; readers turn it into an error of their own kind with the file's name."""


@dataclass
class PlyProperty:
    """One column; ``count_type`` is None for a scalar, else the type of a list's length."""

    name: str
    type: str
    count_type: str | None = None


@dataclass
class PlyElement:
    """One table of the header: name, number of rows, columns."""

    name: str
    count: int
    properties: list[PlyProperty] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(p.count_type is not None for p in self.properties)

    def row_type(self, order: str) -> np.dtype:
        """NumPy type of one binary row; scalars only."""
        return np.dtype([(p.name, order + p.type) for p in self.properties])


@dataclass
class PlyTable:
    """The rows of one element.

    Attributes:
        element: its header entry.
        rows: structured array [count] of the scalar columns, or a plain [count, columns] array if all have one type.
        lists: column name -> (lengths [count], all values in a row), for list columns.
    """

    element: PlyElement
    rows: np.ndarray
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def columns(self, names: Sequence[str], dtype: str = "f4") -> np.ndarray:
        """Scalar columns by name as [count, len(names)]."""
        scalars = [p.name for p in self.element.properties if p.count_type is None]
        index = [scalars.index(n) for n in names]
        out = np.empty((self.element.count, len(names)), dtype=dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # doubles beyond float32 become inf, which readers check
            if self.rows.dtype.names is None and index == list(range(index[0], index[0] + len(index))):
                out[:] = self.rows[:, index[0] : index[0] + len(index)]
                return out
            for start in range(0, len(out), _ROWS):
                block = self.rows[start : start + _ROWS]
                for column, (name, i) in enumerate(zip(names, index)):
                    out[start : start + _ROWS, column] = block[name] if block.dtype.names else block[:, i]
        return out


def parse_header(data: bytes) -> tuple[str, list[PlyElement], list[str], int]:
    """(format, elements, comments, offset of the first row)."""
    if data[:3] != b"ply" or data[3:4] not in (b"\n", b"\r", b" "):
        raise PlyError("it is not a PLY file (the first line must be 'ply')")
    end = data.find(b"end_header")
    if end < 0:
        raise PlyError("the PLY header has no end_header line; the file is truncated or not a PLY file")
    newline = data[end + 10 : end + 12]
    offset = end + 10 + (2 if newline == b"\r\n" else 1)
    lines = data[:end].decode("latin-1").replace("\r\n", "\n").replace("\r", "\n").split("\n")[1:]
    encoding, elements, comments = "", [], []
    for line in lines:
        words = line.split()
        if not words:
            continue
        try:
            if words[0] == "format":
                encoding = words[1]
                if encoding not in _FORMATS:
                    raise PlyError(f"unknown PLY format {encoding!r}; known are {', '.join(_FORMATS)}")
            elif words[0] in ("comment", "obj_info"):
                comments.append(line.split(None, 1)[1] if len(words) > 1 else "")
            elif words[0] == "element":
                elements.append(PlyElement(words[1], int(words[2])))
                if elements[-1].count < 0:
                    raise PlyError(f"the PLY header promises {words[2]} rows of {words[1]}")
            elif words[0] == "property" and words[1] == "list":
                elements[-1].properties.append(PlyProperty(words[4], SCALAR_TYPES[words[3]], SCALAR_TYPES[words[2]]))
            elif words[0] == "property":
                elements[-1].properties.append(PlyProperty(words[2], SCALAR_TYPES[words[1]]))
            else:
                raise PlyError(f"unknown line in the PLY header: {line.strip()[:80]!r}")
        except (IndexError, KeyError, ValueError):
            raise PlyError(f"malformed line in the PLY header: {line.strip()[:80]!r}") from None
    if not encoding:
        raise PlyError("the PLY header has no format line")
    for element in elements:
        names = [p.name for p in element.properties]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise PlyError(f"the PLY header names a property of {element.name} twice: {', '.join(twice)}")
    return encoding, elements, comments, offset


def parse_ply(data: bytes, wanted: Iterable[str]) -> dict[str, PlyTable]:
    """The tables of the ``wanted`` elements (those that the file has).

    Elements after the last wanted one are not looked at; if there is none, the file must end where the header says.

    Raises:
        PlyError: the header is malformed, or the rows do not fit its counts.
    """
    encoding, elements, _, offset = parse_header(data)
    wanted = set(wanted)
    last = max((i for i, e in enumerate(elements) if e.name in wanted), default=-1)
    parser = _Ascii(data, offset) if encoding == "ascii" else _Binary(data, offset, _FORMATS[encoding])
    tables = {}
    for element in elements[: last + 1]:
        table = parser.rows_with_lists(element) if element.has_lists else parser.rows(element)
        if element.name in wanted:
            tables[element.name] = table
    if last == len(elements) - 1:
        parser.check_end()
    return tables


class _Binary:
    def __init__(self, data: bytes, offset: int, order: str) -> None:
        self.data, self.offset, self.order = data, offset, order

    def _short(self, element: PlyElement, held: int) -> PlyError:
        return PlyError(
            f"the header promises {element.count:,} rows of {element.name}, the file holds {held:,}; it is "
            "truncated or its header is wrong"
        )

    def rows(self, element: PlyElement) -> PlyTable:
        row = element.row_type(self.order)
        held = (len(self.data) - self.offset) // row.itemsize if row.itemsize else element.count
        if held < element.count:
            raise self._short(element, max(held, 0))
        types = {p.type for p in element.properties}
        if len(types) == 1:
            flat = np.frombuffer(self.data, self.order + types.pop(), element.count * len(row), self.offset)
            rows = flat.reshape(element.count, len(row))  # [count, columns]
        else:
            rows = (
                np.frombuffer(self.data, row, element.count, self.offset) if row.itemsize else np.empty(element.count)
            )
        self.offset += row.itemsize * element.count
        return PlyTable(element, rows)

    def rows_with_lists(self, element: PlyElement) -> PlyTable:
        return self._uniform(element) or self._ragged(element)

    def _uniform(self, element: PlyElement) -> PlyTable | None:
        """All rows as long as the first one (a mesh of triangles): one structured read; None if they are not."""
        fields, offset = [], self.offset
        for p in element.properties:
            if p.count_type is None:
                fields.append((p.name, self.order + p.type))
            else:
                count = np.dtype(self.order + p.count_type)
                if element.count == 0 or offset + count.itemsize > len(self.data):
                    return None
                length = int(np.frombuffer(self.data, count, 1, offset)[0])
                if length < 0 or length > 255:
                    return None
                fields += [(f"{p.name} count", count), (p.name, self.order + p.type, (length,))]
            offset = self.offset + np.dtype(fields).itemsize
        row = np.dtype(fields)
        if self.offset + row.itemsize * element.count > len(self.data):
            return None
        rows = np.frombuffer(self.data, row, element.count, self.offset)
        lists = {}
        for p in element.properties:
            if p.count_type is not None:
                lengths = rows[f"{p.name} count"]
                if not bool((lengths == lengths[0]).all()):
                    return None
                lists[p.name] = (lengths.astype(np.int64), rows[p.name].reshape(-1))
        self.offset += row.itemsize * element.count
        return PlyTable(element, rows, lists)

    def _ragged(self, element: PlyElement) -> PlyTable:
        scalars = [p for p in element.properties if p.count_type is None]
        rows = np.zeros(element.count if element.count <= len(self.data) else 0, [(p.name, p.type) for p in scalars])
        lengths: dict[str, list[int]] = {p.name: [] for p in element.properties if p.count_type}
        values: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.float64)] for name in lengths}

        def take(kind: str, count: int, i: int) -> np.ndarray:
            size = np.dtype(kind).itemsize * count
            if count < 0 or self.offset + size > len(self.data):
                raise self._short(element, i)
            out = np.frombuffer(self.data, self.order + kind, count, self.offset)
            self.offset += size
            return out

        for i in range(element.count):
            for p in element.properties:
                if p.count_type is None:
                    rows[p.name][i] = take(p.type, 1, i)[0]
                else:
                    n = int(take(p.count_type, 1, i)[0])
                    lengths[p.name].append(n)
                    values[p.name].append(take(p.type, n, i))
        return PlyTable(
            element, rows, {n: (np.array(lengths[n], np.int64), np.concatenate(values[n])) for n in lengths}
        )

    def check_end(self) -> None:
        extra = len(self.data) - self.offset
        if extra > 0:
            raise PlyError(f"the file goes on for {extra:,} bytes after the last row that its header promises")


class _Ascii:
    def __init__(self, data: bytes, offset: int) -> None:
        self.lines = [line for line in data[offset:].splitlines() if line.strip()]
        self.next = 0

    def _take(self, element: PlyElement) -> list[bytes]:
        taken = self.lines[self.next : self.next + element.count]
        if len(taken) < element.count:
            raise PlyError(
                f"the header promises {element.count:,} rows of {element.name}, the file holds {len(taken):,}; it is "
                "truncated or its header is wrong"
            )
        self.next += element.count
        return taken

    def _numbers(self, text: bytes, element: PlyElement) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how NumPy reports a word that is not a number
            try:
                return np.fromstring(text.decode("ascii"), dtype=np.float64, sep=" ")
            except (DeprecationWarning, ValueError):
                raise PlyError(f"a row of {element.name} holds something that is not a number") from None

    def rows(self, element: PlyElement) -> PlyTable:
        lines, columns = self._take(element), len(element.properties)
        values = self._numbers(b" ".join(lines), element)
        if values.size != element.count * columns or any(len(line.split()) != columns for line in lines[:1]):
            wrong = next((i for i, line in enumerate(lines) if len(line.split()) != columns), 0)
            raise PlyError(f"row {wrong + 1} of {element.name} has {len(lines[wrong].split())} values, not {columns}")
        return PlyTable(element, values.reshape(element.count, columns))

    def rows_with_lists(self, element: PlyElement) -> PlyTable:
        scalars: list[list[float]] = []
        lengths: dict[str, list[int]] = {p.name: [] for p in element.properties if p.count_type}
        values: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.float64)] for name in lengths}
        for i, line in enumerate(self._take(element)):
            row, place = self._numbers(line, element), 0
            scalars.append([])
            for p in element.properties:
                if place >= len(row):
                    raise PlyError(f"row {i + 1} of {element.name} has too few values")
                if p.count_type is None:
                    scalars[-1].append(float(row[place]))
                else:
                    n = int(row[place])
                    lengths[p.name].append(n)
                    values[p.name].append(row[place + 1 : place + 1 + n])
                    place += n
                place += 1
            if place != len(row):
                raise PlyError(f"row {i + 1} of {element.name} has {len(row)} values where its lists ask for {place}")
        lists = {n: (np.array(lengths[n], np.int64), np.concatenate(values[n])) for n in lengths}
        return PlyTable(element, np.array(scalars, np.float64).reshape(element.count, -1), lists)

    def check_end(self) -> None:
        extra = len(self.lines) - self.next
        if extra > 0:
            raise PlyError(f"the file goes on for {extra:,} lines after the last row that its header promises")


def write_ply_file(path: str | PathLike[str], elements: Sequence[tuple[str, np.ndarray, Sequence[str]]]) -> None:
    """Write a binary little-endian PLY, atomically.

    ``elements``: (name, rows, property lines), where rows is any array whose bytes are the binary rows [count, ...] and
    the lines are such as :func:`scalar_properties` makes.
    """
    header = ["ply", "format binary_little_endian 1.0"]
    for name, rows, properties in elements:
        header += [f"element {name} {len(rows)}", *properties]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        for _, rows, _ in elements:
            file.write(rows.tobytes())


def scalar_properties(names: Iterable[str], kind: str = "f4") -> list[str]:
    """Header lines of scalar columns of one type."""
    return [f"property {_TYPE_NAMES[kind]} {name}" for name in names]
