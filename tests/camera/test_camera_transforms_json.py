"""transforms.json: what is read, what is written, what is refused."""

import json
import math
import warnings

import pytest
import torch
from PIL import Image

from bozzetto.camera import Cameras, orbit_poses, read_transforms, write_transforms
from bozzetto.errors import CameraError, ImageError

POSE = orbit_poses(30.0, 20.0, 4.0).tolist()


def scene(folder, pictures=("images/a.png", "images/b.jpg"), size=(80, 60), **document):
    """A folder with pictures of ``size`` (width, height) and a transforms.json; ``document`` overrides its keys."""
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10, 20, 30)).save(folder / name)
    content = {
        "camera_angle_x": 0.8,
        "frames": [{"file_path": f"./{name}", "transform_matrix": POSE} for name in pictures],
    } | document
    content = {k: v for k, v in content.items() if v is not None}
    (folder / "transforms.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_blender_style(tmp_path):
    scene(tmp_path)
    views = read_transforms(tmp_path)
    assert views.cameras.names == ("a", "b")
    assert views.paths == [tmp_path / "images/a.png", tmp_path / "images/b.jpg"]
    assert views.sizes == [(60, 80)] * 2
    assert torch.allclose(views.cameras.camera_to_world[1], torch.tensor(POSE), atol=1e-6)
    fx = 0.5 / math.tan(0.4)
    expected = torch.tensor([fx, fx * 80 / 60, 0.5, 0.5])
    assert torch.allclose(views.cameras.intrinsics, expected.expand(2, 4), atol=1e-6)
    assert torch.equal(read_transforms(tmp_path / "transforms.json").cameras.intrinsics, views.cameras.intrinsics)


def test_file_paths_without_suffix_and_with_a_dot(tmp_path):
    scene(tmp_path, pictures=("train/r_0.5.png", "train/r_1.png"))
    data = json.loads((tmp_path / "transforms.json").read_text())
    for frame in data["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".png").replace("/", "\\")
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    views = read_transforms(tmp_path)
    assert views.cameras.names == ("r_0.5", "r_1")
    assert [p.name for p in views.paths] == ["r_0.5.png", "r_1.png"]


def test_pixel_intrinsics_global_and_per_frame(tmp_path):
    scene(tmp_path, camera_angle_x=None, w=160, h=120, fl_x=200.0, fl_y=210.0, cx=82.0, cy=57.0)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["frames"][1] |= {"fl_x": 100, "cx": 80}
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    views = read_transforms(tmp_path)
    assert views.sizes == [(120, 160)] * 2  # the size the intrinsics were stated for, not the resized picture's
    assert torch.allclose(views.cameras.intrinsics[0], torch.tensor([200 / 160, 210 / 120, 82 / 160, 57 / 120]))
    assert torch.allclose(views.cameras.intrinsics[1], torch.tensor([100 / 160, 210 / 120, 0.5, 57 / 120]))


def test_angle_y_alone(tmp_path):
    scene(tmp_path, camera_angle_x=None, camera_angle_y=0.6)
    fy = 0.5 / math.tan(0.3)
    got = read_transforms(tmp_path).cameras.intrinsics[0]
    assert torch.allclose(got, torch.tensor([fy * 60 / 80, fy, 0.5, 0.5]))


def test_scaled_axes_and_three_rows(tmp_path):
    matrix = torch.tensor(POSE)
    matrix[:3, :3] *= 0.25
    frames = [{"file_path": "images/a.png", "transform_matrix": matrix[:3].tolist()}]
    scene(tmp_path, frames=frames)
    assert torch.allclose(read_transforms(tmp_path).cameras.camera_to_world[0], torch.tensor(POSE), atol=1e-5)


def test_pictures_may_be_absent_when_allowed(tmp_path):
    scene(tmp_path, pictures=(), frames=[{"file_path": "gone/x.png", "transform_matrix": POSE}])
    views = read_transforms(tmp_path, require_images=False)
    assert views.cameras.names == ("x",)
    assert views.paths == [tmp_path / "gone/x.png"]
    assert views.sizes == [None]
    assert views.cameras.intrinsics[0, 0] == views.cameras.intrinsics[0, 1]  # taken as square
    scene(tmp_path, pictures=(), frames=[{"transform_matrix": POSE}] * 2)
    assert read_transforms(tmp_path, require_images=False).cameras.names == ("0000", "0001")


def test_names_are_unique_and_safe(tmp_path):
    pictures = ("left/0.png", "right/0.png", "left/0.png")
    scene(tmp_path, pictures=pictures)
    assert read_transforms(tmp_path).cameras.names == ("left_0", "right_0", "left_0_1")
    frames = [{"file_path": f"../../{n}", "transform_matrix": POSE} for n in ("etc/a:b.png", "b.png")]
    scene(tmp_path, pictures=(), frames=frames)
    for name in read_transforms(tmp_path, require_images=False).cameras.names:
        assert not set(name) & set('/\\:<>"|?*')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": None}, "no cameras"),
        ({"frames": []}, "no cameras"),
        ({"frames": {"a": 1}}, "no cameras"),
        ({"frames": [3]}, "frame 0 must be a JSON object"),
        ({"frames": [{"transform_matrix": POSE}]}, "file_path"),
        ({"frames": [{"file_path": "images/a.png"}]}, "transform_matrix"),
        ({"frames": [{"file_path": "images/a.png", "transform_matrix": "x"}]}, "table of numbers"),
        ({"frames": [{"file_path": "images/a.png", "transform_matrix": [[1, 2], [3]]}]}, "table of numbers"),
        ({"frames": [{"file_path": "images/a.png", "transform_matrix": [[1, 0], [0, 1]]}]}, "4x4"),
        ({"frames": [{"file_path": "images/a.png", "transform_matrix": [[0] * 4] * 3}]}, "singular"),
        ({"camera_angle_x": None}, "no focal length"),
        ({"camera_angle_x": 45.0}, "camera_angle_x must be a number between 0 and 3.14"),
        ({"camera_angle_x": "wide"}, "camera_angle_x"),
        ({"camera_angle_x": math.nan}, "camera_angle_x"),
        ({"fl_x": -5.0}, "fl_x"),
        ({"w": 80, "h": 0}, "h must be"),
        ({"w": 80, "h": 0.3}, "h must be at least 1 pixel"),
        ({"w": 1e-9, "h": 60}, "w must be at least 1 pixel"),
        ({"fl_x": 10**400}, "fl_x must be"),
        ({"fl_y": 10**400}, "fl_y must be"),
        ({"cx": -(10**400)}, "cx must be"),
        ({"fl_x": 1e308}, "fl_x must be"),
        ({"fl_x": 1e13}, r"fl_x 1e\+13 means a focal length"),
        ({"fl_x": 1e-300}, "fl_x 1e-300 means a focal length"),
        ({"fl_x": 100.0, "fl_y": 1e-300}, "fl_y 1e-300"),
        ({"camera_angle_x": 1e-300}, "camera_angle_x 1e-300 means a focal length"),
        ({"camera_angle_x": 0.8, "camera_angle_y": 1e-300}, "camera_angle_y 1e-300"),
        ({"camera_angle_x": math.pi - 1e-15}, "camera_angle_x 3.14159 means"),
        ({"frames": [{"file_path": "x" * 5000, "transform_matrix": POSE}]}, r"frame 0, file_path: .{,200}\Z"),
        ({"w": 60, "h": 80}, "cropped or turned"),
        ({"k1": 0.3}, "distortion"),
        ({"is_fisheye": True}, "fisheye"),
        ({"camera_model": "OPENCV_FISHEYE"}, "fisheye"),
    ],
)
def test_refused(tmp_path, change, message):
    scene(tmp_path, **change)
    with pytest.raises(CameraError, match=message):
        read_transforms(tmp_path)


