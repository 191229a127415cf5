"""Conventions: where cameras stand, which way they look, and that the conversions are what their names say."""

import math

import pytest
import torch

from bozzetto.camera import (
    Cameras,
    as_size,
    blender_to_opengl_world,
    check_cameras,
    check_poses,
    look_at,
    opencv_to_opengl,
    opengl_to_blender_world,
    opengl_to_opencv,
    orbit_poses,
    triposr_to_world,
    world_to_triposr,
)
from bozzetto.errors import CameraError


def random_poses(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return look_at(torch.randn(count, 3, generator=generator), torch.randn(count, 3, generator=generator) * 0.1)


def test_front_camera_is_the_identity():
    pose = orbit_poses(0.0)
    expected = torch.eye(4)
    expected[2, 3] = 1.5
    assert torch.allclose(pose, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "position"),
    [(0, 0, (0, 0, 2)), (90, 0, (2, 0, 0)), (180, 0, (0, 0, -2)), (0, 90, (0, 2, 0)), (0, -90, (0, -2, 0))],
)
def test_orbit_positions(azimuth, elevation, position):
    camera = Cameras.orbit([azimuth], [elevation], 2.0)
    assert torch.allclose(camera.positions[0], torch.tensor(position).float(), atol=1e-6)
    assert torch.allclose(camera.camera_to_world[0, :3, 2] * 2, torch.tensor(position).float(), atol=1e-6)


@pytest.mark.parametrize("elevation", [90.0, -90.0, 89.999, -89.999])
def test_straight_down_and_up_keep_the_roll_of_their_neighbours(elevation):
    pose = orbit_poses(0.0, elevation, 1.5)
    rotation = pose[:3, :3]
    assert torch.allclose(rotation.T @ rotation, torch.eye(3), atol=1e-5)
    assert math.isclose(float(torch.linalg.det(rotation)), 1, abs_tol=1e-5)
    # At azimuth 0 the right of the picture is the world's x, at the pole as well as near it.
    assert torch.allclose(rotation[:, 0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-3)


def test_look_at_refuses_its_own_target():
    with pytest.raises(CameraError, match="stand on"):
        look_at(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (opengl_to_opencv, opencv_to_opengl),
        (blender_to_opengl_world, opengl_to_blender_world),
        (triposr_to_world, world_to_triposr),
    ],
)
def test_conversions_round_trip_exactly(there, back):
    poses = random_poses()
    assert torch.equal(back(there(poses)), poses)
    assert torch.equal(there(back(poses)), poses)
    assert not torch.allclose(there(poses), poses)
    assert torch.allclose(torch.linalg.det(there(poses)), torch.ones(5), atol=1e-5)


def test_conversion_axes():
    def point(x, y, z):
        return torch.tensor([[x], [y], [z], [1.0]])

    assert torch.equal(blender_to_opengl_world(point(1.0, 2.0, 3.0)), point(1.0, 3.0, -2.0))  # z up becomes y up
    assert torch.equal(triposr_to_world(point(1.0, 2.0, 3.0)), point(2.0, 3.0, 1.0))  # +x (front) becomes +z
    pose = opengl_to_opencv(torch.eye(4))
    assert pose[:3, :3].tolist() == [[1, 0, 0], [0, -1, 0], [0, 0, -1]]


def test_project_agrees_with_rays():
    poses = random_poses()
    cameras = Cameras(poses, torch.tensor([1.1, 0.9, 0.45, 0.56]).expand(5, 4))
    height, width = 6, 9
    origins, directions = cameras.rays((height, width))
    assert torch.allclose(directions.norm(dim=-1), torch.ones(5, height, width), atol=1e-6)
    points = (origins + 1.7 * directions).reshape(5, -1, 3)  # [5, H*W, 3]
    position, depth = cameras.project(points)
    columns = (torch.arange(width) + 0.5) / width
    rows = (torch.arange(height) + 0.5) / height
    expected = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(1, -1, 2)  # [1, H*W, 2]
    assert float((position - expected).abs().max()) < 2e-6
    assert bool((depth > 0).all())


def test_project_spot():
    camera = Cameras.orbit([0.0], radius=2.0, fov_y=90.0)
    # One unit right and half a unit up, two units ahead, with a focal length of half the picture.
    position, depth = camera.project(torch.tensor([[[1.0, 0.5, 0.0], [0.0, 0.0, 3.0]]]))
    assert torch.allclose(position[0, 0], torch.tensor([0.75, 0.375]))
    assert depth[0].tolist() == [2.0, -1.0]


