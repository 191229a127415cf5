"""MegaGlest: units, buildings and scenery. Each action of a unit is a file of its own; those that move the same mesh become
clips of one object. Right-handed, y up, fronts towards +z as they are.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import MeshError
from ..assets.source_object import Clip, Part, SourceObject
from .common import Textures, decode_picture, find_trees, log, plain_words, read_each, top_row_zero
from .formats.g3d import G3dMesh, parse_g3d

NAME = "megaglest"
LICENCE, AUTHOR = "CC-BY-SA-3.0", "The Glest Team; The MegaGlest Team"
TEAM_COLOURS = ((0.75, 0.1, 0.1), (0.15, 0.25, 0.8), (0.1, 0.55, 0.15), (0.85, 0.8, 0.1), (0.85, 0.85, 0.85))
TEAM_COLOURS += ((0.85, 0.45, 0.1), (0.1, 0.65, 0.7), (0.55, 0.2, 0.6))
CALM = ("standing", "idle", "stand", "stop", "model")


def team_painted(picture: NDArray[np.uint8], colour: tuple[float, float, float]) -> NDArray[np.uint8]:
    """``colour`` behind the picture where its alpha is low; opaque."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    out = np.full_like(picture, 255)
    out[..., :3] = np.round(picture[..., :3] * alpha + np.array(colour, np.float32) * 255 * (1 - alpha))
    return out


def shape_of(meshes: list[G3dMesh]) -> str:
    """Equal for files that hold the same triangles with the same textures, whatever their frames."""
    digest = hashlib.sha256()
    for mesh in meshes:
        digest.update(f"{mesh.frames.shape[1]} {mesh.texture}".encode())
        digest.update(mesh.faces.tobytes())
        digest.update(b"" if mesh.uvs is None else mesh.uvs.tobytes())
    return digest.hexdigest()


def action_of(stem: str, unit: str) -> str:
    """The verb in a file's name: what is left without the words of the unit ("spearman_walking" -> "walking")."""
    words = plain_words(stem).split()
    left = [w for w in words if w not in plain_words(unit).split() and not w.isdigit()]
    return " ".join(left[-2:]) or words[-1]


def flies_apart(positions: list[NDArray]) -> bool:
    """Whether [T, V, 3] of all parts grow to more than 2.5 times the first frame's extent."""
    points = np.concatenate(positions, axis=1)
    size = np.linalg.norm(np.ptp(points, axis=1), axis=-1)  # [T]
    return bool(size.max() > 2.5 * max(float(size[0]), 1e-9))


@lru_cache(64)
def _speeds(xml: Path) -> dict[str, float]:
    """Cycles per second of each animation file that a unit's description names (anim-speed 100 is one cycle a second)."""
    try:
        root = ElementTree.parse(xml).getroot()
    except (OSError, ElementTree.ParseError):
        return {}
    out = {}
    for skill in root.iter("skill"):
        speed, animations = skill.find("anim-speed"), skill.iter("animation")
        value = float(speed.get("value") or 100) if speed is not None else 100.0
        for animation in animations:
            out.setdefault((animation.get("path") or "").rsplit("/", 1)[-1], max(value, 5.0) / 100)
    return out


class _Unit:
    """The .g3d files of one folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.path = folder.relative_to(root)
        # .../units/spearman/models -> the unit is "spearman"; a tileset's models are all of one folder.
        self.unit = folder.parent if "model" in folder.name else folder
        self.group = self.unit.relative_to(root).as_posix()
        shapes: dict[str, list[tuple[str, list[G3dMesh]]]] = {}
        for path in sorted(folder.glob("*.g3d")):
            try:
                meshes = [m for m in parse_g3d(path.read_bytes(), path.name) if len(m.faces) and m.opacity >= 0.15]
            except MeshError as problem:
                log.warning("%s: %s cannot be read: %s", NAME, path.relative_to(root), problem)
                continue
            if meshes:
                shapes.setdefault(shape_of(meshes), []).append((path.stem, meshes))
            else:
                log.info("%s: %s left out: it has no triangles", NAME, path.relative_to(root))
        self.objects = {}
        for files in shapes.values():
            files.sort(key=lambda f: (not any(word in f[0].lower() for word in CALM), f[0]))
            self.objects[f"{self.path.as_posix()}/{files[0][0]}"] = files

    def make(self, name: str) -> SourceObject:
        files = self.objects[name]
        colour = TEAM_COLOURS[zlib.crc32(self.group.encode()) % len(TEAM_COLOURS)]
        textures = Textures()
        parts = [self._part(mesh, textures, colour) for mesh in files[0][1]]
        kind = self.path.parts[0]
        group, words = self.group, plain_words(self.unit.name)
        if kind == "tilesets":
            words = plain_words(files[0][0]).rstrip("0123456789 ")
        elif "factions" in self.path.parts:
            words = f"{plain_words(self.path.parts[self.path.parts.index('factions') + 1])} {words}"
        return SourceObject(
            source=NAME,
            name=name,
            group=group,
            parts=parts,
            textures=textures.arrays,
            clips=self._clips(files),
            caption=words,
            category="scenery" if kind == "tilesets" else "unit" if "units" in self.path.parts else "effect",
            tags=tuple(plain_words(p) for p in self.path.parts[1:-1] if p not in ("factions", "units")),
            licence=LICENCE,
            author=AUTHOR,
        )

    def _clips(self, files: list[tuple[str, list[G3dMesh]]]) -> list[Clip]:
        """Every file with more than one frame; meshes with fewer frames stand still."""
        speeds = _speeds(self.unit / f"{self.unit.name}.xml")
        out = []
        for stem, meshes in files:
            count = max(len(mesh.frames) for mesh in meshes)
            if count < 2:
                continue
            positions = [
                mesh.frames if len(mesh.frames) == count else np.repeat(mesh.frames[:1], count, 0) for mesh in meshes
            ]
            if flies_apart(positions):
                log.info("%s: clip %s/%s left out: the figure bursts into pieces", NAME, self.path, stem)
                continue
            fps = (count - 1) * speeds.get(f"{stem}.g3d", 1.0)
            out.append(Clip(action_of(stem, self.unit.name), fps, positions=[np.array(p) for p in positions]))
        return out

    def _part(self, mesh: G3dMesh, textures: Textures, colour: tuple[float, float, float]) -> Part:
        index, uvs = None, None
        if mesh.uvs is not None and mesh.texture:
            uvs, path = top_row_zero(mesh.uvs), self.folder / mesh.texture

            def load() -> NDArray[np.uint8] | None:
                if not path.is_file():
                    return None
                picture = decode_picture(path.read_bytes(), path.name)
                return team_painted(picture, colour) if team else picture

            # Trees and stones belong to nobody: where they have the flag, the game still cuts out by alpha.
            team = mesh.team and self.path.parts[0] != "tilesets"
            index = textures.add((mesh.texture, team), load)
        return Part(
            np.array(mesh.frames[0]),
            mesh.faces,
            uvs,
            index,
            (1.0, 1.0, 1.0) if index is not None else tuple(min(max(float(c), 0.0), 1.0) for c in mesh.colour),
            textures.alpha(index),
        )


def read(folder: Path) -> Iterator[SourceObject]:
    """Units and scenery under ``folder``, one object for each different mesh. See :mod:`bozzetto.data.sources`."""
    for root in find_trees(folder, "usr/share/games/megaglest"):
        for inside in sorted({p.parent for p in root.rglob("*.g3d")}):
            unit = _Unit(root, inside)
            yield from read_each(NAME, unit.objects, unit.make)
