"""UFO: Alien Invasion: things, plants, vehicles, weapons, craft and creatures as .md2 models.

Heads and bodies of people are separate files, to be put together by the game; they are left out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..assets.source_object import Clip, Part, SourceObject
from .common import (
    Archives,
    LeftOutError,
    Textures,
    decode_picture,
    find_trees,
    flip_winding,
    plain_words,
    read_each,
    weld,
    z_up_to_y_up,
)
from .formats.md2 import Md2Mesh, parse_md2
from .licences import CopyrightFile

NAME = "ufoai"
PEOPLE = ("models/soldiers/female", "models/soldiers/male", "models/civilians/", "models/pilots/")
HEADS = re.compile(r"/(\w*head\d*\w*)\.md2$")


def parse_clips(text: str) -> list[tuple[str, int, int, float]]:
    """(name, first frame, last frame, frames per second) of an .anm file; frames that are named twice come once."""
    out, seen = [], set()
    for line in text.splitlines():
        words = line.split("//")[0].split()
        if len(words) < 4 or not all(re.fullmatch(r"-?[\d.]+", w) for w in words[1:4]):
            continue
        first, last, fps = int(float(words[1])), int(float(words[2])), float(words[3])
        if (first, last) not in seen and last > first >= 0 and fps > 0:
            seen.add((first, last))
            out.append((words[0].rstrip("0123456789").replace("_", " "), first, last, fps))
    return out


class _Game:
    def __init__(self, archive: Path, copyright_file: CopyrightFile) -> None:
        self.files = Archives([archive])
        self.copyright = copyright_file

    def names(self) -> list[str]:
        """Models without the parts of people."""
        models = [n for n in self.files.names(".md2") if not n.startswith(PEOPLE)]
        return [n for n in models if not HEADS.search(n)]

    def _skin(self, model: str, mesh: Md2Mesh) -> tuple[str, bytes] | None:
        """The picture that the model names: absolute, beside it (".name"), or called as the model itself."""
        folder = posixpath.dirname(model)
        for skin in mesh.skins:
            skin = skin.replace("\\", "/")
            if skin.startswith("."):
                skin = posixpath.join(folder, skin.lstrip("./"))
            for candidate in (skin, posixpath.join("models", skin), posixpath.join(folder, posixpath.basename(skin))):
                if found := self.files.picture(candidate):
                    return found
        return self.files.picture(posixpath.splitext(model)[0])

    def make(self, name: str) -> SourceObject:
        mesh = parse_md2(self.files.fetch(name) or b"", name)
        if not len(mesh.frames):
            raise LeftOutError("it has no frame")
        keys = np.stack([mesh.faces, mesh.uv_faces], axis=-1).reshape(-1, 2)  # [F, 3, 2] -> [3 F, 2]
        faces, (first,) = weld(keys, keys)
        textures = Textures()
        skin, used = self._skin(name, mesh), [name]
        index = None
        if skin is not None:
            index = textures.add(skin[0], lambda: decode_picture(skin[1], skin[0]))
            used.append(skin[0])
        part = Part(
            z_up_to_y_up(mesh.frames[0])[first[:, 0]],
            flip_winding(faces),
            mesh.uvs[first[:, 1]],
            index,
            (1.0, 1.0, 1.0) if index is not None else (0.7, 0.7, 0.7),
            textures.alpha(index),
        )
        licence, author = self.copyright.of_all("base/" + self.files.original(path) for path in used)
        folders = name.split("/")[1:-1]
        stem = posixpath.splitext(posixpath.basename(name))[0]
        words = plain_words(stem if folders[0] == "objects" else f"{folders[-1]} {stem}").split()
        words = [w for w in dict.fromkeys(words) if not w.isdigit() and w not in ("body", "lrg") and len(w) > 1]
        return SourceObject(
            source=NAME,
            name=posixpath.splitext(name)[0],
            group=posixpath.dirname(name),
            parts=[part],
            textures=textures.arrays,
            clips=self._clips(name, mesh, first[:, 0]),
            caption=" ".join(words),
            category=folders[0],
            tags=tuple(plain_words(f) for f in folders[1:]),
            licence=licence,
            author=author,
        )

    def _clips(self, name: str, mesh: Md2Mesh, vertices: np.ndarray) -> list[Clip]:
        described = self.files.fetch(posixpath.splitext(name)[0] + ".anm")
        out = []
        for verb, start, end, fps in parse_clips(described.decode("latin-1")) if described else ():
            if end < len(mesh.frames):
                frames = z_up_to_y_up(mesh.frames[start : end + 1])[:, vertices]
                if np.abs(frames - frames[0]).max() > 1e-3 * np.abs(frames[0]).max():
                    out.append(Clip(verb, fps, positions=[frames]))
        return sorted(out, key=lambda clip: clip.name != "stand")


def read(folder: Path) -> Iterator[SourceObject]:
    """Every model under ``folder`` but the parts of people. See :mod:`bozzetto.data.sources`."""
    for archive in find_trees(folder, "usr/share/games/ufoai/base/0models.pk3"):
        notes = archive.parents[3] / "doc/ufoai-data/copyright"
        game = _Game(archive, CopyrightFile.read(notes))
        yield from read_each(NAME, game.names(), game.make)
