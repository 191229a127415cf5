"""Morph targets of glTF: shapes that a mesh is mixed from, at rest and in animations.

An object that has an animation of such mixtures is played by vertex positions throughout, its joints' motion included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import MeshError
from .pose import skin
from .source_object import Clip, Part

MOST_NUMBERS = 40_000_000  # vertices times frames of a clip: about half a gigabyte


@dataclass
class Morph:
    """What the shape of a part is mixed from.

    Attributes:
        node: that carries the part's mesh, by which animations name it.
        base: [V, 3] of weights 0, object space. targets: [K, V, 3], added to it by their weights.
        weights: [K] at rest.
    """

    node: int
    base: NDArray[np.float32]
    targets: NDArray[np.float32]
    weights: NDArray[np.float64]

    def shape(self, weights: NDArray) -> NDArray[np.float32]:
        """The vertices for ``weights`` [..., K]: [..., V, 3]."""
        return self.base + np.tensordot(weights.astype(np.float32), self.targets, axes=1)


def read_morph(reader, node: int, primitive: dict, place: NDArray, vertices: NDArray) -> Morph | None:
    """The morph targets of one primitive, or None.

    Args:
        reader: of the file, with ``document`` and ``accessor``.
        place: [4, 4] that brought ``vertices`` [V, 3] into object space.
    """
    stored = [t["POSITION"] for t in primitive.get("targets", ()) if "POSITION" in t]
    if not stored or len(stored) != len(primitive["targets"]):
        return None  # targets of normals and colours alone
    targets = np.stack([reader.floats(i, 3).numpy() for i in stored])  # [K, V, 3]
    if targets.shape[1:] != vertices.shape:
        raise MeshError(f"a morph target has {targets.shape[1]} places for {len(vertices)} vertices")
    entry = reader.document["nodes"][node]
    given = entry.get("weights", reader.document["meshes"][entry["mesh"]].get("weights", []))
    weights = np.zeros(len(targets))
    weights[: len(given)] = given[: len(weights)]
    moved = (targets.astype(np.float64) @ place[:3, :3].T).astype(np.float32)
    return Morph(node, vertices.astype(np.float32), moved, weights)


def morphed_clip(
    name: str,
    times: NDArray,
    parts: list[Part],
    morphs: list[Morph | None],
    mixtures: dict[int, NDArray],
    matrices: NDArray,
) -> Clip:
    """An animation as vertex positions.

    Args:
        times: [T] seconds, evenly spaced from 0. morphs: of the parts, in their order.
        mixtures: node -> weights [T, K] while the animation plays; other nodes keep theirs.
        matrices: [T, J, 4, 4] of the parts' joints.
    """
    positions = []
    for part, morph in zip(parts, morphs):
        out = np.empty((len(times), *part.vertices.shape), np.float32)
        for frame in range(len(times)):
            shape = part.vertices
            if morph is not None:
                mixture = mixtures.get(morph.node)
                shape = morph.shape(morph.weights if mixture is None else mixture[frame])
            out[frame] = skin(shape, part.joints, part.weights, matrices[frame])
        positions.append(out)
    return Clip(name, (len(times) - 1) / times[-1], None, positions)