def test_transformed_world_shows_the_same_picture():
    cameras = Cameras(random_poses(), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    angle = torch.tensor(0.7)
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[2, 2] = angle.cos()
    matrix[0, 2], matrix[2, 0] = angle.sin(), -angle.sin()
    matrix[:3, :3] *= 2.5
    matrix[:3, 3] = torch.tensor([0.3, -1.0, 4.0])
    points = torch.randn(5, 20, 3, generator=torch.Generator().manual_seed(1)) * 0.2
    moved = cameras.transformed(matrix)
    assert torch.allclose(torch.linalg.det(moved.camera_to_world[:, :3, :3]), torch.ones(5), atol=1e-5)
    before, depth = cameras.project(points)
    after, far = moved.project(points @ matrix[:3, :3].T + matrix[:3, 3])
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(depth * 2.5, far, atol=1e-4)


def test_view_matrix_inverts_the_pose():
    cameras = Cameras(random_poses(), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    assert torch.allclose(
        cameras.view_matrices() @ opengl_to_opencv(cameras.camera_to_world), torch.eye(4).expand(5, 4, 4), atol=1e-6
    )


def test_from_arrays():
    poses = random_poses()
    k = [[100.0, 0, 40], [0, 120, 30], [0, 0, 1]]
    gl = Cameras.from_arrays(poses[:, :3].tolist(), k, (60, 80))
    assert torch.allclose(gl.intrinsics, torch.tensor([1.25, 2.0, 0.5, 0.5]).expand(5, 4))
    assert torch.allclose(gl.pixel_intrinsics((60, 80))[0], torch.tensor([100.0, 120.0, 40.0, 30.0]))
    cv = Cameras.from_arrays(opengl_to_opencv(poses).numpy(), [100.0, 120.0, 40.0, 30.0], (60, 80), axes="opencv")
    assert torch.allclose(cv.camera_to_world, poses, atol=1e-6)
    assert torch.allclose(cv.intrinsics, gl.intrinsics)
    with pytest.raises(CameraError, match="axes"):
        Cameras.from_arrays(poses, k, 60, axes="blender")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p[0].fill_(0), "last row|singular"),
        (lambda p: p[0, :3, :3].zero_(), "singular"),
        (lambda p: p[0, :3, 0].mul_(-1), "mirrored"),
        (lambda p: p[0, :3, 0].mul_(1.5), "not rigid"),
        (lambda p: p[0, 0, 3].fill_(math.nan), "NaN"),
        (lambda p: p[0, 3, 0].fill_(1), "last row"),
    ],
)
def test_bad_poses_are_refused(spoil, message):
    poses = random_poses()
    spoil(poses)
    with pytest.raises(CameraError, match=message):
        Cameras.from_arrays(poses, [1.0, 1.0, 0.5, 0.5], 1)


@pytest.mark.parametrize("scale", [1e-20, 5e-4, 1.0, 3e3, 1e12])
def test_a_uniform_scale_of_any_size_is_removed(scale):
    poses = random_poses()
    scaled = poses.clone()
    scaled[:, :3, :3] *= scale
    assert torch.allclose(check_poses(scaled), poses, atol=1e-5)
    scaled[2, :3, 0] = scaled[2, :3, 1]
    with pytest.raises(CameraError, match=r"camera 2.*singular"):
        check_poses(scaled)


def test_a_position_beyond_float32_is_refused():
    poses = random_poses().double()
    poses[0, 0, 3] = 1e300
    with pytest.raises(CameraError, match="infinity"):
        check_poses(poses)


def test_poses_of_whole_numbers_are_poses():
    pose = torch.eye(4, dtype=torch.int64)
    pose[2, 3] = 2
    cameras = Cameras(pose[None], torch.tensor([[1.2, 1.2, 0.5, 0.5]]))
    assert cameras.camera_to_world.dtype == torch.float32
    assert torch.equal(cameras.intrinsics, torch.tensor([[1.2, 1.2, 0.5, 0.5]]))
    assert torch.allclose(Cameras.from_fov(pose[None], 49.1).fov_y, torch.tensor([49.1]))
    assert torch.equal(look_at(torch.tensor([0, 0, 2])), pose.float())


def test_good_cameras_pass_the_check():
    cameras = Cameras(random_poses(6), torch.tensor([1.0, 1.2, 0.5, 0.5]), tuple("abcdef"))
    checked = check_cameras(cameras)
    assert checked.names == cameras.names and torch.equal(checked.intrinsics, cameras.intrinsics)
    assert torch.allclose(checked.camera_to_world, cameras.camera_to_world, atol=1e-6)
    assert check_cameras(cameras.reshape(2, 3)).batch_shape == (2, 3)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_intrinsics_that_are_not_finite_are_refused(index, value):
    intrinsics = torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(5, 1)
    intrinsics[1, index] = value
    with pytest.raises(CameraError, match=r"camera 'b'.*intrinsics"):
        check_cameras(Cameras(random_poses(), intrinsics, tuple("abcde")))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_focal_lengths_that_are_not_positive_are_refused(index, value):
    intrinsics = torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(5, 1)
    intrinsics[3, index] = value
    with pytest.raises(CameraError, match=r"camera 3.*positive"):
        check_cameras(Cameras(random_poses(), intrinsics))


def test_cameras_with_bad_poses_are_refused():
    poses = random_poses()
    poses[4, :3, 1] *= 2
    with pytest.raises(CameraError, match=r"camera 4.*not rigid"):
        check_cameras(Cameras(poses, torch.ones(4)))


def test_names_follow_an_index():
    cameras = Cameras(random_poses(), torch.ones(4), tuple("abcde"))
    assert cameras[1:3].names == ("b", "c")
    assert cameras[[4, 0]].names == ("e", "a")
    assert cameras[2].names is None
    assert Cameras.cat([cameras[:2], cameras[4:]]).names == ("a", "b", "e")
    with pytest.raises(CameraError, match="names"):
        Cameras(random_poses(), torch.ones(4), ("a",))


def test_sizes():
    assert as_size(4) == (4, 4)
    assert as_size((3, 5)) == (3, 5)
    with pytest.raises(ValueError, match="positive"):
        as_size((0, 5))
