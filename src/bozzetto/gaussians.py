"""The first result type: a set of 3D Gaussians, as plain tensors of *activated* values.

Logits and logarithms exist only inside files and optimisers (see :mod:`bozzetto.files.ply`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike

import torch
import torch.nn.functional as F
from torch import Tensor

# Value of the constant (degree 0) spherical harmonic: colour = 0.5 + SH_C0 * coefficient.
SH_C0 = 0.28209479177387814


@dataclass
class Gaussians:
    """Gaussians in world units. Every leading shape ``*batch`` is allowed; a leading time axis makes them 4D.

    Attributes:
        means: [*batch, N, 3], world positions (conventions: :mod:`bozzetto.camera.cameras`).
        scales: [*batch, N, 3], standard deviations along the Gaussian's own axes, world units, >= 0.
        quats: [*batch, N, 4], rotation (w, x, y, z); any non-zero length, normalised where a kernel uses them.
        opacities: [*batch, N], in 0..1.
        sh: [*batch, N, K, 3], spherical-harmonic colour coefficients, K = (degree + 1)^2, degree 0..3;
            colour = max(0, 0.5 + sum_k Y_k(direction) sh_k).
    """

    means: Tensor
    scales: Tensor
    quats: Tensor
    opacities: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        shape = self.opacities.shape  # [*batch, N]; as they are compared here, shapes need no copies
        for name, values, size in (("means", self.means, 3), ("scales", self.scales, 3), ("quats", self.quats, 4)):
            if values.shape != (*shape, size):
                raise ValueError(f"{name} must be {(*shape, size)}, got {tuple(values.shape)}")
        k = self.sh.shape[-2] if self.sh.ndim >= 2 else -1
        if k not in (1, 4, 9, 16) or self.sh.shape != (*shape, k, 3):
            raise ValueError(f"sh must be {tuple(shape)} + (1, 4, 9 or 16, 3), got {tuple(self.sh.shape)}")

    # ---- construction -------------------------------------------------------------------------------------------------

    @classmethod
    def from_rgb(cls, means: Tensor, scales: Tensor, quats: Tensor, opacities: Tensor, rgb: Tensor) -> Gaussians:
        """Gaussians of one colour each; ``rgb`` [*batch, N, 3] in 0..1."""
        return cls(means, scales, quats, opacities, ((rgb - 0.5) / SH_C0).unsqueeze(-2))

    @classmethod
    def empty(cls, sh_degree: int = 0, device: torch.device | str = "cpu") -> Gaussians:
        """No Gaussians at all."""
        z = torch.zeros
        return cls(
            z(0, 3, device=device),
            z(0, 3, device=device),
            z(0, 4, device=device),
            z(0, device=device),
            z(0, (sh_degree + 1) ** 2, 3, device=device),
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Gaussians:
        """Read a ``.ply`` or ``.splat`` file. Raises :class:`bozzetto.errors.SplatFileError` on a malformed file."""
        from .files.splats import read_splats

        return read_splats(path)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``.ply`` (standard 3DGS layout) or ``.splat``, by the file's extension, atomically."""
        from .files.splats import write_splats

        write_splats(self, path)

    @staticmethod
    def cat(items: Sequence[Gaussians]) -> Gaussians:
        """Concatenate along N; lower SH degrees are padded with zeros to the highest."""
        if not items:
            return Gaussians.empty()
        k = max(g.sh.shape[-2] for g in items)
        sh = [F.pad(g.sh, (0, 0, 0, k - g.sh.shape[-2])) for g in items]
        return Gaussians(
            torch.cat([g.means for g in items], -2),
            torch.cat([g.scales for g in items], -2),
            torch.cat([g.quats for g in items], -2),
            torch.cat([g.opacities for g in items], -1),
            torch.cat(sh, -3),
        )

    # ---- shape and device ---------------------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> torch.Size:
        """Leading shape before N; () for one object."""
        return self.opacities.shape[:-1]

    def __len__(self) -> int:
        """Number of Gaussians N (not the batch)."""
        return self.opacities.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def sh_degree(self) -> int:
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[-2]]

    @property
    def rgb(self) -> Tensor:
        """View-independent part of the colour, [*batch, N, 3]; not clamped."""
        return self.sh[..., 0, :] * SH_C0 + 0.5

    def tensors(self) -> tuple[Tensor, ...]:
        """(means, scales, quats, opacities, sh)."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def _map(self, function) -> Gaussians:
        return Gaussians(*(function(t) for t in self.tensors()))

    def to(self, *args: object, **kwargs: object) -> Gaussians:
        """As ``Tensor.to`` on every tensor."""
        return self._map(lambda t: t.to(*args, **kwargs))

    def detach(self) -> Gaussians:
        return self._map(lambda t: t.detach())

    def __getitem__(self, index: object) -> Gaussians:
        """Index the batch dimensions (use :meth:`select` for a subset of the Gaussians)."""
        if not self.batch_shape:
            raise IndexError("these Gaussians have no batch dimension; use select() to pick some of them")
        return self._map(lambda t: t[index])

    # ---- subsets ------------------------------------------------------------------------------------------------------

    def select(self, index: Tensor) -> Gaussians:
        """The Gaussians that a mask [N] or an index tensor [M] picks; unbatched Gaussians only."""
        if self.batch_shape:
            raise ValueError("select() needs unbatched Gaussians: pick one object first, e.g. gaussians[0]")
        return self._map(lambda t: t[index])

    def prune(self, min_opacity: float = 0.005) -> Gaussians:
        """Drop Gaussians under ``min_opacity`` (LGM's value) and those with any non-finite value."""
        keep = self.opacities >= min_opacity
        for t in self.tensors():
            keep = keep & torch.isfinite(t).reshape(len(self), t.shape[1:].numel()).all(dim=-1)
        return self.select(keep)

    def crop(self, low: Sequence[float], high: Sequence[float]) -> Gaussians:
        """Keep the Gaussians whose centres lie inside the axis-aligned box from ``low`` to ``high`` (world units)."""
        lo, hi = self.means.new_tensor(low), self.means.new_tensor(high)
        return self.select(((self.means >= lo) & (self.means <= hi)).all(dim=-1))

    # ---- motion -------------------------------------------------------------------------------------------------------

    def transformed(self, matrix: Tensor) -> Gaussians:
        """The same Gaussians moved by a similarity ``matrix`` [4, 4] (rotation, translation, uniform scale > 0).

        View-dependent colour (SH degree 1..3) is rotated with them.
        """
        from .sh import rotate_sh

        matrix = torch.as_tensor(matrix, dtype=torch.float64, device=self.device)
        axes = matrix[:3, :3]
        scale = torch.linalg.det(axes)
        if not bool(torch.isfinite(matrix).all()) or float(scale) <= 0:
            raise ValueError("a similarity needs a finite matrix with a positive determinant (no mirror, not singular)")
        scale = scale ** (1 / 3)
        rotation = axes / scale
        if not torch.allclose(rotation.T @ rotation, torch.eye(3, dtype=torch.float64, device=self.device), atol=1e-4):
            raise ValueError("Gaussians can be rotated, moved and scaled uniformly; this matrix shears or stretches")
        means = (self.means.double() @ axes.T + matrix[:3, 3]).to(self.means.dtype)
        turn = matrix_to_quaternion(rotation).to(self.quats.dtype)
        return Gaussians(
            means,
            self.scales * scale.to(self.scales.dtype),
            quaternion_multiply(turn.expand_as(self.quats), self.quats),
            self.opacities,
            rotate_sh(self.sh, rotation),
        )

    def __repr__(self) -> str:
        batch = f"batch {tuple(self.batch_shape)}, " if self.batch_shape else ""
        return f"Gaussians({batch}{len(self):,}, SH degree {self.sh_degree}, {self.device})"


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of (w, x, y, z) quaternions [..., 4]: the rotation ``b`` followed by ``a``."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of (w, x, y, z) quaternions [..., 4], normalised here."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(w, x, y, z) quaternion [..., 4] of rotation matrices [..., 3, 3]; w >= 0.

    The eigenvector route of Bar-Itzhack (2000): stable for every rotation, also near 180 degrees.
    """
    m = matrix
    k = torch.zeros(*m.shape[:-2], 4, 4, dtype=m.dtype, device=m.device)  # order (x, y, z, w)
    for i in range(3):
        for j in range(3):
            k[..., i, j] = m[..., i, j] + m[..., j, i]
        k[..., i, i] = m[..., i, i] * 2 - m.diagonal(dim1=-2, dim2=-1).sum(-1)
    k[..., 3, 0] = k[..., 0, 3] = m[..., 2, 1] - m[..., 1, 2]
    k[..., 3, 1] = k[..., 1, 3] = m[..., 0, 2] - m[..., 2, 0]
    k[..., 3, 2] = k[..., 2, 3] = m[..., 1, 0] - m[..., 0, 1]
    k[..., 3, 3] = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    vector = torch.linalg.eigh(k / 3)[1][..., -1]
    quat = torch.cat([vector[..., 3:], vector[..., :3]], dim=-1)
    return torch.where(quat[..., :1] < 0, -quat, quat)
