"""0 A.D.: soldiers, animals, ships, buildings, plants and their parts, read from the game's ``public.zip`` in place.

The game's frame is left-handed with y up and fronts towards -z; z is negated here. People and riders stand stiffly in the
bind pose; the first frame of the first clip ("idle" where there is one) is the natural pose.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..assets.source_object import AlphaMode, Clip, Part, SourceObject
from .common import LeftOutError, Textures, decode_picture, find_trees, plain_words, read_each, top_row_zero
from .formats.pyrogenesis import PmdMesh, PsaClip, parse_pmd, parse_psa
from .zeroad_actors import Actor, ActorFiles
from .zeroad_assembly import Node, assemble, pose, skin
from .zeroad_names import ActorName, actor_names

NAME = "zeroad"
LICENCE, AUTHOR = "CC-BY-SA-3.0", "Wildfire Games"
MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])
TEAM_COLOURS = ((0.08, 0.22, 0.58), (0.59, 0.08, 0.08), (0.2, 0.65, 0.02), (0.9, 0.85, 0.12), (0.9, 0.45, 0.05))
TEAM_COLOURS += ((0.1, 0.6, 0.7), (0.6, 0.2, 0.55), (0.85, 0.85, 0.85), (0.25, 0.25, 0.25))
# Ground plans, ruins and effects are no objects.
SKIPPED_NAMES = (
    "fndn_",
    "foundation",
    "destruct",
    "rubble",
    "decal",
    "particle",
    "blood",
    "selection",
    "waypoint",
    "temp/",
)
# Words that mean something to the game's rules only.
INTERNAL_CLASSES = frozenset(
    (
        "Unit",
        "Structure",
        "Organic",
        "ConquestCritical",
        "FastMoving",
        "Resource",
        "City",
        "Town",
        "Village",
        "Economic",
    )
)


def paints_with_colour(material: str) -> bool:
    """Whether the texture's alpha says where the texture shows (1) and where a colour does (0)."""
    return material.startswith(("player", "objectcolor"))


def cuts_holes(material: str) -> bool:
    """Whether the texture's alpha is transparency."""
    return material.startswith(("basic_trans", "trans", "foliage", "alphatest"))


def paint(picture: NDArray[np.uint8], colour: tuple[float, float, float]) -> NDArray[np.uint8]:
    """The picture multiplied with ``colour`` where its alpha is 0, and opaque."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    tint = alpha + (1 - alpha) * np.array(colour, np.float32)
    out = np.full_like(picture, 255)
    out[..., :3] = np.round(picture[..., :3] * tint)
    return out


def keep_used_joints(parts: list[Part]) -> NDArray[np.int64]:
    """Renumber the parts' joints so that only those that move a vertex are left; returns their old numbers."""
    used = np.unique(np.concatenate([part.joints[part.weights > 0] for part in parts]))
    for part in parts:
        part.joints = np.where(part.weights > 0, np.searchsorted(used, part.joints), 0).astype(np.int32)
    return used


