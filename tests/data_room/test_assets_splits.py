"""What is held out stays held out."""

from __future__ import annotations

import pytest

from bozzetto.data.assets.captions import captions, draw_caption, main_colours, motion_captions, name_colours
from bozzetto.data.assets.splits import HELD_OUT_SOURCES, TRAINING_SOURCES, hashed_split, is_gpl, object_split, split_of
from bozzetto.data.sources.registry import SOURCES


def test_whole_collections_are_held_out():
    for source in HELD_OUT_SOURCES:
        for licence in ("CC0-1.0", "GPL-2+", ""):
            assert split_of(source, "anything", "group", licence) == "test"
    assert {"ufoai", "openarena", "flightgear_ai"} <= HELD_OUT_SOURCES
    assert not HELD_OUT_SOURCES & TRAINING_SOURCES


def test_every_known_collection_has_a_side():
    for name, source in SOURCES.items():
        assert (name in HELD_OUT_SOURCES) == source.held_out, name
        assert source.held_out or name in TRAINING_SOURCES, name


@pytest.mark.parametrize("source", [*sorted(TRAINING_SOURCES), "my_folder"])
@pytest.mark.parametrize(
    "licence",
    ["GPL-2+", "GPL-3.0-or-later", "LGPL-3", "GNU General Public License", "AGPL-3.0", "General Public Licence v3"],
)
def test_gpl_is_never_trained_on(source, licence):
    assert all(split_of(source, f"a/{i}", f"g{i}", licence) == "test" for i in range(50))


def test_gpl_beside_another_choice_is_no_gpl():
    assert not is_gpl("GPL-2+ or CC-BY-3.0") and not is_gpl("CC0-1.0") and not is_gpl("")
    assert is_gpl("GPL-2+ or GPL-3+")


def test_known_collections_without_a_licence_are_not_used():
    assert split_of("supertuxkart", "library/x", "x", "") == "unused"


def test_one_author_of_the_furniture_is_held_out():
    assert split_of("sweethome3d", "KatorLegaz/bike", "KatorLegaz/kl/bike", "CC-BY-3.0-US") == "test"
    assert split_of("sweethome3d", "Scopia/sofa", "Scopia/scopia/sofa", "CC-BY-3.0") == "train"


@pytest.mark.parametrize(
    ("name", "group", "split"),
    [
        ("fauna/rhino", "skeletal/rhino.dae", "test"),
        ("fauna/giraffe_baby", "skeletal/giraffe_infant.dae", "test"),
        ("fauna/crocodile", "skeletal/croc.dae", "test"),
        ("fauna/pony", "skeletal/pony.dae", "test"),
        ("fauna/horse_brown", "skeletal/horse_celtic.dae", "train"),
        ("fauna/zebra_2", "skeletal/horse.dae", "unused"),  # a zebra's skin on a horse that is trained on
        ("structures/mauryas/temple", "structural/maur_temple.dae", "test"),
        ("structures/kushites/pyramid", "structural/kush_pyramid.dae", "test"),
        ("structures/kushites/stable", "structural/ptol_stable.dae", "unused"),
        ("props/structures/kushites/flag", "props/kush_flag.dae", "test"),
        ("structures/ptolemies/stable", "structural/ptol_stable.dae", "train"),
        ("units/mauryas/archer", "skeletal/new/m_tunic_long.dae", "unused"),  # most carry held-out shields and axes
        ("units/persians/archer", "skeletal/new/m_tunic_long.dae", "train"),
        ("units/persians/elephantry_c_m", "skeletal/elephant_asian.dae", "unused"),  # a Mauryan tower on its back
        ("props/units/heads/head_maur_fem", "props/head_f.dae", "unused"),
        ("structures/tent_kush", "structural/hele_tent.dae", "unused"),
        # Chariots that ponies draw, and their manes and blankets, of data packed before meshes were told.
        ("units/britons/chariot_javelinist_c_m", "structural/celt_char_a.dae", "unused"),
        ("units/britons/hero_chariot_javelinist_boudicca_m", "structural/celt_char_b.dae", "unused"),
        ("units/britons/chariot_javelinist_c_r", "skeletal/new/m_tunic_long.dae", "train"),
        ("props/horse/pony_hair_mane_beige", "props/horse/pony_hair_mane_01.dae", "unused"),
        ("props/horse/cav_blanket_celt_pony", "props/horse/blanket_pony.dae", "unused"),
        ("props/units/heads/new/head_m_ponytail", "props/new/head_m_ponytail.dae", "train"),
    ],
)
def test_animals_and_peoples_are_held_out_by_mesh(name, group, split):
    assert split_of("zeroad", name, group, "CC-BY-SA-3.0") == split


