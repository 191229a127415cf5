"""OpenArena's players: legs, torso and head as .md3 models joined at tags, with the game's standard clips.

A character comes once for each of its skins; all skins of a character are one group.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    z_up_to_y_up,
)
from .formats.md3 import Md3Model, parse_md3
from .licences import CopyrightFile

NAME = "openarena"
PLAYERS = "models/players/"
# In the order of animation.cfg. "both" clips drive legs and torso, the others leave the other half standing.
CLIPS = ("both death", "both dead", "both death", "both dead", "both death", "both dead", "torso gesture")
CLIPS += ("torso attack", "torso melee attack", "torso drop weapon", "torso raise weapon", "torso stand")
CLIPS += ("torso stand", "legs crouched walk", "legs walk", "legs run", "legs run backwards", "legs swim")
CLIPS += ("legs jump", "legs land", "legs jump backwards", "legs land backwards", "legs idle", "legs crouched idle")
CLIPS += ("legs turn",)
TORSO_GESTURE, TORSO_STAND, LEGS_FIRST, LEGS_IDLE = 6, 11, 13, 22


def parse_animations(text: str) -> list[tuple[int, int, float]]:
    """(first frame, number of frames, frames per second) of animation.cfg's lines.

    The legs' own clips are stored as if the torso's frames stood before them; that is taken back here.
    """
    rows = []
    for line in text.splitlines():
        words = line.split("//")[0].split()
        if len(words) >= 4 and all(re.fullmatch(r"-?\d+(\.\d*)?", w) for w in words[:4]):
            rows.append((int(float(words[0])), abs(int(float(words[1]))), float(words[3]) or 15.0))
    if len(rows) > LEGS_FIRST:
        shift = rows[LEGS_FIRST][0] - rows[TORSO_GESTURE][0]
        rows[LEGS_FIRST:] = [(first - shift, count, fps) for first, count, fps in rows[LEGS_FIRST:]]
    for i in range(LEGS_FIRST + 1, len(rows) - 1):
        # Some files let a clip start inside the one before it although there is room for it behind.
        before, (first, count, fps), after = rows[i - 1], rows[i], rows[i + 1]
        end = before[0] + before[1]
        if before[0] < first < end and end + count <= after[0]:
            rows[i] = (end, count, fps)
    return rows


def parse_skin(text: str) -> dict[str, str]:
    """Surface name in lower case -> shader or picture, of a .skin file."""
    rows = (line.split(",", 1) for line in text.splitlines() if "," in line)
    return {name.strip().lower(): picture.strip().strip('"') for name, picture in rows}


@dataclass
class Shader:
    """What a shader script says of a surface: its main picture, and whether that picture's alpha cuts holes."""

    picture: str = ""
    cuts: bool = False


def parse_shaders(text: str) -> dict[str, Shader]:
    """Shader name in lower case -> :class:`Shader`, from the first stage of each that is no effect."""
    out: dict[str, Shader] = {}
    shader, depth = Shader(), 0
    for line in text.splitlines():
        words = line.split("//")[0].lower().split()
        if not words:
            continue
        if words[0] in ("{", "}"):
            depth += 1 if words[0] == "{" else -1
        elif depth == 0:
            shader = out.setdefault(words[0], Shader())
        elif depth == 2 and words[0] == "alphafunc":
            shader.cuts = True
        elif depth == 2 and words[0] in ("map", "clampmap") and len(words) > 1 and not shader.picture:
            effect = words[1].startswith("$") or re.search(r"env|shin|spec|fx|effects", words[1])
            shader.picture = "" if effect else words[1]
    return out


