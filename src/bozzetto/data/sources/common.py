"""What all readers share: finding the unpacked files, pictures, names, and going on after a bad object."""

from __future__ import annotations

import io
import logging
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import ImageError, InputError, MeshError
from ..assets.source_object import AlphaMode, SourceObject

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)


class LeftOutError(MeshError):
    """An object is left out on purpose; the message is the reason."""


def find_trees(folder: Path, inside: str) -> list[Path]:
    """Where ``inside`` lies under ``folder``: an unpacked package, a folder of unpacked packages, or the tree itself.

    Raises:
        InputError: nowhere.
    """
    folder = Path(folder)
    found = [p for p in (folder / inside, *sorted(folder.glob(f"*/{inside}"))) if p.exists()]
    if not found and Path(inside).name == folder.name and folder.exists():
        found = [folder]
    if not found:
        raise InputError(f"{folder} does not hold {inside}; unpack the source's package there (dpkg-deb -x)")
    return found


def read_each(source: str, names: Iterable[str], make: Callable[[str], SourceObject | None]) -> Iterator[SourceObject]:
    """``make(name)`` for every name; what raises is logged and left out."""
    for name in names:
        try:
            made = make(name)
            if made is not None and not made.triangles:
                raise LeftOutError("it has no triangles")
        except LeftOutError as problem:
            log.info("%s: %s left out: %s", source, name, problem)
        except Exception as problem:  # a collection has thousands of files of others; one must not end the reading
            log.warning("%s: %s cannot be read: %s: %s", source, name, type(problem).__name__, problem)
        else:
            if made is not None:
                yield made


def decode_picture(data: bytes, name: str = "picture") -> NDArray[np.uint8]:
    """[H, W, 4] uint8 RGBA of any picture format that Pillow knows (among them DDS, TGA, BMP, SGI).

    Raises:
        ImageError: the data is no picture.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return rgba_bytes(picture)
    except Exception as problem:  # Pillow raises many kinds on damaged files
        raise ImageError(f"{name} is not a readable picture: {problem}") from None


def rgba_bytes(picture: Image.Image) -> NDArray[np.uint8]:
    """[H, W, 4] of a picture of any mode; greys of 16 bits are scaled (Pillow's own conversion cuts them off at 255)."""
    from PIL import Image

    if picture.mode == "I" or picture.mode.startswith("I;"):
        grey = np.array(picture).astype(np.int64).clip(0, 65535)
        picture = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    return np.array(picture.convert("RGBA"))


class Textures:
    """The pictures of one object, each stored once. ``arrays`` becomes :attr:`SourceObject.textures`."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.uint8]] = []
        self._index: dict[object, int | None] = {}

    def add(self, key: object, load: Callable[[], NDArray[np.uint8] | None]) -> int | None:
        """Index of the picture called ``key``, loaded when it is new; None when it is missing or unreadable."""
        if key not in self._index:
            try:
                picture = load()
            except ImageError as problem:
                log.info("%s", problem)
                picture = None
            self._index[key] = None if picture is None else len(self.arrays)
            if picture is not None:
                self.arrays.append(picture)
        return self._index[key]

    @property
    def problems(self) -> tuple[str, ...]:
        """For :attr:`SourceObject.problems`: pictures that were asked for and are missing or unreadable."""
        return tuple(f"missing texture: {key}" for key, index in self._index.items() if index is None)

    def alpha(self, index: int | None) -> AlphaMode:
        """ "mask" when a fair share of the picture's texels is transparent, else "opaque"."""
        if index is None:
            return "opaque"
        return "mask" if (self.arrays[index][..., 3] < 128).mean() > 0.002 else "opaque"


def weld(keys: NDArray, *values: NDArray) -> tuple[NDArray[np.int32], list[NDArray]]:
    """One vertex for every different row of ``keys``.

    Args:
        keys: [N, K] integers, one row a triangle corner (N = 3 F).
        values: arrays [N, ...] to thin out alike.

    Returns:
        faces [F, 3] int32 and ``values`` at the first corner of each vertex.
    """
    _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return index.reshape(-1, 3).astype(np.int32), [v[first] for v in values]


def flip_winding(faces: NDArray) -> NDArray[np.int32]:
    """Triangles [F, 3] the other way round; needed when one axis is negated."""
    return np.ascontiguousarray(faces[:, ::-1], dtype=np.int32)


def top_row_zero(uvs: NDArray) -> NDArray[np.float32]:
    """Texture coordinates [..., 2] whose v = 0 is the bottom row, in glTF's convention (v = 0 is the top row)."""
    uvs = np.array(uvs, np.float32)
    uvs[..., 1] = 1 - uvs[..., 1]
    return uvs


def z_up_to_y_up(points: NDArray) -> NDArray[np.float32]:
    """Points [..., 3] of a right-handed frame with z up and x forward, in one with y up and z forward."""
    return np.stack([points[..., 1], points[..., 2], points[..., 0]], axis=-1).astype(np.float32)


def plain_words(name: str) -> str:
    """ "stklib_autumnTree_a" -> "stklib autumn tree a"; "bigBlueLight2" -> "big blue light 2"."""
    name = re.sub(r"([a-z])([A-Z0-9])|([0-9])([A-Za-z])", r"\1\3 \2\4", name)
    return " ".join(re.split(r"[\s_\-./]+", name)).strip().lower()


class Archives:
    """Files of several zip archives as one tree; later archives override earlier ones, and case does not matter."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._entries: dict[str, tuple[zipfile.ZipFile, str]] = {}
        for path in paths:
            archive = zipfile.ZipFile(path)
            self._entries.update({name.lower(): (archive, name) for name in archive.namelist()})

    def names(self, ending: str = "") -> list[str]:
        """All paths that end so, in lower case and sorted."""
        return sorted(name for name in self._entries if name.endswith(ending))

    def fetch(self, path: str) -> bytes | None:
        """A file's bytes, or None when it is not there."""
        entry = self._entries.get(posixpath.normpath(path.replace("\\", "/")).lower())
        return entry[0].read(entry[1]) if entry is not None else None

    def original(self, path: str) -> str:
        """The path as it is written in its archive."""
        return self._entries[path.lower()][1]

    def picture(self, path: str, endings: tuple[str, ...] = (".png", ".jpg", ".tga")) -> tuple[str, bytes] | None:
        """A picture by its path with or without the ending, or with another one: (path found, bytes), or None."""
        stem = posixpath.splitext(path)[0]
        for candidate in (path, *(path + e for e in endings), *(stem + e for e in endings)):
            data = self.fetch(candidate) if candidate.lower().endswith(endings) else None
            if data is not None:
                return candidate, data
        return None
