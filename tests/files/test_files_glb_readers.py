"""Meshes as other people's programs draw them: three.js in a browser, and Blender.

Both get a box with a picture on its front (four coloured quadrants, a letter in each) and plain sides, once made by hand
and once made by ``gaussians_to_mesh`` from splats that lie on the same box.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.camera import Cameras
from bozzetto.files.glb import srgb_to_linear, write_glb
from bozzetto.files.images import to_uint8
from bozzetto.files.meshes import write_mesh
from bozzetto.gaussians import Gaussians, matrix_to_quaternion
from bozzetto.mesh import Mesh
from bozzetto.raster.api import rasterize
from bozzetto.surface import gaussians_to_mesh

CENTRE, HALF = np.array([0.1, 0.2, -0.05]), np.array([0.5, 0.5, 0.3])
SIDE = 128  # texels of the front's picture
DISTANCE, TANGENT = 3.3, 0.25  # camera to CENTRE; of half the field of view: the front is 2/3 of the picture wide
FOV = float(np.degrees(2 * np.arctan(TANGENT)))
PLAIN = (255, 255, 255)

QUADRANTS = {"F": (220, 40, 40), "G": (40, 170, 60), "J": (40, 70, 210), "L": (235, 200, 40)}  # row by row
LETTERS = {
    "F": ("#####", "#", "#", "####", "#", "#", "#"),
    "G": (" ####", "#", "#", "#  ##", "#   #", "#   #", " ####"),
    "J": ("    #", "    #", "    #", "    #", "#   #", "#   #", " ###"),
    "L": ("#", "#", "#", "#", "#", "#", "#####"),
}

# Outward direction, right and up of every side as one sees it from outside (world axes), and its colour.
SIDES = {
    "front": ((0, 0, 1), (1, 0, 0), (0, 1, 0), None),
    "right": ((1, 0, 0), (0, 0, -1), (0, 1, 0), (40, 200, 200)),
    "back": ((0, 0, -1), (-1, 0, 0), (0, 1, 0), (200, 50, 180)),
    "left": ((-1, 0, 0), (0, 0, 1), (0, 1, 0), (240, 130, 30)),
    "top": ((0, 1, 0), (1, 0, 0), (0, 0, -1), (200, 200, 200)),
    "bottom": ((0, -1, 0), (1, 0, 0), (0, 0, 1), (60, 60, 60)),
}


def front_picture() -> np.ndarray:
    """[SIDE, SIDE, 3] uint8: red F and green G above blue J and yellow L."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    half, cell = SIDE // 2, 6
    for i, (name, colour) in enumerate(QUADRANTS.items()):
        y, x = divmod(i, 2)
        quadrant = picture[y * half : (y + 1) * half, x * half : (x + 1) * half]
        quadrant[:] = colour
        for row, line in enumerate(LETTERS[name]):
            for column, mark in enumerate(line):
                if mark == "#":
                    top, left = 11 + row * cell, 17 + column * cell
                    quadrant[top : top + cell, left : left + cell] = 10
    return picture


def box() -> Mesh:
    """24 vertices, 12 triangles; the texture holds the front's picture at its left and the plain colours at its right."""
    texture = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    texture[:, :SIDE] = front_picture()
    vertices, uvs, normals, faces = [], [], [], []
    for i, (direction, right, up, colour) in enumerate(SIDES.values()):
        low, high = np.array([0.0, 0.0]), np.array([0.5, 1.0])  # u, v of the top-left and the bottom-right corner
        if colour is not None:
            y, x = divmod(i, 3)
            texture[y * 64 : (y + 1) * 64, SIDE + x * 42 : SIDE + (x + 1) * 42] = colour
            low = np.array([SIDE + x * 42 + 12, y * 64 + 20]) / (2 * SIDE, SIDE)
            high = np.array([SIDE + x * 42 + 30, y * 64 + 44]) / (2 * SIDE, SIDE)
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            vertices.append(CENTRE + HALF * (np.array(direction) + a * np.array(right) + b * np.array(up)))
            uvs.append(np.where([a > 0, b < 0], high, low))
            normals.append(direction)
        faces += [[4 * i, 4 * i + 1, 4 * i + 2], [4 * i, 4 * i + 2, 4 * i + 3]]
    tensors = (torch.tensor(np.array(x), dtype=torch.float32) for x in (vertices, normals, uvs))
    vertices, normals, uvs = tensors
    return Mesh(vertices, torch.tensor(faces), normals, uvs, texture=torch.from_numpy(texture).float() / 255)