class _Game:
    def __init__(self, archives: list[Path], copyright_file: CopyrightFile) -> None:
        self.files = Archives(archives)
        self.copyright = copyright_file
        self.model = lru_cache(24)(self._model)
        self.shaders: dict[str, Shader] = {}
        for name in self.files.names(".shader"):
            self.shaders.update(parse_shaders((self.files.fetch(name) or b"").decode("latin-1")))

    def _model(self, path: str) -> Md3Model:
        data = self.files.fetch(path)
        if data is None:
            raise LeftOutError(f"{posixpath.basename(path)} is in no package")
        return parse_md3(data, path)

    def names(self) -> list[str]:
        """character/skin for every character that has legs."""
        out = []
        for legs in self.files.names("/lower.md3"):
            folder = posixpath.dirname(legs)
            if folder.startswith(PLAYERS) and folder.count("/") == 2:
                skins = [n for n in self.files.names(".skin") if n.startswith(f"{folder}/lower_")]
                out += [f"{folder[len(PLAYERS) :]}/{posixpath.basename(n)[6:-5]}" for n in skins]
        return out

    def _picture(self, name: str) -> tuple[str, bytes, bool] | None:
        """Path, bytes and whether alpha cuts holes, of a skin's entry: a picture, or a shader that names one."""
        shader = self.shaders.get(name.lower()) or self.shaders.get(posixpath.splitext(name)[0].lower()) or Shader()
        found = self.files.picture(name) or (self.files.picture(shader.picture) if shader.picture else None)
        return (*found, shader.cuts) if found else None

    def make(self, name: str) -> SourceObject:
        character, skin = name.split("/")
        folder = PLAYERS + character
        models = [self.model(f"{folder}/{part}.md3") for part in ("lower", "upper", "head")]
        config = (self.files.fetch(f"{folder}/animation.cfg") or b"").decode("latin-1")
        animations = parse_animations(config)
        textures, parts, surfaces, used = Textures(), [], [], [f"{folder}/lower.md3"]
        for number, (part, model) in enumerate(zip(("lower", "upper", "head"), models)):
            text = self.files.fetch(f"{folder}/{part}_{skin}.skin") or self.files.fetch(f"{folder}/{part}_default.skin")
            pictures = parse_skin((text or b"").decode("latin-1"))
            for surface in model.surfaces:
                shader = pictures.get(surface.name.lower(), surface.shaders[0] if surface.shaders else "")
                found = self._picture(shader) if shader and "nodraw" not in shader else None
                if found is None or not len(surface.faces):
                    continue  # an effect, or nothing to show
                path, data, cuts = found
                index = textures.add(path, lambda d=data, p=path: decode_picture(d, p))
                used.append(path)
                parts.append(
                    Part(
                        np.zeros((surface.frames.shape[1], 3), np.float32),
                        flip_winding(surface.faces),
                        surface.uvs,
                        index,
                        alpha=textures.alpha(index) if cuts else "opaque",
                    )
                )
                surfaces.append((number, surface))

        if not any(number == 0 for number, _ in surfaces):
            raise LeftOutError("the skin's pictures are in no package")

        def pose(legs: NDArray, torso: NDArray) -> list[NDArray[np.float32]]:
            """[T, V, 3] of every part with the legs' and the torso's frames [T]."""
            legs, torso = np.clip(legs, 0, models[0].frames - 1), np.clip(torso, 0, models[1].frames - 1)
            stands = np.tile(np.eye(4), (len(legs), 1, 1))
            places = [stands]
            for model, tag, frames in ((models[0], "tag_torso", legs), (models[1], "tag_head", torso)):
                stands = stands @ model.tags[tag][frames] if tag in model.tags else stands
                places.append(stands)
            chosen = [legs, torso, np.zeros_like(legs)]
            out = []
            for number, surface in surfaces:
                points = surface.frames[np.minimum(chosen[number], len(surface.frames) - 1)]
                moved = points @ places[number][:, :3, :3].transpose(0, 2, 1) + places[number][:, None, :3, 3]
                out.append(z_up_to_y_up(moved))
            return out

        still = [animations[i][0] if i < len(animations) else 0 for i in (LEGS_IDLE, TORSO_STAND)]
        for part, points in zip(parts, pose(np.array(still[:1]), np.array(still[1:]))):
            part.vertices = points[0]
        licence, authors = self.copyright.of_all("baseoa/" + path for path in used)
        return SourceObject(
            source=NAME,
            name=name,
            group=character,
            parts=parts,
            textures=textures.arrays,
            clips=_clips(animations, pose),
            caption=plain_words(character),
            category="players",
            tags=() if skin == "default" else (plain_words(skin),),
            licence=licence,
            author=authors,
        )


def _clips(animations: list[tuple[int, int, float]], pose) -> list[Clip]:
    """The standard clips that move: the half that a clip does not drive idles (legs) or stands (torso)."""
    out = []
    for number, (first, count, fps) in enumerate(animations[: len(CLIPS)]):
        kind, _, verb = CLIPS[number].partition(" ")
        if count < 2 or len(animations) <= LEGS_IDLE:
            continue
        frames = first + np.arange(count)
        if kind == "torso":
            start, length, idle = animations[LEGS_IDLE]
            legs = start + np.floor(np.arange(count) / fps * idle).astype(int) % max(length, 1)
            out.append(Clip(verb, fps, positions=pose(legs, frames)))
        elif kind == "legs":
            out.append(Clip(verb, fps, positions=pose(frames, np.full(count, animations[TORSO_STAND][0]))))
        else:
            out.append(Clip(verb, fps, positions=pose(frames, frames)))
    return sorted(out, key=lambda clip: clip.name != "idle")


def read(folder: Path) -> Iterator[SourceObject]:
    """Every character in every skin under ``folder``. See :mod:`bozzetto.data.sources`."""
    trees = find_trees(folder, "usr/share/games/openarena/baseoa")
    archives = sorted((p for tree in trees for p in tree.glob("*.pk3")), key=lambda p: p.name)
    notes = next((n for tree in trees for n in sorted(tree.parents[2].glob("doc/openarena-*/copyright"))), Path("none"))
    game = _Game(archives, CopyrightFile.read(notes))
    yield from read_each(NAME, game.names(), game.make)
