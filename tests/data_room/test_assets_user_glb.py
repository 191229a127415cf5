"""Users' GLB files: skins, moving nodes, morph targets, damage."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from asset_shapes import glb_bytes, picture, turn_z
from user_files import BOX, FACES, accessor, png, shift, skinned_glb

from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.glb_scene import read_glb_scene
from bozzetto.data.assets.mesh_files import read_mesh_file
from bozzetto.data.assets.pose import posed_vertices
from bozzetto.data.assets.user_folder import find_objects
from bozzetto.errors import InputError, MeshError


# The joint's space lies anywhere; what is seen does not depend on it, but moves with the nodes above.
@pytest.mark.parametrize("place", [np.eye(4), shift(3, 0, -2) @ turn_z(30) @ np.diag([2.0, 2, 2, 1])])
def test_a_skinned_glb_nods(tmp_path, place):
    (tmp_path / "a.glb").write_bytes(skinned_glb(place))
    obj = read_glb_scene(tmp_path / "a.glb")
    (clip,) = obj.clips
    assert clip.name == "nod" and clip.fps == pytest.approx(30) and len(clip.matrices) == 31
    np.testing.assert_allclose(obj.parts[0].vertices, BOX, atol=1e-5)  # bound where it rests
    pivot = place @ shift(0, 1, 0)
    upper = BOX[:, 1] > 1
    for seconds in (0.0, 0.5, 1.0):
        moved = posed_vertices(obj, "nod", seconds)[0]
        matrix = pivot @ turn_z(90 * seconds) @ np.linalg.inv(pivot)
        np.testing.assert_allclose(moved[~upper], BOX[~upper], atol=1e-4)
        np.testing.assert_allclose(moved[upper], BOX[upper] @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-4)


def test_moving_nodes_of_a_glb_move_rigidly(tmp_path):
    chunks = [
        BOX,
        FACES.astype(np.uint16).reshape(-1),
        np.array([0, 2], np.float32),
        np.array([[0, 0, 0], [4, 0, 0]], np.float32),
    ]
    chunks.append(png(picture(8)))
    chunks[4] = np.frombuffer(chunks[4], np.uint8)
    chunks.append(np.tile(BOX[:, :2], 1).astype(np.float32))
    document = {
        "nodes": [{"mesh": 0, "scale": [1, 1, -1]}, {"children": [2], "translation": [10, 0, 0]}, {"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 4}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, "alphaMode": "MASK"}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": [
            accessor(0, 5126, "VEC3", 8),
            accessor(1, 5123, "SCALAR", 36),
            accessor(2, 5126, "SCALAR", 2),
            accessor(3, 5126, "VEC3", 2),
            accessor(5, 5126, "VEC2", 8),
        ],
        "animations": [
            {
                "channels": [{"sampler": 0, "target": {"node": 1, "path": "translation"}}],
                "samplers": [{"input": 2, "output": 3, "interpolation": "STEP"}],
            }
        ],
    }
    (tmp_path / "a.glb").write_bytes(glb_bytes(document, chunks))
    obj = read_glb_scene(tmp_path / "a.glb")
    assert len(obj.parts) == 2 and len(obj.textures) == 1 and obj.textures[0].shape == (8, 8, 4)
    assert {p.alpha for p in obj.parts} == {"mask"}
    order = [int(p.vertices[:, 0].min()) for p in obj.parts]
    still, moving = obj.parts[order.index(0)], obj.parts[order.index(10)]
    normal = np.cross(*np.diff(still.vertices[still.faces[0]], axis=0))  # the mirrored box is still counter-clockwise
    assert normal @ (still.vertices[still.faces[0]].mean(0) - still.vertices.mean(0)) > 0
    late = posed_vertices(obj, 0, 2.0)
    np.testing.assert_allclose(late[order.index(0)], still.vertices, atol=1e-5)
    np.testing.assert_allclose(late[order.index(10)], BOX + [4, 0, 0], atol=1e-5)
    early = posed_vertices(obj, 0, 1.0)  # the step has not come yet; the track's first value stands, not the node's
    np.testing.assert_allclose(early[order.index(10)], BOX, atol=1e-5)
    assert moving.joints is not None


def test_a_damaged_glb_says_so(tmp_path):
    data = skinned_glb()
    for broken in (data[:200], data[: len(data) // 2], b"glTF", data.replace(b'"joints": [1, 2]', b'"joints": [1, 9]')):
        (tmp_path / "a.glb").write_bytes(broken)
        with pytest.raises(MeshError):
            read_glb_scene(tmp_path / "a.glb")


@pytest.mark.parametrize("skinned", [False, True])
def test_morph_targets(tmp_path, skinned):
    """The upper half grows by 1 and by 3; half of the first shape stands at rest, then it goes from the first to the second."""
    (tmp_path / "a.glb").write_bytes(skinned_glb())
    before = read_glb_scene(tmp_path / "a.glb")
    upper = (BOX[:, 1:2] > 1).astype(np.float32)
    chunks = [
        BOX,
        FACES.astype(np.uint16).reshape(-1),
        upper * np.float32([0, 1, 0]),
        upper * np.float32([0, 3, 0]),
        np.array([0, 1], np.float32),
        np.array([1, 0, 0, 1], np.float32),  # two weights at two times
        np.array([[0, 0, 0], [8, 0, 0]], np.float32),
    ]
    document = {
        "nodes": [{"mesh": 0, "translation": [0, 0, 0], "scale": [2, 2, 2]}],
        "meshes": [
            {
                "weights": [0.5, 0],
                "primitives": [
                    {"attributes": {"POSITION": 0}, "indices": 1, "targets": [{"POSITION": 2}, {"POSITION": 3}]}
                ],
            }
        ],
        "accessors": [
            accessor(0, 5126, "VEC3", 8),
            accessor(1, 5123, "SCALAR", 36),
            accessor(2, 5126, "VEC3", 8),
            accessor(3, 5126, "VEC3", 8),
            accessor(4, 5126, "SCALAR", 2),
            accessor(5, 5126, "SCALAR", 4),
            accessor(6, 5126, "VEC3", 2),
        ],
        "animations": [
            {
                "name": "grow",
                "channels": [
                    {"sampler": 0, "target": {"node": 0, "path": "weights"}},
                    {"sampler": 1, "target": {"node": 0, "path": "translation"}},
                ],
                "samplers": [{"input": 4, "output": 5}, {"input": 4, "output": 6}],
            }
        ],
    }
    if skinned:  # a joint of its own carries the box sideways instead of the node
        document["nodes"] = [{"mesh": 0, "skin": 0}, {}]
        document["skins"] = [{"joints": [1]}]
        primitive = document["meshes"][0]["primitives"][0]
        chunks += [np.zeros((8, 4), np.uint8), np.tile(np.float32([1, 0, 0, 0]), (8, 1))]
        document["accessors"] += [accessor(7, 5121, "VEC4", 8), accessor(8, 5126, "VEC4", 8)]
        primitive["attributes"] |= {"JOINTS_0": 7, "WEIGHTS_0": 8}
        document["animations"][0]["channels"][1]["target"]["node"] = 1
    scale = 1 if skinned else 2
    (tmp_path / "b.glb").write_bytes(glb_bytes(document, chunks))
    obj = read_glb_scene(tmp_path / "b.glb")
    np.testing.assert_allclose(obj.parts[0].vertices, scale * (BOX + upper * [0, 0.5, 0]), atol=1e-5)
    (clip,) = obj.clips
    assert clip.name == "grow" and clip.matrices is None and obj.parts[0].joints is None
    for seconds, height in ((0.0, 1.0), (0.5, 2.0), (1.0, 3.0)):
        want = scale * (BOX + upper * [0, height, 0]) + [8 * seconds, 0, 0]
        np.testing.assert_allclose(posed_vertices(obj, "grow", seconds)[0], want, atol=1e-4)
    convert("mine", find_objects(tmp_path, "mine"), tmp_path / "out")
    records = {r["name"]: r for r in Dataset(tmp_path / "out").records()}
    assert len(records) == 2 and all("animated" in r["flags"] for r in records.values())
    assert before.clips[0].matrices is not None  # without morph targets joints stay joints
    document["animations"][0]["channels"].pop(0)
    (tmp_path / "b.glb").write_bytes(glb_bytes(document, chunks))
    (clip,) = read_glb_scene(tmp_path / "b.glb").clips
    assert clip.matrices is not None
    document["accessors"][2]["count"] = 4
    (tmp_path / "b.glb").write_bytes(glb_bytes(document, chunks))
    with pytest.raises(MeshError, match="malformed"):
        read_glb_scene(tmp_path / "b.glb")


def unpacked(data: bytes, folder, name: str) -> None:
    """A .glb as text, with its buffer beside it."""
    size = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + size])
    document["buffers"][0]["uri"] = "all%20bytes.bin"
    (folder / name).write_text(json.dumps(document))
    (folder / "all bytes.bin").write_bytes(data[28 + size :])


def test_gltf_as_text_moves_as_the_binary_does(tmp_path):
    data = skinned_glb()
    (tmp_path / "a.glb").write_bytes(data)
    unpacked(data, tmp_path, "scene.gltf")
    text, binary = read_mesh_file(tmp_path / "scene.gltf"), read_mesh_file(tmp_path / "a.glb")
    assert [c.name for c in text.clips] == ["nod"]
    np.testing.assert_array_equal(text.clips[0].matrices, binary.clips[0].matrices)
    np.testing.assert_array_equal(text.parts[0].vertices, binary.parts[0].vertices)


def test_gltf_without_its_buffer_is_refused_with_its_name(tmp_path):
    (tmp_path / "in").mkdir()
    unpacked(skinned_glb(), tmp_path / "in", "scene.gltf")
    (tmp_path / "in/all bytes.bin").unlink()
    with pytest.raises(InputError, match=r"all bytes\.bin, which is not beside it; copy the whole folder"):
        convert("mine", find_objects(tmp_path / "in", "mine"), tmp_path / "out")
