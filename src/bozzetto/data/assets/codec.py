"""Arrays as few bytes: quantisation, differences, byte planes, zlib.

Every encoder here has a decoder that gives back the quantised values exactly. Integers are written as differences from
their predecessor (wrapping at 16 bits), small differences of either sign as small numbers ("zigzag"), and then byte plane by
byte plane, so that zlib finds the runs of zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def quantise(values: Array, bits: int) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.float32]]:
    """[..., C] floats -> uint16 of the same shape, and per column the lowest value and the step, [C] float32 each.

    ``low + step * q`` is at most half a step from the value. ``bits`` is 2 to 16.
    """
    flat = np.asarray(values, np.float64).reshape(-1, np.shape(values)[-1])  # [..., C] -> [N, C]
    if not len(flat):
        flat = np.zeros((1, flat.shape[1]))
    low = flat.min(0).astype(np.float32)
    step = ((flat.max(0) - low) / ((1 << bits) - 1)).astype(np.float32)
    safe = np.where(step > 0, step, 1).astype(np.float64)
    q = np.rint((np.asarray(values, np.float64) - low) / safe)
    return np.clip(q, 0, (1 << bits) - 1).astype(np.uint16), low, step


def dequantise(q: Array, low: Array, step: Array) -> NDArray[np.float32]:
    """What :func:`quantise` kept of the values, float32."""
    return (low + q.astype(np.float64) * step).astype(np.float32)


def delta(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """[N, C] -> zigzag differences along the first axis, [N, C]; the first row is the difference from zero."""
    before = np.zeros_like(values)
    before[1:] = values[:-1]
    signed = (values - before).view(np.int16).astype(np.int32)  # wraps
    return ((signed << 1) ^ (signed >> 31)).astype(np.uint16)


def undelta(codes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The inverse of :func:`delta`."""
    wide = codes.astype(np.int32)
    signed = (wide >> 1) ^ -(wide & 1)
    return np.cumsum(signed, axis=0, dtype=np.int64).astype(np.uint16)


def planes(values: Array) -> bytes:
    """[N, C] integers -> bytes, column by column, lowest byte of all rows first."""
    values = np.ascontiguousarray(values)
    raw = values.view(np.uint8).reshape(*values.shape, values.itemsize)  # [N, C] -> [N, C, bytes]
    return raw.transpose(1, 2, 0).tobytes()


class PlaneReader:
    """Takes arrays back out of joined :func:`planes`, in the order in which they were written."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, rows: int, columns: int, kind: type[np.generic]) -> Array:
        """[rows, columns] of dtype ``kind``."""
        size = np.dtype(kind).itemsize
        count = rows * columns * size
        if self.at + count > len(self.data):
            raise ValueError("the data end too early")
        raw = np.frombuffer(self.data, np.uint8, count, self.at).reshape(columns, size, rows)
        self.at += count
        # [C, bytes, N] -> [N, C, bytes] -> [N, C]
        return np.ascontiguousarray(raw.transpose(2, 0, 1)).view(kind)[..., 0]

    def done(self) -> None:
        """Raise ``ValueError`` if something is left."""
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many")


def first_use_order(faces: Array, count: int) -> NDArray[np.int64]:
    """Vertex numbers in the order in which ``faces`` [F, 3] first name them, [used]; vertices never named are left out."""
    named, first = np.unique(faces.reshape(-1), return_index=True)
    if len(named) and not 0 <= named[0] <= named[-1] < count:
        raise ValueError(f"a face names a vertex outside 0..{count - 1}")
    return named[np.argsort(first, kind="stable")].astype(np.int64)


def index_codes(faces: Array) -> NDArray[np.uint32]:
    """Faces whose vertices are in first-use order -> how far each corner's vertex lies below the next unused number.

    [F, 3] -> [3 F, 1]; a vertex that is named for the first time gets 0.
    """
    flat = faces.reshape(-1).astype(np.int64)
    seen = np.maximum.accumulate(np.concatenate([[-1], flat]))[:-1]  # the highest number so far
    return (seen + 1 - flat).astype(np.uint32)[:, None]


def faces_of(codes: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The inverse of :func:`index_codes`: [3 F, 1] -> [F, 3]."""
    flat = codes.reshape(-1).astype(np.int64)
    new = flat == 0
    following = np.cumsum(new) - new  # the next unused number at each corner
    return (following - flat).astype(np.int32).reshape(-1, 3)


def weight_bytes(weights: Array) -> NDArray[np.uint8]:
    """Skin weights [V, 4] -> bytes whose rows sum to 255 exactly."""
    weights = np.maximum(np.asarray(weights, np.float64), 0)
    total = weights.sum(1, keepdims=True)
    weights = np.where(total > 1e-8, weights / np.maximum(total, 1e-8), np.array([1.0, 0, 0, 0]))
    out = np.rint(weights * 255).astype(np.int64)
    rows = np.arange(len(out))
    out[rows, out.argmax(1)] += 255 - out.sum(1)
    return out.astype(np.uint8)
