"""Hand-made source objects."""

from __future__ import annotations

import json
import struct

import numpy as np
from render_shapes import CORNERS

from bozzetto.data.assets.source_object import Clip, Part, SourceObject


def picture(side: int = 64, alpha: int = 255) -> np.ndarray:
    """[side, side, 4], one colour per quadrant."""
    out = np.full((side, side, 4), alpha, np.uint8)
    h = side // 2
    for k, (y, x) in enumerate([(0, 0), (0, h), (h, 0), (h, h)]):
        out[y : y + h, x : x + h, :3] = CORNERS[k]
    return out


def grid_part(columns: int, rows: int, place, texture=0, **more) -> Part:
    """A sheet of ``columns`` x ``rows`` squares; ``place(u, v)`` gives its points [..., 3] for u and v in 0..1."""
    u, v = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    index = np.arange(u.size).reshape(u.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    points = np.asarray(place(u, v), np.float32).reshape(-1, 3)
    uvs = np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)
    return Part(points, faces.astype(np.int32), uvs if texture is not None else None, texture, **more)


def ball(columns: int = 24, rows: int = 12, radius: float = 3.0, centre=(5.0, 2.0, -1.0), **more) -> Part:
    """A sphere, its triangles counter-clockwise from outside."""

    def place(u, v):
        theta, phi = np.pi * v, 2 * np.pi * u
        unit = [np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)]
        return np.stack(unit, -1) * radius + np.array(centre)

    return grid_part(columns, rows, place, **more)


def ball_object(**more) -> SourceObject:
    """A textured ball away from the origin."""
    values = {"source": "mine", "name": "balls/red", "group": "balls", "parts": [ball()], "textures": [picture()]}
    values |= {"caption": "ball", "category": "Toys", "tags": ("round",), "licence": "CC0-1.0", "author": "Jane"}
    return SourceObject(**(values | more))


def turn_z(degrees: float, pivot=(0.0, 0.0, 0.0)) -> np.ndarray:
    """[4, 4], about an axis along z through ``pivot``."""
    angle = np.deg2rad(degrees)
    out = np.eye(4)
    out[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pivot = np.array(pivot)
    out[:3, 3] = pivot - out[:3, :3] @ pivot
    return out


ELBOW = (2.0, 0.0, 0.0)


def arm(frames: int = 5) -> SourceObject:
    """A square bar along x from 0 to 4 with an elbow at 2: the lower half turns by up to 90 degrees, the seam half."""

    def place(u, v):
        angle = 2 * np.pi * v
        return np.stack([4 * u, 0.5 * np.sin(angle), 0.5 * np.cos(angle)], -1)

    part = grid_part(8, 8, place)
    x = part.vertices[:, 0]
    share = np.where(x < 1.99, 0.0, np.where(x > 2.01, 1.0, 0.5)).astype(np.float32)
    part.joints = np.tile(np.array([0, 1, 0, 0], np.int32), (len(x), 1))
    part.weights = np.stack([1 - share, share, 0 * share, 0 * share], -1)
    matrices = np.stack([np.stack([np.eye(4), turn_z(a, ELBOW)]) for a in np.linspace(0, 90, frames)])
    clip = Clip("bend", 10.0, matrices.astype(np.float32))
    return SourceObject("mine", "arm", "arm", [part], [picture()], [clip], caption="arm", licence="CC0-1.0")


def glb_bytes(document: dict, chunks: list[np.ndarray]) -> bytes:
    """A .glb of ``document``, whose accessors' buffer views are the arrays of ``chunks`` in order."""
    views, body = [], b""
    for chunk in chunks:
        data = np.ascontiguousarray(chunk).tobytes()
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(data)})
        body += data + b"\0" * (-len(data) % 4)
    document = document | {"asset": {"version": "2.0"}, "bufferViews": views, "buffers": [{"byteLength": len(body)}]}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(body))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
