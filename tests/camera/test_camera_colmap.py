"""COLMAP models, text and binary, written here by a small independent writer."""

import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.camera import read_colmap
from bozzetto.errors import CameraError

NUMBERS = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 1,
    "SIMPLE_RADIAL": 2,
    "RADIAL": 3,
    "OPENCV": 4,
    "OPENCV_FISHEYE": 5,
    "FOV": 7,
}
CAMERAS = {
    3: ("PINHOLE", 640, 480, (700.0, 710.0, 330.0, 235.0)),
    7: ("SIMPLE_PINHOLE", 300, 400, (350.0, 150.0, 200.0)),
}


def axis_angle(axis, degrees):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    half = math.radians(degrees) / 2
    return np.array([math.cos(half), *(math.sin(half) * axis)])


def rodrigues(axis, degrees):
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = math.radians(degrees)
    return np.eye(3) + math.sin(a) * k + (1 - math.cos(a)) * k @ k


# name, camera, rotation axis, degrees, translation, number of 2D points
IMAGES = [
    ("b side.jpg", 7, (1, 2, 3), 75.0, (0.1, -0.2, 3.0), 2),
    ("a.png", 3, (0, 1, 0), 200.0, (1.0, 2.0, 4.0), 0),
]


def write_text(folder, cameras=CAMERAS, images=IMAGES):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Camera list with one line of data per camera:"]
    lines += [f"{i} {m} {w} {h} {' '.join(map(repr, p))}" for i, (m, w, h, p) in cameras.items()]
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list with two lines of data per image:", "#   POINTS2D[] as (X, Y, POINT3D_ID)"]
    for i, (name, camera, axis, degrees, t, points) in enumerate(images):
        q = axis_angle(axis, degrees)
        lines.append(" ".join([str(i + 1), *map(repr, map(float, q)), *map(repr, t), str(camera), name]))
        lines.append(" ".join(["1.5 2.5 -1"] * points))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_binary(folder, cameras=CAMERAS, images=IMAGES):
    folder.mkdir(parents=True, exist_ok=True)
    blob = struct.pack("<Q", len(cameras))
    for i, (model, w, h, params) in cameras.items():
        blob += struct.pack("<iiQQ", i, NUMBERS[model], w, h) + struct.pack(f"<{len(params)}d", *params)
    (folder / "cameras.bin").write_bytes(blob)
    blob = struct.pack("<Q", len(images))
    for i, (name, camera, axis, degrees, t, points) in enumerate(images):
        blob += struct.pack("<i7di", i + 1, *axis_angle(axis, degrees), *t, camera) + name.encode() + b"\0"
        blob += struct.pack("<Q", points) + struct.pack("<ddq", 1.5, 2.5, -1) * points
    (folder / "images.bin").write_bytes(blob)
    return folder


@pytest.mark.parametrize("write", [write_text, write_binary])
@pytest.mark.parametrize("where", [".", "sparse/0", "sparse"])
def test_reads(tmp_path, write, where):
    write(tmp_path / where)
    views = read_colmap(tmp_path)
    assert views.cameras.names == ("a", "b side")  # sorted by name
    assert views.sizes == [(480, 640), (400, 300)]
    expected = torch.tensor([[700 / 640, 710 / 480, 330 / 640, 235 / 480], [350 / 300, 350 / 400, 0.5, 0.5]])
    assert torch.allclose(views.cameras.intrinsics, expected)
    for row, image in enumerate((IMAGES[1], IMAGES[0])):
        _, _, axis, degrees, t, _ = image
        rotation = rodrigues(axis, degrees)  # world to camera, OpenCV axes
        point = np.array([0.3, -0.4, 0.2])
        local = rotation @ point + t
        model, w, h, p = CAMERAS[image[1]]
        fx, fy, cx, cy = p if model == "PINHOLE" else (p[0], p[0], p[1], p[2])
        pixel = [(fx * local[0] / local[2] + cx) / w, (fy * local[1] / local[2] + cy) / h]
        position, depth = views.cameras[row].project(torch.tensor(point)[None].float())
        assert np.allclose(position[0], pixel, atol=1e-5)
        assert math.isclose(float(depth[0]), local[2], rel_tol=1e-5)
        assert np.allclose(views.cameras.positions[row], -rotation.T @ t, atol=1e-5)


def test_text_and_binary_agree(tmp_path):
    text, binary = read_colmap(write_text(tmp_path / "t")), read_colmap(write_binary(tmp_path / "b"))
    assert torch.equal(text.cameras.camera_to_world, binary.cameras.camera_to_world)
    assert torch.equal(text.cameras.intrinsics, binary.cameras.intrinsics)


