"""Parsers of the collections' formats: values come back, and damage is an error that names the file."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import source_files as write

from bozzetto.data.sources.common import Textures, plain_words, weld
from bozzetto.data.sources.formats.ac3d import parse_ac3d
from bozzetto.data.sources.formats.g3d import parse_g3d
from bozzetto.data.sources.formats.md2 import parse_md2
from bozzetto.data.sources.formats.md3 import parse_md3
from bozzetto.data.sources.formats.pyrogenesis import parse_pmd, parse_psa, rigid_matrices
from bozzetto.data.sources.formats.spm import parse_spm
from bozzetto.data.sources.formats.wavefront import parse_materials, parse_wavefront
from bozzetto.data.sources.licences import CopyrightFile, join_licences, licence_expression, requires_gpl
from bozzetto.errors import MeshError

POINTS = write.sign(0, 1)
FRAMES = np.stack([POINTS, POINTS + 1])
HALF = np.sqrt(0.5)
AXES = np.eye(3)
BINARY = {
    "pmd": (
        parse_pmd,
        write.pmd(POINTS, write.FACES, write.UVS_BOTTOM, bones=[write.state()], points=[("head", write.state(), 0)]),
    ),
    "psa": (parse_psa, write.psa([[write.state()], [write.state((1, 2, 3))]])),
    "spm": (parse_spm, write.spm(POINTS, write.FACES, write.UVS_TOP, "a.png", [None, (9, 8, 7), None, None])),
    "g3d": (parse_g3d, write.g3d(FRAMES, write.FACES, write.UVS_BOTTOM, "a.png")),
    "g3d3": (parse_g3d, write.g3d3(FRAMES, write.FACES, write.UVS_BOTTOM)),
    "md2": (parse_md2, write.md2(FRAMES, write.FACES, write.UVS_TOP)),
    "md3": (parse_md3, write.md3(FRAMES, write.FACES, write.UVS_TOP, tags=[("tag", [((1, 2, 3), AXES)] * 2)])),
}


@pytest.mark.parametrize("kind", BINARY)
def test_every_cut_of_a_binary_file_is_a_mesh_error(kind):
    parse, data = BINARY[kind]
    parse(data, "whole")
    cuts = [n for n in range(len(data)) if kind != "md2" or n < len(data)]
    for n in cuts:
        with pytest.raises(MeshError, match="file-name"):
            parse(data[:n], "file-name")


@pytest.mark.parametrize("kind", BINARY)
def test_noise_in_a_binary_file_never_crashes(kind):
    parse, data = BINARY[kind]
    rng = np.random.default_rng(0)
    for _ in range(60):
        noisy = bytearray(data)
        for place in rng.integers(4, len(data), 3):
            noisy[place] = rng.integers(256)
        with contextlib.suppress(MeshError):
            parse(bytes(noisy), "noisy")


def test_pmd_and_psa_values():
    joints, weights = np.array([[0, 1, 255, 255]] * 4), np.array([[0.75, 0.25, 0, 0]] * 4)
    bones = [write.state((0, 1, 0)), write.state((5, 0, 0), (0, HALF, 0, HALF))]
    mesh = parse_pmd(
        write.pmd(POINTS, write.FACES, write.UVS_BOTTOM, joints, weights, bones, [("hat", write.state((0, 9, 0)), 1)])
    )
    assert np.allclose(mesh.vertices, POINTS) and np.array_equal(mesh.faces, write.FACES)
    assert np.allclose(mesh.uvs, write.UVS_BOTTOM) and np.allclose(mesh.weights, weights)
    assert np.allclose(mesh.bones[0], [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert np.allclose(mesh.bones[1][:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-6)  # 90 degrees about y
    place, bone = mesh.prop_points["hat"]
    assert bone == 1 and np.allclose(place[:3, 3], [0, 9, 0])
    clip = parse_psa(write.psa([[write.state((1, 0, 0))], [write.state((2, 0, 0))]], milliseconds=50))
    assert clip.fps == pytest.approx(20) and clip.matrices[:, 0, 0, 3].tolist() == [1, 2]


def test_rigid_matrices_are_rotations_even_of_long_quaternions():
    matrices = rigid_matrices(np.random.default_rng(1).normal(size=(20, 7)) * 3)
    turns = matrices[:, :3, :3]
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(turns), 1)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("colours", [None, [None, (255, 0, 0), None, (0, 0, 255)]])
def test_spm_values(kind, colours):
    (mesh,) = parse_spm(write.spm(POINTS, write.FACES, write.UVS_TOP, "a.png", colours, kind))
    assert np.allclose(mesh.vertices, POINTS) and np.array_equal(mesh.faces, write.FACES)
    assert np.allclose(mesh.uvs, write.UVS_TOP, atol=1e-3) and mesh.texture == "a.png"
    assert np.allclose(mesh.colour, (1, 1, 1) if colours is None else (0.75, 0.5, 0.75))


def test_spm_without_a_picture_has_no_uvs():
    (mesh,) = parse_spm(write.spm(POINTS, write.FACES, write.UVS_TOP))
    assert mesh.uvs is None and np.allclose(mesh.vertices, POINTS)


def test_g3d_values():
    (mesh,) = parse_g3d(write.g3d(FRAMES, write.FACES, write.UVS_BOTTOM, "skin.png", team=True, opacity=0.5))
    assert np.allclose(mesh.frames, FRAMES) and mesh.team and mesh.opacity == 0.5 and mesh.texture == "skin.png"
    assert np.allclose(mesh.colour, (0.2, 0.4, 0.6)) and np.allclose(mesh.uvs, write.UVS_BOTTOM)
    (old,) = parse_g3d(write.g3d3(FRAMES, write.FACES, write.UVS_BOTTOM))
    assert np.allclose(old.frames, FRAMES) and np.allclose(old.uvs, write.UVS_BOTTOM) and old.texture == "skin.png"
    with pytest.raises(MeshError, match="version 2"):
        parse_g3d(b"G3D\2" + bytes(100))


def test_md2_values():
    mesh = parse_md2(write.md2(FRAMES, write.FACES, write.UVS_TOP, "./red"))
    assert np.allclose(mesh.frames, FRAMES, atol=10 / 255) and mesh.skins == ["./red"]
    assert np.allclose(mesh.uvs, write.UVS_TOP, atol=1 / 256) and mesh.frame_names == ["frame0", "frame1"]


def test_md3_tags_lose_their_scale():
    turn = np.array([[0, 3, 0], [-3, 0, 0], [0, 0, 3]])  # x axis to y, three times too long
    model = parse_md3(write.md3(FRAMES, write.FACES, write.UVS_TOP, tags=[("tag_head", [((1, 2, 3), turn)] * 2)]))
    assert model.frames == 2 and np.allclose(model.surfaces[0].frames, FRAMES)
    assert np.allclose(model.tags["tag_head"][1] @ [1, 0, 0, 1], [1, 3, 3, 1])


def test_ac3d_values():
    (mesh,) = parse_ac3d(write.ac3d(POINTS, [[0, 1, 2, 3]], write.UVS_BOTTOM))
    assert mesh.name == "wing" and mesh.texture == "skin.png" and mesh.colour == (0.5, 0.25, 1.0)
    assert len(mesh.faces) == 2 and np.allclose(mesh.vertices[:, 2], 3)  # moved by "loc"
    order = [int(np.argmin(np.abs(mesh.vertices[:, :2] - p[:2]).sum(1))) for p in POINTS]
    assert np.allclose(mesh.uvs[order], write.UVS_BOTTOM)


@pytest.mark.parametrize(
    "text", ["", "OBJECT world", "AC3Db\nOBJECT poly\nnumvert 3\n1 2 3\n", "AC3Db\nOBJECT poly\nnumvert x\n"]
)
def test_ac3d_damage(text):
    with pytest.raises(MeshError):
        if not parse_ac3d(text):
            raise MeshError("nothing")


def test_wavefront_materials_and_polygons():
    files = {
        "m.mtl": b"newmtl wood\nKd 1 0 0\nmap_Kd dir\\grain.png\nnewmtl glass\nd 0.1\nnewmtl paint\nKd 0 0.5 0\nKd nan 0 0\n",
        "grain.png": write.picture(),
    }
    text = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 1 2 0\nv 0 2 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    text += "usemtl wood\nf 1/1 2/2 3/3 4/4\nusemtl glass\nf 1 2 3\nusemtl paint\nf -4 -3 -2\n"
    textures = Textures()
    wood, paint = parse_wavefront(text, files.get, textures)
    write.assert_sign_reads(wood.vertices, wood.faces, wood.uvs)
    assert wood.texture == 0 and wood.colour == (1, 1, 1) and len(textures.arrays) == 1
    assert paint.texture is None and paint.uvs is None and paint.colour == (0, 0.5, 0)


def test_wavefront_damage():
    for text in ("v 1 2\nf 1 1 1", "v 0 0 0\nf 1 2 3", "v a b c\nf 1 1 1"):
        with pytest.raises(MeshError):
            parse_wavefront(text, lambda name: None, Textures())
    assert parse_materials("Kd 1 1 1\nnewmtl a\nd zzz\nmap_Kd\n")["a"].opacity == 1


def test_texture_alpha_counts_as_holes_only_when_there_are_holes():
    textures = Textures()
    for key, alpha in (("solid", 255), ("holes", 0)):
        textures.add(key, lambda alpha=alpha: np.full((4, 4, 4), alpha, np.uint8))
    assert textures.add("solid", lambda: pytest.fail("loaded twice")) == 0
    assert [textures.alpha(i) for i in (0, 1, None)] == ["opaque", "mask", "opaque"]


def test_weld_keeps_one_vertex_for_each_key():
    faces, (values,) = weld(np.array([[0, 0], [1, 0], [2, 0], [0, 0], [2, 0], [3, 1]]), np.arange(6))
    assert faces.shape == (2, 3) and len(values) == 4 and faces[0, 0] == faces[1, 0] and faces[0, 2] == faces[1, 1]


def test_plain_words():
    assert plain_words("stklib_autumnTree_a") == "stklib autumn tree a"
    assert plain_words("combineHarvester2") == "combine harvester 2"


def test_copyright_file_last_paragraph_wins():
    notes = CopyrightFile(
        "Files: *\nCopyright: 2001-2003 The Team <team@example.org>\nLicense: GPL-3+\n\n"
        "Files: data/a/*\n data/b.png\nCopyright:\n 2010 Ann\n (c) 2011, Bob\nLicense: CC-BY-SA-3.0 or GPL-2+\n text\n\n"
        "Files: data/a/x.png\nCopyright: Cay\nLicense: CC0\n"
    )
    assert notes.of("else").licence == "GPL-3+" and notes.of("else").authors == ("The Team",)
    assert notes.of("data/a/deep/y").licence == "CC-BY-SA-3.0 OR GPL-2+" and notes.of("data/b.png").authors == (
        "Ann",
        "Bob",
    )
    assert notes.of("data/a/x.png").licence == "CC0-1.0"
    licence, authors = notes.of_all(["data/a/x.png", "data/b.png"])
    assert licence == "(CC-BY-SA-3.0 OR GPL-2+) AND CC0-1.0" or licence == "CC0-1.0 AND (CC-BY-SA-3.0 OR GPL-2+)"
    assert authors == "Cay; Ann; Bob" and not requires_gpl(licence)
    assert CopyrightFile("").of("x") is None


def test_which_expressions_require_the_gpl():
    assert licence_expression("GPL-2+ and CC0") == "GPL-2+ AND CC0-1.0"
    for licence in ("GPL-3+", "CC0-1.0 AND LGPL-2.1", "GPL-2 OR GPL-3", "(CC0-1.0 OR GPL-2) AND GPL-3+"):
        assert requires_gpl(licence), licence
    for licence in ("", "CC-BY-SA-3.0", "GPL-2 OR CC-BY-3.0", join_licences(["GPL-2 OR CC0-1.0", "CC-BY-4.0"])):
        assert not requires_gpl(licence), licence
