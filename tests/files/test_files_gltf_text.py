"""glTF as text, with buffers and pictures beside it, as asset shops give it."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from test_files_meshes import picture

from bozzetto.errors import MeshError
from bozzetto.files.glb import srgb_to_linear
from bozzetto.files.meshes import read_mesh


def textured_box() -> trimesh.Trimesh:
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture_image(), metallicFactor=0.0)
    box.visual = trimesh.visual.TextureVisuals(uv=(box.vertices[:, :2] > 0) * 0.5 + 0.25, material=material)
    return box


def picture_image() -> Image.Image:
    return Image.fromarray((picture(32).numpy() * 255).round().astype(np.uint8))


def write_gltf(folder, name="scene.gltf", change=None) -> None:
    """The box by trimesh's writer: text, .bin and .png; ``change`` edits the text's document."""
    folder.mkdir(exist_ok=True)
    for file, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(textured_box())).items():
        if file.endswith(".gltf"):
            document = json.loads(data)
            if change is not None:
                change(document)
            data, file = json.dumps(document).encode(), name
        (folder / file).write_bytes(data)


def test_text_and_binary_hold_the_same_mesh(tmp_path):
    write_gltf(tmp_path / "text")
    trimesh.Scene(textured_box()).export(tmp_path / "box.glb")
    text, binary = read_mesh(tmp_path / "text/scene.gltf"), read_mesh(tmp_path / "box.glb")
    assert len(text.faces) == 12 and torch.equal(text.vertices, binary.vertices)
    assert torch.equal(text.uvs, binary.uvs) and torch.equal(text.texture, binary.texture)


def test_names_with_spaces_and_folders_and_data_uris(tmp_path):
    """Names are quoted (or not, by careless exporters); pictures often lie in a folder."""
    folder = tmp_path / "Ein Stück"

    def change(document, quoted=True):
        (folder / "textures").mkdir(exist_ok=True)
        image, buffer = document["images"][0], document["buffers"][0]
        picture_image().save(folder / "textures/base colour.png")
        image.pop("bufferView", None)
        image["uri"] = "textures/base%20colour.png" if quoted else "textures\\base colour.png"
        data = (folder / buffer["uri"]).read_bytes()
        buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()

    write_gltf(folder)
    wanted = read_mesh(folder / "scene.gltf")
    for quoted in (True, False):
        write_gltf(folder, change=lambda document, quoted=quoted: change(document, quoted))
        got = read_mesh(folder / "scene.gltf")
        assert torch.equal(got.vertices, wanted.vertices) and torch.equal(got.texture, wanted.texture)


def test_colours_of_the_older_extension(tmp_path):
    """Specular and glossiness, as asset shops' files still have them: its diffuse colour is the base colour."""

    def change(document):
        look = document["materials"][0].pop("pbrMetallicRoughness")
        diffuse = {"diffuseTexture": look["baseColorTexture"], "diffuseFactor": [0.5, 0.25, 1.0, 1.0]}
        document["materials"][0]["extensions"] = {"KHR_materials_pbrSpecularGlossiness": diffuse}

    write_gltf(tmp_path / "new")
    write_gltf(tmp_path / "old", change=change)
    new, old = (srgb_to_linear(read_mesh(tmp_path / name / "scene.gltf").texture) for name in ("new", "old"))
    assert new.std() > 0.1
    torch.testing.assert_close(old, new * torch.tensor([0.5, 0.25, 1.0]), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gone%20away.bin", "refers to gone away.bin, which is not beside it"),
        ("https://example.com/a.bin", "which is not a file beside it"),
        ("file:///etc/passwd", "which is not a file beside it"),
        ("/etc/passwd", "which is not a file beside it"),
        ("%2Fetc/passwd", "which is not a file beside it"),
        ("long" * 100 + ".bin", "which is not beside it"),
        ("", "which is not beside it"),
        ("empty.bin", r"empty \(0 bytes\)"),
        ("short.bin", "shorter than it says"),
    ],
)
def test_parts_that_are_not_there(tmp_path, uri, message):
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "short.bin").write_bytes(b"1234")
    write_gltf(tmp_path, change=lambda document: document["buffers"][0].update(uri=uri))
    with pytest.raises(MeshError, match=message):
        read_mesh(tmp_path / "scene.gltf")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    write_gltf(tmp_path)
    text = (tmp_path / "scene.gltf").read_bytes()
    (tmp_path / "scene.gltf").write_bytes(b"\xef\xbb\xbf\n" + text)
    assert len(read_mesh(tmp_path / "scene.gltf").faces) == 12


def test_convert_command(tmp_path):
    from bozzetto.app.cli import main

    write_gltf(tmp_path)
    assert main(["convert", str(tmp_path / "scene.gltf"), str(tmp_path / "box.obj"), "-q"]) == 0
    assert len(trimesh.load(tmp_path / "box.obj", force="mesh").faces) == 12
    assert main(["convert", str(tmp_path / "box.obj"), str(tmp_path / "out.gltf"), "-q"]) != 0  # written as .glb only
