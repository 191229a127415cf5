"""Meshes as three.js draws them in a browser; and that a wrong picture is noticed."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from lettered_box import (
    CENTRE,
    DISTANCE,
    FOV,
    HALF,
    QUADRANTS,
    SIDES,
    TANGENT,
    box,
    check_front,
    check_views,
    coloured_box,
    decode,
    front_picture,
    keep,
    splat_box,
)

from bozzetto.camera import Cameras
from bozzetto.files.glb import write_glb
from bozzetto.files.images import to_uint8
from bozzetto.files.meshes import write_mesh
from bozzetto.mesh import Mesh
from bozzetto.raster.api import rasterize


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
