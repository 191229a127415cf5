"""Meshes on disk, whatever the format."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import MeshError, OutputError
from ..mesh import Mesh
from .glb import MAGIC, write_glb
from .glb_read import read_glb
from .inputs import check_input
from .mesh_ply import read_mesh_ply, write_mesh_ply
from .obj import read_obj, write_obj
from .usdz import write_usdz

READ = (".glb", ".gltf", ".obj", ".ply")
WRITTEN = (".glb", ".obj", ".ply", ".usdz")


def read_mesh(path: str | PathLike[str]) -> Mesh:
    """Read ``.glb`` and ``.ply`` (recognised by their content), ``.gltf`` or ``.obj`` (by their names).

    Raises:
        MeshError: missing, empty or malformed file, no triangles in it, or another format.
    """
    path = check_input(path, "a mesh file", MeshError)
    with path.open("rb") as file:
        head = file.read(4)
    suffix = path.suffix.lower()
    if head == MAGIC or suffix in (".glb", ".gltf"):
        return read_glb(path)
    if head[:3] == b"ply" or suffix == ".ply":
        return read_mesh_ply(path)
    if suffix == ".obj":
        return read_obj(path)
    raise MeshError(f"{path} is not a mesh file that can be read; known are {', '.join(READ)}")


def check_suffix(path: str | PathLike[str]) -> str:
    """The suffix of ``path`` if a mesh can be written under it; raises :class:`OutputError` otherwise."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN:
        raise OutputError(f"cannot write {path}: the name of a mesh file must end in {', '.join(WRITTEN)}")
    return suffix


def write_mesh(mesh: Mesh, path: str | PathLike[str]) -> None:
    """Write ``.glb``, ``.obj`` (with .mtl and .png beside it), ``.ply`` (vertex colours) or ``.usdz``, by the name's suffix.

    Raises:
        MeshError: the mesh has no triangles, or positions are NaN or infinite.
        OutputError: another suffix, or a file cannot be written.
    """
    writers = {".glb": write_glb, ".obj": write_obj, ".ply": write_mesh_ply, ".usdz": write_usdz}
    writers[check_suffix(path)](mesh, path)