def coloured_box() -> Mesh:
    """The same box with vertex colours in place of the texture; its front is red."""
    mesh = box()
    colors = torch.tensor([side[3] or QUADRANTS["F"] for side in SIDES.values()]).repeat_interleave(4, 0) / 255
    return Mesh(mesh.vertices, mesh.faces, mesh.normals, colors=colors)


def splat_box(count: int = 96) -> Gaussians:
    """``count``² flat splats on every side of the same box, in the same colours."""
    picture = front_picture()
    steps = (np.arange(count) + 0.5) / count * 2 - 1
    sigma = 0.6 * 2 * HALF.max() / count
    means, scales, frames, colours = [], [], [], []
    for direction, right, up, colour in SIDES.values():
        direction, right, up = (np.array(x, float) for x in (direction, right, up))
        b, a = (x.reshape(-1, 1) for x in np.meshgrid(steps, steps, indexing="ij"))
        means.append(CENTRE + (HALF - 1.2 * sigma) * (direction + a * right + b * up))  # outline: half opaque
        scales += [[sigma, sigma, 0.2 * sigma]] * count**2
        frames += [np.stack([right, up, direction], 1)] * count**2
        if colour is None:
            at = [((1 - b[:, 0]) / 2 * SIDE).astype(int), ((1 + a[:, 0]) / 2 * SIDE).astype(int)]
            colours.append(picture[at[0], at[1]])
        else:
            colours.append(np.tile(np.uint8(colour), (count**2, 1)))
    quaternions = matrix_to_quaternion(torch.tensor(np.array(frames), dtype=torch.float32))
    floats = (torch.tensor(np.concatenate(x), dtype=torch.float32) for x in (means, [scales], colours))
    means, scales, colours = floats
    return Gaussians.from_rgb(means, scales, quaternions, torch.full((len(means),), 0.97), colours / 255)


@pytest.fixture(scope="module")
def meshed() -> Mesh:
    """What the converter makes of the splats."""
    return gaussians_to_mesh(splat_box(), resolution=64, texture_size=512, max_faces=4000)


# ---- what a picture must show ----


def check_front(picture: np.ndarray, tolerance: float, letters: float) -> None:
    """The front's picture is upright and not mirrored; ``tolerance`` of a quadrant's colour, ``letters`` on average."""
    size = len(picture)
    edge = (size / 6, size / 6, size * 5 / 6, size * 5 / 6)
    seen = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX, box=edge)).astype(float)
    expected = front_picture().astype(float)
    ways = {
        f"{flip}{90 * k}": np.rot90(expected[:, ::-1] if flip else expected, k)
        for flip in ("", "mirrored ")
        for k in range(4)
    }
    errors = {name: float(np.abs(seen - way).mean()) for name, way in ways.items()}
    assert min(errors, key=errors.get) == "0", errors
    assert errors["0"] <= letters, errors
    # The letters alone, without the colours, tell the same.
    dark = np.stack([way.max(-1) < 100 for way in ways.values()])
    drawn = seen.max(-1) < 100
    overlap = [(drawn & d).sum() / (drawn | d).sum() for d in dark]
    assert overlap[0] > 0.5 and overlap[0] > 1.5 * max(overlap[1:]), overlap
    half = SIDE // 2
    for i, colour in enumerate(QUADRANTS.values()):
        y, x = divmod(i, 2)
        got = np.median(seen[y * half + 3 : (y + 1) * half - 3, x * half + 3 : (x + 1) * half - 3], axis=(0, 1))
        assert np.abs(got - colour).max() <= tolerance, (i, got, colour)


