"""One :class:`Clip` as bytes: joint matrices as rotation and translation where they are rigid, or moving vertices.

The layout is stated in docs/data.md.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from .codec import PlaneReader, delta, dequantise, planes, quantise, undelta
from .source_object import Clip

_HEAD = struct.Struct("<BBHIf")  # kind, columns, frames, joints or vertices, frames per second
_RIGID, _AFFINE, _VERTICES = 0, 1, 2
_TOLERANCE = (
    2e-3  # largest difference between a joint's linear part and the nearest rotation that still counts as rigid
)
VERTEX_BITS = 12
TURN = 8191  # quaternions are stored as integers up to this: within 0.02 degrees
SHIFT_BITS = 14


def rotations_to_quaternions(matrices: NDArray) -> NDArray[np.float64]:
    """Rotations [..., 3, 3] -> unit quaternions [..., 4] = w, x, y, z, by the largest of the four components."""
    m = np.asarray(matrices, np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = np.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], -1)  # 4 w^2, 4 x^2 ..
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # Row k: the quaternion times four of its component k.
    table = np.stack(
        [
            np.stack([squares[..., 0], a, b, c], -1),
            np.stack([a, squares[..., 1], d, e], -1),
            np.stack([b, d, squares[..., 2], f], -1),
            np.stack([c, e, f, squares[..., 3]], -1),
        ],
        -2,
    )
    best = squares.argmax(-1)[..., None, None]
    q = np.take_along_axis(table, best, -2)[..., 0, :]
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def quaternions_to_rotations(q: NDArray) -> NDArray[np.float64]:
    """[..., 4] = w, x, y, z of any length -> [..., 3, 3]."""
    q = np.asarray(q, np.float64)
    w, x, y, z = np.moveaxis(q / np.maximum(np.linalg.norm(q, axis=-1, keepdims=True), 1e-12), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def is_rigid(matrices: NDArray) -> bool:
    """Whether the linear parts of [..., 4, 4] are rotations (no scale, no mirror)."""
    linear = np.asarray(matrices, np.float64)[..., :3, :3]
    if not len(linear) or (np.linalg.det(linear) < 0.5).any():
        return False
    error = np.abs(linear @ np.swapaxes(linear, -1, -2) - np.eye(3)).max()
    return bool(error < _TOLERANCE)


def resample(clip: Clip, fps: float) -> Clip:
    """``clip`` with at most ``fps`` frames per second; first and last frame stay. Frames in between are interpolated."""
    frames = len(clip.matrices if clip.matrices is not None else clip.positions[0])
    if clip.fps <= fps or frames < 3:
        return clip
    count = max(2, round((frames - 1) * fps / clip.fps) + 1)
    at = np.linspace(0, frames - 1, count)
    rate = clip.fps * (count - 1) / (frames - 1)
    if clip.positions is not None:
        return Clip(clip.name, rate, None, [interpolate(p, at) for p in clip.positions])
    return Clip(clip.name, rate, interpolate_matrices(clip.matrices, at))


def interpolate(values: NDArray, at: NDArray) -> NDArray[np.float32]:
    """Rows of ``values`` [T, ...] at the fractional places ``at`` [N], linearly; places beyond the ends are clamped."""
    at = np.clip(at, 0, len(values) - 1)
    low = np.minimum(np.floor(at).astype(int), max(len(values) - 2, 0))
    high = np.minimum(low + 1, len(values) - 1)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return (values[low] * (1 - share) + values[high] * share).astype(np.float32)


def interpolate_matrices(matrices: NDArray, at: NDArray) -> NDArray[np.float32]:
    """As :func:`interpolate` for [T, J, 4, 4]; rigid matrices stay rigid (quaternions are mixed and normalised)."""
    if not is_rigid(matrices):
        return interpolate(matrices, at)
    q = continuous(rotations_to_quaternions(matrices[..., :3, :3]))
    out = np.zeros((len(at), *matrices.shape[1:]), np.float32)
    out[..., :3, :3] = quaternions_to_rotations(interpolate(q, at))
    out[..., :3, 3] = interpolate(matrices[..., :3, 3], at)
    out[..., 3, 3] = 1
    return out


def continuous(q: NDArray) -> NDArray:
    """Quaternions [T, J, 4] with signs so that each is nearest to its predecessor's."""
    sign = np.sign((q[1:] * q[:-1]).sum(-1))
    sign = np.concatenate([np.ones_like(q[:1, ..., 0]), np.where(sign == 0, 1, sign)])
    return q * np.cumprod(sign, axis=0)[..., None]


