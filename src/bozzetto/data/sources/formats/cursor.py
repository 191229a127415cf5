"""Reading little-endian binary files piece by piece, with an error instead of nonsense when the file ends too early."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ....errors import MeshError


class Cursor:
    """A position in ``data`` that moves forward with every read.

    Raises:
        MeshError: from any read that goes past the end (or before the start) of the data.
    """

    def __init__(self, data: bytes, name: str, offset: int = 0) -> None:
        self.data, self.name, self.offset = data, name, offset

    def _take(self, size: int) -> int:
        start = self.offset
        if size < 0 or start < 0 or start + size > len(self.data):
            raise MeshError(f"{self.name} is cut short: {size} bytes wanted at {start} of {len(self.data)}")
        self.offset = start + size
        return start

    def expect(self, magic: bytes) -> None:
        """Skip ``magic``, or raise when something else stands there."""
        start = self._take(len(magic))
        if self.data[start : self.offset] != magic:
            raise MeshError(f"{self.name} is not the expected format: it lacks the mark {magic!r}")

    def read(self, layout: str) -> tuple:
        """Values of a ``struct`` layout, little-endian and without padding."""
        layout = "<" + layout
        return struct.unpack_from(layout, self.data, self._take(struct.calcsize(layout)))

    def number(self, layout: str) -> int | float:
        """One value of a ``struct`` layout."""
        return self.read(layout)[0]

    def array(self, dtype: DTypeLike, *shape: int) -> NDArray:
        """A read-only view of the data."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        start = self._take(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start).reshape(shape)

    def text(self, size: int) -> str:
        """``size`` bytes of text, up to the first zero byte."""
        start = self._take(size)
        return self.data[start : self.offset].split(b"\0")[0].decode("latin-1")

    def skip(self, size: int) -> None:
        """Move on by ``size`` bytes."""
        self._take(size)


def check_faces(faces: NDArray, vertices: int, name: str) -> NDArray[np.int32]:
    """``faces`` [F, 3] as int32, or MeshError when they name a vertex that is not there."""
    if faces.size and (int(faces.min()) < 0 or int(faces.max()) >= vertices):
        raise MeshError(f"{name}: a triangle names vertex {int(faces.max())} of {vertices}")
    return faces.astype(np.int32)
