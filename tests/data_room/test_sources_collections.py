"""The other collections' readers on tiny packages: orientation, textures, groups, licences, clips, damage."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import source_files as write

from bozzetto.data.sources.megaglest import action_of
from bozzetto.data.sources.registry import SOURCES, find_source
from bozzetto.data.sources.supertuxkart import detail, finest
from bozzetto.data.sources.sweethome3d import parse_catalogue

COPYRIGHT = (
    "Files: *\nCopyright: 2002 The Team\nLicense: GPL-3+\n\nFiles: {}\nCopyright: 2010 Ann\nLicense: CC-BY-SA-3.0\n"
)


def read(name, folder):
    return {obj.name: obj for obj in find_source(name).read(folder)}


def sign_reads(part) -> None:
    write.assert_sign_reads(part.vertices, part.faces, part.uvs)


# Sweet Home 3D

OBJ = "mtllib chair.mtl\nv 0 0 0\nv 1 0 0\nv 1 2 0\nv 0 2 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl wood\nf 1/1 2/2 3/3 4/4\n"
LYING = OBJ.replace("v 1 2 0", "v 1 0 -2").replace("v 0 2 0", "v 0 0 -2")  # on its back
CATALOGUE = (
    "id=x\nlicense=Creative Commons Attribution 3.0 license\n"
    "name#1=Chair \\u20ac\ncategory#1=Office\ntags#1=Blend Swap, Seat\ncreator#1=Blend Swap\nmodel#1=/c/chair/chair.obj\n"
    "name#2=Lying chair\nmodel#2=/c/lying/lying.obj\ncreator#2=Bob\nmodelRotation#2=1 0 0 0 0 -1 0 1 0\n"
    "name#3=Broken\nmodel#3=/c/broken.obj\nname#4=Gone\nmodel#4=/c/gone.obj\nname#5=No model\n"
)


@pytest.fixture
def furniture(tmp_path):
    files = {
        "PluginFurnitureCatalog.properties": CATALOGUE.encode("latin-1"),
        "c/chair/chair.obj": OBJ,
        "c/chair/Chair.MTL": "newmtl wood\nKd 1 0 0\nmap_Kd Wood.PNG\n",
        "c/chair/wood.png": write.picture(),
        "c/chair/BLENDSWAP_LICENSE.txt": 'Thank you for downloading "Chair" by Jo 3D\nReleased',
        "c/lying/lying.obj": LYING,
        "c/broken.obj": "v 0 0 0\nf 1 2 3\n",
    }
    write.archive(tmp_path / "sweethome3d-furniture/usr/share/sweethome3d/furniture/KatorLegaz.sh3f", files)
    return tmp_path


def test_sweet_home(furniture, caplog):
    with caplog.at_level(logging.INFO, "bozzetto.data.sources"):
        objects = read("sweethome3d", furniture)
    assert set(objects) == {"KatorLegaz/chair", "KatorLegaz/lying"}
    assert "KatorLegaz/3 cannot be read" in caplog.text and "KatorLegaz/4 left out" in caplog.text
    chair = objects["KatorLegaz/chair"]
    assert chair.caption == "Chair €" and chair.tags == ("Seat",) and chair.category == "Office"
    assert chair.licence == "CC-BY-3.0" and chair.author == "Jo 3D"
    assert tuple(chair.textures[0][0, 0]) == (200, 100, 50, 255) and chair.parts[0].colour == (1, 1, 1)
    sign_reads(chair.parts[0])
    sign_reads(objects["KatorLegaz/lying"].parts[0])  # the catalogue's rotation stands it up
    assert objects["KatorLegaz/lying"].author == "Bob"


def test_catalogue_escapes():
    library, pieces = parse_catalogue("license=Public domain\nname#12=a\\:b \\u00e9 \n")
    assert library["license"] == "Public domain" and pieces[12]["name"] == "a:b é"


# SuperTuxKart

STK = "supertuxkart-data/usr/share/games/supertuxkart/data/"
# Faces +z in the left-handed frame: its viewer has -x on the right. Clockwise for that viewer as the game has it.
STK_SIGN = write.sign(0, 1, mirror=True)
STK_FACES = write.FACES[:, ::-1]


@pytest.fixture
def karts(tmp_path):
    model = write.spm(STK_SIGN, STK_FACES, write.UVS_TOP, "skin.png")
    wheel = write.spm(STK_SIGN, STK_FACES, write.UVS_TOP)
    large = write.spm(STK_SIGN * 100, STK_FACES, write.UVS_TOP)
    lod = "".join(f'<static-object lod_distance="{d}" model="{m}.spm"/>' for d, m in ((90, "far"), (20, "near")))
    write.folder(
        tmp_path,
        {
            STK + "karts/tux/kart.xml": '<kart name="Tux" model-file="tux.spm"><wheels>'
            '<front-left position="-3 0 5" model="wheel.spm"/><front-right position="0 0 0" model="none.spm"/></wheels></kart>',
            STK + "karts/tux/tux.spm": model,
            STK + "karts/tux/wheel.spm": wheel,
            STK + "karts/tux/skin.png": write.picture((1, 2, 3, 255)),
            STK + "textures/skin.png": write.picture((9, 9, 9, 255)),
            STK + "library/stklib_bigTree_a/node.xml": f'<scene><lod><group name="g">{lod}</group></lod>'
            '<object lod_group="g" lod_instance="true" xyz="0 0 0" hpr="0 0 0" scale="1 1 1"/>'
            '<object model="near.spm" interaction="physicsonly"/></scene>',
            STK + "library/stklib_bigTree_a/near.spm": model,
            STK + "library/stklib_bigTree_a/far.spm": wheel,
            STK + "models/banana.spm": model,
            STK + "models/banana-low.spm": wheel,
            STK + "models/glow.spm": write.spm(STK_SIGN, STK_FACES, write.UVS_TOP, "light.png"),
            STK + "models/cut.spm": model[:50],
            STK + "models/light.png": write.picture(),
            STK + "models/materials.xml": '<materials><material name="light.png" shader="additive"/></materials>',
            STK + "tracks/hill/stone.spm": wheel,
            STK + "tracks/hill/hill_track.spm": wheel,
            STK + "tracks/hill/valley.spm": large,
            "supertuxkart-data/usr/share/doc/supertuxkart-data/copyright": COPYRIGHT.format("data/karts/tux/*"),
        },
    )
    return tmp_path


def test_super_tux_kart(karts, caplog):
    with caplog.at_level(logging.INFO, "bozzetto.data.sources"):
        objects = read("supertuxkart", karts)
    assert set(objects) == {"karts/tux", "library/stklib_bigTree_a", "models/banana", "tracks/hill/stone"}
    assert "valley left out" in caplog.text and "models/cut cannot be read" in caplog.text
    kart = objects["karts/tux"]
    sign_reads(kart.parts[0])
    assert tuple(kart.textures[0][0, 0, :3]) == (1, 2, 3)  # its own picture, not the shared one of the same name
    body, wheel = kart.parts
    assert np.allclose(wheel.vertices - body.vertices, [3, 0, 5])  # the game's left (-x) is +x here, the front stays +z
    assert kart.licence == "CC-BY-SA-3.0" and kart.author == "Ann" and kart.caption == "Tux in a racing kart"
    tree = objects["library/stklib_bigTree_a"]
    assert (
        tree.triangles == 2 and tree.textures and tree.caption == "big tree" and tree.group == "library/stklib_bigTree"
    )
    assert tree.licence == "GPL-3+"


def test_levels_of_detail():
    assert detail("fern_LOD60") == ("fern", 60) and detail("gift-box-low") == ("gift-box", 2000)
    assert detail("house_2") == ("house_2", 0)
    assert finest(["fern_LOD100", "fern_LOD30", "tree_high", "tree_med", "stone"]) == [
        "fern_LOD30",
        "tree_high",
        "stone",
    ]


# MegaGlest

GLEST = "megaglest-data/usr/share/games/megaglest/"
UNIT = GLEST + "techs/megapack/factions/norsemen/units/spearman/"


@pytest.fixture
def glest(tmp_path):
    points = write.sign(0, 1)
    walk = np.stack([points, points + [0, 0.5, 0], points])
    burst = np.stack([points, points * 50])

    def model(frames, faces=write.FACES, **more):
        return write.g3d(frames, faces, write.UVS_BOTTOM, "skin.png", **more)

    write.folder(
        tmp_path,
        {
            UNIT + "spearman.xml": '<unit><skills><skill><anim-speed value="50"/>'
            '<animation path="models/spearman_walking.g3d"/></skill></skills></unit>',
            UNIT + "models/spearman_standing.g3d": model(points[None], team=True),
            UNIT + "models/spearman_walking.g3d": model(walk, team=True),
            UNIT + "models/spearman_dying.g3d": model(burst, team=True),
            UNIT + "models/spearman_dead.g3d": model(points[None], faces=write.FACES[:1]),
            UNIT + "models/cut.g3d": model(walk)[:90],
            UNIT + "models/skin.png": write.picture((100, 100, 100, 0)),
            GLEST + "tilesets/desert/models/big_stone2.g3d": model(points[None]),
            GLEST + "tilesets/desert/models/tree.g3d": write.g3d(
                points[None], write.FACES, write.UVS_BOTTOM, "leaf.png", team=True
            ),
            GLEST + "tilesets/desert/models/leaf.png": write.picture((30, 100, 20, 0)),
            GLEST + "tilesets/desert/models/none.g3d": b"G3D\4\0\0\0",
            GLEST + "tilesets/desert/models/skin.png": write.picture((100, 100, 100, 255)),
        },
    )
    return tmp_path


def test_mega_glest(glest, caplog):
    with caplog.at_level(logging.INFO, "bozzetto.data.sources"):
        objects = read("megaglest", glest)
    unit = "techs/megapack/factions/norsemen/units/spearman"
    stone = "tilesets/desert/models/big_stone2"
    tree = "tilesets/desert/models/tree"
    assert set(objects) == {f"{unit}/models/spearman_standing", f"{unit}/models/spearman_dead", stone, tree}
    assert "cut.g3d cannot be read" in caplog.text and "bursts into pieces" in caplog.text
    spearman = objects[f"{unit}/models/spearman_standing"]
    sign_reads(spearman.parts[0])
    assert {o.group for o in objects.values()} == {unit, "tilesets/desert"}
    assert [c.name for c in spearman.clips] == ["walking"] and spearman.caption == "norsemen spearman"
    clip = spearman.clips[0]
    assert clip.fps == pytest.approx(2 * 0.5) and clip.positions[0].shape == (3, 4, 3)
    assert np.allclose(clip.positions[0][1] - spearman.parts[0].vertices, [0, 0.5, 0])
    assert tuple(spearman.textures[0][0, 0, :3]) != (100, 100, 100)  # alpha 0 shows the team's colour
    assert tuple(objects[stone].textures[0][0, 0, :3]) == (100, 100, 100) and objects[stone].caption == "big stone"
    assert tuple(objects[tree].textures[0][0, 0]) == (30, 100, 20, 0)  # scenery is of no team: its alpha cuts out
    assert objects[tree].parts[0].alpha == "mask" and spearman.parts[0].alpha == "opaque"


def test_action_names():
    assert action_of("spearman_walking", "spearman") == "walking"
    assert action_of("worker_walking_loaded_wood", "worker") == "loaded wood"


# FlightGear

AI = "flightgear-data-ai/usr/share/games/flightgear/AI/Aircraft/"


def test_flight_gear(tmp_path, caplog):
    # The nose points to -x, left is +z: the viewer of a sign that faces -x has +z on the right.
    ahead = write.sign(2, 1) - [5, 0, 0]
    model = write.ac3d(ahead, write.FACES, write.UVS_BOTTOM, "jet-tex.png")
    files = {
        AI + "Jet/Models/jet.ac": model,
        AI + "Jet/Models/navlights.ac": model,
        AI + "Jet/Models/jet-lod2.ac": model,
        AI + "Cub/cub.ac": model.replace("jet-tex.png", "C:\\somewhere\\cub.rgb"),
        AI + "Cub/cub.png": write.picture(),
        AI + "Bare/bare.ac": model.replace("jet-tex.png", "gone.png"),
        AI + "Bad/bad.ac": model[: len(model) // 2],
        "flightgear-data-ai/usr/share/doc/flightgear-data-ai/copyright": COPYRIGHT.format("AI/Aircraft/Cub/*"),
    }
    for number, livery in enumerate(("AirOne", "BlueAir", "CargoCo", "DeltaJet", "EastWind")):
        files[f"{AI}Jet/Textures/{livery}/jet-tex.png"] = write.picture((number, 0, 0, 255))
    write.folder(tmp_path, files)
    with caplog.at_level(logging.INFO, "bozzetto.data.sources"):
        objects = read("flightgear_ai", tmp_path)
    jets = [f"Jet/Models/jet@{x}" for x in ("AirOne", "CargoCo", "EastWind")]
    assert set(objects) == {*jets, "Cub/cub"}
    assert "bare.ac left out" in caplog.text and "bad.ac cannot be read" in caplog.text
    assert [int(objects[j].textures[0][0, 0, 0]) for j in jets] == [0, 2, 4]
    for obj in objects.values():
        sign_reads(obj.parts[0])
        assert np.allclose(obj.parts[0].vertices[:, 2], 5)
    assert objects["Cub/cub"].licence == "CC-BY-SA-3.0" and objects[jets[1]].caption == "Jet aircraft of Cargo Co"
    assert {o.group for o in objects.values()} == {"Jet", "Cub"}


def test_held_out_sources_are_those_of_the_split_rules():
    from bozzetto.data.assets.splits import HELD_OUT_SOURCES

    assert {n for n, s in SOURCES.items() if s.held_out} == {"ufoai", "openarena", "flightgear_ai"}
    assert {n for n, s in SOURCES.items() if s.held_out} <= HELD_OUT_SOURCES
    assert all(s.name == n and s.packages and s.licences and s.megabytes > 0 for n, s in SOURCES.items())


def test_objects_with_one_gpl_file_are_never_trained_on():
    from bozzetto.data.assets.splits import split_of

    mixed = "CC-BY-SA-4.0 AND (CC-BY-SA-4.0 OR CC-BY-SA-3.0) AND GPL-3+"
    assert split_of("supertuxkart", "models/a", "a", mixed) == "test"
    assert split_of("supertuxkart", "models/a", "a", "(GPL-2+ OR CC-BY-SA-3.0) AND CC0-1.0") == "train"