def test_pictures_are_found_and_required(tmp_path):
    write_binary(tmp_path / "sparse/0")
    with pytest.raises(CameraError, match=r"a\.png"):
        read_colmap(tmp_path, require_images=True)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images/a.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "images/b side.jpg")
    views = read_colmap(tmp_path, require_images=True)
    assert views.paths == [tmp_path / "images/a.png", tmp_path / "images/b side.jpg"]
    Image.new("RGB", (48, 64)).save(tmp_path / "images/a.png")
    with pytest.raises(CameraError, match="cropped or turned"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("write", [write_text, write_binary])
@pytest.mark.parametrize(
    ("model", "params", "fine"),
    [
        ("SIMPLE_RADIAL", (600.0, 320.0, 240.0, 0.0), True),
        ("RADIAL", (600.0, 320.0, 240.0, 0.0, 0.0), True),
        ("OPENCV", (600.0, 600.0, 320.0, 240.0, 0.0, 0.0, 0.0, 0.0), True),
        ("SIMPLE_RADIAL", (600.0, 320.0, 240.0, 0.2), False),
        ("RADIAL", (600.0, 320.0, 240.0, 0.0, -0.4), False),
        ("OPENCV", (600.0, 600.0, 320.0, 240.0, 0.0, 0.0, 0.05, 0.0), False),
        ("OPENCV_FISHEYE", (600.0, 600.0, 320.0, 240.0, 0.0, 0.0, 0.0, 0.0), False),
        ("PINHOLE", (-600.0, 600.0, 320.0, 240.0), False),
        ("PINHOLE", (math.nan, 600.0, 320.0, 240.0), False),
    ],
)
def test_models(tmp_path, write, model, params, fine):
    write(tmp_path, {3: (model, 640, 480, params)}, IMAGES[1:])
    if fine:
        views = read_colmap(tmp_path)
        assert torch.allclose(views.cameras.intrinsics[0], torch.tensor([600 / 640, 600 / 480, 0.5, 0.5]))
    else:
        with pytest.raises(CameraError, match="camera 3"):
            read_colmap(tmp_path)


def test_broken_models(tmp_path):
    with pytest.raises(CameraError, match="no COLMAP model"):
        read_colmap(tmp_path)
    write_binary(tmp_path)
    whole = (tmp_path / "images.bin").read_bytes()
    for length in (0, 5, 30, 85, len(whole) - 1):
        (tmp_path / "images.bin").write_bytes(whole[:length])
        with pytest.raises(CameraError, match="ends too early"):
            read_colmap(tmp_path)
    write_binary(tmp_path, images=[])
    with pytest.raises(CameraError, match="no registered"):
        read_colmap(tmp_path)
    write_binary(tmp_path, cameras={3: CAMERAS[3]})
    with pytest.raises(CameraError, match="absent from"):
        read_colmap(tmp_path)


@pytest.mark.parametrize(
    ("file", "line"), [("cameras.txt", "1 PINHOLE 640"), ("images.txt", "1 1 0 0 zero 0 0 0 3 a.png")]
)
def test_broken_text(tmp_path, file, line):
    write_text(tmp_path)
    (tmp_path / file).write_text(line + "\n\n")
    with pytest.raises(CameraError, match="line 1"):
        read_colmap(tmp_path)


def test_wrong_parameter_count_in_text(tmp_path):
    write_text(tmp_path, {3: ("PINHOLE", 640, 480, (1.0, 2.0))})
    with pytest.raises(CameraError, match="4 parameters"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("write", [write_text, write_binary])
@pytest.mark.parametrize("focal", [1e-300, 1e-150, 1e12, 1e308, math.inf, 0.0])
def test_impossible_focal_lengths_are_refused(tmp_path, write, focal):
    write(tmp_path, {3: ("RADIAL", 640, 480, (focal, 320.0, 240.0, 0.0, 0.0))}, IMAGES[1:])
    with pytest.raises(CameraError, match="focal length"):
        read_colmap(tmp_path)


def test_an_impossible_picture_size_is_refused(tmp_path):
    write_text(tmp_path, {3: ("SIMPLE_PINHOLE", 10**400, 480, (600.0, 320.0, 240.0))}, IMAGES[1:])
    with pytest.raises(CameraError, match="size must be"):
        read_colmap(tmp_path)


def test_a_picture_name_that_is_too_long_is_refused(tmp_path):
    write_binary(tmp_path, images=[("x" * 5000, *IMAGES[0][1:])])
    with pytest.raises(CameraError, match=r"x…' cannot be looked up"):
        read_colmap(tmp_path)
