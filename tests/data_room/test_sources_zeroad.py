"""0 A.D.'s reader on a tiny archive: orientation, skinning, props on bones, variants, team colour, names, damage."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import source_files as write
from PIL import Image

from bozzetto.data.sources import zeroad
from bozzetto.data.sources.registry import find_source
from bozzetto.data.sources.zeroad_names import ActorName
from bozzetto.errors import InputError

ZIP = "usr/share/games/0ad/mods/public/public.zip"
HALF = np.sqrt(0.5)
# A sign that faces -z in the left-handed frame: its viewer has +x on the right.
SIGN = write.sign(0, 1)
BONES = [write.state(), write.state((0, 1, 0))]
# The second bone moves up by 3, and then turns by 90 degrees about z as well.
CLIP = write.psa(
    [
        [write.state(), write.state((0, 1, 0))],
        [write.state(), write.state((0, 4, 0))],
        [write.state(), write.state((0, 4, 0), (0, 0, HALF, HALF))],
    ]
)


def dds(colour) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), colour).save(out, format="DDS")
    return out.getvalue()


def actor(*groups: str, material: str = "default.xml") -> str:
    inside = "".join(f"<group>{g}</group>" for g in groups)
    return f"<actor>{inside}<material>{material}</material></actor>"


BODY = (
    '<variant><mesh>body.dae</mesh><textures><texture file="skin.png" name="baseTex"/></textures>'
    '<props><prop actor="props/hat.xml" attachpoint="head"/><prop actor="props/gun.xml" attachpoint="projectile"/></props>'
    "</variant>"
)
MOVES = '<animations><animation name="Walk" file="walk.dae"/><animation name="Idle" file="walk.dae"/></animations>'


@pytest.fixture
def files() -> dict[str, bytes | str]:
    joints = np.array([[1, 255, 255, 255], [1, 255, 255, 255], [0, 255, 255, 255], [255, 255, 255, 255]])
    weights = np.where(joints < 255, 1.0, 0.0)
    names = '<Entity parent="template_unit"><Identity><Civ>rome</Civ><GenericName>Archer</GenericName>'
    return {
        "art/actors/units/soldier.xml": actor(
            BODY, '<variant name="Moves" file="moves.xml"/>', material="player_trans.xml"
        ),
        "art/variants/moves.xml": f'<variant file="base.xml">{MOVES}</variant>',
        "art/variants/base.xml": "<variant><color>255 0 0</color></variant>",
        "art/actors/props/hat.xml": actor("<variant><mesh>hat.dae</mesh></variant>"),
        "art/actors/props/gun.xml": actor("<variant><mesh>hat.dae</mesh></variant>"),
        "art/actors/structures/fndn_1x1.xml": actor("<variant><mesh>hat.dae</mesh></variant>"),
        "art/meshes/body.dae.cached.pmd": write.pmd(
            SIGN, write.FACES, write.UVS_BOTTOM, joints, weights, BONES, [("prop-head", write.state((0, 1, 0)), 1)]
        ),
        "art/meshes/hat.dae.cached.pmd": write.pmd(SIGN, write.FACES, write.UVS_BOTTOM),
        "art/animation/walk.dae.cached.psa": CLIP,
        "art/textures/skins/skin.png.cached.dds": dds((200, 100, 50, 0)),
        "simulation/templates/template_unit.xml": "<Entity><Identity><Classes>Soldier Melee</Classes></Identity></Entity>",
        "simulation/templates/units/archer.xml": f"{names}<Classes>Ranged -Melee</Classes></Identity>"
        "<VisualActor><Actor>units/soldier.xml</Actor></VisualActor></Entity>",
        "simulation/templates/special/players/rome.xml": "<Entity><Identity><GenericName>Romans</GenericName>"
        "</Identity></Entity>",
    }


def read(tmp_path, files):
    write.archive(tmp_path / "0ad-data" / ZIP, files)
    return {obj.name: obj for obj in find_source("zeroad").read(tmp_path)}


def test_orientation_names_and_what_is_no_object(tmp_path, files):
    objects = read(tmp_path, files)
    assert set(objects) == {"units/soldier", "props/hat", "props/gun"}
    part = objects["props/hat"].parts[0]
    write.assert_sign_reads(part.vertices, part.faces, part.uvs)
    soldier = objects["units/soldier"]
    assert soldier.caption == "Archer" and soldier.tags == ("Romans", "soldier", "ranged")
    assert soldier.group == "body.dae" and soldier.category == "units" and soldier.licence == "CC-BY-SA-3.0"
    assert objects["props/hat"].caption == "hat" and objects["props/hat"].clips == []
    assert objects["units/soldier"].meshes[1:] == ("hat.dae",) and objects["props/hat"].meshes == ("hat.dae",)
    assert objects["props/hat"].parts[0].joints is None


def test_team_colour_shows_where_alpha_is_zero(tmp_path, files):
    picture = read(tmp_path, files)["units/soldier"].textures[0]
    assert (picture[..., 3] == 255).all()
    teams = [np.round(np.array([200, 100, 50]) * c) for c in zeroad.TEAM_COLOURS]
    assert any(np.abs(picture[0, 0, :3] - t).max() <= 1 for t in teams)


def test_clip_moves_vertices_and_the_prop_on_its_bone(tmp_path, files):
    from bozzetto.data.assets.pose import skin

    soldier = read(tmp_path, files)["units/soldier"]
    assert [c.name for c in soldier.clips] == ["idle", "walk"]  # the natural pose comes first
    clip = soldier.clips[0]
    assert clip.fps == pytest.approx(10) and clip.matrices.shape[0] == 3
    body, hat = soldier.parts
    assert np.allclose(body.weights.sum(1), 1) and body.joints.max() < clip.matrices.shape[1]
    still = skin(body.vertices, body.joints, body.weights, clip.matrices)
    assert np.allclose(still[0], body.vertices, atol=1e-5)
    # Vertices 0 and 1 hang on the bone that rises by 3; vertex 3 hangs on none.
    assert np.allclose(still[1] - body.vertices, np.array([3, 3, 0, 0])[:, None] * [0, 1, 0], atol=1e-5)
    # The hat sits one above the bone at height 1, so at 2; it rises with it, and turns about the bone at (0, 4, 0).
    assert hat.vertices[:, 1].min() == pytest.approx(2)
    worn = skin(hat.vertices, hat.joints, hat.weights, clip.matrices)
    assert np.allclose(worn[1], hat.vertices + [0, 3, 0], atol=1e-5)
    # In the left-handed frame +90 degrees about z takes x to y and y to -x; negating z leaves that as it is.
    offset = hat.vertices - [0, 1, 0]
    turned = np.stack([-offset[:, 1], offset[:, 0], offset[:, 2]], 1) + [0, 4, 0]
    assert np.allclose(worn[2], turned, atol=1e-5)


def test_rider_with_a_skeleton_of_its_own(tmp_path, files):
    """A skinned prop on a moving bone plays its own clip of the same name, and what it wears follows both."""
    from bozzetto.data.assets.pose import skin

    worn = '<props><prop actor="props/hat.xml" attachpoint="crown"/></props>'
    animations = '<animations><animation name="idle" file="rider.dae"/></animations>'
    files["art/actors/props/rider.xml"] = actor(f"<variant><mesh>rider.dae</mesh>{worn}{animations}</variant>")
    files["art/actors/units/soldier.xml"] = files["art/actors/units/soldier.xml"].replace("props/hat", "props/rider")
    one = np.tile([0, 255, 255, 255], (4, 1))
    files["art/meshes/rider.dae.cached.pmd"] = write.pmd(
        SIGN,
        write.FACES,
        write.UVS_BOTTOM,
        one,
        one == 0,
        [write.state((0, 2, 0))],
        [("crown", write.state((0, 1, 0)), 0)],
    )
    # Half as many frames: each is held for the same share of the time. It goes to z = 5, which is -5 here.
    files["art/animation/rider.dae.cached.psa"] = write.psa([[write.state((0, 2, 5))]])
    # The carrier's bone turns by 90 degrees about y (left-handed: z to x) in the last frame.
    frames = [[write.state(), write.state((0, 1, 0), q)] for q in ((0, 0, 0, 1), (0, HALF, 0, HALF))]
    files["art/animation/walk.dae.cached.psa"] = write.psa(frames)
    soldier = read(tmp_path, files)["units/soldier"]
    clip = soldier.clips[0]
    assert clip.name == "idle"
    _, rider, hat = soldier.parts
    # bone at 1 + prop point at 1 -> rider's frame at 2; its bone at 2 + crown at 1 -> hat at 5
    assert rider.vertices[:, 1].min() == pytest.approx(2) and hat.vertices[:, 1].min() == pytest.approx(5)
    for part in (rider, hat):
        posed = skin(part.vertices, part.joints, part.weights, clip.matrices)
        assert np.allclose(posed[0], part.vertices + [0, 0, -5], atol=1e-5)
        # Left-handed: (x, y, z) -> (z, y, -x), so with z negated (x, y, -z'), (x, y, z') -> (-z', y, x).
        x, y, z = (part.vertices + [0, 0, -5]).T
        assert np.allclose(posed[1], np.stack([-z, y, x], 1), atol=1e-5)


def test_props_on_the_same_skeleton_follow_it(tmp_path, files):
    from bozzetto.data.assets.pose import skin

    other = '<animations><animation name="idle" file="other.dae"/></animations>'
    files["art/actors/props/hat.xml"] = actor(f"<variant><mesh>mane.dae</mesh>{other}</variant>")
    files["art/animation/other.dae.cached.psa"] = write.psa([BONES])
    files["art/meshes/mane.dae.cached.pmd"] = files["art/meshes/body.dae.cached.pmd"]
    files["art/actors/units/soldier.xml"] = files["art/actors/units/soldier.xml"].replace('"head"', '"root"')
    soldier = read(tmp_path, files)["units/soldier"]
    body, mane = soldier.parts
    matrices = soldier.clips[0].matrices
    assert np.allclose(
        skin(mane.vertices, mane.joints, mane.weights, matrices)[2][:3],
        skin(body.vertices, body.joints, body.weights, matrices)[2][:3],
        atol=1e-5,
    )


def test_unused_joints_are_dropped(tmp_path, files):
    soldier = read(tmp_path, files)["units/soldier"]
    used = np.unique(np.concatenate([p.joints[p.weights > 0] for p in soldier.parts]))
    assert used.tolist() == list(range(soldier.clips[0].matrices.shape[1]))


def test_one_choice_for_each_group_and_the_best_quality(tmp_path, files):
    files["art/actors/props/two.xml"] = (
        '<qualitylevels><actor quality="low" inline=""/><actor inline=""/><inline>'
        '<group><variant minquality="high" frequency="1"><mesh>hat.dae</mesh></variant>'
        '<variant maxquality="high" frequency="1"><mesh>missing.dae</mesh></variant></group>'
        '<group><variant frequency="0"><mesh>missing.dae</mesh></variant>'
        '<variant frequency="1" name="red"><color>255 0 0</color></variant></group>'
        "<material>objectcolor.xml</material></inline></qualitylevels>"
    )
    assert read(tmp_path, files)["props/two"].triangles == 2


def test_props_take_the_variant_that_their_parent_took(tmp_path, files):
    files["art/actors/props/hat.xml"] = actor(
        '<variant name="other" frequency="1000"><mesh>missing.dae</mesh></variant>'
        '<variant name="Moves" frequency="1"><mesh>hat.dae</mesh></variant>'
    )
    assert read(tmp_path, files)["units/soldier"].triangles == 4


def test_an_empty_prop_takes_the_earlier_one_away(tmp_path, files):
    files["art/actors/units/bald.xml"] = actor(
        BODY, '<variant><props><prop actor="" attachpoint="head"/></props></variant>'
    )
    assert read(tmp_path, files)["units/bald"].triangles == 2


def test_props_that_hold_each_other_end(tmp_path, files):
    files["art/actors/props/hat.xml"] = actor(
        '<variant><mesh>hat.dae</mesh><props><prop actor="props/hat.xml" attachpoint="root"/></props></variant>'
    )
    assert 2 <= read(tmp_path, files)["props/hat"].triangles <= 20


def test_transparency_only_where_the_material_says_so(tmp_path, files):
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[:2, :, 3] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="DDS")
    files["art/textures/skins/leaf.png.cached.dds"] = out.getvalue()
    leaf = '<variant><mesh>hat.dae</mesh><textures><texture file="leaf.png" name="baseTex"/></textures></variant>'
    for name, material in (("tree", "basic_trans_wind.xml"), ("rock", "no_trans_spec.xml"), ("wall", "default.xml")):
        files[f"art/actors/flora/{name}.xml"] = actor(leaf, material=material)
    objects = read(tmp_path, files)
    assert [objects[f"flora/{n}"].parts[0].alpha for n in ("tree", "rock", "wall")] == ["mask", "opaque", "opaque"]


def test_bad_actors_are_logged_and_left_out(tmp_path, files, caplog):
    files["art/actors/units/cut.xml"] = actor("<variant><mesh>cut.dae</mesh></variant>")
    files["art/meshes/cut.dae.cached.pmd"] = files["art/meshes/hat.dae.cached.pmd"][:60]
    files["art/actors/units/empty.xml"] = actor("<variant/>")
    files["art/actors/units/broken.xml"] = "<actor"
    with caplog.at_level(logging.INFO, "bozzetto.data.sources"):
        assert set(read(tmp_path, files)) == {"units/soldier", "props/hat", "props/gun"}
    text = caplog.text
    assert "units/cut.xml cannot be read" in text and "units/empty.xml left out" in text and "units/broken.xml" in text


def test_a_clip_of_another_skeleton_is_no_clip(tmp_path, files):
    files["art/animation/walk.dae.cached.psa"] = write.psa([[write.state()]])
    soldier = read(tmp_path, files)["units/soldier"]
    assert soldier.clips == [] and all(p.joints is None and p.weights is None for p in soldier.parts)


def test_reading_is_the_same_every_time(tmp_path, files):
    first, second = read(tmp_path, files)["units/soldier"], read(tmp_path, files)["units/soldier"]
    assert np.array_equal(first.textures[0], second.textures[0])
    assert np.array_equal(first.parts[1].vertices, second.parts[1].vertices)


def test_captions():
    tree = ActorName("Tree", "Dragon Bamboo", "", ("ForestPlant",))
    assert zeroad.describe("flora/trees/bamboo_a", tree) == ("Dragon Bamboo (Tree)", ("Dragon Bamboo", "forest plant"))
    house = ActorName("House", "Tegia", "Britons", ("Structure", "Civic"))
    assert zeroad.describe("structures/britons/house", house) == ("House of the Britons", ("Britons", "Tegia", "civic"))
    assert zeroad.describe("props/units/helmets/hele_pilos_b2", None) == ("hele pilos", ("props", "units", "helmets"))


def test_a_missing_package_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="unpack"):
        list(find_source("zeroad").read(tmp_path))
    with pytest.raises(InputError, match="there are"):
        find_source("doom")
