"""Quake II's ``.md2``: one mesh with vertex key frames; right-handed, z up, x forward, clockwise faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from .cursor import Cursor, check_faces

VERSION = 8
MOST = 1 << 20  # of anything in a file; beyond this the header is damaged


@dataclass
class Md2Mesh:
    """A mesh in the format's frame.

    Attributes:
        frames: [T, V, 3] float32. faces: [F, 3] and uv_faces: [F, 3], the triangles' vertices and texture coordinates.
        uvs: [U, 2] float32, v = 0 is the picture's top row.
        skins: names of pictures. frame_names: T names ("run1").
    """

    frames: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv_faces: NDArray[np.int32]
    uvs: NDArray[np.float32]
    skins: list[str]
    frame_names: list[str]


def parse_md2(data: bytes, name: str = "model.md2") -> Md2Mesh:
    """Read an .md2 file. Raises :class:`MeshError` when it is cut short or another format."""
    head = Cursor(data, name)
    head.expect(b"IDP2")
    version, width, height, frame_size, skins, vertices, uvs, faces, _, frames = head.read("10i")
    at_skins, at_uvs, at_faces, at_frames = head.read("4i")
    if (
        version != VERSION
        or not all(0 <= n <= MOST for n in (skins, vertices, uvs, faces, frames))
        or width <= 0
        or height <= 0
    ):
        raise MeshError(f"{name} has a header that makes no sense (version {version}, {frames} frames)")
    at = Cursor(data, name, at_skins)
    names = [at.text(64) for _ in range(skins)]
    coordinates = Cursor(data, name, at_uvs).array("<i2", uvs, 2) / np.array([width, height], np.float32)
    triangles = Cursor(data, name, at_faces).array("<u2", faces, 6)
    frame = np.dtype([("scale", "<f4", 3), ("shift", "<f4", 3), ("name", "S16"), ("v", "u1", (vertices, 4))])
    if frame.itemsize != frame_size:
        raise MeshError(f"{name}: a frame of {vertices} vertices has {frame.itemsize} bytes, not {frame_size}")
    table = Cursor(data, name, at_frames).array(frame, frames)
    points = table["v"][..., :3] * table["scale"][:, None] + table["shift"][:, None]  # [T, V, 3]
    return Md2Mesh(
        points.astype(np.float32),
        check_faces(triangles[:, :3], vertices, name),
        check_faces(triangles[:, 3:], uvs, name),
        coordinates.astype(np.float32),
        names,
        [n.split(b"\0")[0].decode("latin-1") for n in table["name"]],
    )
