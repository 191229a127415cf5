"""SuperTuxKart: karts with their wheels, the library of scenery, items, and the small parts of tracks.

The game's frame is left-handed with y up and karts facing +z; x is negated here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import MeshError
from ..assets.source_object import AlphaMode, Part, SourceObject
from .common import LeftOutError, Textures, decode_picture, find_trees, flip_winding, plain_words, read_each
from .formats.spm import SpmMesh, parse_spm
from .licences import CopyrightFile

NAME = "supertuxkart"
PICTURES = (".png", ".jpg", ".jpeg")
LARGEST_TRACK_PART = 40.0  # longest side in game units; a kart is about 1.5 long, terrain and sky are larger than this
# Effects, ground, and shapes for collisions only.
SKIPPED_WORDS = ("physic", "collision", "invisible", "sky", "cloud", "water", "halo", "shadow", "particle", "beam")
SKIPPED_WORDS += ("headlight", "_track", "lightning", "glow", "road")
HIDDEN_SHADERS = ("additive", "displace")


def detail(stem: str) -> tuple[str, int]:
    """Name without its level of detail, and a rank: 0 is the finest ("fern_LOD60" -> ("fern", 60))."""
    found = re.search(r"[-_](?:lod[-_]?)?(\d+|high|med|mid|low|verylow)$", stem, re.I)
    if found is None or (found[1].isdigit() and "lod" not in found[0].lower()):
        return stem, 0
    ranks = {"high": 0, "med": 1000, "mid": 1000, "low": 2000, "verylow": 3000}
    return stem[: found.start()], int(found[1]) if found[1].isdigit() else ranks[found[1].lower()]


def finest(stems: list[str]) -> list[str]:
    """Of models in several levels of detail only the finest; the order is kept."""
    best: dict[str, str] = {}
    for stem in stems:
        key, rank = detail(stem)
        if key not in best or rank < detail(best[key])[1]:
            best[key] = stem
    return [stem for stem in stems if best[detail(stem)[0]] == stem]


def _numbers(element: ElementTree.Element, name: str, default: str) -> NDArray[np.float64]:
    return np.array((element.get(name) or default).split(), np.float64)


def placement(element: ElementTree.Element) -> NDArray[np.float64]:
    """[4, 4] of an XML element's xyz, hpr (degrees about x, then y, then z) and scale, in the game's frame."""
    x, y, z = np.radians(_numbers(element, "hpr", "0 0 0"))
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3] = rz @ ry @ rx @ np.diag(_numbers(element, "scale", "1 1 1"))
    out[:3, 3] = _numbers(element, "xyz", "0 0 0")
    return out


def scene_models(root: ElementTree.Element) -> list[tuple[str, NDArray[np.float64]]]:
    """Visible models of a library node's scene with their places; of each level-of-detail group the nearest one."""
    groups = {}
    for group in root.iterfind("lod/group"):
        models = [e for e in group if e.get("model")]
        if models:
            groups[group.get("name")] = min(models, key=lambda e: float(e.get("lod_distance") or 0)).get("model")
    out = []
    for element in root:
        if element.tag not in ("object", "static-object", "track") or element.get("interaction") == "physicsonly":
            continue
        model = groups.get(element.get("lod_group"), element.get("model"))
        if model and model.endswith(".spm"):
            out.append((model, placement(element)))
    return out