def encode_clip(clip: Clip) -> bytes:
    """Bytes of a clip with at least one frame; ``positions`` must be in the order of the packed vertices."""
    if clip.positions is not None:
        values = np.concatenate(clip.positions, axis=1)  # [T, V, 3]
        q, low, step = quantise(values, VERTEX_BITS)
        return _encode(_VERTICES, q, np.concatenate([low, step]), clip.fps)
    matrices = np.asarray(clip.matrices, np.float64)
    if is_rigid(matrices):
        quaternions = continuous(rotations_to_quaternions(matrices[..., :3, :3]))
        turn = np.rint(quaternions * TURN).astype(np.int16).view(np.uint16)
        q, low, step = quantise(matrices[..., :3, 3], SHIFT_BITS)
        return _encode(_RIGID, np.concatenate([turn, q], -1), np.concatenate([low, step]), clip.fps)
    q, low, step = quantise(matrices[..., :3, :].reshape(*matrices.shape[:2], 12), 16)
    return _encode(_AFFINE, q, np.concatenate([low, step]), clip.fps)


def _encode(kind: int, q: NDArray[np.uint16], box: NDArray[np.float32], fps: float) -> bytes:
    frames, count, columns = q.shape
    still = np.zeros_like(q)
    still[0] = q[0]
    still[1:] = q[1:] - q[:-1]  # wraps; what does not move is 0
    first = delta(np.ascontiguousarray(still[0]))  # [N, C], along the vertices or joints
    moving = still[1:].view(np.int16).astype(np.int32)
    moving = ((moving << 1) ^ (moving >> 31)).astype(np.uint16)
    # [T - 1, N, C] -> [N, T - 1, C]: one joint's motion stands together
    body = planes(first) + planes(moving.transpose(1, 0, 2).reshape(-1, columns))
    head = _HEAD.pack(kind, columns, frames, count, fps) + box.astype("<f4").tobytes()
    return head + zlib.compress(body, 9)


def decode_clip(data: bytes, name: str, part_sizes: list[int]) -> Clip:
    """The clip of :func:`encode_clip`; moving vertices are dealt out to parts of ``part_sizes`` vertices.

    Raises:
        ValueError, struct.error, zlib.error: the bytes are damaged.
    """
    kind, columns, frames, count, fps = _HEAD.unpack_from(data)
    boxed = 12 if kind == _AFFINE else 3
    box = np.frombuffer(data, "<f4", 2 * boxed, _HEAD.size)
    low, step = box[:boxed], box[boxed:]
    reader = PlaneReader(zlib.decompress(memoryview(data)[_HEAD.size + box.nbytes :]))
    first = undelta(reader.take(count, columns, np.uint16))
    moving = reader.take(count * (frames - 1), columns, np.uint16).astype(np.int32)
    reader.done()
    moving = ((moving >> 1) ^ -(moving & 1)).reshape(count, frames - 1, columns).transpose(1, 0, 2)
    q = np.concatenate([first[None].astype(np.int64), moving]).cumsum(0).astype(np.uint16)  # [T, N, C]
    if kind == _VERTICES:
        values = dequantise(q, low, step)
        if sum(part_sizes) != count:
            raise ValueError(f"a clip moves {count} vertices, the object has {sum(part_sizes)}")
        return Clip(name, fps, None, np.split(values, np.cumsum(part_sizes)[:-1], axis=1))
    matrices = np.zeros((frames, count, 4, 4), np.float32)
    matrices[..., 3, 3] = 1
    if kind == _AFFINE:
        matrices[..., :3, :] = dequantise(q, low, step).reshape(frames, count, 3, 4)
    else:
        turn = np.ascontiguousarray(q[..., :4]).view(np.int16)
        matrices[..., :3, :3] = quaternions_to_rotations(turn)
        matrices[..., :3, 3] = dequantise(q[..., 4:], low, step)
    return Clip(name, fps, matrices)
