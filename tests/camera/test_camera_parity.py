"""Cameras and ray maps against arrays computed by the public reference of LGM."""

import numpy as np
import pytest
import torch

from bozzetto.camera import Cameras, opengl_to_blender_world, opengl_to_opencv, orbit_poses, projection_matrix

FOV = 49.1
DEFAULT = (0.0, 90.0, 180.0, 270.0)


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "parity" / "lgm" / "cameras.npz")


@pytest.fixture(scope="module")
def rays(shared):
    return np.load(shared / "parity" / "lgm" / "plucker.npz")


@pytest.fixture(scope="module")
def cameras(golden):
    elevation, azimuth, radius = torch.as_tensor(golden["angles_elev_azim_radius"]).double().unbind(-1)
    # The reference counts elevation positive below the object.
    return Cameras.orbit(azimuth, -elevation, radius, FOV)


def gap(ours, theirs):
    ours = torch.as_tensor(ours)
    assert tuple(ours.shape) == tuple(theirs.shape)
    return float((ours - torch.as_tensor(theirs)).abs().max())


def test_orbit(golden, cameras):
    assert gap(cameras.camera_to_world, golden["orbit_opengl"]) <= 1e-6


def test_orbit_mirrored_opencv(golden, cameras):
    # Its "opencv" poses keep y up while z looks forward: ours with the y column negated.
    mirrored = opengl_to_opencv(cameras.camera_to_world) * torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert gap(mirrored, golden["orbit_opencv"]) <= 1e-6


def test_view_matrix_is_transposed(golden, cameras):
    assert gap(cameras.view_matrices().transpose(-1, -2), golden["cam_view"]) <= 1e-6
    assert gap(-cameras.positions, golden["cam_pos"]) <= 1e-6


def test_view_projection(golden, cameras):
    near, far = 0.5, 2.5
    f = float(2 * cameras.intrinsics[0, 1])
    p = torch.zeros(4, 4)
    p[0, 0] = p[1, 1] = f
    p[2, 2], p[2, 3], p[3, 2] = (far + near) / (far - near), 1.0, -far * near / (far - near)
    assert gap(p, golden["proj_matrix"]) <= 1e-6
    assert gap(cameras.view_matrices().transpose(-1, -2) @ p, golden["cam_view_proj"]) <= 1e-6


def test_perspective_has_flipped_y(golden):
    flip = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))
    ours = torch.stack([flip @ projection_matrix(FOV), flip @ projection_matrix(60, 1.5, 0.1, 100)])
    assert gap(ours, golden["get_perspective"]) <= 1e-6


@pytest.mark.parametrize("elevation", [0, 15, -20])
@pytest.mark.parametrize(("variant", "sign"), [("lgm", -1), ("release", 1)])
def test_diffusion_cameras(golden, elevation, variant, sign):
    poses = opengl_to_blender_world(orbit_poses(DEFAULT, sign * elevation, 1.0)).reshape(4, 16)
    ours = torch.cat([poses, torch.zeros(1, 16)])
    assert gap(ours, golden[f"diffusion_camera_{variant}_elev{elevation}"]) <= 1e-6


def test_plucker(rays):
    level = Cameras.orbit(DEFAULT)
    assert gap(level.plucker(32), rays["rays32_elev0"]) <= 1e-6
    full = level.plucker(256)
    assert gap(full[:, :, ::8, ::8], rays["rays256_elev0_stride8"]) <= 1e-6
    assert gap(full[:, :, -4:, -4:], rays["rays256_elev0_corner"]) <= 1e-6
    assert gap(Cameras.orbit(DEFAULT, -20).plucker(16), rays["rays16_elev20"]) <= 1e-6


def test_rays_of_a_wide_picture(rays):
    pose = orbit_poses(33, 17, 1.8)
    origins, directions = Cameras.from_fov(pose, FOV, aspect=20 / 12).rays((12, 20))
    assert gap(origins, rays["get_rays_o"]) <= 1e-6
    assert gap(directions, rays["get_rays_d"]) <= 1e-6
