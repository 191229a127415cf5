"""Meshes as PLY with vertex colours: positions, normals, 8-bit sRGB colours, triangles."""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MeshError
from ..mesh import Mesh
from .glb import check_mesh, unit_normals
from .images import to_uint8
from .inputs import read_input
from .ply_format import PlyError, parse_ply, scalar_properties, write_ply_file

_COLORS = ("red", "green", "blue")


def write_mesh_ply(mesh: Mesh, path: str | PathLike[str]) -> None:
    """Write a binary PLY, atomically. A mesh with a texture and no vertex colours gets the texture's at its vertices.

    Raises:
        MeshError: the mesh has no triangles, or positions are NaN or infinite.
        OutputError: the file cannot be written.
    """
    check_mesh(mesh, path)
    colors = mesh.colors
    if colors is None and mesh.texture is not None:
        colors = sample_texture(mesh.texture, mesh.uvs)
    columns: list[tuple[str, str]] = [(n, "<f4") for n in ("x", "y", "z")]
    lines = scalar_properties(["x", "y", "z"])
    if mesh.normals is not None:
        columns += [(n, "<f4") for n in ("nx", "ny", "nz")]
        lines += scalar_properties(["nx", "ny", "nz"])
    if colors is not None:
        columns += [(n, "u1") for n in _COLORS]
        lines += scalar_properties(_COLORS, "u1")
    rows = np.empty(len(mesh.vertices), columns)
    _fill(rows, ("x", "y", "z"), mesh.vertices.detach().cpu().numpy())
    if mesh.normals is not None:
        _fill(rows, ("nx", "ny", "nz"), unit_normals(mesh.normals).cpu().numpy())
    if colors is not None:
        _fill(rows, _COLORS, to_uint8(colors))
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.faces.cpu().numpy()
    triangle = ["property list uchar int vertex_indices"]
    write_ply_file(path, [("vertex", rows, lines), ("face", faces, triangle)])


def _fill(rows: np.ndarray, names: tuple[str, ...], values: np.ndarray) -> None:
    for i, name in enumerate(names):
        rows[name] = values[:, i]


def sample_texture(texture: Tensor, uvs: Tensor) -> Tensor:
    """Colours [V, 3] of a [H, W, 3] picture at ``uvs`` [V, 2], bilinear; outside 0..1 the edge goes on."""
    grid = (uvs * 2 - 1)[None, None]  # [1, 1, V, 2]
    picture = texture.movedim(-1, 0)[None]  # [1, 3, H, W]
    out = F.grid_sample(picture, grid.to(picture), mode="bilinear", padding_mode="border", align_corners=False)
    return out[0, :, 0].T


def read_mesh_ply(path: str | PathLike[str]) -> Mesh:
    """Read a PLY mesh, binary or ASCII; polygons are split into fans, colours may be 8-bit or floats.

    Raises:
        MeshError: missing, empty or malformed file, no faces, or NaN positions.
    """
    data = read_input(path, "a PLY mesh", MeshError)
    try:
        tables = parse_ply(data, ["vertex", "face"])
    except PlyError as problem:
        raise MeshError(f"{path}: {problem}") from None
    face = tables.get("face")
    name = next((n for n in ("vertex_indices", "vertex_index") if face is not None and n in face.lists), None)
    if name is None or "vertex" not in tables or not face.element.count:
        raise MeshError(f"{path} has no faces; it is a point cloud or splat file, not a mesh")
    vertex = tables["vertex"]
    kinds = {p.name: p.type for p in vertex.element.properties if p.count_type is None}
    missing = [n for n in ("x", "y", "z") if n not in kinds]
    if missing:
        raise MeshError(f"{path}: fields are missing: {', '.join(missing)}")
    vertices = torch.from_numpy(vertex.columns(("x", "y", "z")))
    if not bool(torch.isfinite(vertices).all()):
        raise MeshError(f"{path} has vertices that are NaN or infinite")
    normals = colors = None
    if {"nx", "ny", "nz"} <= kinds.keys():
        normals = unit_normals(torch.from_numpy(vertex.columns(("nx", "ny", "nz"))))
    if kinds.keys() >= set(_COLORS):
        full = 255.0 if kinds["red"] == "u1" else 65535.0 if kinds["red"] == "u2" else 1.0
        colors = (torch.from_numpy(vertex.columns(_COLORS)) / full).clamp(0, 1)
    try:
        return Mesh(vertices, _fans(*face.lists[name]), normals, None, colors)
    except MeshError as problem:
        raise MeshError(f"{path}: {problem}") from None


def _fans(lengths: np.ndarray, flat: np.ndarray) -> Tensor:
    """[F, 3] triangles of polygons given one after the other."""
    flat = flat.astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    triangles = np.maximum(lengths - 2, 0)
    first = np.repeat(starts, triangles)  # of its polygon, for every triangle
    step = np.arange(len(first)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return torch.from_numpy(np.stack([flat[first], flat[first + step + 1], flat[first + step + 2]], axis=-1))
