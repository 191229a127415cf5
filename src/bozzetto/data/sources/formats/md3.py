"""Quake III's ``.md3``: surfaces with vertex key frames, and tags on which other models sit.

Right-handed, z up, x forward, clockwise faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from .cursor import Cursor, check_faces

UNIT = 1 / 64  # of a stored coordinate


@dataclass
class Md3Surface:
    """frames [T, V, 3] float32, faces [F, 3], uvs [V, 2] (v = 0 is the picture's top row)."""

    name: str
    frames: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32]
    shaders: list[str]


@dataclass
class Md3Model:
    """``surfaces`` by the file's order, and ``tags``: name -> [T, 4, 4] float64, from the tag's frame to the model's."""

    surfaces: list[Md3Surface]
    tags: dict[str, NDArray[np.float64]]
    frames: int


def parse_md3(data: bytes, name: str = "model.md3") -> Md3Model:
    """Read an .md3 file. Raises :class:`MeshError` when it is cut short or another format."""
    head = Cursor(data, name)
    head.expect(b"IDP3")
    head.skip(4 + 64 + 4)  # version, name, flags
    frames, tag_count, surface_count, _ = head.read("4i")
    _, at_tags, at_surfaces, _ = head.read("4i")
    if min(frames, tag_count, surface_count) < 0:
        raise MeshError(f"{name} has a header that makes no sense")
    tag = np.dtype([("name", "S64"), ("origin", "<f4", 3), ("axes", "<f4", (3, 3))])
    tags: dict[str, NDArray[np.float64]] = {}
    if tag_count and frames:
        table = Cursor(data, name, at_tags).array(tag, frames, tag_count)
        for column in range(tag_count):
            places = np.tile(np.eye(4), (frames, 1, 1))
            axes = table["axes"][:, column].astype(np.float64)  # [T, 3 axes, xyz]; some files' are not unit vectors
            if not np.isfinite(axes).all():
                raise MeshError(f"{name}: a tag's axes are not finite")
            axes = axes / np.maximum(np.linalg.norm(axes, axis=-1, keepdims=True), 1e-9)
            places[:, :3, :3] = axes.transpose(0, 2, 1)
            places[:, :3, 3] = table["origin"][:, column]
            tags[table["name"][0, column].split(b"\0")[0].decode("latin-1").lower()] = places
    surfaces = []
    start = at_surfaces
    for _ in range(surface_count):
        cursor = Cursor(data, name, start)
        cursor.expect(b"IDP3")
        label = cursor.text(64)
        _, count, shader_count, vertices, triangles = cursor.read("5i")
        at_faces, at_shaders, at_uvs, at_points, size = cursor.read("5i")
        at = Cursor(data, name, start + at_shaders)
        shaders = []
        for _ in range(shader_count):
            shaders.append(at.text(64))
            at.skip(4)
        faces = Cursor(data, name, start + at_faces).array("<i4", triangles, 3)
        uvs = Cursor(data, name, start + at_uvs).array("<f4", vertices, 2)
        points = Cursor(data, name, start + at_points).array("<i2", count, vertices, 4)[..., :3]
        surfaces.append(
            Md3Surface(
                label,
                (points * UNIT).astype(np.float32),
                check_faces(faces, vertices, name),
                np.array(uvs),
                shaders,
            )
        )
        if size <= 0:
            raise MeshError(f"{name}: surface {label!r} has no size")
        start += size
    return Md3Model(surfaces, tags, frames)