class _Archive:
    """The game's files, with what was parsed lately kept."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        self.files = {n.lower(): n for n in self.zip.namelist()}
        self.actors = ActorFiles(lambda p: self.fetch("art/" + p))
        self.names = actor_names(self.fetch, self.files)
        self.mesh = lru_cache(512)(self._mesh)
        self.clip = lru_cache(256)(self._clip)
        self.picture = lru_cache(48)(self._picture)

    def fetch(self, path: str) -> bytes | None:
        name = self.files.get(path.lower())
        return self.zip.read(name) if name is not None else None

    def _mesh(self, path: str) -> PmdMesh | None:
        data = self.fetch(f"art/meshes/{path}.cached.pmd")
        return parse_pmd(data, path) if data is not None else None

    def _clip(self, path: str) -> PsaClip | None:
        data = self.fetch(f"art/animation/{path}.cached.psa")
        return parse_psa(data, path) if data is not None else None

    def _picture(self, path: str) -> NDArray[np.uint8] | None:
        data = self.fetch(f"art/textures/skins/{path}.cached.dds")
        return decode_picture(data, path) if data is not None else None

    def actor_paths(self) -> list[str]:
        """Paths below ``art/actors`` of all actors that may be objects."""
        start = "art/actors/"
        paths = (
            n[len(start) :] for low, n in sorted(self.files.items()) if low.startswith(start) and low.endswith(".xml")
        )
        return [p for p in paths if not any(word in p for word in SKIPPED_NAMES)]

    def make(self, path: str) -> SourceObject:
        """The actor ``path`` with the variants and the team colour that its name draws."""
        seed = zlib.crc32(path.encode())
        rng = np.random.default_rng(seed)
        nodes, joints = assemble(path, lambda p, names: self.actors.draw(p, rng, names), self.mesh)
        if not nodes:
            raise LeftOutError("it has no mesh")
        textures = Textures()
        parts = [self._part(node, textures, TEAM_COLOURS[seed % len(TEAM_COLOURS)]) for node in nodes]
        used = keep_used_joints(parts)
        clips = []
        for name, file in nodes[0].actor.animations:
            posed = pose(nodes, joints, name, file, self.clip)
            if posed is not None:
                matrices = MIRROR @ posed[1][:, used] @ MIRROR
                clips.append(Clip(name, posed[0], matrices=matrices.astype(np.float32)))
        clips.sort(key=lambda clip: clip.name != "idle")
        if not clips:
            for part in parts:
                part.joints = part.weights = None
        name = path[:-4]
        caption, tags = describe(name, self.names.get(path.lower()))
        return SourceObject(
            source=NAME,
            name=name,
            group=nodes[0].actor.mesh.lower(),
            parts=parts,
            textures=textures.arrays,
            clips=clips,
            caption=caption,
            category=name.split("/")[0],
            tags=tags,
            licence=LICENCE,
            author=AUTHOR,
            meshes=tuple(dict.fromkeys(node.actor.mesh.lower() for node in nodes)),
        )

    def _part(self, node: Node, textures: Textures, team: tuple[float, float, float]) -> Part:
        vertices, joints, weights = skin(node)
        vertices[:, 2] *= -1
        index, alpha = self._texture(node.actor, textures, team)
        return Part(
            vertices,
            node.mesh.faces,  # clockwise in the left-handed frame, so the mirror makes them counter-clockwise
            top_row_zero(node.mesh.uvs),
            index,
            (1.0, 1.0, 1.0) if index is not None else (0.6, 0.6, 0.6),
            alpha,
            joints,
            weights,
        )

    def _texture(
        self, actor: Actor, textures: Textures, team: tuple[float, float, float]
    ) -> tuple[int | None, AlphaMode]:
        """Index of the actor's picture, painted if its material says so, and what its alpha means."""
        if not actor.texture:
            return None, "opaque"
        colour = None
        if paints_with_colour(actor.material):
            colour = team if actor.material.startswith("player") else actor.colour or (1.0, 1.0, 1.0)

        def load() -> NDArray[np.uint8] | None:
            picture = self.picture(actor.texture)
            return paint(picture, colour) if picture is not None and colour is not None else picture

        index = textures.add((actor.texture, colour), load)
        return index, textures.alpha(index) if cuts_holes(actor.material) else "opaque"


def describe(path: str, name: ActorName | None) -> tuple[str, tuple[str, ...]]:
    """Caption and tags of an actor: from the game's names, else from its path ("props/units/helmets/pilos_b2").

    A plant's species stands in its second name ("Tree", "Dragon Bamboo"), a building's people in its civilisation.
    """
    *folders, last = path.split("/")
    if name is None:
        words = [w for w in plain_words(last).split() if len(w) > 1 and not w.isdigit()]
        return " ".join(words), tuple(plain_words(f) for f in folders)
    caption = name.generic
    if folders[:1] == ["flora"] and name.specific:
        known = name.generic.lower() in name.specific.lower()
        caption = name.specific if known else f"{name.specific} ({name.generic})"
    elif folders[:1] == ["structures"] and name.civilisation:
        caption = f"{name.generic} of the {name.civilisation}"
    classes = (plain_words(c) for c in name.classes if c not in INTERNAL_CLASSES)
    return caption, tuple(dict.fromkeys(t for t in (name.civilisation, name.specific, *classes) if t))


def read(folder: Path) -> Iterator[SourceObject]:
    """Every actor of the game under ``folder``. See :mod:`bozzetto.data.sources`."""
    for path in find_trees(folder, "usr/share/games/0ad/mods/public/public.zip"):
        archive = _Archive(path)
        yield from read_each(NAME, archive.actor_paths(), archive.make)
