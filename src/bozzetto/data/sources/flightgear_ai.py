"""FlightGear's AI aircraft: AC3D models, airliners in up to three airlines' liveries each.

In the files the nose points to -x with y up; here it points to +z.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..assets.source_object import Part, SourceObject
from .common import LeftOutError, Textures, decode_picture, find_trees, plain_words, read_each, top_row_zero
from .formats.ac3d import AcMesh, parse_ac3d
from .licences import CopyrightFile

NAME = "flightgear_ai"
LIVERIES = 3
MOST_TRANSPARENT = 0.85
SKIPPED_FILES = re.compile(
    r"light|flare|flash|beacon|nav[lr]|cone|toggle|smoke|shadow|lod\d|contrail|wheels|banner|exhaust|pods", re.I
)
# Landing lights, spinning discs, shadows: shown by the game as effects.
SKIPPED_OBJECTS = re.compile(r"shadow|prop.?(disc|disk|fast|blur)|light.?cone|flare|halo|blurred", re.I)
ENDINGS = (".png", ".rgb", ".jpg", ".rgba", ".tga", ".dds")


class _Fleet:
    """The AI/Aircraft folder."""

    def __init__(self, aircraft: Path, copyright_file: CopyrightFile) -> None:
        self.aircraft, self.copyright = aircraft, copyright_file
        self.pictures = lru_cache(4)(self._pictures)
        self.meshes = lru_cache(2)(self._meshes)

    def _pictures(self, kind: str) -> dict[str, list[Path]]:
        """Pictures of one aircraft type by file name without ending, in lower case."""
        out: dict[str, list[Path]] = {}
        for path in sorted((self.aircraft / kind).rglob("*")):
            if path.suffix.lower() in ENDINGS:
                out.setdefault(path.stem.lower(), []).append(path)
        return out

    def _meshes(self, path: Path) -> list[AcMesh]:
        meshes = parse_ac3d(path.read_text(encoding="latin-1"), path.name)
        return [m for m in meshes if m.transparency < MOST_TRANSPARENT and not SKIPPED_OBJECTS.search(m.name)]

    def choices(self, path: Path, texture: str) -> list[Path]:
        """Pictures that may stand for ``texture`` of the model ``path``: the one beside it, or the liveries'."""
        stem = texture.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()
        found = self.pictures(path.relative_to(self.aircraft).parts[0]).get(stem, [])
        beside = [p for p in found if p.parent == path.parent]
        return beside[:1] or found

    def names(self) -> list[str]:
        """model path, or model path @ livery folder for models that have liveries."""
        out = []
        for path in sorted(self.aircraft.rglob("*.ac")):
            name = path.relative_to(self.aircraft).as_posix()
            if SKIPPED_FILES.search(name.split("/", 1)[1]):
                continue
            textures = set(re.findall(r'^texture "?([^"\r\n]+)', path.read_text(encoding="latin-1"), re.M))
            liveries = [c for c in (self.choices(path, t) for t in sorted(textures)) if len(c) > 1]
            if not liveries:
                out.append(name)
                continue
            folders = sorted({p.parent.name for p in max(liveries, key=len)})
            chosen = np.unique(np.linspace(0, len(folders) - 1, LIVERIES).round().astype(int))
            out += [f"{name}@{folders[i]}" for i in chosen]
        return out

    def make(self, name: str) -> SourceObject:
        model, _, livery = name.partition("@")
        path = self.aircraft / model
        textures, parts, used = Textures(), [], [path]
        for mesh in self.meshes(path):
            index = None
            picture = self._livery(self.choices(path, mesh.texture), livery) if mesh.texture else None
            if picture is not None:
                index = textures.add(picture, lambda p=picture: decode_picture(p.read_bytes(), p.name))
                used.append(picture)
            # x aft, y up, z left -> x left, y up, z forward
            vertices = np.stack([mesh.vertices[:, 2], mesh.vertices[:, 1], -mesh.vertices[:, 0]], 1)
            colour: tuple[float, float, float] = (1.0, 1.0, 1.0) if index is not None else mesh.colour
            alpha = textures.alpha(index)
            parts.append(Part(vertices, mesh.faces, top_row_zero(mesh.uvs), index, colour, alpha))
        if not textures.arrays:
            raise LeftOutError("none of its pictures is there")
        kind = model.split("/")[0]
        licence, author = self.copyright.of_all(f"AI/Aircraft/{p.relative_to(self.aircraft).as_posix()}" for p in used)
        return SourceObject(
            source=NAME,
            name=name.replace(".ac", "", 1),
            group=kind,
            parts=parts,
            textures=textures.arrays,
            caption=f"{kind.replace('-', ' ')} aircraft" + (f" of {plain_words(livery).title()}" if livery else ""),
            category="aircraft",
            licence=licence,
            author=author,
        )

    @staticmethod
    def _livery(choices: list[Path], livery: str) -> Path | None:
        fitting = [p for p in choices if p.parent.name == livery]
        return (fitting or choices or [None])[0]


def read(folder: Path) -> Iterator[SourceObject]:
    """Every aircraft under ``folder``. See :mod:`bozzetto.data.sources`."""
    for aircraft in find_trees(folder, "usr/share/games/flightgear/AI/Aircraft"):
        notes = aircraft.parents[3] / "doc/flightgear-data-ai/copyright"
        fleet = _Fleet(aircraft, CopyrightFile.read(notes))
        yield from read_each(NAME, fleet.names(), fleet.make)
