"""Meshes on disk: GLB, OBJ and PLY as trimesh and the Khronos validator see them, and third-party files read."""

from __future__ import annotations

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

from bozzetto.errors import MeshError, OutputError
from bozzetto.files.glb import linear_to_srgb, srgb_to_linear, write_glb
from bozzetto.files.images import to_uint8
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


@pytest.mark.parametrize("name", ["-chair", "chair #2", "a\\b"])
def test_obj_names_that_the_formats_cannot_say(tmp_path, name):
    write_mesh(quad(texture=picture()), tmp_path / f"{name}.obj")
    for file in tmp_path.glob("*.[om][bt][jl]"):
        named = [
            line.split(" ", 1)[1] for line in file.read_text().splitlines() if line.startswith(("mtllib", "map_Kd"))
        ]
        assert len(named) == 1 and not set(named[0]) & set(" #\\") and named[0][0] != "-"
    torch.testing.assert_close(read_mesh(tmp_path / f"{name}.obj").texture, picture())


def test_obj_leaves_pictures_of_others_alone(tmp_path):
    """The photo that a mesh was made from often has the name that the mesh gets."""
    for name in ("cup.png", "cup_texture.png"):
        (tmp_path / name).write_bytes(b"a photo")
    for _ in range(2):  # its own texture is replaced
        write_mesh(quad(texture=picture()), tmp_path / "cup.obj")
        assert {p.name for p in tmp_path.iterdir()} == {
            "cup.obj", "cup.mtl", "cup.png", "cup_texture.png", "cup_texture2.png"
        }  # fmt: skip
        assert (tmp_path / "cup.png").read_bytes() == (tmp_path / "cup_texture.png").read_bytes() == b"a photo"
        torch.testing.assert_close(read_mesh(tmp_path / "cup.obj").texture, picture())


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
    with pytest.raises(MeshError, match=r"\.glb, \.gltf, \.obj, \.ply"):
        read_mesh(tmp_path / "x.stl")
