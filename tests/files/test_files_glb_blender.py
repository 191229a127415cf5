"""Meshes as Blender reads and draws them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from lettered_box import (
    CENTRE,
    DISTANCE,
    FOV,
    SIDES,
    box,
    check_views,
    coloured_box,
    decode,
    keep,
)

from bozzetto.files.glb import srgb_to_linear
from bozzetto.files.images import to_uint8
from bozzetto.files.meshes import write_mesh
from bozzetto.gaussians import matrix_to_quaternion
from bozzetto.mesh import Mesh

IMPORT = """
import json, sys
import bpy, numpy as np
from mathutils import Vector

job = json.load(open(sys.argv[1]))
bpy.ops.wm.read_factory_settings(use_empty=True)
if job["file"].endswith(".glb"):
    bpy.ops.import_scene.gltf(filepath=job["file"])
else:
    bpy.ops.wm.obj_import(filepath=job["file"])
(thing,) = [o for o in bpy.context.scene.objects if o.type == "MESH"]
mesh = thing.data
corners = np.array([mesh.loops[i].vertex_index for p in mesh.polygons for i in p.loop_indices])
order = [i for p in mesh.polygons for i in p.loop_indices]
place = np.array(thing.matrix_world)
points = np.array([v.co for v in mesh.vertices]) @ place[:3, :3].T + place[:3, 3]
more = {}
if job["textured"]:
    (material,) = mesh.materials
    (shader,) = [n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED"]
    (link,) = shader.inputs["Base Color"].links
    image = link.from_node.image
    more = {
        "uvs": np.array([mesh.uv_layers.active.data[i].uv for i in order]),
        "pixels": np.array(image.pixels[:]).reshape(image.size[1], image.size[0], image.channels),
        "space": image.colorspace_settings.name,
        "metallic": shader.inputs["Metallic"].default_value,
    }
else:
    (layer,) = mesh.color_attributes
    colours = np.array([c.color for c in layer.data])[:, :3]  # linear light
    more = {"colours": colours[corners if layer.domain == "POINT" else order]}
np.savez(
    job["arrays"],
    **more,
    polygons=[len(p.vertices) for p in mesh.polygons],
    vertices=points,
    positions=points[corners],
    normals=np.array([mesh.corner_normals[i].vector for i in order]) @ place[:3, :3].T,
)
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.cycles.device = "CPU"
scene.cycles.samples = 16
scene.cycles.use_denoising = False
scene.render.threads_mode, scene.render.threads = "FIXED", 1
scene.render.resolution_x = scene.render.resolution_y = job["size"]
scene.view_settings.view_transform = "Standard"
world = scene.world = bpy.data.worlds.new("white")
world.use_nodes = True
world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
camera.data.sensor_fit = "HORIZONTAL"
camera.data.angle = job["angle"]
scene.collection.objects.link(camera)
scene.camera = camera
for eye, rotation, path in job["views"]:
    camera.location = eye
    camera.rotation_mode = "QUATERNION"
    camera.rotation_quaternion = rotation
    scene.render.filepath = path
    bpy.ops.render.render(write_still=True)
print("blender", bpy.app.version_string)
"""

Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # Blender's axes: (x, y, z) becomes (x, -z, y)


@pytest.fixture(scope="module")
def bpy() -> str:
    """A Python that has Blender as a module."""
    program = shutil.which(os.environ.get("BOZZETTO_BPY", ""))
    if program is None:
        pytest.skip("no Blender (pip install bpy into an environment of its own; set BOZZETTO_BPY to its python)")
    return program


def blender(
    program: str, folder: Path, file: Path, sides=tuple(SIDES)
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(arrays, pictures by side) of a mesh file after Blender's importer; ``sides`` is empty where it has no texture."""
    views = []
    for side in sides:
        direction, right, up, _ = (np.array(x, dtype=float) for x in SIDES[side][:3] + (0,))
        # Camera axes as columns: right, up, backward.
        frame = torch.tensor(Z_UP @ np.stack([right, up, direction], axis=1), dtype=torch.float32)
        eye = Z_UP @ (CENTRE + DISTANCE * direction)
        views.append((eye.tolist(), matrix_to_quaternion(frame).tolist(), str(folder / f"{side}.png")))
    job = {"file": str(file), "arrays": str(folder / "arrays.npz"), "size": 128, "angle": float(np.radians(FOV))}
    (folder / "job.json").write_text(json.dumps({**job, "views": views, "textured": bool(sides)}))
    (folder / "import.py").write_text(IMPORT)
    done = subprocess.run(
        [program, str(folder / "import.py"), str(folder / "job.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    with np.load(folder / "arrays.npz") as arrays:
        return dict(arrays), {s: decode((folder / f"{s}.png").read_bytes()) for s in sides}


def check_import(mesh: Mesh, arrays: dict[str, np.ndarray]) -> None:
    """Geometry, texture coordinates, normals and picture arrived, vertex by vertex."""
    assert len(arrays["polygons"]) == len(mesh.faces) and (arrays["polygons"] == 3).all()
    assert len(arrays["vertices"]) == len(mesh.vertices)
    expected = mesh.vertices.numpy() @ Z_UP.T
    np.testing.assert_allclose(arrays["vertices"].min(0), expected.min(0), atol=1e-5)
    np.testing.assert_allclose(arrays["vertices"].max(0), expected.max(0), atol=1e-5)
    corners = mesh.faces.reshape(-1)
    np.testing.assert_allclose(arrays["positions"], expected[corners], atol=1e-5)
    uvs = mesh.uvs[corners].numpy()
    np.testing.assert_allclose(arrays["uvs"], np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1), atol=1e-5)  # v = 0 at the bottom
    np.testing.assert_allclose(arrays["normals"], mesh.normals[corners].numpy() @ Z_UP.T, atol=2e-3)
    assert str(arrays["space"]) == "sRGB"
    pixels = np.round(arrays["pixels"][::-1, :, :3] * 255).astype(np.uint8)
    np.testing.assert_array_equal(pixels, to_uint8(mesh.texture))
    assert float(arrays["metallic"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_blender_draws_the_texture_upright(tmp_path, bpy, suffix):
    mesh = box()
    write_mesh(mesh, tmp_path / f"box.{suffix}")
    arrays, pictures = blender(bpy, tmp_path, tmp_path / f"box.{suffix}")
    check_import(mesh, arrays)
    keep(pictures, f"blender_{suffix}")
    np.testing.assert_allclose(arrays["vertices"].min(0), [-0.4, -0.25, -0.3], atol=1e-6)
    np.testing.assert_allclose(arrays["vertices"].max(0), [0.6, 0.35, 0.7], atol=1e-6)
    check_views(pictures, *((20, 18) if suffix == "glb" else (3, 9)))  # glTF's surfaces gleam a little, OBJ's do not


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_blender_reads_vertex_colours(tmp_path, bpy, suffix):
    mesh = coloured_box()
    write_mesh(mesh, tmp_path / f"box.{suffix}")
    arrays, _ = blender(bpy, tmp_path, tmp_path / f"box.{suffix}", ())
    corners = mesh.faces.reshape(-1)
    np.testing.assert_allclose(arrays["positions"], mesh.vertices.numpy()[corners] @ Z_UP.T, atol=1e-6)
    np.testing.assert_allclose(arrays["colours"], srgb_to_linear(mesh.colors[corners]), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_blender_draws_a_mesh_from_splats(tmp_path, bpy, meshed, suffix):
    write_mesh(meshed, tmp_path / f"box.{suffix}")
    arrays, pictures = blender(bpy, tmp_path, tmp_path / f"box.{suffix}")
    keep(pictures, f"blender_{suffix}_from_splats")
    check_import(meshed, arrays)
    check_views(pictures, *((20, 22) if suffix == "glb" else (4, 14)))
