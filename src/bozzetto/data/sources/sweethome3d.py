"""Sweet Home 3D's furniture libraries: OBJ models in zip archives, with names, kinds and authors in a property file.

Right-handed, y up, front towards +z as they are; a model whose file lies differently has a rotation in the catalogue.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..assets.source_object import SourceObject
from .common import LeftOutError, Textures, find_trees, read_each
from .formats.wavefront import parse_wavefront

NAME = "sweethome3d"
CATALOGUE = "PluginFurnitureCatalog.properties"
LICENCES = {
    "Public domain": "CC0-1.0",
    "Creative Commons Attribution 3.0 United States": "CC-BY-3.0-US",
    "Creative Commons Attribution 3.0": "CC-BY-3.0",
}


def parse_catalogue(text: str) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """Properties of the library, and of each numbered piece (``name#12=Chair`` -> pieces[12]["name"])."""
    library: dict[str, str] = {}
    pieces: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(\w+)(?:#(\d+))?\s*=[ \t]*(.*?)[ \t\r]*$", text, re.M):
        value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value)
        value = re.sub(r"\\(.)", r"\1", value)
        (pieces.setdefault(int(number), {}) if number else library)[key] = value
    return library, pieces


def _licence(text: str) -> str:
    for words, name in LICENCES.items():
        if text.startswith(words):
            return name
    return text


def _author_in(licence_file: str) -> str:
    """The author that a Blend Swap licence file names, or ""."""
    found = re.search(r"\"[ \t]+by[ \t]+([^\r\n]+)", licence_file)
    return found[1].strip() if found else ""


class _Library:
    """One .sh3f archive."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.zip = zipfile.ZipFile(path)
        self.files = {n.lower(): n for n in self.zip.namelist()}
        self.properties, pieces = parse_catalogue(self.zip.read(CATALOGUE).decode("latin-1"))
        self.pieces = {f"{self.name}/{i}": p for i, p in sorted(pieces.items()) if p.get("model")}

    def fetch(self, path: str) -> bytes | None:
        """A file of the archive, whatever the case of its name; None when it is not there."""
        name = self.files.get(posixpath.normpath(path.replace("\\", "/")).lstrip("/").lower())
        return self.zip.read(name) if name is not None else None

    def make(self, key: str) -> SourceObject:
        piece = self.pieces[key]
        model = piece["model"].lstrip("/")
        data = self.fetch(model)
        if data is None or not model.lower().endswith(".obj"):
            raise LeftOutError(f"no OBJ model {model}")
        base = posixpath.dirname(model)
        textures = Textures()
        parts = parse_wavefront(
            data.decode("latin-1"), lambda name: self.fetch(posixpath.join(base, name)), textures, name=model
        )
        if rotation := piece.get("modelRotation"):
            matrix = np.array(rotation.split(), np.float32).reshape(3, 3)
            for part in parts:
                part.vertices = part.vertices @ matrix.T
        title = piece.get("name", "")
        author = piece.get("creator", "")
        if author in ("", "Blend Swap"):
            author = _author_in((self.fetch(f"{base}/BLENDSWAP_LICENSE.txt") or b"").decode("latin-1")) or author
        tags = tuple(t.strip() for t in piece.get("tags", "").split(","))
        return SourceObject(
            source=NAME,
            name=f"{self.name}/{posixpath.splitext(posixpath.basename(model))[0]}",
            group=f"{self.name}/{base}",
            parts=parts,
            textures=textures.arrays,
            caption=title,
            category=piece.get("category", ""),
            tags=tuple(t for t in tags if t and t != "Blend Swap"),
            licence=_licence(self.properties.get("license", "")),
            author=author,
            problems=textures.problems,
        )


def read(folder: Path) -> Iterator[SourceObject]:
    """Every piece of furniture of the libraries under ``folder``. See :mod:`bozzetto.data.sources`."""
    for tree in find_trees(folder, "usr/share/sweethome3d/furniture"):
        for path in sorted(tree.glob("*.sh3f")):
            library = _Library(path)
            yield from read_each(NAME, library.pieces, library.make)
