"""Glest's ``.g3d`` (versions 3 and 4): meshes whose key frames are whole vertex arrays; right-handed, y up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from .cursor import Cursor, check_faces


@dataclass
class G3dMesh:
    """One mesh: frames [T, V, 3], faces [F, 3], uvs [V, 2] or None (v = 0 is the picture's bottom row), texture (file name
    or ""), colour (rgb 0..1), opacity, and team (whether the texture's alpha leaves room for the team's colour)."""

    frames: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32] | None
    texture: str = ""
    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)
    opacity: float = 1.0
    team: bool = False


def _version4(cursor: Cursor, name: str) -> G3dMesh:
    cursor.skip(64)  # the mesh's name
    frames, vertices, indices = cursor.read("III")
    colours = cursor.read("8f")  # diffuse, specular, shininess, opacity
    properties, kinds = cursor.read("II")
    textures = [cursor.text(64) for bit in range(5) if kinds >> bit & 1]
    points = cursor.array("<f4", frames, vertices, 3)
    cursor.skip(frames * vertices * 12)  # normals
    uvs = cursor.array("<f4", vertices, 2) if kinds else None
    faces = check_faces(cursor.array("<u4", indices // 3, 3), vertices, name)
    diffuse = textures[0] if kinds & 1 else ""
    return G3dMesh(points, faces, uvs, diffuse, colours[:3], colours[7], bool(properties & 1))


def _version3(cursor: Cursor, name: str) -> G3dMesh:
    frames, normal_frames, uv_frames, colour_frames, vertices, indices, properties = cursor.read("7I")
    texture = cursor.text(64)
    points = cursor.array("<f4", frames, vertices, 3)
    cursor.skip(normal_frames * vertices * 12)
    bare = bool(properties & 1)
    uvs = None if bare else cursor.array("<f4", uv_frames, vertices, 2)
    cursor.skip(colour_frames * 16)
    faces = check_faces(cursor.array("<u4", indices // 3, 3), vertices, name)
    return G3dMesh(points, faces, uvs[0] if uvs is not None and uv_frames else None, "" if bare else texture)


def parse_g3d(data: bytes, name: str = "model.g3d") -> list[G3dMesh]:
    """All meshes of a file. Raises :class:`MeshError` when it is cut short, another format or an older version."""
    cursor = Cursor(data, name)
    cursor.expect(b"G3D")
    version = cursor.number("B")
    if version == 4:
        count, _ = cursor.read("HB")
        read = _version4
    elif version == 3:
        count, read = cursor.number("I"), _version3
    else:
        raise MeshError(f"{name} is of version {version}; 3 and 4 can be read")
    return [read(cursor, name) for _ in range(count)]
