"""Objects through a shard and a dataset folder and back."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from asset_shapes import arm, ball, ball_object, picture

from bozzetto.data.assets.catalogue import Dataset, effective_split
from bozzetto.data.assets.checks import Limits, RefusedError
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.pack import PackOptions, encode_object, object_digest, read_object, write_object
from bozzetto.data.assets.pictures import decode_picture, encode_picture, fit_picture, power_of_two
from bozzetto.data.assets.pose import posed_vertices
from bozzetto.data.assets.shard import DatasetError, Shard, write_shard
from bozzetto.data.assets.splits import hashed_split
from bozzetto.errors import InputError


def through(tmp_path, *objects, options=None, turn=0.0):
    """The objects after a shard."""
    path = tmp_path / "x.assets"
    with write_shard(path) as writer:
        for obj in objects:
            write_object(writer, encode_object(obj, options or PackOptions(), turn))
    shard = Shard(path)
    return [read_object(shard, i) for i in range(len(shard))]


def test_a_ball_comes_back_in_the_unit_sphere(tmp_path):
    (back,) = through(tmp_path, ball_object())
    part = back.parts[0]
    radius = np.linalg.norm(part.vertices, axis=1)
    assert radius.max() <= 1.0005 and radius.min() > 0.99
    np.testing.assert_allclose(back.rest, (0, 0, 0, 1), atol=1e-3)
    # The placement leads from the ball's own units to what is stored.
    own = (part.vertices - back.placement[:3, 3]) / back.placement[0, 0]
    np.testing.assert_allclose(np.linalg.norm(own - [5, 2, -1], axis=1), 3, atol=2e-3)
    fields = ("source", "name", "group", "caption", "category", "tags", "licence", "author")
    assert all(getattr(back, f) == getattr(ball_object(), f) for f in fields)
    assert back.digest == object_digest(ball_object()) != object_digest(ball_object(textures=[picture(32)]))
    assert np.abs(back.textures[0].astype(int) - picture()).mean() < 4


def test_turn_brings_the_side_to_the_front(tmp_path):
    nose = [ball(), ball(8, 4, radius=0.5, centre=(8.3, 2, -1))]  # on +x
    (back,) = through(tmp_path, ball_object(parts=nose), turn=-90)
    middle = back.parts[1].vertices.mean(0)
    assert middle[2] > 0.6 and abs(middle[0]) < 0.05


def test_the_arm_bends_the_same_after_packing(tmp_path):
    (back,) = through(tmp_path, arm(9), options=PackOptions(position_bits=14))
    source = arm(9)
    for seconds in (0.0, 0.3, 0.8):
        wanted = posed_vertices(source, "bend", seconds)[0][source.parts[0].faces]
        got = posed_vertices(back, "bend", seconds)[0][back.parts[0].faces]
        got = (got - back.placement[:3, 3]) / back.placement[0, 0]
        np.testing.assert_allclose(got, wanted, atol=4e-3)
    reach = max(np.linalg.norm(posed_vertices(back, "bend", t)[0], axis=1).max() for t in np.linspace(0, 0.8, 9))
    assert 0.98 < reach < 1.002  # all frames stay in the unit sphere, and one touches it


def test_moving_vertices_are_reordered_like_the_rest(tmp_path):
    obj = ball_object(parts=[ball(), ball(8, 4, radius=1, centre=(5, 6, -1))])
    frames = [np.stack([p.vertices, p.vertices * 1.5]) for p in obj.parts]
    obj.clips = [replace(arm().clips[0], matrices=None, positions=frames, name="grow")]
    (back,) = through(tmp_path, obj)
    still, grown = back.clips[0].positions[0]
    np.testing.assert_allclose(still, back.parts[0].vertices, atol=2e-3)
    move = back.placement
    wanted = (still - move[:3, 3]) * 1.5 + move[:3, 3] * 1.0
    np.testing.assert_allclose(grown, wanted, atol=3e-3)


def test_shared_pictures_meshes_and_clips_are_stored_once(tmp_path):
    path = tmp_path / "x.assets"
    red = ball_object()
    other = ball_object(name="balls/again", caption="another")
    blue = ball_object(name="balls/blue", textures=[picture()[::-1].copy()])
    with write_shard(path) as writer:
        for obj in (red, other, blue, arm(), replace(arm(), name="arm 2", textures=[picture(32)])):
            write_object(writer, encode_object(obj, PackOptions()))
    shard = Shard(path)
    first, again, blue, one, two = shard.records
    assert first["textures"] == again["textures"] and first["parts"] == again["parts"]
    assert blue["textures"] != first["textures"] and blue["parts"][0]["geometry"] == first["parts"][0]["geometry"]
    assert one["clips"][0]["blob"] == two["clips"][0]["blob"]
    assert (
        shard.blob_count == 1 + 2 + 1 + 1 + 1
    )  # ball, its pictures (one is also the arm's), arm, its other picture, clip


def test_few_of_many_clips_are_kept(tmp_path):
    clips = [replace(arm().clips[0], name=f"bend {i}") for i in range(20)]
    names = [
        [
            c.name
            for c in through(tmp_path, replace(arm(), name=n, clips=clips), options=PackOptions(most_clips=3))[0].clips
        ]
        for n in ("a", "b", "a")
    ]
    assert names[0] == names[2] != names[1] and len(names[0]) == 3


def test_options_are_checked():
    for bad in ({"texture_size": 100}, {"position_bits": 8}, {"clip_fps": 0}, {"texture_quality": 0}):
        with pytest.raises(InputError):
            PackOptions(**bad)


def test_dense_objects_are_decimated_and_flagged(tmp_path):
    (back,) = through(
        tmp_path, ball_object(parts=[ball(60, 40)]), options=PackOptions(limits=Limits(most_triangles=500))
    )
    assert back.triangles < 560 and "decimated" in back.flags
    with pytest.raises(RefusedError):
        encode_object(ball_object(parts=[]), PackOptions())


def test_colours_and_captions_are_found(tmp_path):
    green = np.zeros((16, 16, 4), np.uint8) + np.array([40, 150, 50, 255], np.uint8)
    (back,) = through(tmp_path, ball_object(textures=[green]))
    assert back.colour_words == ("green",)


# ---- pictures


def test_pictures_get_power_of_two_sides():
    assert [power_of_two(s, 256) for s in (1, 3, 100, 334, 3000)] == [1, 4, 128, 256, 256]
    assert fit_picture(np.zeros((300, 100, 4), np.uint8), 512).shape == (256, 128, 4)


def test_transparent_texels_do_not_bleed():
    leaf = np.zeros((64, 64, 4), np.uint8)
    leaf[:, :, 0] = 255  # red where nothing is
    leaf[16:48, 16:48] = (0, 255, 0, 255)
    small = fit_picture(leaf, 16)
    seen = small[small[..., 3] > 100]
    assert seen[:, 0].max() < 20 and seen[:, 1].min() > 230
    assert decode_picture(encode_picture(leaf, 64, keep_alpha=True))[..., 3].min() == 0
    assert decode_picture(encode_picture(leaf, 64, keep_alpha=False))[..., 3].min() == 255


# ---- the file


def test_nothing_appears_when_writing_fails(tmp_path):
    with pytest.raises(RuntimeError), write_shard(tmp_path / "x.assets") as writer:
        writer.blob("a", b"abc")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_damage_is_noticed(tmp_path):
    through(tmp_path, ball_object())
    path = tmp_path / "x.assets"
    data = path.read_bytes()
    for name, broken in {
        "truncated": data[:-10],
        "is not": b"x" * len(data),
        "too short": data[:30],
        "version 9": data[:8] + b"\x09\0\0\0" + data[12:],
        "damaged": data[:-60] + bytes([data[-60] ^ 1]) + data[-59:],
    }.items():
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=name):
            Shard(path)
    path.write_bytes(data[:40] + bytes([data[40] ^ 255]) + data[41:])  # inside a blob
    assert Shard(path).damaged() == [0]
    path.unlink()
    with pytest.raises(DatasetError, match="does not exist"):
        Shard(path)


# ---- dataset folders


def balls(count: int):
    for i in range(count):
        shade = picture(16)
        shade[..., 0] = i
        yield ball_object(name=f"balls/{i}", group=f"balls/{i // 2}", textures=[shade])


def test_convert_reports_and_resumes(tmp_path):
    tasks = [
        *balls(6),
        ball_object(name="copy", textures=[next(balls(1)).textures[0]]),
        ball_object(name="bad", parts=[]),
    ]
    report = convert("mine", tasks, tmp_path / "d", shard_bytes=2000, origin={"folder": "x"})
    assert report.objects == 6 and report.refused == {"duplicate": 1, "empty": 1}
    data = Dataset(tmp_path / "d")
    assert len(data) == 6 and len(data.shards) > 1
    assert [data[i].name for i in range(6)] == [f"balls/{i}" for i in range(6)]
    assert [int(data[i].textures[0][0, 0, 0]) // 4 for i in (0, 5)] == [0, 1]
    lines = [json.loads(x) for x in (tmp_path / "d" / "mine-refused.jsonl").read_text().splitlines()]
    assert lines[0] == {"name": "copy", "reason": "duplicate: the same as balls/0"}
    # Again with fewer objects: no shard of the first run stays; another source is added beside it.
    convert("mine", balls(2), tmp_path / "d")
    convert("arms", [replace(arm(), source="arms", licence="CC-BY-4.0", author="Tom")], tmp_path / "d")
    data = Dataset(tmp_path / "d")
    assert len(data) == 3 and len(list((tmp_path / "d").glob("*.assets"))) == 2
    assert len(Dataset(tmp_path / "d", ["arms"])) == 1
    text = (tmp_path / "d" / "ATTRIBUTION.md").read_text()
    assert "CC-BY-4.0: Tom (1): arm" in text and "CC0-1.0: Jane (2): ball" in text
    stats = data.statistics()
    assert stats["arms"]["clips"] == 1 and stats["mine"]["groups"] == 1 and stats["mine"]["bytes"]["clips"] == 0
    assert data.verify() == []
    with pytest.raises(DatasetError, match="no source ducks"):
        Dataset(tmp_path / "d", ["ducks"])
    with pytest.raises(IndexError):
        data[3]


def test_nothing_usable_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="empty"):
        convert("mine", [ball_object(parts=[])], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_workers_give_the_same_bytes(tmp_path):
    convert("mine", balls(3), tmp_path / "a")
    convert("mine", balls(3), tmp_path / "b", workers=1)
    name = "mine-00000.assets"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_dataset_pickles(tmp_path):
    convert("mine", balls(2), tmp_path)
    copy = pickle.loads(pickle.dumps(Dataset(tmp_path)))
    np.testing.assert_array_equal(copy[1].parts[0].vertices, Dataset(tmp_path)[1].parts[0].vertices)


def test_verify_finds_damage_and_leaks(tmp_path):
    convert("mine", balls(2), tmp_path)
    shard = tmp_path / "mine-00000.assets"
    data = bytearray(shard.read_bytes())
    data[120] ^= 255
    shard.write_bytes(data)
    assert any("damaged" in p for p in Dataset(tmp_path).verify())
    record = {"source": "ufoai", "name": "x", "group": "x", "licence": "CC0-1.0", "split": "train"}
    assert effective_split(record) == "test"
    assert effective_split(record | {"source": "mine", "licence": "GPL-3+"}) == "test"


def test_what_shares_a_mesh_with_training_data_is_not_measured_with(tmp_path):
    a, b = (
        ball_object(source="sweethome3d", name=n, group="one", textures=[picture(s)])
        for n, s in (("Scopia/a", 32), ("KatorLegaz/b", 16))
    )
    c = ball_object(source="sweethome3d", name="KatorLegaz/c", group="other", textures=[picture(8)])
    convert("sweethome3d", [a, b, c], tmp_path)
    data = Dataset(tmp_path)
    assert data.select("train") == [0] and data.select("test") == [2] and data.select("unused") == [1]


def test_one_mesh_in_several_colours_stands_on_one_side_of_a_users_split(tmp_path):
    def chairs(source):
        for i in range(40):  # alone, some of these would be test objects
            more = (
                {"parts": [ball(texture=None, colour=(i / 40, 0.5, 0.5))]} if i % 2 else {"textures": [picture(8 + i)]}
            )
            yield ball_object(source=source, name=f"chair_{i}", group=f"chair_{i}", **more)
        yield ball_object(source=source, name="table", group="table", parts=[ball(radius=2)])

    options = PackOptions(texture_size=64)
    assert len({hashed_split("mine", f"chair_{i}") for i in range(40)}) > 1
    convert("mine", chairs("mine"), tmp_path, options)
    records = list(Dataset(tmp_path).records())
    assert {r["group"] for r in records} == {"chair_0", "table"} and len(records) == 41
    assert {r["split"] for r in records[:40]} == {hashed_split("mine", "chair_0")}
    convert(
        "megaglest", chairs("megaglest"), tmp_path / "known", options
    )  # a known collection's groups are its reader's
    assert len({r["group"] for r in Dataset(tmp_path / "known").records()}) == 41


def test_select(tmp_path):
    convert("mine", [*balls(2), arm()], tmp_path)
    data = Dataset(tmp_path)
    assert data.select(animated=True) == [2] and data.select(animated=False) == [0, 1]
    assert data.select(without=("animated",)) == [0, 1]
    splits = [effective_split(r) for r in data.records()]
    assert data.select("train") == [i for i, s in enumerate(splits) if s == "train"]


def test_missing_or_foreign_folders(tmp_path):
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        Dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"version": 99}')
    with pytest.raises(DatasetError, match="version 99"):
        Dataset(tmp_path)


@pytest.mark.parametrize("source", ["", "a/b", "../up", ".hidden", "two words"])
def test_names_that_cannot_name_files(tmp_path, source):
    with pytest.raises(InputError, match="cannot name a source"):
        convert(source, [ball_object()], tmp_path / "new")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("turn", [float("nan"), float("inf")])
def test_a_turn_is_a_number(tmp_path, turn):
    with pytest.raises(InputError, match="number of degrees"):
        convert("mine", [ball_object()], tmp_path / "new", turn=turn)
    assert not any(tmp_path.iterdir())


def test_a_file_and_a_foreign_catalogue_are_no_dataset(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(DatasetError, match="is a file, not a dataset folder"):
        Dataset(tmp_path / "file")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DatasetError, match="convert or copy it again"):
        Dataset(tmp_path)
