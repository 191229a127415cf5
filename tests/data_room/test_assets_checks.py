"""What is refused, and why; decimation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from asset_shapes import arm, ball, ball_object, grid_part, picture

from bozzetto.data.assets.checks import Limits, RefusedError, areas, check, visible_share
from bozzetto.data.assets.decimate import decimate_object
from bozzetto.data.assets.geometry_blob import decode_geometry, encode_geometry, reorder
from bozzetto.data.assets.pose import skin
from bozzetto.data.assets.source_object import Part


def reason(obj, limits=None) -> str:
    with pytest.raises(RefusedError) as caught:
        check(obj, limits or Limits())
    return str(caught.value)


def test_a_good_object_passes_without_flags():
    obj, flags = check(ball_object(), Limits())
    assert flags == () and obj.triangles < ball_object().triangles + 1


def test_reasons():
    assert "empty" in reason(ball_object(parts=[]))
    part = ball()
    part.vertices[3, 1] = np.nan
    assert "NaN" in reason(ball_object(parts=[part]))
    triangle = Part(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))
    assert "too few" in reason(ball_object(parts=[triangle], textures=[]))
    assert "missing texture" in reason(ball_object(textures=[]))
    assert "missing texture: wood.jpg" in reason(ball_object(problems=("missing texture: wood.jpg",)))
    assert "malformed" in reason(ball_object(parts=[replace(ball(), faces=ball().faces + 10_000)]))
    assert "malformed" in reason(ball_object(parts=[replace(ball(), uvs=None)]))
    assert "more than 100" in reason(ball_object(), Limits(refuse_triangles=100))
    point = replace(ball(), vertices=np.zeros_like(ball().vertices))
    assert "no area" in reason(ball_object(parts=[point]))


def test_flat_signs_are_refused_however_they_lie():
    for axes in (np.eye(3), np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]):
        sheet = grid_part(8, 8, lambda u, v, a=axes: np.stack([u, v, 0.015 * (u + v > 1)], -1) @ a.T)
        assert "flat" in reason(ball_object(parts=[sheet]))
    thick = grid_part(8, 8, lambda u, v: np.stack([u, v, 0.04 * ((8 * u).round() % 2)], -1))
    assert "thin" in check(ball_object(parts=[thick]), Limits())[1]


def test_scattered_pieces_are_refused():
    far = [ball(8, 4, radius=0.2, centre=(4 * x, 0, 4 * z)) for x in range(2) for z in range(2)]
    assert "scattered" in reason(ball_object(parts=far))
    near = [ball(8, 4, centre=(0, 0, 0)), ball(8, 4, radius=0.4, centre=(6, 0, 0))]
    assert "pieces" not in check(ball_object(parts=near), Limits(scattered=0.9))[1]


def test_flags():
    leaves = picture(64)
    leaves[:, ::2, 3] = 0
    flags = check(ball_object(parts=[ball(alpha="mask")], textures=[leaves]), Limits())[1]
    assert "foliage" in flags
    assert "foliage" not in check(ball_object(textures=[leaves]), Limits())[1]  # alpha is not looked at
    flags = check(ball_object(parts=[ball(texture=None)], textures=[]), Limits())[1]
    assert {"untextured", "one colour"} <= set(flags)
    assert "animated" in check(arm(), Limits())[1]


def test_degenerate_triangles_and_empty_parts_go():
    part = ball()
    part.faces = np.concatenate([part.faces, [[5, 5, 6]]]).astype(np.int32)
    empty = Part(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    obj, _ = check(ball_object(parts=[part, empty]), Limits())
    assert len(obj.parts) == 1 and obj.triangles == ball_object().triangles


def test_clips_must_fit():
    obj = arm()
    assert "does not fit" in reason(replace(obj, clips=[replace(obj.clips[0], matrices=obj.clips[0].matrices[:, :1])]))
    bad = obj.clips[0].matrices.copy()
    bad[2, 1, 0, 3] = np.inf
    assert "NaN" in reason(replace(obj, clips=[replace(obj.clips[0], matrices=bad)]))


def test_decimation_keeps_shape_seams_and_coordinates():
    obj = ball_object(parts=[ball(160, 80)])
    thin = decimate_object(obj, 3000)
    assert 2000 < thin.triangles <= 3300
    part = thin.parts[0]
    radius = np.linalg.norm(part.vertices - [5, 2, -1], axis=1)
    assert np.abs(radius - 3).max() < 0.03
    assert areas(part.vertices, part.faces).sum() == pytest.approx(
        areas(obj.parts[0].vertices, obj.parts[0].faces).sum(), rel=0.01
    )
    # The seam: u = 0 and u = 1 meet there; no triangle may span the whole picture.
    corners = part.faces[np.abs(part.vertices[part.faces][..., 1] - 2).max(1) < 2.98]  # at the poles every u is right
    u = part.uvs[corners][..., 0]
    assert np.ptp(u, axis=1).max() < 0.5
    # Coordinates still say where a point of the ball is.
    away = np.abs(part.vertices[:, 1] - 2) < 2.5
    unit = (part.vertices - [5, 2, -1])[away] / 3
    phi = np.arctan2(unit[:, 0], unit[:, 2]) / (2 * np.pi)
    error = np.abs((part.uvs[away, 0] - phi + 0.5) % 1 - 0.5)
    assert np.quantile(error, 0.99) < 0.02
    assert np.abs(part.uvs[away, 1] - np.arccos(unit[:, 1].clip(-1, 1)) / np.pi).max() < 0.03


def test_decimation_leaves_no_gaps_along_seams():
    part = decimate_object(ball_object(parts=[ball(160, 80)]), 3000).parts[0]
    _, place = np.unique(part.vertices, axis=0, return_inverse=True)
    welded = place.reshape(-1)[part.faces]
    edges = np.sort(np.concatenate([welded[:, [0, 1]], welded[:, [1, 2]], welded[:, [2, 0]]]), axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    counts = np.unique(edges, axis=0, return_counts=True)[1]
    assert (counts == 2).mean() > 0.995


def test_decimation_keeps_skin_and_moving_vertices():
    obj = arm()
    dense = grid_part(120, 60, lambda u, v: np.stack([4 * u, 0.5 * np.sin(6.2832 * v), 0.5 * np.cos(6.2832 * v)], -1))
    share = (dense.vertices[:, :1] > 2).astype(np.float32)
    dense.joints = np.tile(np.array([0, 1, 0, 0], np.int32), (len(share), 1))
    dense.weights = np.concatenate([1 - share, share, 0 * share, 0 * share], 1)
    thin = decimate_object(replace(obj, parts=[dense]), 1500).parts[0]
    moved = skin(thin.vertices, thin.joints, thin.weights, obj.clips[0].matrices[-1])
    beyond = thin.vertices[:, 0] > 2.2
    np.testing.assert_allclose(moved[beyond, 1] + 0, thin.vertices[beyond, 0] - 2, atol=1e-4)
    dense.joints = dense.weights = None
    clip = replace(obj.clips[0], matrices=None, positions=[np.stack([dense.vertices, dense.vertices + 1])])
    thin = decimate_object(replace(obj, parts=[dense], clips=[clip]), 1500)
    assert thin.clips[0].positions[0].shape == (2, len(thin.parts[0].vertices), 3)


def test_texture_coordinates_of_billions_do_not_spoil_the_others():
    part, wanted = ball(), ball().uvs
    part.uvs[[30, 31]], wanted[[30, 31]] = 3443870976.0, 0
    part.uvs[32], wanted[32] = -7000.25, 0.75
    obj, _ = check(ball_object(parts=[part]), Limits())
    sorted_part, order = reorder(obj.parts[0])
    packed = decode_geometry(encode_geometry(sorted_part, 13))
    np.testing.assert_allclose(packed.uvs, wanted[order], atol=1e-4)


def test_what_nobody_can_see_is_refused():
    clear, half = picture(), picture()
    clear[..., 3] = 100
    half[:32, :, 3] = 0
    assert reason(ball_object(parts=[ball(alpha="mask")], textures=[clear])).startswith("invisible: ")
    for alpha, texture in (("opaque", clear), ("mask", half)):
        obj, _ = check(ball_object(parts=[ball(alpha=alpha)], textures=[texture]), Limits())
        assert visible_share(obj, obj.parts) == pytest.approx(1 if alpha == "opaque" else 0.5, abs=0.02)
    two, _ = check(ball_object(parts=[ball(alpha="mask"), ball(texture=None)], textures=[clear]), Limits())
    assert visible_share(two, two.parts) == pytest.approx(0.5, abs=0.01)
