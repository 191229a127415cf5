"""Mesh files of users, whatever their format, as :class:`SourceObject`: glTF and OBJ by our own readers, the rest by trimesh."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import MeshError, MissingDependencyError
from ...files.inputs import check_input, read_input
from .glb_scene import read_glb_scene
from .source_object import Part, SourceObject

USD = (".usd", ".usda", ".usdc", ".usdz")
SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".gltf", ".off", ".3mf", *USD)


def needs_extra(name: str, what: str) -> MissingDependencyError:
    """The error for an absent package of the extra ``data``."""
    return MissingDependencyError(f"{what} needs the package {name}: pip install 'bozzetto[data]'")


def read_mesh_file(path: str | PathLike[str], source: str = "", name: str = "") -> SourceObject:
    """The object in a file, in the file's own axes.

    Raises:
        MeshError: the file cannot be read. MissingDependencyError: its format needs the extra ``data``.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MeshError(
            f"{path}: {suffix or 'a file without suffix'} is not a mesh format; known: {', '.join(SUFFIXES)}"
        )
    if suffix in (".glb", ".gltf"):
        return read_glb_scene(path, source, name)
    if suffix in USD:
        from .usd_scene import read_usd_scene

        return read_usd_scene(path, source, name)
    if suffix == ".obj":
        data = read_input(path, "an .obj file", MeshError)
        obj = read_obj_parts(data, lambda other: _beside(path.parent, other), source, name)
        if any(p.texture is not None for p in obj.parts) or not _coloured_vertices(data):
            return obj
    return _by_trimesh(path, source, name)


def _beside(folder: Path, name: str) -> bytes | None:
    """A file that an OBJ or MTL names: as written, or in the folders where exporters put pictures."""
    name = name.replace("\\", "/")
    bare = name.rsplit("/", 1)[-1]
    places = [folder / name, folder / bare, folder / "textures" / bare, folder.parent / "materials" / "textures" / bare]
    for place in places:
        try:
            if place.is_file():
                return place.read_bytes()
        except (OSError, ValueError):  # a name that is no name
            continue
    return None


@contextmanager
def opened_archive(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive to read from; whatever is wrong with it becomes a :class:`MeshError` that says so."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile) as problem:
        what = problem.args[0] if isinstance(problem, KeyError) else problem  # a KeyError's text has quotes of its own
        raise MeshError(f"{archive} is damaged or no such archive ({what}); download it again") from problem


def read_zipped_obj(archive: Path, member: str, source: str, name: str) -> SourceObject:
    """An OBJ file inside a zip archive; pictures are looked for in the whole archive by their bare names."""
    with opened_archive(archive) as opened:
        files = {n.rsplit("/", 1)[-1].lower(): n for n in opened.namelist()}

        def fetch(other: str) -> bytes | None:
            found = files.get(other.replace("\\", "/").rsplit("/", 1)[-1].lower())
            return opened.read(found) if found else None

        return read_obj_parts(opened.read(member), fetch, source, name)


def read_obj_parts(data: bytes, fetch, source: str, name: str) -> SourceObject:
    """An OBJ file's parts; ``fetch(name)`` gives the bytes of a file it names, or None."""
    from ..sources.common import Textures
    from ..sources.formats.wavefront import parse_wavefront

    asked: dict[str, bool] = {}

    def watched(other: str) -> bytes | None:
        found = fetch(other)
        bare = other.replace("\\", "/").rsplit("/", 1)[-1].split()[-1] if other.split() else other
        asked[bare] = asked.get(bare, False) or found is not None
        return found

    textures = Textures()
    parts = parse_wavefront(data.decode("utf-8", errors="replace"), watched, textures, name=name)
    missing = [n for n, here in asked.items() if not here and not n.lower().endswith(".mtl")]
    problems = tuple(f"missing texture: {n}" for n in missing)
    problems = problems or tuple(p.replace("missing", "unreadable", 1) for p in textures.problems)
    return SourceObject(source, name, name, parts, textures.arrays, problems=problems)


def _coloured_vertices(data: bytes) -> bool:
    """Whether the first vertex of an OBJ file has a colour behind its place."""
    for line in data[:100_000].splitlines():
        words = line.split()
        if words[:1] == [b"v"]:
            return len(words) >= 7
    return False


def _by_trimesh(path: Path, source: str, name: str) -> SourceObject:
    try:
        import trimesh
    except ImportError:
        raise needs_extra("trimesh", f"reading {path.suffix} files") from None
    check_input(path, "a mesh", MeshError)
    try:
        scene = trimesh.load_scene(path, process=False)
    except ImportError as problem:
        raise needs_extra(problem.name or "trimesh", f"reading {path.suffix} files") from None
    except Exception as problem:  # trimesh and its readers raise nearly anything on damaged files
        raise MeshError(f"{path} cannot be read: {type(problem).__name__}: {problem}") from problem
    parts: list[Part] = []
    pictures: list[NDArray[np.uint8]] = []
    known: dict[int, int] = {}
    for node in scene.graph.nodes_geometry:
        matrix, key = scene.graph[node]
        mesh = scene.geometry[key]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            parts.append(_trimesh_part(mesh, matrix, pictures, known))
    return SourceObject(source, name, name, parts, pictures)


def _trimesh_part(mesh, matrix: NDArray, pictures: list, known: dict[int, int]) -> Part:
    from ..sources.common import rgba_bytes

    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int32)
    colour, uvs, texture, colours = (1.0, 1.0, 1.0), None, None, None
    alpha = "opaque"
    if mesh.visual.kind == "texture":
        material = mesh.visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        factor = getattr(material, "baseColorFactor", None)
        factor = getattr(material, "diffuse", None) if factor is None else factor
        if image is not None and mesh.visual.uv is not None:
            if id(image) not in known:
                known[id(image)] = len(pictures)
                pictures.append(rgba_bytes(image))
            texture = known[id(image)]
            uvs = np.array(mesh.visual.uv, np.float32)[:, :2] * [1, -1] + [0, 1]
            alpha = "mask" if (pictures[texture][..., 3] < 128).mean() > 0.002 else "opaque"
        elif factor is not None:
            colour = tuple(float(x) / 255 for x in np.asarray(factor)[:3])
    elif mesh.visual.kind == "vertex":
        colours = np.asarray(mesh.visual.vertex_colors, np.uint8)[:, :3]
    elif mesh.visual.kind == "face":
        colours = np.repeat(np.asarray(mesh.visual.face_colors, np.uint8)[:, :3], 3, axis=0)
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(faces.size, dtype=np.int32).reshape(-1, 3)
    else:
        colour = (0.7, 0.7, 0.7)
    vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces = faces[:, ::-1]
    uvs = None if uvs is None else uvs.astype(np.float32)
    return Part(vertices.astype(np.float32), np.ascontiguousarray(faces), uvs, texture, colour, alpha, colours=colours)
