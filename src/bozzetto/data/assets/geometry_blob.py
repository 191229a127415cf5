"""The triangles of one :class:`Part` as bytes. The layout is stated in docs/data.md."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .codec import (
    PlaneReader,
    delta,
    dequantise,
    faces_of,
    first_use_order,
    index_codes,
    planes,
    quantise,
    undelta,
    weight_bytes,
)
from .source_object import Part

_HEAD = struct.Struct("<IIBBH 3f3f 2f2f")  # vertices, faces, flags, position bits, joint columns, boxes
_UVS, _SKIN, _WIDE, _COLOURS = 1, 2, 4, 8  # _WIDE: joint numbers of two bytes
UV_BITS = 16


def reorder(part: Part) -> tuple[Part, NDArray[np.int64]]:
    """``part`` with its vertices in the order of first use, and the old number of each of them."""
    order = first_use_order(part.faces, len(part.vertices))
    new = np.zeros(len(part.vertices), np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)

    def pick(values):
        return None if values is None else values[order]

    moved = replace(
        part,
        vertices=part.vertices[order],
        faces=new[part.faces],
        uvs=pick(part.uvs),
        joints=pick(part.joints),
        weights=pick(part.weights),
        colours=pick(part.colours),
    )
    return moved, order


def encode_geometry(part: Part, bits: int) -> bytes:
    """Bytes of a part whose vertices are in the order of first use (:func:`reorder`); positions keep ``bits`` bits."""
    flags, body = 0, [planes(index_codes(part.faces))]
    q, low, step = quantise(part.vertices, bits)
    body.append(planes(delta(q)))
    uv_low = uv_step = np.zeros(2, np.float32)
    if part.uvs is not None:
        flags |= _UVS
        q, uv_low, uv_step = quantise(part.uvs, UV_BITS)
        body.append(planes(delta(q)))
    columns = 0
    if part.joints is not None:
        flags |= _SKIN
        weights = weight_bytes(part.weights)
        joints = np.where(weights > 0, part.joints, 0)
        used = np.flatnonzero(weights.any(0))
        columns = int(used[-1]) + 1 if len(used) else 1
        wide = bool(joints.max(initial=0) > 255)
        flags |= _WIDE * wide
        body += [planes(joints[:, :columns].astype(np.uint16 if wide else np.uint8)), planes(weights[:, : columns - 1])]
    if part.colours is not None:
        flags |= _COLOURS
        body.append(planes(delta(part.colours.astype(np.uint16)).astype(np.uint16)))
    head = _HEAD.pack(
        len(part.vertices), len(part.faces), flags, bits, columns, *low, *step, *uv_low, *uv_step
    )  # fmt: skip
    return head + zlib.compress(b"".join(body), 9)


def decode_geometry(data: bytes) -> Part:
    """The part of :func:`encode_geometry`, without what its record says (texture, colour, alpha).

    Raises:
        ValueError, struct.error, zlib.error: the bytes are damaged.
    """
    count, faces, flags, _, columns, *box = _HEAD.unpack_from(data)
    low, step, uv_low, uv_step = (np.array(box[a:b], np.float32) for a, b in ((0, 3), (3, 6), (6, 8), (8, 10)))
    reader = PlaneReader(zlib.decompress(memoryview(data)[_HEAD.size :]))
    out = Part(np.zeros((0, 3), np.float32), faces_of(reader.take(3 * faces, 1, np.uint32)))
    out.vertices = dequantise(undelta(reader.take(count, 3, np.uint16)), low, step)
    if faces and not 0 <= out.faces.min() <= out.faces.max() < count:
        raise ValueError("a face names a vertex that is not there")
    if flags & _UVS:
        out.uvs = dequantise(undelta(reader.take(count, 2, np.uint16)), uv_low, uv_step)
    if flags & _SKIN:
        joints = np.zeros((count, 4), np.int32)
        weights = np.zeros((count, 4), np.float32)
        joints[:, :columns] = reader.take(count, columns, np.uint16 if flags & _WIDE else np.uint8)
        weights[:, : columns - 1] = reader.take(count, columns - 1, np.uint8)
        weights[:, columns - 1] = 255 - weights.sum(1)
        out.joints, out.weights = joints, weights / np.float32(255)
    if flags & _COLOURS:
        out.colours = undelta(reader.take(count, 3, np.uint16)).astype(np.uint8)
    reader.done()
    return out