def test_a_pose_beyond_float32_is_refused(tmp_path):
    far = [*POSE[:2], [*POSE[2][:3], 1e300], POSE[3]]
    scene(tmp_path, frames=[{"file_path": "images/a.png", "transform_matrix": far}])
    with pytest.raises(CameraError, match="infinity"):
        read_transforms(tmp_path)


def test_pixels_without_a_size_are_refused(tmp_path):
    frames = [{"file_path": "x.png", "transform_matrix": POSE}]
    for keys in ({"fl_x": 100.0}, {"cx": 40.0}):
        scene(tmp_path, pictures=(), frames=frames, **keys)
        with pytest.raises(CameraError, match="w and h"):
            read_transforms(tmp_path, require_images=False)


def test_missing_pictures_are_listed(tmp_path):
    frames = [{"file_path": f"{i}.png", "transform_matrix": POSE} for i in range(5)]
    scene(tmp_path, frames=frames)
    with pytest.raises(CameraError, match=r"0\.png, 1\.png, 2\.png and 2 more"):
        read_transforms(tmp_path)


def test_broken_files(tmp_path):
    with pytest.raises(CameraError, match="does not exist"):
        read_transforms(tmp_path)
    file = tmp_path / "transforms.json"
    for text, message in (("{", "not valid JSON"), ("[]", "JSON object"), ("\x00", "not valid JSON")):
        file.write_text(text)
        with pytest.raises(CameraError, match=message):
            read_transforms(file)
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(CameraError, match="not valid JSON"):
        read_transforms(file)
    scene(tmp_path)
    (tmp_path / "images/a.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"a\.png"):
        read_transforms(tmp_path)


def test_a_singular_frame_is_named(tmp_path):
    mirrored = torch.tensor(POSE)
    mirrored[:3, 0] *= -1
    frames = [
        {"file_path": "images/a.png", "transform_matrix": POSE},
        {"file_path": "images/b.jpg", "transform_matrix": mirrored.tolist()},
    ]
    scene(tmp_path, frames=frames)
    with pytest.raises(CameraError, match=r"camera 'b'.*mirrored"):
        read_transforms(tmp_path)


def test_weak_distortion_warns_and_none_is_silent(tmp_path):
    scene(tmp_path, k1=0.02)
    with pytest.warns(UserWarning, match="distortion"):
        read_transforms(tmp_path)
    scene(tmp_path, k1=0.0, k2=1e-5, p1=0, p2=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_transforms(tmp_path)


@pytest.mark.parametrize("shared_lens", [True, False])
def test_round_trip(tmp_path, shared_lens):
    cameras = Cameras.turntable(4, elevation=10)
    intrinsics = torch.tensor([1.0, 1.5, 0.52, 0.47]).repeat(4, 1)
    if not shared_lens:
        intrinsics[2, 0] = 1.25
    cameras = Cameras(cameras.camera_to_world, intrinsics, ("a", "b", "c", "d"))
    out = write_transforms(tmp_path, cameras, (60, 90))
    assert out == tmp_path / "transforms.json"
    assert ("fl_x" in json.loads(out.read_text())) is shared_lens
    back = read_transforms(out, require_images=False)
    assert back.cameras.names == cameras.names
    assert back.sizes == [(60, 90)] * 4
    assert torch.allclose(back.cameras.camera_to_world, cameras.camera_to_world, atol=1e-6)
    assert torch.allclose(back.cameras.intrinsics, cameras.intrinsics, atol=1e-6)
    assert list(tmp_path.iterdir()) == [out]


def test_write_refuses_a_wrong_count(tmp_path):
    with pytest.raises(CameraError, match="file names"):
        write_transforms(tmp_path / "t.json", Cameras.turntable(3), 8, files=["a"])
    with pytest.raises(CameraError, match="flat list"):
        write_transforms(tmp_path / "t.json", Cameras.turntable(4).reshape(2, 2), 8)
    assert not (tmp_path / "t.json").exists()
