"""Shapes and files for tests of users' own data: a box, alone or with a joint in its middle."""

from __future__ import annotations

import io

import numpy as np
from asset_shapes import glb_bytes
from PIL import Image

# A closed box [0, 1] x [0, 2] x [0, 1]: 8 corners, 12 triangles, counter-clockwise from outside.
BOX = np.array([[x, 2 * y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
SIDES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
FACES = np.array([t for a, b, c, d in SIDES for t in ((a, b, c), (a, c, d))], np.int32)


def box_obj(material: str = "") -> str:
    lines = [f"v {x} {y} {z}" for x, y, z in BOX] + ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    lines += [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3 {d + 1}/4" for a, b, c, d in SIDES]
    head = f"mtllib {material}.mtl\nusemtl skin\n" if material else ""
    return head + "\n".join(lines) + "\n"


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def accessor(view: int, kind: int, shape: str, count: int, **more) -> dict:
    return {"bufferView": view, "componentType": kind, "type": shape, "count": count} | more


def skinned_glb(place: np.ndarray | None = None) -> bytes:
    """The box with its upper half on a second joint, which turns by 90 degrees about z in one second."""
    place = np.eye(4) if place is None else place
    upper = (BOX[:, 1] > 1).astype(np.uint8)
    joints = np.stack([upper, 0 * upper, 0 * upper, 0 * upper], -1)
    weights = np.tile(np.array([1, 0, 0, 0], np.float32), (8, 1))
    inverse = np.stack([np.linalg.inv(place), np.linalg.inv(place @ np.diag([1.0, 1, 1, 1]))])
    inverse[1] = np.linalg.inv(place @ shift(0, 1, 0))
    half = np.sin(np.pi / 4)
    chunks = [
        BOX,
        FACES.astype(np.uint16).reshape(-1),
        joints,
        weights,
        inverse.transpose(0, 2, 1).astype(np.float32),  # column by column
        np.array([0, 1], np.float32),
        np.array([[0, 0, 0, 1], [0, 0, half, half]], np.float32),
    ]
    document = {
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"mesh": 0, "skin": 0},
            {"matrix": place.T.reshape(-1).tolist(), "children": [2]},
            {"translation": [0, 1, 0]},
        ],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": 4}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 2, "WEIGHTS_0": 3}, "indices": 1}]}],
        "accessors": [
            accessor(0, 5126, "VEC3", 8),
            accessor(1, 5123, "SCALAR", 36),
            accessor(2, 5121, "VEC4", 8),
            accessor(3, 5126, "VEC4", 8),
            accessor(4, 5126, "MAT4", 2),
            accessor(5, 5126, "SCALAR", 2),
            accessor(6, 5126, "VEC4", 2),
        ],
        "animations": [
            {
                "name": "nod",
                "channels": [{"sampler": 0, "target": {"node": 2, "path": "rotation"}}],
                "samplers": [{"input": 5, "output": 6}],
            }
        ],
    }
    return glb_bytes(document, chunks)


def shift(x, y, z) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = x, y, z
    return out
