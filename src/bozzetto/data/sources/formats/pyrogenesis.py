"""0 A.D.'s binary caches: ``.pmd`` (mesh, skin weights, bones, prop points) and ``.psa`` (skeletal clip).

Both are in the game's left-handed frame, y up. Bone states are in object space (no chain of parents).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from .cursor import Cursor, check_faces

NO_BONE = 255


def rigid_matrices(states: NDArray) -> NDArray[np.float64]:
    """[..., 4, 4] of states [..., 7] = translation x, y, z and quaternion x, y, z, w (need not be unit length)."""
    states = np.asarray(states, np.float64)
    quaternion = states[..., 3:] / np.maximum(np.linalg.norm(states[..., 3:], axis=-1, keepdims=True), 1e-12)
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    out = np.zeros((*states.shape[:-1], 4, 4))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[..., 2, 0], out[..., 2, 1], out[..., 2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    out[..., :3, 3] = states[..., :3]
    out[..., 3, 3] = 1
    return out


@dataclass
class PmdMesh:
    """A mesh in the game's frame.

    Attributes:
        vertices: [V, 3] float32, the bind pose. faces: [F, 3] int32.
        uvs: [V, 2] float32, v = 0 is the picture's bottom row.
        joints, weights: [V, 4] int32 and float32; joint 255 is unused, joint == number of bones is the object's own frame.
        bones: [J, 4, 4] float64, bone -> object in the bind pose; J = 0 for a rigid mesh.
        prop_points: name -> (place [4, 4] within the bone or object, bone index or 255 for the object).
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32]
    joints: NDArray[np.int32]
    weights: NDArray[np.float32]
    bones: NDArray[np.float64]
    prop_points: dict[str, tuple[NDArray[np.float64], int]]


def parse_pmd(data: bytes, name: str = "mesh.pmd") -> PmdMesh:
    """Read a .pmd file (versions 1 to 4). Raises :class:`MeshError` when it is cut short or another format."""
    cursor = Cursor(data, name)
    cursor.expect(b"PSMD")
    version, _ = cursor.read("II")
    count = cursor.number("I")
    uv_sets = cursor.number("I") if version >= 4 else 1
    if uv_sets > 8:
        raise MeshError(f"{name} has a header that makes no sense ({uv_sets} sets of texture coordinates)")
    vertex = np.dtype(
        [("p", "<f4", 3), ("n", "<f4", 3), ("uv", "<f4", (uv_sets, 2)), ("joint", "u1", 4), ("weight", "<f4", 4)]
    )
    table = cursor.array(vertex, count)
    faces = cursor.array("<u2", cursor.number("I"), 3)
    bones = cursor.array("<f4", cursor.number("I"), 7)
    points: dict[str, tuple[NDArray, int]] = {}
    if version >= 2:
        for _ in range(cursor.number("I")):
            label = cursor.text(cursor.number("I"))
            state = cursor.array("<f4", 7)
            points[label] = (rigid_matrices(state), cursor.number("B") if version >= 3 else NO_BONE)
    return PmdMesh(
        np.array(table["p"]),
        check_faces(faces, count, name),
        np.array(table["uv"][:, 0]) if uv_sets else np.zeros((count, 2), np.float32),
        table["joint"].astype(np.int32),
        np.array(table["weight"]),
        rigid_matrices(bones),
        points,
    )


@dataclass
class PsaClip:
    """A clip: ``fps``, and bone -> object matrices [T, J, 4, 4] float64 in the game's frame."""

    fps: float
    matrices: NDArray[np.float64]


def parse_psa(data: bytes, name: str = "clip.psa") -> PsaClip:
    """Read a .psa file. Raises :class:`MeshError` when it is cut short or another format."""
    cursor = Cursor(data, name)
    cursor.expect(b"PSSA")
    cursor.read("II")  # version, size
    cursor.skip(cursor.number("I"))  # the clip's name
    milliseconds, bones, frames = cursor.read("fII")
    states = cursor.array("<f4", frames, bones, 7)
    return PsaClip(1000.0 / milliseconds if milliseconds > 0 else 30.0, rigid_matrices(states))
