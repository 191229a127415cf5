"""Is a matrix a camera pose? Singular and non-rigid matrices are refused with a message that says which and why."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CameraError


def check_poses(poses: Tensor, names: Sequence[str] | None = None, tolerance: float = 2e-3) -> Tensor:
    """Return ``poses`` [N, 4, 4] with exactly orthonormal rotations, or raise :class:`CameraError`.

    A uniform scale on the axes (as some exporters write) is removed from the rotation; the camera centre is kept.
    Refused: NaN or infinity, a last row that is not 0 0 0 1, a singular matrix, shear or unequal scales beyond
    ``tolerance``, a mirrored frame (determinant below zero).
    """
    flat = poses.reshape(-1, 4, 4).double()
    fixed = torch.empty_like(flat)
    for i, pose in enumerate(flat):
        label = f"camera {i}" if names is None else f"camera {names[i]!r}"
        if not bool(torch.isfinite(pose).all()):
            raise CameraError(f"{label}: its matrix holds NaN or infinity; export the cameras again")
        if not torch.allclose(pose[3], pose.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-5):
            raise CameraError(f"{label}: the last row of its matrix must be 0 0 0 1, got {pose[3].tolist()}")
        axes = pose[:3, :3]
        determinant = float(torch.linalg.det(axes))
        if abs(determinant) < 1e-9:
            raise CameraError(
                f"{label}: its rotation is singular (determinant {determinant:.1e}); it is no camera pose"
            )
        if determinant < 0:
            raise CameraError(
                f"{label}: its axes are mirrored (determinant {determinant:.3g}); a camera-to-world matrix must be a "
                "proper rotation. Was it exported with OpenCV axes, or with one axis flipped?"
            )
        scale = determinant ** (1 / 3)
        rotation = axes / scale
        error = float((rotation.T @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().max())
        if error > tolerance:
            raise CameraError(f"{label}: its matrix is not rigid (shear or unequal scales, off by {error:.2g})")
        u, _, vh = torch.linalg.svd(rotation)
        fixed[i] = pose
        fixed[i, :3, :3] = u @ vh
    return fixed.reshape(poses.shape).to(poses.dtype)
