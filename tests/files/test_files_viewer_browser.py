"""What a browser draws from the viewer page."""

import base64
import io
import json
import math
import time

import numpy as np
import pytest
import torch
from PIL import Image
from test_files_viewer import ball

from bozzetto.camera import Cameras
from bozzetto.files.viewer import write_viewer
from bozzetto.gaussians import Gaussians
from bozzetto.mesh import Mesh
from bozzetto.raster.api import rasterize


def show(page, path):
    """Open the page and wait for its first picture; nothing may go wrong and nothing may be asked of the network."""
    page.console.clear()
    page.requests.clear()
    page.open(path.as_uri())
    page.wait_for("window.bozzettoReady || document.getElementById('message')?.hidden === false")
    assert page.evaluate("document.getElementById('message').textContent") == ""
    page.evaluate("bozzetto.setSpin(false), bozzetto.reset(), 1")
    assert page.console == []
    assert [r for r in page.requests if not r.startswith(("file:", "data:"))] == []


def snapshot(page, cameras, size, background=(1.0, 1.0, 1.0), mesh=False):
    height, width = size
    arguments = {
        "width": width,
        "height": height,
        "cameraToWorld": cameras.camera_to_world[0].flatten().tolist(),
        "intrinsics": cameras.intrinsics[0].tolist(),
        "background": list(background),
        "mesh": mesh,
    }
    url = page.evaluate(f"bozzetto.snapshot({json.dumps(arguments)})")
    return as_array(base64.b64decode(url.split(",")[1]))


def as_array(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.float32) / 255


def psnr(a, b):
    return -10 * math.log10(float(np.mean((a - b) ** 2)) + 1e-12)


@pytest.mark.browser
@pytest.mark.parametrize("degree", [0, 3])
def test_draws_what_the_rasterizer_draws(tmp_path, page, degree):
    gaussians = ball(1500, degree)
    write_viewer(tmp_path / "viewer.html", gaussians)
    show(page, tmp_path / "viewer.html")
    assert page.evaluate("bozzetto.count") == 1503
    for azimuth, elevation, size, background in ((0, 0, (96, 96), (1, 1, 1)), (130, 35, (80, 120), (0.1, 0.2, 0.3))):
        pose = Cameras.orbit([azimuth], [elevation], 1.5).camera_to_world
        cameras = Cameras.from_fov(pose, 49.1, size[1] / size[0])
        cameras.intrinsics = cameras.intrinsics + torch.tensor([0.0, 0.0, 0.04, -0.03])  # an off-centre picture
        expected = rasterize(gaussians, cameras, size, background, backend="reference").rgb[0].clamp(0, 1).numpy()
        assert expected.std() > 0.1
        assert psnr(snapshot(page, cameras, size, background), expected) > 45


@pytest.mark.browser
def test_first_view_shows_the_front_upright(tmp_path, page):
    gaussians = ball(1000)
    gaussians.sh[:-3] = 0.0  # a grey ball with its three dots
    write_viewer(tmp_path / "viewer.html", gaussians)
    show(page, tmp_path / "viewer.html")
    camera = page.evaluate("bozzetto.camera()")
    pose = np.array(camera["cameraToWorld"]).reshape(4, 4)
    assert pose[2, 3] > 1 > 0.5 > pose[1, 3] > 0.1  # in front, slightly above
    assert abs(pose[0, 3]) < 0.01
    time.sleep(0.3)
    picture = as_array(page.screenshot())
    height, width = picture.shape[:2]
    saturated = picture.max(-1) - picture.min(-1) > 0.6
    for channel, where in ((0, "centre"), (1, "top"), (2, "right")):
        rows, columns = np.nonzero(saturated & (picture.argmax(-1) == channel))
        y, x = np.median(rows) / height, np.median(columns) / width
        if where == "centre":
            assert abs(x - 0.5) < 0.06, (x, y)
        elif where == "top":
            assert y < 0.35 and abs(x - 0.5) < 0.06, (x, y)
        else:
            assert x > 0.65 and abs(y - 0.5) < 0.1, (x, y)
    border = np.concatenate([picture[5, -80:], picture[-5, :50]])
    assert (border == 1).all()  # the object fits, on white


