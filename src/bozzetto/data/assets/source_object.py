"""What a reader makes of one object of a collection, before it is checked, normalised and packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

AlphaMode = Literal["opaque", "mask", "blend"]


@dataclass
class Part:
    """Triangles of one material, in the object's own units; y up, right-handed, counter-clockwise from outside.

    Attributes:
        vertices: [V, 3] float32; the bind pose of a skinned part.
        faces: [F, 3] int32.
        uvs: [V, 2] float32, glTF's convention (v = 0 is the picture's top row), or None.
        texture: index into :attr:`SourceObject.textures`, or None.
        colour: rgb in 0..1 (sRGB), multiplied with the texture.
        alpha: what the texture's fourth channel means.
        joints, weights: [V, 4] int32 and float32 (rows sum to 1): which joints move a vertex; None for a rigid part.
        colours: [V, 3] uint8 sRGB vertex colours, multiplied with ``colour``, or None; looked at only without a texture.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32] | None = None
    texture: int | None = None
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    alpha: AlphaMode = "opaque"
    joints: NDArray[np.int32] | None = None
    weights: NDArray[np.float32] | None = None
    colours: NDArray[np.uint8] | None = None


@dataclass
class Clip:
    """One animation. Exactly one of ``matrices`` and ``positions`` is set.

    Attributes:
        name: a verb where the source has one ("walk").
        fps: frames per second of what follows.
        matrices: [T, J, 4, 4] float32, bind pose -> posed object space, for skinned parts.
        positions: one [T, V, 3] float32 for each part, for vertex animation.
    """

    name: str
    fps: float
    matrices: NDArray[np.float32] | None = None
    positions: list[NDArray[np.float32]] | None = None


@dataclass
class SourceObject:
    """One object of a collection.

    Attributes:
        source: name of the collection ("sweethome3d").
        name: unique within the collection; a path-like id.
        group: objects of one group never stand on different sides of a split (one mesh in several colours, one character).
        caption: a phrase in English; may be empty.
        licence: SPDX-like identifier ("CC-BY-3.0"). author: for attribution; may be empty.
        parts, textures ([H, W, 4] uint8, sRGB and alpha), clips: see above.
        category: of the source's own kinds ("Kitchen"); tags: further words.
        meshes: the files of all meshes that it is built of, where the reader knows; what holds a mesh out looks at them too.
        problems: what the reader could not find or read ("missing texture: wood.jpg"); such objects are refused.
    """

    source: str
    name: str
    group: str
    parts: list[Part]
    textures: list[NDArray[np.uint8]] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    caption: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    licence: str = ""
    author: str = ""
    meshes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def triangles(self) -> int:
        """Number of triangles of all parts."""
        return sum(len(p.faces) for p in self.parts)
