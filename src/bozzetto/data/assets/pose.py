"""Linear blend skinning, and an object at any moment of a clip."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from .clip_blob import interpolate, interpolate_matrices
from .source_object import Clip, SourceObject


def blend_skin(vertices: Tensor, joints: Tensor, weights: Tensor, matrices: Tensor) -> Tensor:
    """Posed vertices ``sum_k weights_k M[joints_k] v`` (linear blend skinning).

    Args:
        vertices: [V, 3] in the bind pose. joints: [V, K] integers. weights: [V, K], rows that sum to 1.
        matrices: [..., J, 4, 4], bind pose -> posed object space, any number of frames in front.

    Returns:
        [..., V, 3], of the dtype and on the device of ``vertices``.
    """
    rows = matrices[..., :3, :].to(vertices.dtype)  # [..., J, 3, 4]
    mixed = torch.zeros(*rows.shape[:-3], len(vertices), 3, 4, dtype=vertices.dtype, device=vertices.device)
    for k in range(joints.shape[1]):
        mixed += weights[:, k, None, None].to(vertices.dtype) * rows.index_select(-3, joints[:, k].long())
    return (mixed[..., :3] @ vertices[:, :, None])[..., 0] + mixed[..., 3]  # [..., V, 3, 3] @ [V, 3, 1]


def skin(vertices: NDArray, joints: NDArray, weights: NDArray, matrices: NDArray) -> NDArray[np.float32]:
    """:func:`blend_skin` for NumPy arrays, float32."""
    return blend_skin(
        torch.from_numpy(np.ascontiguousarray(vertices, np.float32)),
        torch.from_numpy(np.ascontiguousarray(joints, np.int64)),
        torch.from_numpy(np.ascontiguousarray(weights, np.float32)),
        torch.from_numpy(np.ascontiguousarray(matrices, np.float32)),
    ).numpy()


def find_clip(obj: SourceObject, clip: str | int | Clip) -> Clip:
    """The clip of that name or number. Raises :class:`InputError` that lists what there is."""
    if isinstance(clip, Clip):
        return clip
    if isinstance(clip, int) and 0 <= clip < len(obj.clips):
        return obj.clips[clip]
    for candidate in obj.clips:
        if candidate.name == clip:
            return candidate
    known = ", ".join(c.name for c in obj.clips) or "none"
    raise InputError(f"{obj.name} has no clip {clip!r}; it has: {known}")


def posed_vertices(obj: SourceObject, clip: str | int | Clip, seconds: float | NDArray) -> list[NDArray[np.float32]]:
    """Vertices of each part at ``seconds`` [N] (or one number) of a clip, [N, V, 3] (or [V, 3]) per part.

    Between frames, rotations of rigid joints are interpolated as quaternions, everything else linearly; times beyond the
    ends show the first or last frame. Parts that the clip does not move are repeated.
    """
    clip = find_clip(obj, clip)
    times = np.atleast_1d(np.asarray(seconds, np.float64))
    at = times * clip.fps
    matrices = None if clip.matrices is None else interpolate_matrices(clip.matrices, at)
    out = []
    for index, part in enumerate(obj.parts):
        if clip.positions is not None:
            moved = interpolate(clip.positions[index], at)
        elif part.joints is not None:
            moved = skin(part.vertices, part.joints, part.weights, matrices)
        else:
            moved = np.broadcast_to(part.vertices, (len(times), *part.vertices.shape))
        out.append(moved[0] if np.ndim(seconds) == 0 else moved)
    return out


def clip_seconds(clip: Clip) -> float:
    """How long a clip lasts, first to last frame."""
    return (len(clip.matrices if clip.matrices is not None else clip.positions[0]) - 1) / clip.fps