@pytest.mark.browser
def test_controls(tmp_path, page):
    write_viewer(tmp_path / "viewer.html", ball(300))
    show(page, tmp_path / "viewer.html")

    def settled():
        time.sleep(0.1)
        last, now = None, page.evaluate("bozzetto.camera().cameraToWorld")
        deadline = time.monotonic() + 20
        while last != now and time.monotonic() < deadline:
            time.sleep(0.15)
            last, now = now, page.evaluate("bozzetto.camera().cameraToWorld")
        return np.array(now).reshape(4, 4)

    home = settled()
    page.drag([(200, 150), (225, 150), (250, 150)])
    turned = settled()
    assert turned[0, 3] < home[0, 3] - 0.3  # dragged right: the camera went left
    page.pointer("mouseWheel", 200, 150, deltaX=0, deltaY=-300)
    nearer = settled()
    assert np.linalg.norm(nearer[:3, 3]) < 0.9 * np.linalg.norm(turned[:3, 3])
    page.drag([(200, 150), (230, 150)], button="right")
    panned = settled()
    assert np.allclose(panned[:3, :3], nearer[:3, :3], atol=1e-6)
    assert (panned - nearer)[:3, 3] @ nearer[:3, 0] < -0.05
    page.evaluate("document.getElementById('reset').click()")
    assert np.allclose(settled(), home, atol=1e-3)

    page.evaluate("bozzetto.setSpin(true)")
    time.sleep(0.3)
    page.drag([(200, 150), (201, 150)])  # the first touch ends it
    assert page.evaluate("document.getElementById('turn').getAttribute('aria-pressed')") == "false"
    page.evaluate("document.getElementById('background').click()")
    time.sleep(0.3)
    assert as_array(page.screenshot())[5, 390].max() < 0.95
    assert page.evaluate("document.getElementById('info').textContent") == "303 splats"
    assert page.console == []


@pytest.mark.browser
def test_mesh_button(tmp_path, page):
    corners = torch.tensor([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    texture = torch.zeros(32, 32, 3)
    texture[:16, :16], texture[:16, 16:], texture[16:, :16] = torch.eye(3)  # red top left, green top right, blue below
    camera = Cameras.orbit([0.0], radius=2.0)
    for mesh in (
        Mesh(corners, faces, uvs=uvs, texture=texture),
        Mesh(corners, faces, colors=torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]])),
    ):
        write_viewer(tmp_path / "viewer.html", ball(20), mesh=mesh)
        show(page, tmp_path / "viewer.html")
        picture = snapshot(page, camera, (64, 64), mesh=True)
        position, _ = camera.project(corners[None] * 0.9)
        for (x, y), colour in zip((position[0] * 64).long().tolist(), ((0, 0, 1), (0, 0, 0), (0, 1, 0), (1, 0, 0))):
            assert np.allclose(picture[y, x], colour, atol=0.15), (x, y)
        assert picture[2, 2].min() == 1
    page.evaluate("document.getElementById('mesh').click()")
    assert page.evaluate("document.getElementById('info').textContent") == "2 triangles"


@pytest.mark.browser
def test_empty_object(tmp_path, page):
    write_viewer(tmp_path / "viewer.html", Gaussians.empty())
    show(page, tmp_path / "viewer.html")
    assert snapshot(page, Cameras.orbit([0.0]), (8, 8)).min() == 1


@pytest.mark.browser
def test_mesh_alone_is_shown(tmp_path, page):
    corners = torch.tensor([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0]])
    mesh = Mesh(corners, torch.tensor([[0, 1, 2]]), colors=torch.tensor([[0.0, 0, 1]]).repeat(3, 1))
    write_viewer(tmp_path / "viewer.html", None, mesh=mesh)
    show(page, tmp_path / "viewer.html")
    assert page.evaluate("document.getElementById('info').textContent") == "1 triangles"
    assert page.evaluate("document.getElementById('mesh').hidden") is True
    page.evaluate("bozzetto.setMesh(false), 1")
    picture = snapshot(page, Cameras.orbit([0.0], radius=2.0), (64, 64))
    assert np.allclose(picture[36, 40], (0, 0, 1), atol=0.15)


@pytest.mark.browser
def test_page_of_a_mesh_alone(tmp_path, page):
    corners = torch.tensor([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]]) + torch.tensor([3.0, 0, 0])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    texture = torch.zeros(32, 32, 3)
    texture[:, :16, 0] = texture[:, 16:, 1] = 1  # red left, green right
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    for mesh in (
        Mesh(corners, faces, uvs=uvs, texture=texture),
        Mesh(corners, faces, colors=colours),
        Mesh(corners, faces),
    ):
        write_viewer(tmp_path / "viewer.html", mesh=mesh, title="table")
        show(page, tmp_path / "viewer.html")
        assert page.evaluate("bozzetto.count") == 0
        assert page.evaluate("document.getElementById('mesh').hidden") is True
        assert page.evaluate("document.getElementById('timeline').hidden") is True
        assert page.evaluate("document.getElementById('info').textContent") == "2 triangles"
        time.sleep(0.3)
        shot = as_array(page.screenshot())
        height, width = shot.shape[:2]
        left, right = shot[height // 2, width * 45 // 100], shot[height // 2, width * 55 // 100]
        if mesh.texture is None and mesh.colors is None:
            assert left.max() < 0.95 and left.std() < 0.02
        else:
            assert left.argmax() == 0 and right.argmax() == 1
        camera = Cameras.orbit([0.0], radius=2.0)
        camera.camera_to_world[:, 0, 3] += 3.0
        assert snapshot(page, camera, (32, 32))[16, 16].min() < 0.99
    assert page.console == []
