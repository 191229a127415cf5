"""The renderer on the CPU against geometry worked out by hand and against a ray caster."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from render_shapes import CORNERS, cast, corner_texture, cube, quads, sphere

from bozzetto.camera import Cameras
from bozzetto.data.render import Lights, PackedObject, SceneBatch, render_objects
from bozzetto.errors import CameraError, InputError, MeshError


def flat_light(batch: int, strength: float = 1.0) -> Lights:
    """The same light on every surface: colours come out as the texture holds them."""
    lights = Lights.default(batch)
    for name in ("sky", "ground", "colors"):
        setattr(lights, name, torch.zeros_like(getattr(lights, name)))
    lights.ambient = torch.full((batch, 3), strength)
    return lights


@pytest.mark.parametrize("azimuth, side", [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_cube_side_is_upright_and_not_mirrored(azimuth, side):
    scene = SceneBatch.pack([cube()])
    view = render_objects(scene, Cameras.orbit([azimuth]), 64, flat_light(1)).rgba[0, 0]
    seen = np.stack([view[y, x, :3].numpy() for y in (24, 40) for x in (24, 40)])
    expected = CORNERS // (1 + side) / 255
    assert np.abs(seen - expected).max() < 1e-5


def test_top_side_faces_a_camera_from_above():
    view = render_objects(SceneBatch.pack([cube()]), Cameras.orbit([0.0], [89.9]), 64, flat_light(1))
    assert np.abs(view.rgba[0, 0, 24, 24, :3].numpy() - CORNERS[0] // 5 / 255).max() < 1e-5
    assert torch.allclose(view.normals[0, 0, 24, 24], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5)


def test_depth_and_normals_of_a_square():
    half = 0.3
    scene = SceneBatch.pack([cube(half)])
    views = render_objects(scene, Cameras.orbit([0.0, 90.0]), 32)
    assert torch.allclose(views.depth[0, :, 16, 16], torch.full((2,), 1.5 - half), atol=1e-5)
    assert torch.allclose(views.normals[0, :, 16, 16], torch.tensor([[0.0, 0, 1], [1, 0, 0]]), atol=1e-5)
    assert (views.depth[0, :, 0, 0] == 0).all() and (views.normals[0, :, 0, 0] == 0).all()
    assert (views.rgba[0, :, 0, 0] == 0).all()


def test_silhouette_lies_where_the_camera_projects_it():
    half = 0.3
    camera = Cameras.orbit([0.0])
    alpha = render_objects(SceneBatch.pack([cube(half)]), camera, 128, supersample=4).rgba[0, 0, ..., 3]
    corner, _ = camera.project(torch.tensor([[[-half, half, half]]]))
    left, top = (corner[0, 0] * 128).tolist()
    assert abs(alpha[64].sum().item() - (128 - 2 * left)) < 0.26  # one of 4 samples on either side
    assert abs(alpha[:, 64].sum().item() - (128 - 2 * top)) < 0.26
    assert alpha[64, math.floor(left) - 1] == 0 and alpha[64, math.ceil(left)] == 1


def test_alpha_sums_to_the_triangle_area():
    obj = quads([(0.07, -0.03, 0)], [(0, 0, 1)], [(math.cos(0.4), math.sin(0.4), 0)], 0.31, [corner_texture()])
    obj.faces, obj.uvs, obj.normals, obj.material = (x[:1] for x in (obj.faces, obj.uvs, obj.normals, obj.material))
    camera = Cameras.orbit([0.0])
    points, _ = camera.project(torch.from_numpy(obj.vertices)[None])
    p = points[0][torch.from_numpy(obj.faces[0].astype(np.int64))].double() * 64
    d, e = p[1] - p[0], p[2] - p[0]
    area = 0.5 * abs(d[0] * e[1] - d[1] * e[0]).item()
    for samples, tolerance in ((1, 0.02), (2, 0.01), (8, 0.002)):
        view = render_objects(SceneBatch.pack([obj]), camera, 64, supersample=samples, outputs=("rgba",))
        alpha = view.rgba[0, 0, ..., 3]
        assert abs(alpha.sum().item() / area - 1) < tolerance
        assert set((alpha * samples**2).unique().tolist()) <= set(range(samples**2 + 1))
    assert ((alpha > 0) & (alpha < 1)).sum() > 50


@pytest.mark.parametrize(
    "texels_per_sample, expected", [(0.5, 0.0), (1.0, 0.0), (2.0, 1.0), (2.828427, 1.5), (300, 5.0)]
)
def test_mip_level_follows_the_footprint(texels_per_sample, expected):
    side, size, samples = 32, 32, 2
    packed = PackedObject.pack(quads([(0, 0, 0)], [(0, 0, 1)], [(1, 0, 0)], 4.0, [corner_texture(side)]))
    for level in range(6):  # every level a colour of its own
        start, end = packed.levels[0, level], packed.levels[0, level + 1] if level < 5 else len(packed.texels)
        packed.texels[start:end, :3] = 40 * level
    # The square of side 8 fills many pictures; its repeats set how many texels fall on a sample.
    camera = Cameras.orbit([0.0])
    per_sample = 2 * 1.5 * math.tan(math.radians(49.1 / 2)) / (size * samples)  # world units
    packed.uvs *= texels_per_sample / side * 8 / per_sample
    view = render_objects(SceneBatch.collate([packed]), camera, size, flat_light(1), supersample=samples)
    assert (view.rgba[0, 0, ..., 0] * 255 - 40 * expected).abs().max() < 0.1


def test_mip_chain_averages_and_keeps_hidden_colours_out():
    from bozzetto.data.render.mipmaps import mip_chain

    texture = np.random.default_rng(0).integers(0, 256, (8, 4, 4), dtype=np.uint8)
    texture[..., 3] = 255
    chain = mip_chain(texture)
    assert [x.shape[:2] for x in chain] == [(8, 4), (4, 2), (2, 1), (1, 1)]
    boxes = texture.reshape(4, 2, 2, 2, 4).astype(float).mean((1, 3))
    assert np.abs(chain[1] - boxes).max() <= 0.5
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[0, 0] = (200, 100, 50, 255)
    texture[1, 1] = (0, 255, 0, 0)
    assert mip_chain(texture)[1].tolist() == [[[200, 100, 50, 64]]]


def test_nearer_surface_wins_in_any_order():
    red, green = (np.full((1, 1, 4), 255, np.uint8) for _ in range(2))
    red[..., :3], green[..., :3] = (255, 0, 0), (0, 255, 0)
    for far, near in (((0, 0, -0.2), (0, 0, 0.2)), ((0, 0, 0.2), (0, 0, -0.2))):
        obj = quads([far, near], [(0, 0, 1)] * 2, [(1, 0, 0)] * 2, 0.3, [red, green])
        view = render_objects(SceneBatch.pack([obj]), Cameras.orbit([0.0, 180.0]), 16, flat_light(1)).rgba[0]
        front = 0 if far[2] > near[2] else 1
        assert view[0, 8, 8, front] == 1 and view[0, 8, 8, 1 - front] == 0
        assert view[1, 8, 8, 1 - front] == 1 and view[1, 8, 8, front] == 0


def test_back_faces_show_flipped_or_not_at_all():
    scene = SceneBatch.pack([quads([(0, 0, 0)], [(0, 0, 1)], [(1, 0, 0)], 0.3, [corner_texture()])])
    camera = Cameras.orbit([180.0])
    shown = render_objects(scene, camera, 16)
    assert shown.rgba[0, 0, 8, 8, 3] == 1
    assert torch.allclose(shown.normals[0, 0, 8, 8], torch.tensor([0.0, 0.0, -1.0]), atol=1e-6)
    assert render_objects(scene, camera, 16, cull_backfaces=True).rgba.sum() == 0
    assert render_objects(scene, Cameras.orbit([0.0]), 16, cull_backfaces=True).rgba[0, 0, 8, 8, 3] == 1


def test_alpha_cuts_holes():
    texture = corner_texture(64)
    texture[:32, :32, 3] = 0
    view = render_objects(
        SceneBatch.pack([quads([(0, 0, 0)], [(0, 0, 1)], [(1, 0, 0)], 0.3, [texture])]), Cameras.orbit([0.0]), 64
    )
    assert view.rgba[0, 0, 24, 24].abs().sum() == 0
    assert (view.rgba[0, 0, [24, 40, 40], [40, 24, 40], 3] == 1).all()


@pytest.mark.parametrize("name", ["cube", "sphere", "cut"])
def test_agrees_with_a_ray_caster(name):
    if name == "cut":
        texture = np.random.default_rng(3).integers(0, 256, (8, 8, 4), dtype=np.uint8)
        obj = cube(textures=[texture] * 6)
    else:
        obj = {"cube": cube, "sphere": sphere}[name]()
    lights = Lights.random(1, torch.Generator().manual_seed(2), glossy=1.0)
    camera = Cameras.orbit([35.0], [25.0])
    view = render_objects(SceneBatch.pack([obj], mipmaps=False), camera, 40, lights)
    rgba, depth, normals = cast(obj, camera[0], 40, 2, lights, 0)
    for mine, other in ((view.rgba, rgba), (view.depth, depth), (view.normals, normals)):
        difference = np.abs(mine[0, 0].double().numpy() - other)
        # A sample exactly on an edge may fall to either side in float32.
        assert (difference.reshape(1600, -1).max(1) > 2e-3).sum() <= 3
        assert difference.mean() < 1e-3
    assert 0.1 < rgba[..., 3].mean() < 0.9


def test_shared_edges_have_no_pinholes():
    view = render_objects(SceneBatch.pack([sphere(40, 60)]), Cameras.orbit([12.3], [17.7]), 128, supersample=4)
    yy, xx = np.mgrid[:128, :128] + 0.5
    inside = np.hypot(xx - 64, yy - 64) < 40
    assert (view.rgba[0, 0, ..., 3].numpy()[inside] == 1).all()


def test_objects_of_a_batch_do_not_mix():
    objects = [cube(), sphere(), cube(0.2)]
    cameras = Cameras.orbit([[0.0, 30], [60, 90], [120, 150]], 20.0)
    lights = Lights.random(3, torch.Generator().manual_seed(0))
    together = render_objects(SceneBatch.pack(objects), cameras, (20, 24), lights)
    assert together.rgba.shape == (3, 2, 20, 24, 4)
    for b, obj in enumerate(objects):
        one = lights.rows(slice(b, b + 1))
        alone = render_objects(SceneBatch.pack([obj]), cameras[b : b + 1], (20, 24), one)
        for name in ("rgba", "depth", "normals"):
            assert torch.equal(getattr(together, name)[b], getattr(alone, name)[0])


def test_bytes_are_the_rounded_floats_and_outputs_can_be_left_out():
    scene, cameras = SceneBatch.pack([sphere()]), Cameras.orbit([10.0, 200.0])
    exact = render_objects(scene, cameras, 32)
    small = render_objects(scene, cameras, 32, outputs=("rgba",), dtype=torch.uint8)
    assert small.depth is None and small.normals is None and small.rgba.dtype == torch.uint8
    assert (exact.rgba * 255 - small.rgba).abs().max() <= 0.5001
    assert torch.equal(render_objects(scene, cameras, 32, outputs=("depth",)).depth, exact.depth)
    assert torch.equal(render_objects(scene, cameras, 32, outputs=("normals",)).normals, exact.normals)


def test_pictures_do_not_depend_on_threads():
    scene, cameras = SceneBatch.pack([cube(), sphere()]), Cameras.orbit([10.0, 200.0, 300.0])
    before = torch.get_num_threads()
    try:
        pictures = []
        for count in (1, 3):
            torch.set_num_threads(count)
            pictures.append(render_objects(scene, cameras, 24).rgba)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*pictures)


def test_near_triangles_and_empty_objects_leave_an_empty_picture():
    empty = cube()
    for name in ("faces", "uvs", "normals", "material"):
        setattr(empty, name, getattr(empty, name)[:0])
    bare = cube()
    for name in ("faces", "uvs", "normals", "material", "vertices", "base_colors"):
        setattr(bare, name, getattr(bare, name)[:0])
    bare.textures = []
    views = render_objects(SceneBatch.pack([empty, cube(), bare]), Cameras.orbit([0.0]), 16)
    assert views.rgba[0].abs().sum() == 0 and views.rgba[2].abs().sum() == 0 and views.rgba[1, 0, 8, 8, 3] == 1
    assert render_objects(SceneBatch.pack([bare]), Cameras.orbit([0.0]), 16).rgba.abs().sum() == 0
    inside = render_objects(SceneBatch.pack([cube()]), Cameras.orbit([0.0, 40.0], radius=0.2), 16)
    assert torch.isfinite(inside.rgba).all() and torch.isfinite(inside.depth).all()
    cut = render_objects(SceneBatch.pack([cube()]), Cameras.orbit([0.0]), 16, near=1.3)
    assert cut.rgba[0, 0, 8, 8, 3] == 1 and cut.depth[0, 0, 8, 8] > 1.7  # only the back side is farther than 1.3


def test_white_is_not_blown_out_and_light_is_reproducible():
    white = sphere(20, 30)
    white.textures, white.base_colors = [np.full((1, 1, 4), 255, np.uint8)], np.ones((1, 3), np.float32)
    scene, cameras = SceneBatch.pack([white] * 6), Cameras.orbit([0.0, 90, 180, 270, 0, 0], [0.0, 0, 0, 0, 89, -89])
    around = Lights.random(6, torch.Generator().manual_seed(3), environment=1.0)
    for lights in (Lights.default(6), Lights.random(6, torch.Generator().manual_seed(5)), around):
        rgba = render_objects(scene, cameras, 32, lights).rgba
        color = rgba[..., :3][rgba[..., 3] == 1]
        assert 0.85 < color.max() <= 1.0 and color.min() > (0.1 if lights is around else 0.2)
        assert torch.allclose(lights.directions.norm(dim=-1), torch.ones(6, 3), atol=1e-5)
    for share in (0.0, 0.5):
        again = [Lights.random(4, torch.Generator().manual_seed(9), 0.5, share).tables("cpu") for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*again))


def test_packed_objects_travel_between_processes():
    packed = [PackedObject.pack(cube()), PackedObject.pack(sphere())]
    scene = SceneBatch.collate(pickle.loads(pickle.dumps(packed)))
    direct = SceneBatch.pack([cube(), sphere()])
    for name, value in vars(direct).items():
        mine = getattr(scene, name)
        assert torch.equal(mine, value) if isinstance(value, torch.Tensor) else mine == value
    assert len(scene) == 2 and scene.names == ("cube", "sphere")
    assert scene.faces[12:].min() == 24 and scene.material[12:].unique().tolist() == [6]


def test_missing_normals_become_the_triangles_own():
    obj = cube()
    obj.normals = np.zeros_like(obj.normals)
    view = render_objects(SceneBatch.pack([obj]), Cameras.orbit([0.0]), 16)
    assert torch.allclose(view.normals[0, 0, 8, 8], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"faces": np.full((12, 3), 99, np.int32)}, "outside 0..23"),
        ({"uvs": np.zeros((3, 3, 2), np.float32)}, "uvs has shape"),
        ({"material": np.full(12, 6, np.int32)}, "6 textures"),
        ({"textures": [np.zeros((6, 6, 4), np.uint8)] * 6}, "powers of two"),
        ({"vertices": np.full((24, 3), np.nan, np.float32)}, "NaN"),
    ],
)
def test_malformed_objects_are_refused(change, message):
    obj = cube()
    for name, value in change.items():
        setattr(obj, name, value)
    with pytest.raises(MeshError, match=message):
        SceneBatch.pack([obj])


def test_wrong_arguments_are_refused():
    scene, camera = SceneBatch.pack([cube()]), Cameras.orbit([0.0])
    with pytest.raises(CameraError, match="do not fit 1 objects"):
        render_objects(scene, Cameras.orbit([[0.0], [1.0]]), 8)
    with pytest.raises(InputError, match="supersample"):
        render_objects(scene, camera, 8, supersample=0)
    with pytest.raises(InputError, match="unknown outputs"):
        render_objects(scene, camera, 8, outputs=("rgb",))
    with pytest.raises(InputError, match="near"):
        render_objects(scene, camera, 8, near=0.0)
    with pytest.raises(InputError, match="lights for 2"):
        render_objects(scene, camera, 8, Lights.default(2))
    with pytest.raises(InputError, match="float32"):
        render_objects(scene, camera, 8, dtype=torch.float16)
    with pytest.raises(MeshError, match="at least one"):
        SceneBatch.collate([])
