"""Users' own folders of meshes, and those that the downloaders of public collections leave behind.

* plain: every mesh file below the folder is an object. Its caption is the first line of a ``.txt`` file of the same name
  beside it, else its file name (or its folder's, where the file is called "model" or the like).
* objaverse: ``glbs/000-023/<uid>.glb`` with ``metadata/000-023.json.gz`` beside ``glbs``: name, tags, licence and author.
* gso: ``<Name>/meshes/model.obj`` with ``<Name>/materials/textures/texture.png`` and ``metadata.pbtxt``, or ``<Name>.zip`` of
  the same; z up, CC-BY-4.0.
* abo (Amazon Berkeley Objects): ``3dmodels/original/<last letter>/<id>.glb``, ``listings/metadata/listings_*.json.gz`` beside
  ``3dmodels`` for names and kinds of products; the licence is what a file ``LICENSE-...txt`` there says.
* omniobject3d: ``<category>/<category>_001/Scan/Scan.obj`` (in any folder, ``raw_scans`` for one), its texture beside it;
  CC-BY-4.0.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np

from ...errors import InputError, MeshError
from .mesh_files import SUFFIXES, opened_archive, read_mesh_file, read_zipped_obj
from .source_object import SourceObject

KINDS = ("plain", "objaverse", "gso", "abo", "omniobject3d")
_GSO_MESH = "meshes/model.obj"
_NO_NAMES = {
    "model",
    "mesh",
    "scene",
    "object",
    "textured",
    "textured_simple",
    "untitled",
    "output",
    "normalized_model",
}
_LICENCES = {
    "by": "CC-BY-4.0",
    "by-sa": "CC-BY-SA-4.0",
    "by-nd": "CC-BY-ND-4.0",
    "by-nc": "CC-BY-NC-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0",
    "by-nc-nd": "CC-BY-NC-ND-4.0",
    "cc0": "CC0-1.0",
}


@dataclass(frozen=True)
class FileTask:
    """One object of a user's folder, not read yet.

    Attributes:
        path: the mesh file, or the archive that holds it. member: its name in the archive, or "".
        up: "y" or "z", the axis of the file that points up.
        metadata: Objaverse's file about this object, or None.
    """

    path: Path
    source: str
    name: str
    up: str = "y"
    licence: str = ""
    author: str = ""
    caption: str = ""
    category: str = ""
    member: str = ""
    metadata: Path | None = None

    def load(self) -> SourceObject:
        """Read the object. Raises :class:`bozzetto.errors.MeshError`, or :class:`MissingDependencyError`."""
        if self.member:
            obj = read_zipped_obj(self.path, self.member, self.source, self.name)
        else:
            obj = read_mesh_file(self.path, self.source, self.name)
        if self.up == "z":
            obj = z_up(obj)
        obj = replace(
            obj,
            caption=self.caption or obj.caption,
            category=self.category,
            licence=self.licence or obj.licence,
            author=self.author or obj.author,
        )
        if self.metadata is not None:
            obj = _with_objaverse(obj, _objaverse_metadata(self.metadata).get(self.path.stem, {}))
        return obj


def z_up(obj: SourceObject) -> SourceObject:
    """An object whose z axis points up and whose front looks along -y (Blender's habit), turned to y up, front +z."""
    turn = np.eye(4, dtype=np.float32)
    turn[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    parts = [replace(p, vertices=p.vertices @ turn[:3, :3].T) for p in obj.parts]
    clips = []
    for clip in obj.clips:
        if clip.positions is not None:
            clips.append(replace(clip, positions=[p @ turn[:3, :3].T for p in clip.positions]))
        else:
            clips.append(replace(clip, matrices=turn @ clip.matrices @ turn.T))
    return replace(obj, parts=parts, clips=clips)


def detect_kind(folder: Path) -> str:
    """Which of :data:`KINDS` a folder is laid out as."""
    if any(folder.glob("glbs/*/*.glb")) or any(folder.glob("*/glbs/*/*.glb")):
        return "objaverse"
    if any(folder.glob(f"*/{_GSO_MESH}")):
        return "gso"
    if any(folder.glob("3dmodels/original/*/*.glb")):
        return "abo"
    if any(any(folder.glob(f"{'*/' * depth}Scan/Scan.obj")) for depth in (1, 2, 3, 4)):
        return "omniobject3d"
    for archive in sorted(folder.glob("*.zip"))[:3]:
        with suppress(MeshError), opened_archive(archive) as opened:
            if _gso_member(opened):
                return "gso"
    return "plain"


def find_objects(
    folder: str | PathLike[str],
    source: str = "",
    *,
    kind: str = "auto",
    up: str = "",
    licence: str = "",
    author: str = "",
) -> list[FileTask]:
    """The objects of a folder, sorted by name; nothing is read yet.

    Args:
        source: what to call the collection; the folder's name by default.
        kind: "auto" or one of :data:`KINDS`.
        up: "y" or "z"; by default y, and z for .stl files and Google Scanned Objects.
        licence, author: of objects that state none.

    Raises:
        InputError: the folder does not exist or holds no meshes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    source = source or source_name(folder)
    kind = detect_kind(folder) if kind == "auto" else kind
    from .benchmark_folders import abo_tasks, omni_tasks

    readers = {"plain": _plain, "objaverse": _objaverse, "gso": _gso, "abo": abo_tasks, "omniobject3d": omni_tasks}
    tasks = readers[kind](folder, source)
    if not tasks:
        wanted = {
            "plain": ", ".join(SUFFIXES),
            "objaverse": "glbs/*/*.glb",
            "gso": "*/meshes/model.obj",
            "abo": "3dmodels/original/*/*.glb",
            "omniobject3d": "*/*/Scan/Scan.obj",
        }[kind]
        raise InputError(f"{folder} holds no objects ({wanted})")
    return [
        replace(t, up=up or t.up, licence=t.licence or licence, author=t.author or author)
        for t in sorted(tasks, key=lambda t: t.name)
    ]


def source_name(folder: Path) -> str:
    """A folder's name as the name of a collection."""
    return re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_") or "objects"


def _words(name: str) -> str:
    from ..sources.common import plain_words

    return plain_words(name)


def _plain(folder: Path, source: str) -> list[FileTask]:
    out = []
    for path in folder.rglob("*"):
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES or not path.is_file() or path.name.startswith("."):
            continue
        inside = path.relative_to(folder)
        stem = path.stem if path.stem.lower() not in _NO_NAMES or path.parent == folder else path.parent.name
        caption = _words(stem) if re.search(r"[A-Za-z]{3}", stem) and not re.fullmatch(r"[0-9a-f]{12,}", stem) else ""
        said = path.with_suffix(".txt")
        if said.is_file():
            lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            caption = lines[0][:500] if lines else caption
        category = inside.parent.parts[0] if len(inside.parts) > 1 and inside.parent.name != stem else ""
        out.append(
            FileTask(
                path, source, inside.as_posix(), "z" if suffix == ".stl" else "y", caption=caption, category=category
            )
        )
    return out


def _objaverse(folder: Path, source: str) -> list[FileTask]:
    files = sorted(folder.glob("glbs/*/*.glb")) or sorted(folder.glob("*/glbs/*/*.glb"))
    out = []
    for path in files:
        metadata = path.parent.parent.parent / "metadata" / f"{path.parent.name}.json.gz"
        out.append(
            FileTask(path, source, f"{path.parent.name}/{path.stem}", metadata=metadata if metadata.is_file() else None)
        )
    return out


@lru_cache(2)
def _objaverse_metadata(path: Path) -> dict:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, EOFError) as problem:
        raise InputError(f"{path} cannot be read: {problem}; download it again") from problem


def _with_objaverse(obj: SourceObject, entry: dict) -> SourceObject:
    licence = str(entry.get("license") or "")
    user = entry.get("user") or {}
    categories = [c.get("name", "") for c in entry.get("categories") or () if isinstance(c, dict)]
    tags = [t.get("name", "") for t in entry.get("tags") or () if isinstance(t, dict)]
    return replace(
        obj,
        caption=str(entry.get("name") or obj.caption),
        licence=_LICENCES.get(licence, licence) or obj.licence,
        author=str(user.get("displayName") or user.get("username") or obj.author),
        category=categories[0] if categories else obj.category,
        tags=tuple(t for t in tags if t),
    )


def _gso(folder: Path, source: str) -> list[FileTask]:
    out = []
    for path in folder.glob(f"*/{_GSO_MESH}"):
        place = path.parent.parent
        about = place / "metadata.pbtxt"
        text = about.read_text(encoding="utf-8", errors="replace") if about.is_file() else ""
        out.append(_gso_task(path, "", place.name, source, text))
    for archive in folder.glob("*.zip"):
        # A damaged archive is a task too: loading it says what is wrong, and that is kept with what is refused.
        member, text = _GSO_MESH, ""
        with suppress(MeshError), opened_archive(archive) as opened:
            member = _gso_member(opened) or member
            about = next((n for n in opened.namelist() if n.endswith("metadata.pbtxt")), None)
            text = opened.read(about).decode("utf-8", "replace") if about else ""
        out.append(_gso_task(archive, member, archive.stem, source, text))
    return out


def _gso_task(path: Path, member: str, name: str, source: str, text: str) -> FileTask:
    category = re.search(r"categories\s*\{\s*first:\s*\"([^\"]+)\"", text)
    return FileTask(
        path,
        source,
        name,
        "z",
        licence="CC-BY-4.0",
        author="Google Research",
        caption=_words(name),
        category=category[1] if category else "",
        member=member,
    )


def _gso_member(opened: zipfile.ZipFile) -> str:
    """The mesh in an archive of Google Scanned Objects; "" in another."""
    return next((n for n in opened.namelist() if n.endswith(_GSO_MESH)), "")
