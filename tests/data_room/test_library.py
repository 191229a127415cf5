"""The library against the single-object path it replaces, and what the mixture draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from asset_shapes import arm, ball, ball_object, grid_part

from bozzetto.camera import Cameras
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.pack import PackOptions
from bozzetto.data.assets.scene import SceneObject
from bozzetto.data.assets.source_object import Clip, SourceObject
from bozzetto.data.library import AssetLibrary, Mixture, Pose, parse_mix
from bozzetto.data.library.flat import corner_groups
from bozzetto.data.library.mixture import draw_poses
from bozzetto.data.render import SceneBatch, render_objects
from bozzetto.errors import InputError


def waves() -> SourceObject:
    """A ball that moves as a whole set of vertices, half of it without a picture."""
    rigid = ball(centre=(0, 0, 0))
    plain = replace(ball(centre=(3.0, 0, 0), texture=None), colour=(0.8, 0.3, 0.2))
    frames = [[p.vertices * (1 + 0.2 * k, 1, 1) for k in range(4)] for p in (rigid, plain)]
    clip = Clip("swell", 10.0, None, [np.array(f, np.float32) for f in frames])
    obj = ball_object(name="waves", group="waves", parts=[rigid, plain], clips=[clip])
    return obj


def coloured() -> SourceObject:
    """Vertex colours, and a cut-out picture."""
    leaf = np.full((32, 32, 4), 255, np.uint8)
    leaf[8:24, 8:24, 3] = 0
    part = ball(texture=None)
    part.colours = np.random.default_rng(0).integers(0, 256, (len(part.vertices), 3)).astype(np.uint8)
    sheet = grid_part(8, 8, lambda u, v: np.stack([5 + 9 * u, 2 + 6 * v, 0 * u], -1), alpha="mask")
    return ball_object(name="coloured", group="coloured", parts=[part, sheet], textures=[leaf])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("assets")
    convert("zeroad", [replace(o, source="zeroad") for o in (ball_object(), arm(), waves(), coloured())], out)
    return out


@pytest.fixture(scope="module")
def library(folder):
    return AssetLibrary.load([Dataset(folder)])


def place(library, name):
    return library.names.index(name)


@pytest.mark.parametrize(
    ("name", "clip", "frame"),
    [
        ("balls/red", None, 0),
        ("arm", None, 0),
        ("arm", 0, 3),
        ("waves", 0, 2),
        ("waves", None, 0),
        ("coloured", None, 0),
    ],
)
def test_pictures_are_those_of_the_object_alone(folder, library, name, clip, frame):
    data = Dataset(folder)
    number = [r["name"] for r in data.records()].index(name)
    single = SceneObject(data[number])
    times = None if clip is None else frame / data[number].clips[clip].fps
    old = single.at_rest() if clip is None else single.at_times(clip, times)[0]
    middle = (old.vertices.min(0) + old.vertices.max(0)) / 2
    old.vertices = old.vertices - middle
    old.vertices *= 0.6 / np.linalg.norm(old.vertices, axis=1).max()
    cameras = Cameras.orbit([20.0, 200.0], [10.0, 40.0])
    goal = render_objects(SceneBatch.pack([old]), cameras, 64)
    # Between others, so that every table's rows are shifted.
    scene = library.scene([Pose(0), Pose(place(library, name), clip, frame), Pose(1)])
    made = render_objects(scene, cameras, 64)
    for kind in ("rgba", "depth", "normals"):
        a, b = getattr(made, kind)[1], getattr(goal, kind)[0]
        assert (a - b).abs().mean() < 1e-4 and ((a - b).abs() > 0.02).float().mean() < 1e-3, kind
    assert goal.rgba[..., 3].mean() > 0.05


def test_a_clip_moves_the_object(library):
    cameras = Cameras.orbit([0.0])
    arms = [Pose(place(library, "arm"), 0, f) for f in (0, 4)]
    a, b = render_objects(library.scene(arms), cameras, 32, outputs=("rgba",)).rgba[..., 3]
    assert (a - b).abs().mean() > 0.02


def test_tints_change_plain_materials_only(library):
    number = place(library, "waves")
    plain = library.scene([Pose(number)])
    tinted = library.scene([Pose(number)], tints=torch.tensor([[0.5, 0.25, 1.0]]))
    assert torch.equal(tinted.base_colors[0], plain.base_colors[0])
    assert torch.allclose(tinted.base_colors[1], plain.base_colors[1] * torch.tensor([0.5, 0.25, 1.0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scene_on_a_gpu_is_the_one_of_the_cpu(folder, library):
    there = AssetLibrary.load([Dataset(folder)], device="cuda")
    poses = [
        Pose(k, clip, f) for k in range(4) for clip, f in ((None, 0), *((c, 2) for c in range(len(library.clips[k]))))
    ]
    a, b = library.scene(poses), there.scene(poses)
    for name in ("vertices", "normals", "uvs"):
        assert torch.allclose(getattr(a, name), getattr(b, name).cpu(), atol=1e-4), name
    for name in ("faces", "material", "face_object", "levels", "sizes", "vertex_start", "face_start"):
        assert torch.equal(getattr(a, name), getattr(b, name).cpu()), name
    from bozzetto.data.render import Lights

    lights = Lights.random(len(poses), torch.Generator().manual_seed(0), glossy=1.0, environment=0.5)
    cameras = Cameras.orbit([20.0, 200.0], [10.0, 40.0])
    one, two = (render_objects(s, cameras, 64, lights, outputs=("rgba",)).rgba.cpu() for s in (a, b))
    assert ((one - two).abs() > 0.02).float().mean() < 2e-3 and one[..., 3].mean() > 0.05


def test_workers_make_the_same_library(folder, library):
    other = AssetLibrary.load([Dataset(folder)], workers=1)
    for name in ("points", "matrices", "faces", "members", "groups", "texels", "levels", "sizes", "weights"):
        assert torch.equal(getattr(other, name), getattr(library, name)), name


def test_a_decoded_library_is_read_again(folder, library, tmp_path, monkeypatch):
    from bozzetto.data.library import store

    first = AssetLibrary.load([Dataset(folder)], decoded=tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(store, "_flatten", None)  # nothing is decoded now
    again = AssetLibrary.load([Dataset(folder)], decoded=tmp_path)
    assert again.names == library.names and again.sources == library.sources and again.clips == library.clips
    poses = [Pose(place(library, "arm"), 0, 2), Pose(place(library, "coloured"))]
    a, b, c = (x.scene(poses) for x in (library, first, again))
    for name in ("vertices", "normals", "uvs", "faces", "texels", "levels", "base_colors"):
        assert torch.equal(getattr(a, name), getattr(b, name)) and torch.equal(getattr(a, name), getattr(c, name)), name
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:1000])  # damaged: made anew
    assert AssetLibrary.load([Dataset(folder)], decoded=tmp_path).names == library.names
    fewer = AssetLibrary.load([Dataset(folder)], [(0, 1)], decoded=tmp_path)
    assert len(fewer) == 1 and len(list(tmp_path.iterdir())) == 2


def test_poses_that_are_not_there_are_refused(library):
    for pose in (Pose(99), Pose(place(library, "arm"), 0, 99), Pose(place(library, "arm"), 7)):
        with pytest.raises(IndexError):
            library.scene([pose])


def test_corner_groups_sum_to_smooth_normals():
    from bozzetto.data.assets.scene import SmoothNormals

    part = ball(10, 6)
    groups, members, count = corner_groups(part.vertices, part.faces)
    a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
    sums = np.zeros((count, 3))
    np.add.at(sums, members[:, 0], np.cross(b - a, c - a)[members[:, 1]])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
    assert np.allclose(sums[groups], SmoothNormals(part.vertices, part.faces).at(part.vertices), atol=1e-5)
    assert count < 3 * len(part.faces) / 2


# ---- the mixture


def variants(source: str, count: int, **more) -> list[SourceObject]:
    """Balls that differ, each a group of its own unless told otherwise."""
    made = []
    for k in range(count):
        values = {"source": source, "name": f"{source}/{k}", "group": f"{source}{k}", "parts": [ball(radius=1 + k / 9)]}
        made.append(ball_object(**(values | more)))
    return made


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    options = PackOptions()
    held = variants("zeroad", 1, name="fauna/tiger", group="tiger.dae")
    gpl = variants("zeroad", 1, name="gpl", licence="GPL-2+", parts=[ball(radius=7)])
    costumes = [
        replace(
            o, group="one", name=f"units/{k}", licence="CC-BY-SA-3.0", textures=[np.full((8, 8, 4), 255 - k, np.uint8)]
        )
        for k, o in enumerate(variants("zeroad", 9))
    ]
    convert("zeroad", [*variants("zeroad", 1), *costumes, *held, *gpl], out, options)
    convert("ufoai", variants("ufoai", 3), out, options)
    convert("sweethome3d", variants("sweethome3d", 4), out, options)
    return [Dataset(out)]


def test_nothing_held_out_is_ever_drawn(two):
    mixture = Mixture(two, {})
    names = {two[d].record(i)["name"] for d, i in mixture.numbers}
    assert len(mixture) == 14 and not any("ufoai" in n or n in ("fauna/tiger", "gpl") for n in names)
    with pytest.raises(InputError, match="ufoai"):
        Mixture(two, {"ufoai": 0.5})


def test_shares_and_weights(two):
    mixture = Mixture(two, {"procedural": 0.25, "sweethome3d": 0.5})
    assert mixture.procedural == 0.25 and mixture.shares == pytest.approx({"sweethome3d": 0.5, "zeroad": 0.25})
    drawn = [mixture.draw(40, [0, step, 0]) for step in range(100)]
    records = [two[d].record(i) for d, i in mixture.numbers]
    share = Counter(records[i]["source"] for step in drawn for i in step)
    assert share["sweethome3d"] / 4000 == pytest.approx(2 / 3, abs=0.03)
    # Nine costumes of one mesh count as three objects beside a single one.
    groups = Counter(records[i]["group"] for step in drawn for i in step if records[i]["source"] == "zeroad")
    assert groups["one"] / groups["zeroad0"] == pytest.approx(3, rel=0.25)
    assert drawn[3] == mixture.draw(40, [0, 3, 0]) and drawn[3] != mixture.draw(40, [0, 3, 1])


def test_mixture_by_licence(two):
    clean, both = Mixture(two, {}, ("clean",)), Mixture(two, {}, ("CC0-1.0", "CC-BY-SA-3.0"))
    assert {two[d].record(i)["licence"] for d, i in clean.numbers} == {"CC0-1.0"}
    assert len(clean) == 5 and len(both) == 14
    assert both.digest == Mixture(two, {}).digest != clean.digest  # so that a run does not go on with other objects
    with pytest.raises(InputError, match="no training data"):  # the GPL's objects are held out, whatever is asked for
        Mixture(two, {"zeroad": 0.5}, ("GPL-2+",))
    with pytest.raises(InputError, match="there are: CC-BY-SA"):
        Mixture(two, {}, ("CC-BY-3.0",))


def test_folders_without_training_data_are_refused(tmp_path):
    convert("ufoai", variants("ufoai", 2), tmp_path)
    for mix in ({}, {"procedural": 0.3}):
        with pytest.raises(InputError, match="no object there may be trained on"):
            Mixture.open([tmp_path], mix)


def test_sources_of_share_zero_are_not_loaded(two):
    mixture = Mixture(two, {"zeroad": 0.0, "procedural": 0.0})
    assert {two[d].record(i)["source"] for d, i in mixture.numbers} == {"sweethome3d"}
    assert mixture.procedural_count(8) == 0
    only = Mixture(two, {"procedural": 1.0})
    assert len(only) == 0 and only.procedural_count(8) == 8


def test_batches_hold_both_kinds(two):
    assert [Mixture(two, {"procedural": p}).procedural_count(16) for p in (0.3, 0.01, 0.99)] == [5, 1, 15]


@pytest.mark.parametrize("text", ["a", "a=2", "a=-1", "a=0.6,b=0.6", "a=0.1,a=0.2", "=0.3", "a=nan"])
def test_mixes_that_cannot_be_meant(text):
    with pytest.raises(InputError, match="--mix"):
        parse_mix(text)
    assert parse_mix(" a=0.5, b=0 ") == {"a": 0.5, "b": 0.0}


def test_a_source_stands_in_one_folder(two):
    with pytest.raises(InputError, match="give it once"):
        Mixture([*two, *two], {})


def test_poses_are_drawn_from_clips_that_move(library):
    number = place(library, "arm")
    poses = [draw_poses(library, [number], [0, k])[0] for k in range(200)]
    assert 0.1 < sum(p.clip is None for p in poses) / 200 < 0.4
    assert {p.frame for p in poses if p.clip == 0} == set(range(5))
    assert draw_poses(library, [place(library, "balls/red")], [0, 0])[0].clip is None