def check_views(pictures: dict[str, np.ndarray], tolerance: float, letters: float) -> None:
    """Every side has its colour in the view that shows it; around the box there is the plain background."""
    assert pictures.keys() == SIDES.keys()
    for name, picture in pictures.items():
        size = len(picture)
        assert np.abs(picture[: size // 10].astype(int) - PLAIN).max() <= 1
        colour = SIDES[name][3]
        if colour is None:
            check_front(picture, tolerance, letters)
        else:
            centre = picture[size // 2 - 8 : size // 2 + 8, size // 2 - 8 : size // 2 + 8]
            got = np.median(centre, axis=(0, 1))
            assert np.abs(got - colour).max() <= tolerance, (name, got, colour)


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def keep(pictures: dict[str, np.ndarray], name: str) -> None:
    """All views in one row, for looking at: NAME.png in the folder BOZZETTO_KEEP_PICTURES, if that is set."""
    if folder := os.environ.get("BOZZETTO_KEEP_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(pictures.values()), axis=1)).save(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("change", ["flipped", "mirrored", "turned", "dull", "colours swapped", "letters mirrored"])
def test_a_wrong_picture_is_noticed(change):
    right = np.full((192, 192, 3), 255, np.uint8)
    right[32:160, 32:160] = front_picture()
    check_front(right, 0, 0)
    wrong = {
        "flipped": right[::-1],
        "mirrored": right[:, ::-1],
        "turned": right[::-1, ::-1],
        "dull": (right * 0.8).astype(np.uint8),
        "colours swapped": right[..., ::-1],
        "letters mirrored": np.concatenate([right[:, :32], right[:, 95:31:-1], right[:, 159:95:-1], right[:, 160:]], 1),
    }[change]
    with pytest.raises(AssertionError):
        check_front(np.ascontiguousarray(wrong), 20, 22)


# ---- three.js ----

DRAW = """
import * as THREE from 'three';
import { GLTFLoader } from 'gltf-loader';
const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setPixelRatio(1);
// One view of a .glb file: eye and target in world coordinates, light null (from everywhere) or where it comes
// from, and then only the outside of surfaces is drawn.
window.draw = async ({ data, size, views, tangent, light }) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const { scene: model } = await new GLTFLoader().parseAsync(bytes.buffer, '');
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0xffffff);
  scene.add(model);
  // With an intensity of pi, a white diffuse surface that faces the light is white.
  const lamp = light ? new THREE.DirectionalLight(0xffffff, Math.PI) : new THREE.AmbientLight(0xffffff, Math.PI);
  if (light) {
    lamp.position.set(...light);
    model.traverse((part) => { if (part.material) part.material.side = THREE.FrontSide; });
  }
  scene.add(lamp);
  renderer.setSize(size, size, false);
  const camera = new THREE.PerspectiveCamera(Math.atan(tangent) * 360 / Math.PI, 1, 0.01, 100);
  return views.map(({ eye, up, target }) => {
    camera.position.set(...eye);
    camera.up.set(...up);
    camera.lookAt(...target);
    renderer.render(scene, camera);
    return renderer.domElement.toDataURL('image/png').split(',')[1];
  });
};
window.ready = THREE.REVISION;
"""


def three_page(folder: Path) -> str:
    """One page with three.js and its glTF loader inside: each module a data: URL, found by name in an import map."""
    files = {"three": folder / "build/three.module.js", "gltf-loader": folder / "examples/jsm/loaders/GLTFLoader.js"}
    todo, modules = list(files), {}
    while todo:
        name = todo.pop()
        text = files[name].read_text(encoding="utf-8")
        for found in set(re.findall(r"""\bfrom\s*['"](\.{1,2}/[^'"]+\.js)['"]""", text)):
            path = (files[name].parent / found).resolve()
            known = next((n for n, p in files.items() if p.resolve() == path), None)
            if known is None:
                known = path.stem
                files[known] = path
                todo.append(known)
            text = text.replace(f"'{found}'", f"'{known}'").replace(f'"{found}"', f'"{known}"')
        modules[name] = "data:text/javascript;base64," + base64.b64encode(text.encode()).decode()
    imports = json.dumps({"imports": modules})
    scripts = f'<script type="importmap">{imports}</script><script type="module">{DRAW}</script>'
    return f'<!doctype html><meta charset="utf-8">{scripts}'


@pytest.fixture(scope="module")
def three(page, tmp_path_factory):
    """A function that draws a .glb file with three.js."""
    folder = Path(os.environ.get("BOZZETTO_NODE_MODULES", "node_modules")) / "three"
    if not (folder / "build/three.module.js").is_file():
        pytest.skip("the node module three is not installed (npm install three; set BOZZETTO_NODE_MODULES)")
    path = tmp_path_factory.mktemp("three") / "three.html"
    path.write_text(three_page(folder), encoding="utf-8")

    def draw(file: Path, sides=tuple(SIDES), light=None, eyes=()) -> dict[str, np.ndarray]:
        page.console.clear()
        page.requests.clear()
        page.open(path.as_uri())
        page.wait_for("window.ready")
        views = [
            {
                "eye": (CENTRE + DISTANCE * np.array(SIDES[s][0])).tolist(),
                "up": list(SIDES[s][2]),
                "target": CENTRE.tolist(),
            }
            for s in sides
        ]
        views += [{"eye": list(eye), "up": [0, 1, 0], "target": CENTRE.tolist()} for eye in eyes]
        data = base64.b64encode(file.read_bytes()).decode()
        job = {"data": data, "size": 192, "views": views, "tangent": TANGENT, "light": light}
        pictures = page.evaluate(f"draw({json.dumps(job)})")
        assert [line for line in page.console if line.startswith(("error", "exception"))] == []
        assert [r for r in page.requests if not r.startswith(("file:", "data:", "blob:"))] == []
        return {s: decode(base64.b64decode(p)) for s, p in zip((*sides, *range(len(eyes))), pictures)}

    return draw


@pytest.mark.browser
@pytest.mark.parametrize("texture_format", ["png", "jpeg"])
def test_three_draws_the_texture_upright(tmp_path, three, texture_format):
    write_glb(box(), tmp_path / "box.glb", texture_format=texture_format)
    pictures = three(tmp_path / "box.glb")
    keep(pictures, f"three_{texture_format}")
    check_views(pictures, *((2, 2) if texture_format == "png" else (4, 3)))


@pytest.mark.browser
def test_three_lights_the_outside(tmp_path, three):
    """A lamp in front lights the front, a lamp behind leaves it black: triangles and normals face outward."""
    write_mesh(box(), tmp_path / "box.glb")
    check_front(three(tmp_path / "box.glb", ["front"], light=[0, 0, 5])["front"], 12, 10)  # plus a faint highlight
    behind = three(tmp_path / "box.glb", ["front"], light=[0, 0, -5])["front"]
    assert behind[40:150, 40:150].max() <= 2


@pytest.mark.browser
def test_three_draws_vertex_colours(tmp_path, three):
    """Stored as linear light, shown as the sRGB colours that the mesh holds."""
    write_mesh(coloured_box(), tmp_path / "box.glb")
    for name, picture in three(tmp_path / "box.glb").items():
        centre = np.median(picture[88:104, 88:104], axis=(0, 1))
        assert np.abs(centre - (SIDES[name][3] or QUADRANTS["F"])).max() <= 2, (name, centre)


@pytest.mark.browser
def test_three_draws_a_mesh_from_splats(tmp_path, three, meshed):
    write_mesh(meshed, tmp_path / "box.glb")
    pictures = three(tmp_path / "box.glb")
    keep(pictures, "three_from_splats")
    check_views(pictures, 3, 14)


@pytest.mark.browser
def test_three_draws_what_the_rasterizer_draws(tmp_path, three, meshed):
    """From oblique cameras, the mesh in three.js looks like the splats it was made of."""
    write_mesh(meshed, tmp_path / "box.glb")
    cameras = Cameras.orbit([35.0, 130.0, -80.0], [25.0, -20.0, 50.0], DISTANCE, FOV, CENTRE.tolist())
    eyes = cameras.camera_to_world[:, :3, 3].tolist()
    pictures = three(tmp_path / "box.glb", (), eyes=eyes)
    expected = to_uint8(rasterize(splat_box(), cameras, (192, 192), (1.0, 1.0, 1.0)).rgb.clamp(0, 1))
    keep({**pictures, **{f"splats {i}": x for i, x in enumerate(expected)}}, "three_oblique")
    for i, picture in pictures.items():
        error = np.mean((picture.astype(float) - expected[i]) ** 2)
        mirrored = np.mean((picture[:, ::-1].astype(float) - expected[i]) ** 2)
        assert 10 * np.log10(255**2 / error) > 22 and mirrored > 10 * error, (i, error, mirrored)


@pytest.mark.browser
def test_three_draws_more_than_65535_vertices(tmp_path, three):
    """Indices of 32 bits."""
    side = 257
    v, u = (x.reshape(-1) for x in np.meshgrid(*[np.linspace(0, 1, side)] * 2, indexing="ij"))
    corner = np.arange(side * side).reshape(side, side)
    a, b, c, d = (x.reshape(-1) for x in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    faces = torch.from_numpy(np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
    points = CENTRE + HALF * np.stack([2 * u - 1, 1 - 2 * v, np.ones_like(u)], 1)
    uvs = torch.tensor(np.stack([u, v], 1), dtype=torch.float32)
    texture = torch.from_numpy(front_picture()).float() / 255
    write_mesh(Mesh(torch.tensor(points, dtype=torch.float32), faces, uvs=uvs, texture=texture), tmp_path / "grid.glb")
    check_front(three(tmp_path / "grid.glb", ["front"])["front"], 2, 2)


# ---- Blender ----

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
