"""Meshes on disk: GLB, OBJ and PLY as trimesh and the Khronos validator see them, and third-party files read."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
import trimesh
from PIL import Image

from bozzetto.errors import MeshError, OutputError
from bozzetto.files import glb, mesh_parts
from bozzetto.files.glb import linear_to_srgb, srgb_to_linear, write_glb
from bozzetto.files.images import to_uint8
from bozzetto.files.mesh_parts import Part, join_parts
from bozzetto.files.mesh_ply import sample_texture
from bozzetto.files.meshes import read_mesh, write_mesh
from bozzetto.mesh import Mesh

FORMATS = ["glb", "obj", "ply"]


def quad(**extra) -> Mesh:
    """A square in the xy plane seen from +z, picture upright: (0, 0) of the texture at its top-left corner."""
    vertices = torch.tensor([[-1.0, -1, 0.5], [1, -1, 0.5], [1, 1, 0.5], [-1, 1, 0.5]])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs=uvs, **extra)


def picture(height: int = 16, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Random 8-bit pixels with a red top-left and a blue bottom-right corner."""
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed)) / 255
    pixels[:4, :4] = torch.tensor([1.0, 0, 0])
    pixels[-4:, -4:] = torch.tensor([0.0, 0, 1])
    return pixels


def ball(**extra) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    mesh = Mesh(
        torch.tensor(sphere.vertices, dtype=torch.float32), torch.tensor(np.array(sphere.faces)).long(), **extra
    )
    return mesh.with_normals()


def load(path) -> trimesh.Trimesh:
    return trimesh.load(path, process=False, force="mesh")


def colours_of(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Colours that trimesh's own lookup finds in the texture at the vertices with these positions."""
    index = [int(np.argmin(np.linalg.norm(mesh.vertices - p, axis=1))) for p in points]
    return mesh.visual.to_color().vertex_colors[index, :3]


# ---- as others see them ----


@pytest.mark.parametrize("suffix", FORMATS)
def test_geometry_and_normals(tmp_path, suffix):
    mesh = ball()
    write_mesh(mesh, tmp_path / f"x.{suffix}")
    theirs = load(tmp_path / f"x.{suffix}")
    np.testing.assert_allclose(theirs.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(theirs.faces, mesh.faces)
    # trimesh computes its own (weighted by angle, not area); the stored ones are read back here and by plyfile.
    np.testing.assert_allclose(theirs.vertex_normals, mesh.normals, atol=0.02)
    torch.testing.assert_close(read_mesh(tmp_path / f"x.{suffix}").normals, mesh.normals, atol=1e-6, rtol=0)
    if suffix == "ply":
        stored = plyfile.PlyData.read(str(tmp_path / "x.ply"))["vertex"]
        np.testing.assert_allclose(stored["ny"], mesh.normals[:, 1], atol=1e-6)
    assert theirs.is_watertight and theirs.volume > 0


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_texture_orientation_and_pixels(tmp_path, suffix):
    mesh = quad(texture=picture())
    write_mesh(mesh, tmp_path / f"x.{suffix}")
    theirs = load(tmp_path / f"x.{suffix}")
    np.testing.assert_allclose(
        theirs.visual.uv[:, 1], 1 - mesh.uvs[:, 1], atol=1e-6
    )  # trimesh puts v = 0 at the bottom
    material = theirs.visual.material
    image = material.baseColorTexture if suffix == "glb" else material.image
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), to_uint8(mesh.texture))
    corners = colours_of(theirs, np.array([[-1, 1, 0.5], [1, -1, 0.5]]))
    np.testing.assert_array_equal(corners, [[255, 0, 0], [0, 0, 255]])


def test_ply_takes_the_colours_of_the_texture(tmp_path):
    write_mesh(quad(texture=picture()), tmp_path / "x.ply")
    theirs = load(tmp_path / "x.ply")
    np.testing.assert_array_equal(theirs.visual.vertex_colors[[3, 1], :3], [[255, 0, 0], [0, 0, 255]])


@pytest.mark.parametrize("suffix", FORMATS)
def test_vertex_colours(tmp_path, suffix):
    colors = torch.randint(0, 256, (162, 3), generator=torch.Generator().manual_seed(3)) / 255
    write_mesh(ball(colors=colors), tmp_path / f"x.{suffix}")
    geometry = trimesh.load(tmp_path / f"x.{suffix}", process=False, force="scene").geometry
    visual = next(iter(geometry.values())).visual
    theirs = visual.vertex_attributes["color"] if suffix == "glb" else visual.vertex_colors / 255
    expected = srgb_to_linear(colors) if suffix == "glb" else colors  # glTF's are linear
    np.testing.assert_allclose(theirs[:, :3], expected, atol=0.005)
    torch.testing.assert_close(read_mesh(tmp_path / f"x.{suffix}").colors, colors, atol=2e-3, rtol=0)


def test_transfer_function():
    x = torch.linspace(0, 1, 101)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-6, rtol=0)
    assert abs(float(srgb_to_linear(torch.tensor(0.5))) - 0.21404) < 1e-5


def document_of(data: bytes) -> dict:
    (size,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + size])


def test_glb_container(tmp_path):
    write_glb(quad(texture=picture()).with_normals(), tmp_path / "x.glb")
    data = (tmp_path / "x.glb").read_bytes()
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data)) and len(data) % 4 == 0
    document = document_of(data)
    assert document["asset"]["generator"].startswith("bozzetto")
    assert all(v["byteOffset"] % 4 == 0 for v in document["bufferViews"])
    position = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert position["min"] == [-1, -1, 0.5] and position["max"] == [1, 1, 0.5]
    material = document["materials"][0]["pbrMetallicRoughness"]
    assert (material["metallicFactor"], material["roughnessFactor"]) == (0, 1)


