"""Are these cameras? Singular, non-rigid and non-finite ones are refused with a message that says which and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CameraError
from .cameras import Cameras


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
        if not bool(torch.isfinite(pose.float()).all()):  # also what float32 cannot hold
            raise CameraError(f"{label}: its matrix holds NaN or infinity; export the cameras again")
        if not torch.allclose(pose[3], pose.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-5):
            raise CameraError(f"{label}: the last row of its matrix must be 0 0 0 1, got {pose[3].tolist()}")
        axes = pose[:3, :3]
        lengths = axes.norm(dim=0)
        # Of the unit axes, so that a uniform scale does not count.
        determinant = float(torch.linalg.det(axes / lengths.clamp_min(1e-150)))
        if abs(determinant) < 1e-6:
            raise CameraError(
                f"{label}: its rotation is singular (determinant {determinant:.1e}); it is no camera pose"
            )
        if determinant < 0:
            raise CameraError(
                f"{label}: its axes are mirrored (determinant {determinant:.3g}); a camera-to-world matrix must be a "
                "proper rotation. Was it exported with OpenCV axes, or with one axis flipped?"
            )
        scale = lengths.log().mean().exp() * determinant ** (1 / 3)  # the cube root of the determinant of ``axes``
        rotation = axes / scale
        error = float((rotation.T @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().max())
        if error > tolerance:
            raise CameraError(f"{label}: its matrix is not rigid (shear or unequal scales, off by {error:.2g})")
        u, _, vh = torch.linalg.svd(rotation)
        fixed[i] = pose
        fixed[i, :3, :3] = u @ vh
    return fixed.reshape(poses.shape).to(poses.dtype)


def check_cameras(cameras: Cameras) -> Cameras:
    """The cameras (any batch shape) with exactly orthonormal rotations, or :class:`CameraError` if they cannot be used.

    Refused: what :func:`check_poses` refuses; intrinsics with NaN or infinity, or a focal length that is not positive.
    """
    flat = cameras.intrinsics.reshape(-1, 4)  # [*batch, 4] -> [N, 4]
    for i, (fx, fy, cx, cy) in enumerate(flat.tolist()):
        label = f"camera {i}" if cameras.names is None else f"camera {cameras.names[i]!r}"
        if not all(math.isfinite(x) for x in (fx, fy, cx, cy)):
            raise CameraError(
                f"{label}: its intrinsics hold NaN or infinity (fx {fx}, fy {fy}, cx {cx}, cy {cy}); state them in "
                "shares of the picture's width and height"
            )
        if fx <= 0 or fy <= 0:
            raise CameraError(f"{label}: its focal lengths must be positive, got fx {fx:g}, fy {fy:g}")
    return Cameras(check_poses(cameras.camera_to_world, cameras.names), cameras.intrinsics, cameras.names)
