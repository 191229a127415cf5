"""From a packed object to what :mod:`bozzetto.data.render` draws, at rest or at a moment of a clip.

Kept: every part as a material of its own (texture, colour), cut-out transparency. Lost: partial transparency (a texel is
there or not, at alpha 0.5), and glass without a texture is opaque. Vertex colours become a picture of one small cell per
triangle. Normals are not stored; they are made from the triangles, smooth where neighbours meet at less than 45 degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..objects import TexturedObject
from .asset_object import AssetObject
from .pictures import fit_picture
from .pose import posed_vertices
from .source_object import Clip, Part

CREASE = 45.0  # degrees between triangles up to which they are shaded as one surface
RADIUS = 0.6  # of a TexturedObject's bounding sphere
_WELD = 2e-4  # of the house frame's unit: vertices that close count as one
_CELL = 4  # texels along the side of a triangle's cell


class SmoothNormals:
    """Corner normals of one set of triangles in any pose; who smooths with whom is decided once, at rest.

    Attributes:
        mix: sparse [3 F, F], 1 where a triangle counts for a corner's normal.
    """

    def __init__(self, vertices: NDArray, faces: NDArray, crease: float = CREASE, weld: float = _WELD) -> None:
        from scipy.sparse import csr_matrix

        self.faces = faces
        count = len(faces)
        _, place = np.unique(np.rint(vertices / weld).astype(np.int64), axis=0, return_inverse=True)
        corner = place.reshape(-1)[faces].reshape(-1)  # [3 F], the place of each corner
        order = np.argsort(corner, kind="stable")
        start = np.flatnonzero(np.diff(corner[order], prepend=-1))
        size = np.diff(np.append(start, len(order)))
        # All pairs of corners at one place; places where more than 64 triangles meet smooth only with themselves.
        size_of = np.repeat(np.where(size > 64, 1, size), size)
        first_of = np.where(np.repeat(size > 64, size), np.arange(len(order)), np.repeat(start, size))
        a = np.repeat(np.arange(len(order)), size_of)
        b = np.repeat(first_of, size_of) + (np.arange(len(a)) - np.repeat(np.cumsum(size_of) - size_of, size_of))
        a, b = order[a], order[b]
        unit = _unit(self._areas(vertices))
        near = (unit[a // 3] * unit[b // 3]).sum(1) >= np.cos(np.deg2rad(crease))
        near |= a == b
        self.mix = csr_matrix((np.ones(near.sum(), np.float32), (a[near], b[near] // 3)), shape=(3 * count, count))

    def _areas(self, vertices: NDArray) -> NDArray[np.float32]:
        a, b, c = (vertices[self.faces[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    def at(self, vertices: NDArray) -> NDArray[np.float32]:
        """[F, 3, 3] unit normals (zero for triangles without area) for vertices [V, 3] of any pose."""
        return _unit(self.mix @ self._areas(vertices)).reshape(-1, 3, 3).astype(np.float32)


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)


def colour_picture(part: Part) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The vertex colours of a part as a picture [S, S, 4] with a cell per triangle, and its corners' uvs [F, 3, 2]."""
    count = len(part.faces)
    side = 1 << int(np.ceil(np.log2(max(_CELL * np.ceil(np.sqrt(count)), _CELL))))
    row, column = np.divmod(np.arange(count), side // _CELL)
    corners = part.colours[part.faces].astype(np.float32)  # [F, 3, 3]
    x = np.clip((np.arange(_CELL) - 0.5) / (_CELL - 2), 0, 1)
    u, v = np.meshgrid(x, x)  # [cell, cell]
    u, v = np.where(u + v > 1, u / np.maximum(u + v, 1), u), np.where(u + v > 1, v / np.maximum(u + v, 1), v)
    weight = np.stack([1 - u - v, u, v], -1)  # [cell, cell, 3]
    cells = np.einsum("yxk,fkc->fyxc", weight, corners)
    picture = np.full((side // _CELL, _CELL, side // _CELL, _CELL, 4), 255, np.uint8)
    picture[row, :, column, :, :3] = np.clip(np.rint(cells), 0, 255)
    local = np.array([[1.0, 1.0], [_CELL - 1.0, 1.0], [1.0, _CELL - 1.0]])  # texels of corners 0, 1, 2 in their cell
    uvs = (np.stack([column, row], -1)[:, None] * _CELL + local) / side
    return picture.reshape(side, side, 4), uvs.astype(np.float32)


class SceneObject:
    """An :class:`AssetObject` made ready to be drawn in many poses: what does not move is worked out once.

    Args:
        fit: "clips" (all frames of all clips stay within the radius; nothing jumps between frames) or "rest" (the object
            at rest fills it; a moving one may leave it).
        radius: of the bounding sphere.
        texture_limit: textures are scaled down to this many texels a side.
    """

    def __init__(self, obj: AssetObject, fit: str = "clips", radius: float = RADIUS, texture_limit: int = 4096) -> None:
        self.asset = obj
        first = np.cumsum([0] + [len(p.vertices) for p in obj.parts])
        self._faces = np.concatenate([p.faces + start for p, start in zip(obj.parts, first)]).astype(np.int32)
        self._scale, self._centre = radius, np.zeros(3)
        if fit == "rest":
            self._centre = np.array(obj.rest[:3])
            self._scale = radius / max(obj.rest[3], 1e-6)
        self._normals = SmoothNormals(np.concatenate([p.vertices for p in obj.parts]), self._faces)
        self._textures: list[NDArray[np.uint8]] = []
        self._material = np.repeat(np.arange(len(obj.parts), dtype=np.int32), [len(p.faces) for p in obj.parts])
        uvs = []
        for part in obj.parts:
            picture, corners = self._look(part, texture_limit)
            self._textures.append(picture)
            uvs.append(corners)
        self._uvs = np.concatenate(uvs).astype(np.float32)
        self._colours = np.array([p.colour for p in obj.parts], np.float32).reshape(-1, 3)

    def _look(self, part: Part, limit: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if part.texture is not None and part.uvs is not None:
            picture = self.asset.textures[part.texture]
            if part.alpha == "opaque" and picture[..., 3].min() < 255:
                picture = picture.copy()
                picture[..., 3] = 255
            return fit_picture(picture, limit), part.uvs[part.faces]
        if part.colours is not None:
            return colour_picture(part)
        return np.full((1, 1, 4), 255, np.uint8), np.zeros((len(part.faces), 3, 2), np.float32)

    def _made(self, parts: list[NDArray]) -> TexturedObject:
        vertices = np.concatenate(parts)
        obj = self.asset
        info = {"caption": obj.caption, "category": obj.category, "licence": obj.licence, "flags": obj.flags}
        return TexturedObject(
            vertices=((vertices - self._centre) * self._scale).astype(np.float32),
            faces=self._faces,
            uvs=self._uvs,
            normals=self._normals.at(vertices),
            material=self._material,
            textures=self._textures,
            base_colors=self._colours,
            name=obj.name,
            source=obj.source,
            split=obj.split,
            info=info,
        )

    def at_rest(self) -> TexturedObject:
        """The object as it stands without a clip."""
        return self._made([p.vertices for p in self.asset.parts])

    def at_times(self, clip: str | int | Clip, seconds: NDArray) -> list[TexturedObject]:
        """The object at each of ``seconds`` [N] of a clip. Raises :class:`InputError` when there is no such clip."""
        parts = posed_vertices(self.asset, clip, np.atleast_1d(seconds))
        return [self._made([p[i] for p in parts]) for i in range(len(np.atleast_1d(seconds)))]


def textured(obj: AssetObject, fit: str = "rest", radius: float = RADIUS) -> TexturedObject:
    """``obj`` at rest, ready for :class:`bozzetto.data.render.SceneBatch`."""
    return SceneObject(obj, fit, radius).at_rest()