@pytest.mark.parametrize(("count", "component"), [(65535, 5123), (65536, 5125)])
def test_index_width(tmp_path, count, component):
    vertices = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    faces = torch.tensor([[0, 1, count - 1], [5, count - 2, 7]])
    write_glb(Mesh(vertices, faces), tmp_path / "x.glb")
    document = document_of((tmp_path / "x.glb").read_bytes())
    assert document["accessors"][document["meshes"][0]["primitives"][0]["indices"]]["componentType"] == component
    assert torch.equal(read_mesh(tmp_path / "x.glb").faces, faces)


def test_jpeg_texture(tmp_path):
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=64, mode="bilinear")[0].permute(1, 2, 0)
    write_glb(quad(texture=smooth), tmp_path / "x.glb", texture_format="jpeg")
    write_glb(quad(texture=smooth), tmp_path / "y.glb")
    assert (read_mesh(tmp_path / "x.glb").texture - smooth).abs().mean() < 0.02
    assert (tmp_path / "x.glb").stat().st_size < (tmp_path / "y.glb").stat().st_size


def gltf_validator() -> str:
    """The folder with node's gltf-validator module: BOZZETTO_NODE_MODULES, or what node finds itself."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = os.environ.get("BOZZETTO_NODE_MODULES", "")
    environment = {**os.environ, "NODE_PATH": folder}
    found = subprocess.run(["node", "-e", "require('gltf-validator')"], env=environment, capture_output=True)
    if found.returncode:
        pytest.skip("the node module gltf-validator is not installed (npm install; set BOZZETTO_NODE_MODULES)")
    return folder


def test_khronos_validator_has_nothing_to_say(tmp_path):
    folder = gltf_validator()
    colors = torch.rand(162, 3, generator=torch.Generator().manual_seed(3))
    meshes = {
        "plain": Mesh(ball().vertices, ball().faces),
        "normals": ball(),
        "colours": ball(colors=colors),
        "texture": quad(texture=picture()).with_normals(),
        "odd": Mesh(torch.rand(5, 3), torch.tensor([[0, 1, 2], [2, 3, 4], [4, 3, 0]]), normals=torch.zeros(5, 3)),
    }
    for name, mesh in meshes.items():
        write_glb(mesh, tmp_path / f"{name}.glb", texture_format="jpeg" if name == "texture" else "png")
    script = (
        "const v=require('gltf-validator'),fs=require('fs');(async()=>{const o={};for(const p of process.argv.slice(1))"
        "o[p]=(await v.validateBytes(new Uint8Array(fs.readFileSync(p)))).issues;console.log(JSON.stringify(o))})()"
    )
    files = [str(p) for p in sorted(tmp_path.glob("*.glb"))]
    environment = {**os.environ, "NODE_PATH": folder}
    done = subprocess.run(["node", "-e", script, *files], env=environment, capture_output=True, text=True, check=True)
    for name, issues in json.loads(done.stdout).items():
        assert issues["numErrors"] == issues["numWarnings"] == 0, (Path(name).name, issues["messages"])


# ---- round trips ----


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip(tmp_path, suffix):
    mesh = quad(texture=picture()).with_normals()
    mesh.save(tmp_path / "new" / f"a b.{suffix}")
    got = Mesh.load(tmp_path / "new" / f"a b.{suffix}")
    corners = [(m.vertices[m.faces], m.normals[m.faces]) for m in (got, mesh)]
    for a, b in zip(*corners):
        torch.testing.assert_close(a, b)
    if suffix != "ply":
        torch.testing.assert_close(got.uvs[got.faces], mesh.uvs[mesh.faces])
        torch.testing.assert_close(got.texture, mesh.texture)


def test_obj_side_files(tmp_path):
    write_mesh(quad(texture=picture()), tmp_path / "my chair.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my chair.obj", "my_chair.mtl", "my_chair.png"]
    text = (tmp_path / "my chair.obj").read_text()
    assert "mtllib my_chair.mtl\n" in text and "vt 0 0\n" in text
    write_mesh(Mesh(quad().vertices, quad().faces), tmp_path / "plain.obj")
    assert "f 1 2 3\n" in (tmp_path / "plain.obj").read_text() and not (tmp_path / "plain.mtl").exists()


# ---- files of others ----


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


# ---- bad input and output ----


@pytest.mark.parametrize("suffix", FORMATS)
def test_nothing_to_write(tmp_path, suffix):
    with pytest.raises(MeshError, match="no triangles"):
        write_mesh(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)), tmp_path / f"x.{suffix}")
    broken = quad()
    broken.vertices[2, 1] = float("nan")
    with pytest.raises(MeshError, match="1 of 4 vertices"):
        write_mesh(broken, tmp_path / f"x.{suffix}")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"x.{suffix}").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_mesh(quad(texture=picture()), tmp_path / f"x.{suffix}")
    assert [p.name for p in tmp_path.rglob("*")] == [f"x.{suffix}"]


def test_unknown_formats(tmp_path):
    with pytest.raises(OutputError, match=r"\.glb, \.obj, \.ply"):
        write_mesh(quad(), tmp_path / "x.stl")
    (tmp_path / "x.stl").write_bytes(b"solid")
    with pytest.raises(MeshError, match=r"\.glb, \.obj, \.ply"):
        read_mesh(tmp_path / "x.stl")


def test_malformed_files(tmp_path):
    good = by_hand(np.array([0, 1, 2]))
    cases = {
        "empty": (b"", "empty"),
        "other.glb": (b"hello world, not a mesh", "not a .glb"),
        "text.gltf": (b'{"asset": {}}', "packed as .glb"),
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
