"""Objects as flat tensors, ready for a renderer: :class:`PackedObject` (one object) and :class:`SceneBatch` (many).

Packing an object (checks, mip maps) is the heavy part and belongs in a worker process; its result is a handful of NumPy
arrays that pickle cheaply. Collating only shifts indices and concatenates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ...errors import MeshError
from ..objects import TexturedObject

MAX_LEVELS = 16  # a 32768 texel side


def _check(obj: TexturedObject) -> None:
    """Raise :class:`MeshError` when arrays of ``obj`` disagree with :class:`TexturedObject`."""
    count = len(obj.faces)
    where = f"object {obj.name!r}"
    expected = {"vertices": (len(obj.vertices), 3), "faces": (count, 3), "uvs": (count, 3, 2), "normals": (count, 3, 3)}
    expected |= {"material": (count,), "base_colors": (len(obj.textures), 3)}
    for name, shape in expected.items():
        if np.shape(getattr(obj, name)) != shape:
            raise MeshError(f"{where}: {name} has shape {np.shape(getattr(obj, name))}, it must be {shape}")
    for name in ("vertices", "uvs", "normals"):
        if not np.isfinite(getattr(obj, name)).all():
            raise MeshError(f"{where}: {name} holds NaN or infinity; drop or repair those triangles")
    if count and (obj.faces.min() < 0 or obj.faces.max() >= len(obj.vertices)):
        raise MeshError(f"{where}: faces name vertices outside 0..{len(obj.vertices) - 1}")
    if count and (obj.material.min() < 0 or obj.material.max() >= len(obj.textures)):
        raise MeshError(f"{where}: material indices lie outside the {len(obj.textures)} textures")
    for texture in obj.textures:
        good = texture.ndim == 3 and texture.shape[2] == 4 and texture.dtype == np.uint8
        sides = texture.shape[:2]
        if not good or any(s < 1 or s & (s - 1) or s > 1 << (MAX_LEVELS - 1) for s in sides):
            raise MeshError(
                f"{where}: a texture is {texture.dtype} {texture.shape}; make it uint8 [h, w, 4] "
                f"with sides that are powers of two up to {1 << (MAX_LEVELS - 1)}"
            )


def _filled_normals(obj: TexturedObject) -> np.ndarray:
    """Corner normals [F, 3, 3] where zero-length ones are replaced by the triangle's own normal."""
    normals = np.ascontiguousarray(obj.normals, dtype=np.float32)
    missing = (normals * normals).sum(-1) < 1e-12  # [F, 3]
    if not missing.any():
        return normals
    a, b, c = (obj.vertices[obj.faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-20)
    return np.where(missing[..., None], flat[:, None], normals).astype(np.float32)


@dataclass
class PackedObject:
    """One object, flattened and with its mip maps. Indices start at 0 within the object.

    Attributes:
        vertices: [V, 3] float32. faces: [F, 3] int32. uvs: [F, 3, 2], normals: [F, 3, 3] float32. material: [F] int32.
        texels: [N, 4] uint8, every level of every texture, row by row (RGBA, sRGB, straight alpha).
        levels: [M, 16] int64, where each mip level starts in ``texels`` (counted in texels; unused columns repeat the last).
        sizes: [M, 4] int32 = width, height, number of levels, 1 where alpha cuts holes (0: alpha is not looked at).
        base_colors: [M, 3] float32.
        name: for reports.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    texels: np.ndarray
    levels: np.ndarray
    sizes: np.ndarray
    base_colors: np.ndarray
    name: str = ""

    @classmethod
    def pack(cls, obj: TexturedObject, mipmaps: bool = True) -> PackedObject:
        """Check and flatten ``obj``; without ``mipmaps`` every texture keeps its full level only.

        Raises:
            MeshError: arrays of the wrong shape, indices out of range, NaN, texture sides not powers of two.
        """
        from .mipmaps import mip_chain  # numba

        _check(obj)
        chunks: list[np.ndarray] = []
        levels = np.zeros((len(obj.textures), MAX_LEVELS), dtype=np.int64)
        sizes = np.zeros((len(obj.textures), 4), dtype=np.int32)
        start = 0
        for row, texture in enumerate(obj.textures):
            chain = mip_chain(texture) if mipmaps else [texture]
            for column, level in enumerate(chain):
                levels[row, column:] = start
                chunks.append(level.reshape(-1, 4))  # [h, w, 4] -> [h * w, 4]
                start += len(chunks[-1])
            sizes[row] = texture.shape[1], texture.shape[0], len(chain), texture[..., 3].min() < 255
        return cls(
            np.ascontiguousarray(obj.vertices, dtype=np.float32),
            np.ascontiguousarray(obj.faces, dtype=np.int32),
            np.ascontiguousarray(obj.uvs, dtype=np.float32),
            _filled_normals(obj),
            np.ascontiguousarray(obj.material, dtype=np.int32),
            np.concatenate(chunks) if chunks else np.zeros((0, 4), np.uint8),
            levels,
            sizes,
            np.ascontiguousarray(obj.base_colors, dtype=np.float32),
            obj.name,
        )


@dataclass
class SceneBatch:
    """B objects in shared flat tensors; all indices count through the whole batch.

    Attributes:
        vertices: [V, 3] float32. faces: [F, 3] int32. uvs: [F, 3, 2], normals: [F, 3, 3] float32. material: [F] int32.
        face_object: [F] int32, the object that owns each face.
        texels: [N, 4] uint8. levels: [M, 16] int64. sizes: [M, 4] int32. base_colors: [M, 3] float32
            (see :class:`PackedObject`).
        face_start, vertex_start: [B + 1] int64, object b owns faces face_start[b] to face_start[b + 1].
        names: B names.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    normals: Tensor
    material: Tensor
    face_object: Tensor
    texels: Tensor
    levels: Tensor
    sizes: Tensor
    base_colors: Tensor
    face_start: Tensor
    vertex_start: Tensor
    names: tuple[str, ...] = ()

    @classmethod
    def pack(cls, objects: Sequence[TexturedObject], mipmaps: bool = True) -> SceneBatch:
        """Pack and collate in one go (on the CPU). Raises :class:`MeshError` as :meth:`PackedObject.pack` does."""
        return cls.collate([PackedObject.pack(obj, mipmaps) for obj in objects])

    @classmethod
    def collate(cls, packed: Sequence[PackedObject]) -> SceneBatch:
        """Join packed objects (at least one) into CPU tensors."""
        if not packed:
            raise MeshError("a scene batch needs at least one object")

        def starts(name: str) -> np.ndarray:
            return np.cumsum([0] + [len(getattr(p, name)) for p in packed], dtype=np.int64)

        def join(name: str, shift: np.ndarray | None = None) -> Tensor:
            parts = [getattr(p, name) for p in packed]
            if shift is not None:
                parts = [part + part.dtype.type(s) for part, s in zip(parts, shift)]
            return torch.from_numpy(np.concatenate(parts))

        face_start, vertex_start = starts("faces"), starts("vertices")
        owner = np.repeat(np.arange(len(packed), dtype=np.int32), np.diff(face_start))
        return cls(
            vertices=join("vertices"),
            faces=join("faces", vertex_start),
            uvs=join("uvs"),
            normals=join("normals"),
            material=join("material", starts("sizes")),
            face_object=torch.from_numpy(owner),
            texels=join("texels"),
            levels=join("levels", starts("texels")),
            sizes=join("sizes"),
            base_colors=join("base_colors"),
            face_start=torch.from_numpy(face_start),
            vertex_start=torch.from_numpy(vertex_start),
            names=tuple(p.name for p in packed),
        )

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.face_start) - 1

    @property
    def device(self) -> torch.device:
        return self.vertices.device

    def _map(self, change) -> SceneBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return SceneBatch(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SceneBatch:
        """All tensors on ``device``; ``non_blocking`` helps after :meth:`pin_memory`."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SceneBatch:
        """All tensors in page-locked memory (needs CUDA)."""
        return self._map(lambda x: x.pin_memory())
