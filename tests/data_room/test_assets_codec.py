"""Arrays, geometry and clips as bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
from asset_shapes import arm, ball, turn_z

from bozzetto.data.assets import codec
from bozzetto.data.assets.clip_blob import (
    decode_clip,
    encode_clip,
    is_rigid,
    quaternions_to_rotations,
    resample,
    rotations_to_quaternions,
)
from bozzetto.data.assets.geometry_blob import decode_geometry, encode_geometry, reorder
from bozzetto.data.assets.source_object import Clip

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [10, 13, 16])
def test_quantised_values_are_within_half_a_step(bits):
    values = RNG.normal(size=(500, 3)) * [1, 100, 1e-3] + [0, 1e4, 0]
    q, low, step = codec.quantise(values, bits)
    error = np.abs(codec.dequantise(q, low, step) - values)
    assert (error <= step * 0.51 + np.abs(values) * 1e-6).all()
    assert int(q.max()) == (1 << bits) - 1


def test_constant_and_empty_columns():
    q, low, step = codec.quantise(np.full((7, 2), 3.5), 12)
    np.testing.assert_array_equal(codec.dequantise(q, low, step), np.float32(3.5))
    q, low, step = codec.quantise(np.zeros((0, 3)), 12)
    assert codec.dequantise(q, low, step).shape == (0, 3)


def test_differences_wrap_and_come_back():
    values = RNG.integers(0, 65536, (1000, 3), dtype=np.uint16)
    np.testing.assert_array_equal(codec.undelta(codec.delta(values)), values)
    assert codec.delta(np.array([[0], [65535]], np.uint16))[1, 0] == 1  # one step down, around the end


def test_planes_come_back_in_order():
    a, b = RNG.integers(0, 2**32, (11, 2), dtype=np.uint32), RNG.integers(0, 256, (5, 4), dtype=np.uint8)
    reader = codec.PlaneReader(codec.planes(a) + codec.planes(b))
    np.testing.assert_array_equal(reader.take(11, 2, np.uint32), a)
    np.testing.assert_array_equal(reader.take(5, 4, np.uint8), b)
    reader.done()
    with pytest.raises(ValueError, match="too early"):
        reader.take(1, 1, np.uint8)


def test_index_codes_are_small_and_exact():
    part = ball()
    part.faces = part.faces[np.argsort(part.faces.min(1), kind="stable")]  # as a modeller stores them
    part, _ = reorder(part)
    codes = codec.index_codes(part.faces)
    np.testing.assert_array_equal(codec.faces_of(codes), part.faces)
    assert int(codes.max()) < 0.5 * len(part.vertices)  # neighbours, not absolute numbers
    with pytest.raises(ValueError, match="outside"):
        codec.first_use_order(np.array([[0, 1, 9]]), 3)


def test_weights_keep_their_sum():
    raw = codec.weight_bytes(RNG.random((200, 4)))
    np.testing.assert_array_equal(raw.astype(int).sum(1), 255)
    np.testing.assert_array_equal(codec.weight_bytes(np.zeros((1, 4))), [[255, 0, 0, 0]])


def test_geometry_comes_back():
    part = arm().parts[0]
    part.joints = part.joints + np.array([300, 300, 0, 0], np.int32)  # two-byte joint numbers
    part.colours = RNG.integers(0, 256, part.vertices.shape, dtype=np.uint8)
    part, order = reorder(part)
    back = decode_geometry(encode_geometry(part, 14))
    np.testing.assert_array_equal(back.faces, part.faces)
    np.testing.assert_allclose(back.vertices, part.vertices, atol=4 / 2**14)
    np.testing.assert_allclose(back.uvs, part.uvs, atol=1 / 2**16)
    np.testing.assert_allclose(back.weights, part.weights, atol=1 / 255)
    np.testing.assert_allclose(back.weights.sum(1), 1, atol=1e-6)
    held = part.weights > 0
    np.testing.assert_array_equal(back.joints[held], part.joints[held])
    np.testing.assert_array_equal(back.colours, part.colours)
    assert len(order) == len(part.vertices)


def test_vertices_that_no_face_names_are_dropped():
    part = ball()
    part.vertices = np.concatenate([part.vertices, np.full((10, 3), 1e9, np.float32)])
    part.uvs = np.concatenate([part.uvs, np.zeros((10, 2), np.float32)])
    moved, order = reorder(part)
    assert len(moved.vertices) == len(np.unique(part.faces)) and moved.vertices.max() < 100
    np.testing.assert_array_equal(moved.vertices[moved.faces], part.vertices[part.faces])
    assert len(order) == len(moved.vertices)


def test_damaged_geometry_is_noticed():
    data = encode_geometry(reorder(ball())[0], 12)
    with pytest.raises(Exception):  # noqa: B017 (zlib.error or ValueError)
        decode_geometry(data[:-20])


def test_quaternions_of_every_kind():
    q = RNG.normal(size=(500, 4))
    q = np.concatenate([q, np.eye(4), [[0, 1, 1e-9, 0]]])
    matrices = quaternions_to_rotations(q)
    assert is_rigid(
        np.block([[matrices, np.zeros((len(q), 3, 1))], [np.zeros((len(q), 1, 3)), np.ones((len(q), 1, 1))]])
    )
    np.testing.assert_allclose(quaternions_to_rotations(rotations_to_quaternions(matrices)), matrices, atol=1e-9)


def test_rigid_clip_comes_back():
    clip = arm(frames=31).clips[0]
    back = decode_clip(encode_clip(clip), "bend", [1])
    assert back.fps == clip.fps
    np.testing.assert_allclose(back.matrices, clip.matrices, atol=5e-4)


def test_scaling_clip_comes_back():
    matrices = np.repeat(np.eye(4)[None, None], 6, 0).repeat(3, 1)
    matrices[:, 1, :3, :3] *= np.linspace(1, 3, 6)[:, None, None]
    matrices[:, 2, 0, 0] = -1  # a mirror
    matrices[:, :, :3, 3] = RNG.normal(size=(6, 3, 3)) * 50
    back = decode_clip(encode_clip(Clip("grow", 12.0, matrices.astype(np.float32))), "grow", [1])
    np.testing.assert_allclose(back.matrices, matrices, atol=200 / 65535)


def test_moving_vertices_come_back_by_part():
    a, b = RNG.normal(size=(4, 10, 3)), RNG.normal(size=(4, 3, 3)) * 5
    clip = Clip("wave", 9.0, None, [a.astype(np.float32), b.astype(np.float32)])
    back = decode_clip(encode_clip(clip), "wave", [10, 3])
    for x, y in zip(back.positions, (a, b)):
        np.testing.assert_allclose(x, y, atol=35 / 2**12)
    with pytest.raises(ValueError, match="13 vertices"):
        decode_clip(encode_clip(clip), "wave", [10, 4])


def test_one_frame_clip_comes_back():
    clip = Clip("pose", 10.0, np.eye(4, dtype=np.float32)[None, None])
    np.testing.assert_allclose(decode_clip(encode_clip(clip), "pose", []).matrices, clip.matrices, atol=1e-4)


def test_resampling_keeps_ends_and_rotations():
    clip = Clip("spin", 30.0, np.stack([turn_z(a)[None] for a in np.linspace(0, 300, 61)]).astype(np.float32))
    thin = resample(clip, 10.0)
    assert len(thin.matrices) == 21 and thin.fps == pytest.approx(10.0)
    np.testing.assert_allclose(thin.matrices[[0, -1]], clip.matrices[[0, -1]], atol=1e-6)
    np.testing.assert_allclose(thin.matrices[1], turn_z(15)[None], atol=1e-5)
    thin = resample(clip, 14.0)  # between frames
    np.testing.assert_allclose(np.linalg.det(thin.matrices[..., :3, :3]), 1, atol=1e-5)
    assert resample(clip, 60.0) is clip
