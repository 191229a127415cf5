"""Meshes that other programs wrote: materials, atlases, strips, nodes, transforms; and malformed ones."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from test_files_meshes import picture

from bozzetto.errors import MeshError
from bozzetto.files import glb, mesh_parts
from bozzetto.files.glb import linear_to_srgb, srgb_to_linear
from bozzetto.files.images import to_uint8
from bozzetto.files.mesh_parts import Part, join_parts
from bozzetto.files.mesh_ply import sample_texture
from bozzetto.files.meshes import read_mesh


def test_trimesh_scene_with_several_materials(tmp_path):
    """Two textured boxes and a plain one, placed by nodes: one atlas whose colours are right at every vertex."""
    scene = trimesh.Scene()
    rng = np.random.default_rng(0)
    for i, size in enumerate([(16, 16), (24, 40)]):
        box = trimesh.creation.box()
        image = Image.fromarray(
            np.repeat(np.repeat(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8), size[0] // 2, 0), size[1] // 2, 1)
        )
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image, metallicFactor=0.0)
        uv = (box.vertices[:, :2] > 0) * 0.5 + 0.25
        box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([3 * i, 0, 0]))
    plain = trimesh.creation.box()
    red = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
    plain.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=red)
    turn = trimesh.transformations.rotation_matrix(0.5, [0, 1, 0])
    turn[:3, 3] = [0, 5, 0]
    scene.add_geometry(plain, transform=turn)
    scene.export(tmp_path / "x.glb")
    got = read_mesh(tmp_path / "x.glb")
    expected = trimesh.util.concatenate(scene.dump())
    assert len(got.faces) == 36
    np.testing.assert_allclose(np.sort(got.vertices.numpy(), 0), np.sort(expected.vertices, 0), atol=1e-5)
    # Colours of every vertex: sampled from our atlas, against each part's own lookup.
    ours = to_uint8(sample_texture(got.texture, got.uvs)).astype(int)
    for part in scene.dump():
        if part.visual.material.baseColorTexture is None:
            theirs = np.tile([255, 0, 0], (len(part.vertices), 1))
        else:
            theirs = part.visual.to_color().vertex_colors[:, :3].astype(int)
        for point, colour in zip(part.vertices, theirs):
            match = np.linalg.norm(got.vertices.numpy() - point, axis=1) < 1e-4
            assert match.any() and np.abs(ours[match] - colour).max() <= 2


def test_repeating_texture_is_unrolled():
    texture = picture(8, 8)
    vertices, faces = torch.rand(3, 3), torch.tensor([[0, 1, 2]])
    uvs = torch.tensor([[-0.5, 0.25], [1.9, 0.25], [0.3, 0.9]])
    white, other = torch.ones(3), torch.tensor([0.25, 0.5, 1.0])
    parts = [
        Part(vertices, faces, None, uvs, None, white, texture),
        Part(vertices, faces, None, uvs, None, other, None),
    ]
    mesh = join_parts(parts)
    wrapped = sample_texture(texture.repeat(3, 3, 1), (uvs + 1) / 3)
    torch.testing.assert_close(sample_texture(mesh.texture, mesh.uvs)[:3], wrapped, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sample_texture(mesh.texture, mesh.uvs)[3:], linear_to_srgb(other).expand(3, 3))


def test_atlas_stays_within_its_limit(monkeypatch):
    monkeypatch.setattr(mesh_parts, "MAX_ATLAS", 64)
    faces = torch.tensor([[0, 1, 2]])
    uvs = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    parts = [
        Part(torch.rand(3, 3), faces, None, uvs, None, torch.ones(3), torch.full((60, 60, 3), i / 4)) for i in range(4)
    ]
    mesh = join_parts(parts)
    assert max(mesh.texture.shape[:2]) <= 64
    torch.testing.assert_close(sample_texture(mesh.texture, mesh.uvs)[:, 0], torch.arange(4).repeat_interleave(3) / 4)


def make_glb(document: dict, binary: bytes = b"") -> bytes:
    document.setdefault("asset", {"version": "2.0"})
    if binary:
        binary += bytes(-len(binary) % 4)
        document.setdefault("buffers", [{"byteLength": len(binary)}])
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), glb.JSON_CHUNK) + text
    if binary:
        body += struct.pack("<II", len(binary), glb.BIN_CHUNK) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def by_hand(indices: np.ndarray, mode: int = 4, node: dict | None = None, **more) -> bytes:
    """A GLB with interleaved normalised-integer attributes: position int16 (stride 12), colour uint8."""
    rows = np.zeros(5, [("p", "<i2", 3), ("pad", "<i2"), ("c", "u1", 4)])
    rows["p"] = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0]]) * 32767 // 2
    rows["c"] = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [10, 20, 30, 255], [0, 0, 0, 0]]
    index = indices.astype("<u1").tobytes()
    binary = rows.tobytes() + index
    document = {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "mode": mode}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5122, "normalized": True, "count": 5, "type": "VEC3"},
            {"bufferView": 0, "byteOffset": 8, "componentType": 5121, "normalized": True, "count": 5, "type": "VEC4"},
            {"bufferView": 1, "componentType": 5121, "count": len(indices), "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 60, "byteStride": 12},
            {"buffer": 0, "byteOffset": 60, "byteLength": len(index)},
        ],
        "extensionsRequired": ["KHR_mesh_quantization"],
        **more,
    }
    return make_glb(document, binary)


@pytest.mark.parametrize(
    ("mode", "indices", "faces"),
    [
        (4, [0, 1, 2, 2, 1, 3], [[0, 1, 2], [2, 1, 3]]),
        (5, [0, 1, 2, 3, 4], [[0, 1, 2], [2, 1, 3], [2, 3, 4]]),
        (6, [0, 1, 3, 2], [[1, 3, 0], [3, 2, 0]]),
    ],
)
def test_interleaved_integers_strips_and_fans(tmp_path, mode, indices, faces):
    (tmp_path / "x.glb").write_bytes(by_hand(np.array(indices), mode))
    got = read_mesh(tmp_path / "x.glb")
    assert got.faces.tolist() == faces
    torch.testing.assert_close(got.vertices[3], torch.tensor([0.5, 0.5, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(got.colors[1], torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(srgb_to_linear(got.colors[3]), torch.tensor([10.0, 20, 30]) / 255, atol=1e-5, rtol=0)


def test_nodes_move_and_mirrors_keep_the_outside(tmp_path):
    node = {"translation": [1, 2, 3], "rotation": [0, 0, 0.70710678, 0.70710678], "scale": [2, 2, -2]}
    (tmp_path / "x.glb").write_bytes(by_hand(np.array([0, 1, 2]), node=node))
    got = read_mesh(tmp_path / "x.glb")
    torch.testing.assert_close(got.vertices[1], torch.tensor([1.0, 3, 3]), atol=1e-4, rtol=0)
    assert got.faces.tolist() == [[2, 1, 0]]


def test_texture_transform_sparse_and_data_uri(tmp_path):
    import base64

    out = io.BytesIO()
    Image.fromarray(to_uint8(picture(8, 8))).save(out, format="PNG")
    uri = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    uvs = np.array([[0, 0], [1, 0], [0, 1]], "<f4")
    sparse = np.array([2], "<u2").tobytes() + b"\0\0" + np.array([[0, 5, 0]], "<f4").tobytes()
    transform = {"offset": [0.25, 0.5], "scale": [0.5, 0.25]}
    texture = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    document = {
        "nodes": [{"children": [1]}, {"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": texture, "baseColorFactor": [1, 0.5, 1, 1]}}],
        "textures": [{"source": 0}],
        "images": [{"uri": uri}],
        "accessors": [
            {
                "bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3",
                "sparse": {
                    "count": 1,
                    "indices": {"bufferView": 2, "componentType": 5123},
                    "values": {"bufferView": 2, "byteOffset": 4},
                },
            },
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 36},
            {"buffer": 0, "byteOffset": 36, "byteLength": 24},
            {"buffer": 0, "byteOffset": 60, "byteLength": 16},
        ],
    }  # fmt: skip
    (tmp_path / "x.glb").write_bytes(make_glb(document, positions.tobytes() + uvs.tobytes() + sparse))
    got = read_mesh(tmp_path / "x.glb")
    assert got.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 5, 0]]
    torch.testing.assert_close(got.uvs, torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.25, 0.75]]))
    expected = srgb_to_linear(picture(8, 8)) * torch.tensor([1, 0.5, 1])
    torch.testing.assert_close(got.texture, linear_to_srgb(expected), atol=1e-5, rtol=0)


def test_obj_with_polygons_negative_indices_and_two_materials(tmp_path):
    Image.fromarray(to_uint8(picture())).save(tmp_path / "t.png")
    (tmp_path / "x.mtl").write_text("newmtl a\nKd 1 1 1\nmap_Kd t.png\nnewmtl b\nKd 0 0.5 0\n")
    (tmp_path / "x.obj").write_text(
        "mtllib x.mtl\nv -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "usemtl a\nf 1/1 2/2 3/3 4/4\nusemtl b\nf -4 -3 \\\n -2\n"
    )
    got = read_mesh(tmp_path / "x.obj")
    assert len(got.faces) == 3
    colours = to_uint8(sample_texture(got.texture, got.uvs))
    top_left = got.vertices.tolist().index([-1, 1, 0])
    assert colours[top_left].tolist() == [255, 0, 0]
    assert colours[int(got.faces[2, 0])].tolist() == [0, 128, 0]


def test_ascii_ply_with_polygons(tmp_path):
    (tmp_path / "x.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 2\nproperty list uchar int vertex_index\nend_header\n"
        "0 0 0\n1 0 0\n1 1 0\n0 1 0\n-1 0.5 0\n5 0 1 2 3 4\n3 0 1 2\n"
    )
    got = read_mesh(tmp_path / "x.ply")
    assert got.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 2]]


def test_malformed_files(tmp_path):
    good = by_hand(np.array([0, 1, 2]))
    cases = {
        "empty": (b"", "empty"),
        "other.glb": (b"hello world, not a mesh", "neither a .glb"),
        "text.gltf": (b'{"asset": {}}', "no stated version"),
        "old.gltf": (b'{"asset": {"version": "1.0"}}', "glTF 1.0"),
        "list.gltf": (b'{"asset": ["2.0"]}', "malformed glTF"),
        "cut.gltf": (b'{"asset": {"version": "2.0"}, "nodes": [', "malformed glTF"),
        "short": (good[:10], "truncated"),
        "half": (good[: len(good) // 2], "truncated"),
        "version": (good[:4] + b"\1\0\0\0" + good[8:], "glTF 1"),
        "json": (good.replace(b'"scene"', b'"scene', 1), "malformed"),
        "index": (by_hand(np.array([0, 1, 9])), "outside 0..4"),
        "none": (make_glb({"nodes": []}), "no triangles"),
        "draco": (by_hand(np.array([0, 1, 2]), extensionsRequired=["KHR_draco_mesh_compression"]), "draco"),
        "view": (by_hand(np.array([0, 1, 2]), bufferViews=[{"buffer": 0, "byteLength": 9}] * 2), "beyond"),
        "loop": (by_hand(np.array([0, 1, 2]), nodes=[{"children": [0]}]), "ancestor"),
        "missing": (by_hand(np.array([0, 1, 2]), accessors=[]), "malformed"),
    }
    for name, (data, match) in cases.items():
        path = tmp_path / (name if "." in name else f"{name}.glb")
        path.write_bytes(data)
        with pytest.raises(MeshError, match=match) as caught:
            read_mesh(path)
        assert path.name in str(caught.value)
    for name, text, match in (
        ("a.obj", "v 0 0 0\n", "no faces"),
        ("b.obj", "v 0 0 0\nf 1 2 3\n", "line 2.*entry 2 of 1"),
        ("c.obj", "v 0 zero 0\nf 1 1 1\n", "line 1"),
        ("d.obj", "v nan 0 0\nf 1 1 1\n", "NaN"),
        ("e.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "no faces"),
        ("f.ply", "plop\n", "not a PLY"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(MeshError, match=match):
            read_mesh(tmp_path / name)
    with pytest.raises(MeshError, match="does not exist"):
        read_mesh(tmp_path / "no.glb")
