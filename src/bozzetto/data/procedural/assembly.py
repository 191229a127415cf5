"""Parts put together into one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ..objects import TexturedObject
from .materials import Materials
from .solid import Solid

MIRROR_X = np.diag([-1.0, 1.0, 1.0])


@dataclass
class Assembly:
    """The parts placed so far.

    Attributes:
        rng: random numbers of the shape (textures have their own in ``materials``).
        materials: the object's materials.
        quality: factor on every part's fineness, lowered when an object comes out too heavy.
        detail: fineness for the parts to come (see :meth:`plan`); 1 gives a sphere of about 600 triangles.
        parts: (solid in the object's frame, material) in the order they were added.
    """

    rng: np.random.Generator
    materials: Materials
    quality: float = 1.0
    detail: float = 1.0
    parts: list[tuple[Solid, int]] = field(default_factory=list)

    def plan(self, parts: int) -> float:
        """Sets and returns ``detail`` for an object of about ``parts`` parts, so that totals stay alike."""
        wanted = float(np.exp(self.rng.normal(np.log(5500), 0.35)))
        self.detail = self.quality * float(np.clip(np.sqrt(wanted / (650 * max(parts, 1))), 0.45, 3.0))
        return self.detail

    def add(
        self,
        solid: Solid,
        material: int,
        *,
        scale: Iterable[float] | float = 1.0,
        turn: np.ndarray | None = None,
        at: Iterable[float] = (0.0, 0.0, 0.0),
        mirror: bool = False,
    ) -> Solid:
        """Places ``solid``: scaled along its own axes, turned [3, 3], moved; ``mirror`` adds its twin at -x.

        Returns the placed solid (without the twin).
        """
        local = solid.moved(np.broadcast_to(np.asarray(scale, dtype=np.float64), 3))
        local = replace(local, uvs=self.materials.mappings[material].apply(local))
        placed = local.moved(np.eye(3) if turn is None else turn, at)
        self.parts.append((placed, material))
        if mirror:
            self.parts.append((placed.moved(MIRROR_X), material))
        return placed

    def add_copies(self, start: int, matrices: Iterable[np.ndarray]) -> None:
        """Adds copies of all parts from number ``start`` on under each of the matrices [3, 3]."""
        chosen = self.parts[start:]
        for matrix in matrices:
            self.parts += [(solid.moved(matrix), material) for solid, material in chosen]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner over all parts."""
        pairs = [solid.bounds() for solid, _ in self.parts]
        return np.min([p[0] for p in pairs], 0), np.max([p[1] for p in pairs], 0)

    def triangles(self) -> int:
        return sum(len(solid.faces) for solid, _ in self.parts)

    def finish(self, turn: np.ndarray, radius: float) -> TexturedObject:
        """The object turned by ``turn``, its bounding box centred, its farthest vertex at distance ``radius``."""
        starts = np.cumsum([0] + [len(s.vertices) for s, _ in self.parts])
        vertices = np.concatenate([s.vertices for s, _ in self.parts]) @ turn.T
        vertices -= (vertices.min(0) + vertices.max(0)) / 2
        vertices *= radius / np.sqrt((vertices**2).sum(1).max())
        faces = np.concatenate([s.faces + start for (s, _), start in zip(self.parts, starts, strict=False)])
        normals = np.concatenate([s.corner_normals() for s, _ in self.parts]) @ turn.T
        uvs = np.concatenate([s.uvs for s, _ in self.parts])
        used, material = np.unique(
            np.repeat([m for _, m in self.parts], [len(s.faces) for s, _ in self.parts]), return_inverse=True
        )

        vertices = vertices.astype(np.float32)
        a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
        area = np.sqrt((np.cross(b - a, c - a) ** 2).sum(-1)) / 2
        keep = area > 1e-10
        return TexturedObject(
            vertices=vertices,
            faces=faces[keep].astype(np.int32),
            uvs=uvs[keep].astype(np.float32),
            normals=normals[keep].astype(np.float32),
            material=material[keep].astype(np.int32),
            textures=[self.materials.textures[k] for k in used],
            base_colors=np.stack([self.materials.base_colors[k] for k in used]),
            info={"textures": [self.materials.kinds[k] for k in used]},
        )