class _Game:
    """The game's data folder."""

    def __init__(self, data: Path, copyright_file: CopyrightFile) -> None:
        self.data, self.copyright = data, copyright_file
        self.pictures: dict[str, list[Path]] = {}
        for path in sorted(data.rglob("*")):
            if path.suffix.lower() in PICTURES:
                self.pictures.setdefault(path.name.lower(), []).append(path)
        self.materials = lru_cache(256)(self._materials)

    def _materials(self, folder: Path) -> dict[str, dict[str, str]]:
        """Attributes of the materials described in a folder, by the picture's name in lower case."""
        try:
            root = ElementTree.parse(folder / "materials.xml").getroot()
        except (OSError, ElementTree.ParseError):
            return {}
        return {(e.get("name") or "").lower(): dict(e.attrib) for e in root.iter("material")}

    def material(self, picture: str, folder: Path) -> dict[str, str]:
        """What is known about ``picture`` in ``folder`` or for the whole game."""
        key = picture.lower()
        return self.materials(folder).get(key) or self.materials(self.data / "textures").get(key) or {}

    def picture_path(self, name: str, folder: Path) -> Path | None:
        """The picture of that name that is nearest to ``folder``; the shared ones come before other folders'."""
        found = self.pictures.get(name.lower(), [])
        near = [p for p in found if p.parent == folder] or [p for p in found if p.parent.name == "textures"]
        return (near or found or [None])[0]

    def picture(self, path: Path, mask: str | None) -> NDArray[np.uint8]:
        out = decode_picture(path.read_bytes(), path.name)
        other = self.picture_path(mask, path.parent) if mask else None
        if other is not None:
            from PIL import Image

            cut = Image.fromarray(decode_picture(other.read_bytes(), mask or "")).convert("L")
            out[..., 3] = np.array(cut.resize(out.shape[1::-1]))
        return out

    def parts(self, path: Path, place: NDArray[np.float64], textures: Textures, used: dict[Path, None]) -> list[Part]:
        """Parts of one .spm file at ``place``; the files read are added to ``used``."""
        used[path] = None
        made = (self._part(m, path.parent, place, textures, used) for m in parse_spm(path.read_bytes(), path.name))
        return [part for part in made if part is not None]

    def _part(
        self, mesh: SpmMesh, folder: Path, place: NDArray[np.float64], textures: Textures, used: dict[Path, None]
    ) -> Part | None:
        material = self.material(mesh.texture, folder) if mesh.texture else {}
        shader = material.get("shader", "")
        if shader in HIDDEN_SHADERS or not len(mesh.faces):
            return None
        index, alpha = None, "opaque"
        path = self.picture_path(mesh.texture, folder) if mesh.texture else None
        if path is not None:
            index = textures.add(path, lambda: self.picture(path, material.get("mask")))
            used[path] = None
            if index is not None and shader in ("alphatest", "grass", "alphablend", "unlit"):
                alpha: AlphaMode = textures.alpha(index)
        vertices = mesh.vertices @ place[:3, :3].T + place[:3, 3]
        vertices[:, 0] *= -1
        colour = (1.0, 1.0, 1.0) if index is not None else mesh.colour
        return Part(vertices.astype(np.float32), flip_winding(mesh.faces), mesh.uvs, index, colour, alpha)

    def build(
        self, name: str, category: str, group: str, models: list[tuple[Path, NDArray]], words: str
    ) -> SourceObject:
        """One object of several .spm files; its licence is that of every file it uses."""
        textures, used = Textures(), {}
        parts = [p for path, place in models for p in self.parts(path, place, textures, used)]
        licence, authors = self.copyright.of_all("data/" + p.relative_to(self.data).as_posix() for p in used)
        return SourceObject(
            source=NAME,
            name=name,
            group=group,
            parts=parts,
            textures=textures.arrays,
            caption=words,
            category=category,
            licence=licence,
            author=authors,
        )

    def names(self) -> list[str]:
        """Objects as paths: a folder for a kart or library node, a file without its ending for the rest."""
        out = [f"karts/{p.parent.name}" for p in sorted(self.data.glob("karts/*/kart.xml"))]
        library = sorted(self.data.glob("library/*/node.xml"))
        out += [f"library/{p.parent.name}" for p in library if not p.parent.name.startswith(("gfx_", "meta_"))]
        for folder in (self.data / "models", *sorted(self.data.glob("tracks/*"))):
            stems = [p.stem for p in sorted(folder.glob("*.spm"))]
            stems = [s for s in stems if not any(word in s.lower() for word in SKIPPED_WORDS)]
            out += [(folder.relative_to(self.data) / stem).as_posix() for stem in finest(stems)]
        return out

    def make(self, name: str) -> SourceObject:
        path = self.data / name
        kind = name.split("/")[0]
        if kind == "karts":
            return self._kart(name)
        if kind == "library":
            models = scene_models(ElementTree.parse(path / "node.xml").getroot())
            models = [(path / m, place) for m, place in models if not any(w in m.lower() for w in SKIPPED_WORDS)]
            models = [(p, place) for p, place in models if p.exists()]
            words = re.sub(r"^(stklib|stk|hd) | [a-z]$", "", plain_words(path.name))
            return self.build(name, "library", re.sub(r"_[a-z]$", "", name), models, words)
        words = re.sub(r"[.\d]+$| \d+$", "", plain_words(detail(path.name)[0])).strip()
        obj = self.build(name, kind, path.name.lower(), [(path.with_name(path.name + ".spm"), np.eye(4))], words)
        if kind == "tracks" and obj.parts:
            points = np.concatenate([p.vertices for p in obj.parts])
            if float(np.ptp(points, axis=0).max()) > LARGEST_TRACK_PART:
                raise LeftOutError("it is as large as a landscape")
        return obj

    def _kart(self, name: str) -> SourceObject:
        """A kart with its driver and its four wheels."""
        folder = self.data / name
        root = ElementTree.parse(folder / "kart.xml").getroot()
        model = root.get("model-file")
        if not model:
            raise MeshError("kart.xml names no model")
        models = [(folder / model, np.eye(4))]
        for wheel in root.find("wheels") if root.find("wheels") is not None else ():
            place = np.eye(4)
            place[:3, 3] = _numbers(wheel, "position", "0 0 0")
            if (folder / (wheel.get("model") or "")).is_file():
                models.append((folder / wheel.get("model", ""), place))
        return self.build(name, "karts", name, models, f"{root.get('name')} in a racing kart")


def read(folder: Path) -> Iterator[SourceObject]:
    """Karts, library, items and small track parts under ``folder``. See :mod:`bozzetto.data.sources`."""
    for data in find_trees(folder, "usr/share/games/supertuxkart/data"):
        notes = data.parents[2] / "doc/supertuxkart-data/copyright"
        game = _Game(data, CopyrightFile.read(notes))
        yield from read_each(NAME, game.names(), game.make)
