"""The second result type: a triangle mesh with UV texture or vertex colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from os import PathLike

import torch
from torch import Tensor

from .errors import MeshError


@dataclass
class Mesh:
    """Triangles in world units (y up, right-handed: :mod:`bozzetto.camera.cameras`), counter-clockwise seen from outside.

    Attributes:
        vertices: [V, 3] float32.
        faces: [F, 3] int64, indices into ``vertices``.
        normals: [V, 3] unit vertex normals, or None.
        uvs: [V, 2] texture coordinates in glTF's convention ((0, 0) is the picture's top-left corner), or None.
        colors: [V, 3] vertex colours, sRGB 0..1, or None.
        texture: [H, W, 3] base-colour picture, sRGB 0..1, or None; needs ``uvs``.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor | None = None
    uvs: Tensor | None = None
    colors: Tensor | None = None
    texture: Tensor | None = None

    def __post_init__(self) -> None:
        v = self.vertices.shape[0]
        if self.vertices.shape != (v, 3) or self.faces.ndim != 2 or self.faces.shape[-1] != 3:
            raise MeshError(
                f"a mesh needs vertices [V, 3] and faces [F, 3], got {tuple(self.vertices.shape)}, {tuple(self.faces.shape)}"
            )
        if self.faces.numel() and (int(self.faces.min()) < 0 or int(self.faces.max()) >= v):
            raise MeshError(f"a face names a vertex outside 0..{v - 1}")
        for name, width in (("normals", 3), ("uvs", 2), ("colors", 3)):
            value = getattr(self, name)
            if value is not None and value.shape != (v, width):
                raise MeshError(f"{name} must be {(v, width)}, got {tuple(value.shape)}")
        if self.texture is not None and self.uvs is None:
            raise MeshError("a texture needs uvs")
        if self.texture is not None and (
            self.texture.ndim != 3 or self.texture.shape[-1] != 3 or not self.texture.numel()
        ):
            raise MeshError(f"texture must be [H, W, 3] with pixels in it, got {tuple(self.texture.shape)}")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Mesh:
        """Read a ``.glb``, ``.gltf``, ``.obj`` or ``.ply`` file; raises :class:`bozzetto.errors.MeshError` on a malformed one."""
        from .files.meshes import read_mesh

        return read_mesh(path)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``.glb``, ``.obj`` (with .mtl and .png beside it), ``.ply`` (vertex colours) or ``.usdz``, atomically."""
        from .files.meshes import write_mesh

        write_mesh(self, path)

    def with_normals(self, welded: bool = False) -> Mesh:
        """The same mesh with area-weighted vertex normals; vertices at one position share their normal across UV seams.

        Args:
            welded: there are no two vertices at one position, so none are looked for (which takes most of the time).
        """
        corners = self.vertices[self.faces]  # [F, 3, 3]
        face = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
        group = None if welded else torch.unique(self.vertices, dim=0, return_inverse=True)[1]
        summed = torch.zeros_like(self.vertices)
        owner = self.faces if group is None else group[self.faces]
        summed.index_add_(0, owner.reshape(-1), face.repeat_interleave(3, dim=0))
        normals = torch.nn.functional.normalize(summed if group is None else summed[group], dim=-1)
        flat = normals.norm(dim=-1, keepdim=True) < 0.5  # isolated vertices and zero-area fans
        return replace(self, normals=torch.where(flat, normals.new_tensor([0.0, 1.0, 0.0]), normals))

    def transformed(self, matrix: Tensor) -> Mesh:
        """The same mesh moved by an affine ``matrix`` [4, 4] without mirror (positive determinant)."""
        matrix = torch.as_tensor(matrix, dtype=self.vertices.dtype, device=self.vertices.device)
        if not bool(torch.isfinite(matrix).all()) or float(torch.linalg.det(matrix[:3, :3].double())) <= 0:
            raise ValueError("the matrix must be finite with a positive determinant (no mirror, not singular)")
        normals = None
        if self.normals is not None:
            inverse_transpose = torch.linalg.inv(matrix[:3, :3]).T
            normals = torch.nn.functional.normalize(self.normals @ inverse_transpose.T, dim=-1)
        return replace(self, vertices=self.vertices @ matrix[:3, :3].T + matrix[:3, 3], normals=normals)

    def cpu(self) -> Mesh:
        """The same mesh in main memory."""
        fields = {f.name: getattr(self, f.name) for f in dataclass_fields(self)}
        return replace(self, **{k: v.cpu() for k, v in fields.items() if v is not None})

    def __repr__(self) -> str:
        skin = f"texture {tuple(self.texture.shape[:2])}" if self.texture is not None else "no texture"
        return f"Mesh({len(self.vertices):,} vertices, {len(self.faces):,} faces, {skin})"
