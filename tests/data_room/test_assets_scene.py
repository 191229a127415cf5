"""Posing and drawing packed objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from asset_shapes import arm, ball, ball_object, picture, turn_z

from bozzetto.camera import Cameras
from bozzetto.data.assets.asset_object import AssetObject
from bozzetto.data.assets.normalise import motion, placement, turn_about_y
from bozzetto.data.assets.pack import PackOptions, encode_object, read_object, write_object
from bozzetto.data.assets.pose import blend_skin, clip_seconds, posed_vertices, skin
from bozzetto.data.assets.scene import SceneObject, SmoothNormals, textured
from bozzetto.data.assets.shard import Shard, write_shard
from bozzetto.data.assets.sheet import clip_sheet, object_sheet
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.errors import InputError


def packed(tmp_path, obj) -> AssetObject:
    with write_shard(tmp_path / "x.assets") as writer:
        write_object(writer, encode_object(obj, PackOptions(position_bits=16, texture_quality=100)))
    return read_object(Shard(tmp_path / "x.assets"), 0)


def test_the_arm_bends_at_the_elbow():
    obj = arm()
    upright = posed_vertices(obj, "bend", clip_seconds(obj.clips[0]))[0]
    x, y, z = obj.parts[0].vertices.T
    upper, lower = x < 1.99, x > 2.01
    np.testing.assert_allclose(upright[upper], obj.parts[0].vertices[upper], atol=1e-6)
    # The lower arm points up: what was beyond the elbow along x is now above it.
    np.testing.assert_allclose(upright[lower], np.stack([2 - y, x - 2, z], -1)[lower], atol=1e-5)
    # The elbow's ring is the mean of both halves.
    ring = ~upper & ~lower
    wanted = (obj.parts[0].vertices + np.stack([2 - y, x - 2, z], -1)) / 2
    np.testing.assert_allclose(upright[ring], wanted[ring], atol=1e-5)


def test_between_frames_joints_turn_rather_than_shrink():
    obj = arm(frames=2)
    half = posed_vertices(obj, 0, 0.05)[0]
    lower = obj.parts[0].vertices[:, 0] > 2.01
    away = obj.parts[0].vertices[lower][:, None] - obj.parts[0].vertices[lower][None]
    turned = half[lower][:, None] - half[lower][None]
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(away, axis=-1), atol=1e-4)
    direction = half[lower][-1] - half[lower][0]
    wanted = turn_z(45)[:3, :3] @ (obj.parts[0].vertices[lower][-1] - obj.parts[0].vertices[lower][0])
    np.testing.assert_allclose(direction, wanted, atol=1e-4)


def test_skinning_against_a_loop():
    rng = np.random.default_rng(0)
    v, w = rng.normal(size=(30, 3)), rng.random((30, 4))
    w /= w.sum(1, keepdims=True)
    j, m = rng.integers(0, 5, (30, 4)), rng.normal(size=(3, 5, 4, 4))
    m[..., 3, :] = [0, 0, 0, 1]
    wanted = np.zeros((3, 30, 3))
    for t in range(3):
        for i in range(30):
            for k in range(4):
                wanted[t, i] += w[i, k] * (m[t, j[i, k]] @ [*v[i], 1])[:3]
    np.testing.assert_allclose(skin(v, j, w, m), wanted, atol=1e-5)
    tensors = [torch.from_numpy(x) for x in (v, j, w, m)]
    np.testing.assert_allclose(blend_skin(*tensors).numpy(), wanted, atol=1e-12)


def test_unknown_clips_are_named():
    with pytest.raises(InputError, match="bend"):
        posed_vertices(arm(), "fly", 0.0)


def test_placement_takes_all_frames_in():
    place = placement(arm(9))
    assert place.rest[3] < 0.9  # at rest the arm is smaller than with all its motion
    assert 0.1 < place.motions[0] < 0.5
    assert motion(np.zeros((4, 7, 3))) == 0
    np.testing.assert_allclose(turn_about_y(90)[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-12)


def test_normals_are_smooth_on_a_ball_and_sharp_on_a_box():
    part = ball(48, 24, radius=1, centre=(0, 0, 0))
    normals = SmoothNormals(part.vertices, part.faces).at(part.vertices)
    whole = np.linalg.norm(np.cross(*(np.diff(part.vertices[part.faces], axis=1).transpose(1, 0, 2))), axis=1) > 1e-6
    cosine = (normals * part.vertices[part.faces]).sum(-1)[whole]
    assert cosine.min() > 0.99
    box = ball(4, 2, radius=1, centre=(0, 0, 0))  # an octahedron
    normals = SmoothNormals(box.vertices, box.faces).at(box.vertices)
    assert np.abs(normals - normals[:, :1]).max() < 1e-6


def test_normals_follow_the_pose():
    obj = arm()
    vertices, faces = obj.parts[0].vertices, obj.parts[0].faces
    smooth = SmoothNormals(vertices, faces)
    turned = vertices @ turn_z(70)[:3, :3].T.astype(np.float32)
    np.testing.assert_allclose(smooth.at(turned), smooth.at(vertices) @ turn_z(70)[:3, :3].T, atol=1e-5)


def test_a_drawn_object_shows_its_picture_where_it_should(tmp_path):
    obj = packed(tmp_path, ball_object(parts=[ball(48, 24)]))
    lights = Lights.default(1)
    lights.ambient[:], lights.sky[:], lights.ground[:], lights.colors[:] = 1, 0, 0, 0
    # The ball's u = 0.75 looks along -x, v = 0.25 up: the picture's top right quadrant.
    cameras = Cameras.orbit([270.0, 90.0], [0.0, 0.0])
    rgba = render_objects(SceneBatch.pack([textured(obj)]), cameras, 64, lights, outputs=("rgba",)).rgba[0]
    wanted = picture()[[8, 40], 40, :3] / 255  # above and below the middle
    np.testing.assert_allclose(rgba[0, [22, 42], 32, :3], wanted, atol=0.05)
    np.testing.assert_allclose(rgba[1, [22, 42], 32, :3], picture()[[8, 40], 8, :3] / 255, atol=0.05)
    assert rgba[0, :, 32, 3].sum() == pytest.approx(
        2 * 0.6 / (2 * 1.5 * np.tan(np.deg2rad(49.1 / 2))) * 64 * 1.09, rel=0.05
    )


def test_cut_out_pictures_leave_holes(tmp_path):
    holes = picture()
    holes[:, :32, 3] = 0
    seen = {}
    for alpha in ("mask", "opaque"):
        obj = packed(tmp_path, ball_object(parts=[ball(48, 24, alpha=alpha)], textures=[holes]))
        cameras = Cameras.orbit([0.0], [0.0])
        rgba = render_objects(
            SceneBatch.pack([textured(obj)]), cameras, 32, outputs=("rgba",), cull_backfaces=True
        ).rgba
        seen[alpha] = float(rgba[0, 0, ..., 3].mean())
    assert seen["mask"] == pytest.approx(seen["opaque"] / 2, rel=0.1)


def test_vertex_colours_are_drawn(tmp_path):
    part = ball(24, 12, texture=None)
    left = part.vertices[:, 0] < 5
    part.colours = np.where(left[:, None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255])).astype(np.uint8)
    obj = packed(tmp_path, ball_object(parts=[part], textures=[]))
    rgba = render_objects(SceneBatch.pack([textured(obj)]), Cameras.orbit([0.0], [0.0]), 64, outputs=("rgba",)).rgba[
        0, 0
    ]
    assert rgba[32, 18, 0] > 0.5 > 0.1 > rgba[32, 18, 2]
    assert rgba[32, 46, 2] > 0.5 > 0.1 > rgba[32, 46, 0]


def test_plain_colours_are_kept(tmp_path):
    obj = packed(tmp_path, ball_object(parts=[ball(texture=None, colour=(0.2, 0.6, 0.4))], textures=[]))
    made = textured(obj)
    np.testing.assert_allclose(made.base_colors, [[0.2, 0.6, 0.4]], atol=1e-3)
    assert np.linalg.norm(made.vertices, axis=1).max() == pytest.approx(0.6, abs=2e-3)


def test_a_moving_object_keeps_its_size(tmp_path):
    scene = SceneObject(packed(tmp_path, arm(9)))
    frames = scene.at_times("bend", np.linspace(0, 0.8, 5))
    assert max(np.linalg.norm(f.vertices, axis=1).max() for f in frames) == pytest.approx(0.6, rel=0.01)
    rest = SceneObject(scene.asset, fit="rest").at_rest()
    assert np.linalg.norm(rest.vertices, axis=1).max() == pytest.approx(0.6, rel=0.01)
    images = render_objects(SceneBatch.pack(frames), Cameras.orbit([0.0], [0.0]), 32, outputs=("rgba",)).rgba
    assert float((images[0] - images[-1]).abs().mean()) > 0.02


def test_sheets(tmp_path):
    obj = packed(tmp_path, arm(9))
    page = object_sheet([obj] * 3, size=32, columns=2, views=2)
    assert page.shape == (2 * 44, 2 * 64, 3) and page.min() < 100
    assert clip_sheet([(obj, 0)], size=32, frames=4).shape == (44, 128, 3)
