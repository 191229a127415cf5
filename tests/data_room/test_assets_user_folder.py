"""Users' own files: formats and layouts."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zipfile

import numpy as np
import pytest
from asset_shapes import picture
from user_files import BOX, FACES, box_obj, png, skinned_glb

from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.mesh_files import read_mesh_file
from bozzetto.data.assets.user_folder import detect_kind, find_objects
from bozzetto.errors import InputError, MeshError, MissingDependencyError

needs_trimesh = pytest.mark.skipif(importlib.util.find_spec("trimesh") is None, reason="trimesh is not installed")


def test_a_folder_of_glb_becomes_a_dataset(tmp_path):
    (tmp_path / "in" / "robots").mkdir(parents=True)
    (tmp_path / "in" / "robots" / "noddingBox.glb").write_bytes(skinned_glb())
    (tmp_path / "in" / "robots" / "broken.glb").write_bytes(b"glTF")
    report = convert("mine", find_objects(tmp_path / "in", "mine", licence="CC0-1.0"), tmp_path / "out")
    assert report.objects == 1 and report.refused == {"cannot be read": 1}
    obj = Dataset(tmp_path / "out")[0]
    assert (obj.caption, obj.category, obj.licence) == ("nodding box", "robots", "CC0-1.0") and obj.clips[
        0
    ].name == "nod"


def test_obj_with_pictures(tmp_path):
    (tmp_path / "box.obj").write_text(box_obj("box"))
    (tmp_path / "box.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    obj = read_mesh_file(tmp_path / "box.obj")
    assert obj.problems == ("missing texture: skin.png",)
    (tmp_path / "skin.png").write_bytes(png(picture(8)))
    obj = read_mesh_file(tmp_path / "box.obj")
    assert obj.problems == () and obj.triangles == 12 and len(obj.textures) == 1
    np.testing.assert_allclose(obj.parts[0].uvs.max(0), 1)


def test_obj_with_a_damaged_picture_is_refused(tmp_path):
    (tmp_path / "box.obj").write_text(box_obj("box"))
    (tmp_path / "box.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    (tmp_path / "skin.png").write_bytes(png(picture(8))[:40])
    assert read_mesh_file(tmp_path / "box.obj").problems == ("unreadable texture: skin.png",)


def test_obj_picture_with_options_and_spaces_in_its_name(tmp_path):
    (tmp_path / "box.obj").write_text(box_obj("box"))
    (tmp_path / "box.mtl").write_text("newmtl skin\nmap_Kd -s 1 1 1 my skin.png\n")
    (tmp_path / "my skin.png").write_bytes(png(picture(8)))
    obj = read_mesh_file(tmp_path / "box.obj")
    assert obj.problems == () and len(obj.textures) == 1


def test_grey_pictures_of_16_bits_keep_their_greys(tmp_path):
    (tmp_path / "box.obj").write_text(box_obj("box"))
    (tmp_path / "box.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    (tmp_path / "skin.png").write_bytes(png(np.array([[0, 128 * 257], [255, 65535]], np.uint16)))
    (texture,) = read_mesh_file(tmp_path / "box.obj").textures
    assert texture[..., 0].tolist() == [[0, 128], [1, 255]] and (texture[..., 3] == 255).all()


@needs_trimesh
def test_ply_stl_and_coloured_obj(tmp_path):
    import trimesh

    mesh = trimesh.Trimesh(BOX, FACES, process=False, vertex_colors=np.tile(np.uint8([200, 10, 20, 255]), (8, 1)))
    for name in ("a.ply", "a.stl", "a.obj", "a.off"):
        mesh.export(tmp_path / name)
        obj = read_mesh_file(tmp_path / name)
        assert obj.triangles == 12, name
        corners = np.concatenate([p.vertices for p in obj.parts])
        np.testing.assert_allclose([corners.min(0), corners.max(0)], [[0, 0, 0], [1, 2, 1]], atol=1e-6)
        if name in ("a.ply", "a.obj"):
            assert (obj.parts[0].colours == [200, 10, 20]).all(), name
    (tmp_path / "bad.ply").write_bytes(b"ply\nnothing")
    with pytest.raises(MeshError, match="cannot be read"):
        read_mesh_file(tmp_path / "bad.ply")
    with pytest.raises(MeshError, match="not a mesh format"):
        read_mesh_file(tmp_path / "bad.txt")


@needs_trimesh
def test_stl_is_z_up_unless_told(tmp_path):
    import trimesh

    trimesh.Trimesh(BOX, FACES, process=False).export(tmp_path / "tall.stl")
    (task,) = find_objects(tmp_path)
    extent = np.ptp(task.load().parts[0].vertices, axis=0)
    np.testing.assert_allclose(extent, [1, 1, 2])  # the file's y, 2 long, is depth now
    (task,) = find_objects(tmp_path, up="y")
    np.testing.assert_allclose(np.ptp(task.load().parts[0].vertices, axis=0), [1, 2, 1])


def test_objaverse_layout(tmp_path):
    root = tmp_path / "hf-objaverse-v1"
    (root / "glbs" / "000-023").mkdir(parents=True)
    (root / "metadata").mkdir()
    uid = "0123456789abcdef0123456789abcdef"
    (root / "glbs" / "000-023" / f"{uid}.glb").write_bytes(skinned_glb())
    entry = {
        "name": "Nodding thing",
        "license": "by-nc",
        "user": {"displayName": "Ann"},
        "tags": [{"name": "toy"}],
        "categories": [{"name": "art"}],
    }
    with gzip.open(root / "metadata" / "000-023.json.gz", "wt") as file:
        json.dump({uid: entry}, file)
    assert detect_kind(root) == detect_kind(tmp_path) == "objaverse"
    (task,) = find_objects(tmp_path, "objaverse")
    obj = task.load()
    assert (obj.caption, obj.licence, obj.author, obj.tags) == ("Nodding thing", "CC-BY-NC-4.0", "Ann", ("toy",))
    assert obj.name == f"000-023/{uid}" and obj.category == "art"


@pytest.mark.parametrize("zipped", [False, True])
def test_scanned_objects_layout(tmp_path, zipped):
    about = 'name: "Red_Shoe"\ncategories {\n  first: "Shoe"\n}\n'
    files = {
        "meshes/model.obj": box_obj("model").encode(),
        "meshes/model.mtl": b"newmtl skin\nmap_Kd texture.png\n",
        "materials/textures/texture.png": png(picture(8)),
        "metadata.pbtxt": about.encode(),
    }
    if zipped:
        with zipfile.ZipFile(tmp_path / "Red_Shoe.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            path = tmp_path / "Red_Shoe" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    assert detect_kind(tmp_path) == "gso"
    (task,) = find_objects(tmp_path, "gso")
    obj = task.load()
    assert (obj.caption, obj.category, obj.licence) == ("red shoe", "Shoe", "CC-BY-4.0") and obj.problems == ()
    assert len(obj.textures) == 1
    np.testing.assert_allclose(np.ptp(obj.parts[0].vertices, axis=0), [1, 1, 2])


def test_damaged_archives_of_scanned_objects_are_refused_with_a_reason(tmp_path):
    def pack(name, files):
        with zipfile.ZipFile(tmp_path / "in" / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in files.items():
                archive.writestr(member, data)

    (tmp_path / "in").mkdir()
    pack("Good.zip", {"meshes/model.obj": box_obj()})
    pack("Other.zip", {"readme": "no mesh"})
    pack("Wrong.zip", {"meshes/model.obj": box_obj() * 9})
    data = bytearray((tmp_path / "in" / "Wrong.zip").read_bytes())
    data[60:120] = bytes(b ^ 90 for b in data[60:120])
    (tmp_path / "in" / "Wrong.zip").write_bytes(data)
    (tmp_path / "in" / "Half.zip").write_bytes((tmp_path / "in" / "Good.zip").read_bytes()[:200])  # a broken download
    report = convert("gso", find_objects(tmp_path / "in", "gso"), tmp_path / "out")
    assert report.objects == 1 and report.refused == {"cannot be read": 3}
    lines = [json.loads(line) for line in (tmp_path / "out" / "gso-refused.jsonl").read_text().splitlines()]
    assert {line["name"] for line in lines} == {"Half", "Other", "Wrong"}
    assert all("download it again" in line["reason"] for line in lines)


def test_captions_beside_files_and_generic_names(tmp_path):
    (tmp_path / "chair").mkdir()
    (tmp_path / "chair" / "model.obj").write_text(box_obj())
    (tmp_path / "x1.obj").write_text(box_obj())
    (tmp_path / "x1.txt").write_text("a tall white box\nmore")
    assert [t.caption for t in find_objects(tmp_path)] == ["chair", "a tall white box"]


def test_a_package_that_a_format_needs_is_named(tmp_path, monkeypatch):
    def missing(path, process):
        raise ModuleNotFoundError("No module named 'lxml'", name="lxml")

    monkeypatch.setattr(pytest.importorskip("trimesh"), "load_scene", missing)
    (tmp_path / "a.3mf").write_bytes(b"PK")
    with pytest.raises(MissingDependencyError, match=r"reading \.3mf files needs the package lxml: pip install"):
        read_mesh_file(tmp_path / "a.3mf")


def test_folders_without_meshes(tmp_path):
    with pytest.raises(InputError, match="holds no objects"):
        find_objects(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_objects(tmp_path / "x")