def test_twins_of_gpl_objects_are_not_trained_on():
    for name in ("library/stklib_sagebrush_a", "tracks/black_forest/stklib_steamengine"):
        assert split_of("supertuxkart", name, "x", "CC-BY-SA-4.0") == "unused"
    assert split_of("supertuxkart", "library/stklib_bush_a", "x", "CC-BY-SA-4.0") == "train"


@pytest.mark.parametrize("animal", ["rhino", "giraffe_infant", "Croc", "pony", "maur_shield", "kush_axe"])
def test_what_a_held_out_mesh_is_built_into_is_not_trained_on(animal):
    from asset_shapes import ball_object

    def split(mesh, group="structural/cart.dae"):
        meshes = (group, "props/wheel.dae", mesh)
        return object_split(ball_object(source="zeroad", name="units/x/cart", group=group, meshes=meshes))

    assert split(f"skeletal/{animal}.dae") == "unused" and split("skeletal/horse.dae") == "train"
    assert split("props/hat.dae", f"skeletal/{animal}.dae") == "test"


def test_users_folders_split_by_group_for_good():
    # These never change: a folder that is converted again in a year must split in the same way.
    assert [hashed_split("mine", g) for g in ("a", "g12", "g73")] == [
        hashed_split("mine", g) for g in ("a", "g12", "g73")
    ]
    drawn = [split_of("mine", f"n{i}", f"g{i // 3}", "") for i in range(6000)]
    assert all(len({*drawn[i : i + 3]}) == 1 for i in range(0, 6000, 3))
    assert 0.9 < drawn.count("train") / 6000 < 0.96 and drawn.count("test") > drawn.count("val") > 50


def test_captions():
    assert captions("oak_table", ["brown"], "Kitchen", ["Wood", "table"]) == [
        "an oak table",
        "a brown oak table",
        "a 3D model of a brown oak table",
        "a brown oak table, kitchen",
        "an oak table (wood)",
    ]
    assert captions("") == []
    assert motion_captions("horse", "walkSlow", ["brown"])[1] == "a brown horse, walk slow"


def test_drawn_captions_vary_and_always_name_the_thing():
    import random

    rng = random.Random(0)
    drawn = {draw_caption(rng, "sofa", ["red"], "Living room", ["seat", "couch"]) for _ in range(100)}
    assert len(drawn) > 4 and all("sofa" in d for d in drawn)


def test_colour_names():
    rgb = [(200, 20, 20), (20, 20, 20), (250, 250, 250), (30, 60, 190), (120, 70, 35), (128, 128, 130), (250, 220, 60)]
    assert name_colours(rgb) == ["red", "black", "white", "blue", "brown", "grey", "yellow"]


def test_main_colours_go_by_area():
    from asset_shapes import ball, ball_object

    big, small = ball(texture=None, colour=(0.1, 0.2, 0.75)), ball(radius=0.5, texture=None, colour=(0.9, 0.1, 0.1))
    assert main_colours(ball_object(parts=[small, big], textures=[])) == ("blue",)
    half = ball(texture=None, colour=(0.9, 0.1, 0.1))
    assert set(main_colours(ball_object(parts=[half, big], textures=[]))) == {"blue", "red"}
