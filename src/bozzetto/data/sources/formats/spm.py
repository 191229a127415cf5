"""SuperTuxKart's ``.spm`` ("space-partitioned mesh"): meshes with two textures each; left-handed, y up.

Skinned files are read in their bind pose; their skeleton, at the end of the file, is not read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from .cursor import Cursor, check_faces

STATIC, ANIMATED = 0, 1


@dataclass
class SpmMesh:
    """One mesh of a file: vertices [V, 3], faces [F, 3], uvs [V, 2] or None (v = 0 is the picture's top row), colour
    (mean of the vertex colours, rgb 0..1), texture (file name, may be empty)."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32] | None
    colour: tuple[float, float, float]
    texture: str


def _vertices(cursor: Cursor, count: int, flags: int, kind: int, sets: int) -> tuple[NDArray, NDArray, NDArray]:
    """Positions [V, 3], uvs [V, 2] and colours [V, 3] (uint8) of one mesh."""
    fields: list[tuple] = [("p", "<f4", 3)]
    if flags & 1:
        fields.append(("normal", "<u4"))
    tail: list[tuple] = []
    if sets:
        tail.append(("uv", "<f2", 2))
        if sets > 1:
            tail.append(("uv2", "<f2", 2))
        if flags & 4:
            tail.append(("tangent", "<u4"))
    if kind == ANIMATED:
        tail.append(("skin", "u1", 16))
    if not flags & 2:
        table = cursor.array(np.dtype(fields + tail), count)
        uvs = table["uv"] if sets else np.zeros((count, 2))
        return table["p"], uvs, np.full((count, 3), 255, np.uint8)
    # Vertex colours take one byte (128: white) or four, so that vertices differ in length.
    head, rest = np.dtype(fields), np.dtype(tail)
    positions, uvs = np.empty((count, 3), np.float32), np.zeros((count, 2), np.float32)
    colours = np.full((count, 3), 255, np.uint8)
    for i in range(count):
        positions[i] = cursor.array(head, 1)["p"][0]
        if cursor.number("B") != 128:
            colours[i] = cursor.read("3B")
        if rest.itemsize:
            row = cursor.array(rest, 1)
            if sets:
                uvs[i] = row["uv"][0]
    return positions, uvs, colours


def parse_spm(data: bytes, name: str = "model.spm") -> list[SpmMesh]:
    """All meshes of a file. Raises :class:`MeshError` when it is cut short or another format."""
    cursor = Cursor(data, name)
    cursor.expect(b"SP")
    kind, flags = cursor.number("B") & 7, cursor.number("B")
    cursor.skip(24)  # bounding box
    materials = [[cursor.text(cursor.number("B")) for _ in range(2)] for _ in range(cursor.number("H"))]
    out = []
    for _ in range(cursor.number("H")):  # sectors
        for _ in range(cursor.number("H")):
            vertices, indices, material = cursor.read("IIH")
            if material >= len(materials):
                raise MeshError(f"{name}: a mesh names material {material} of {len(materials)}")
            first, second = materials[material]
            sets = (2 if second else 1) if first else 0
            points, uvs, colours = _vertices(cursor, vertices, flags, kind, sets)
            faces = cursor.array("<u2" if vertices > 255 else "u1", indices // 3, 3)
            out.append(
                SpmMesh(
                    np.array(points, np.float32),
                    check_faces(faces, vertices, name),
                    np.array(uvs, np.float32) if sets else None,
                    tuple((colours.mean(0) / 255).tolist()) if vertices else (1.0, 1.0, 1.0),
                    first,
                )
            )
        if kind == STATIC:
            cursor.skip(24)
    return out
