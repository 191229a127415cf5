"""LGM's augmentations: exact with stored draws, reproducible, and nothing moves that must stay."""

import numpy as np
import pytest
import torch

from bozzetto.training.augment import augment_views, camera_jitter, distorted_axis, grid_distortion


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "parity" / "lgm" / "augment.npz") as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def test_camera_jitter_equals_lgm(golden):
    result = camera_jitter(golden["jitter_poses_in"], draws=(golden["jitter_draw_x"], golden["jitter_draw_y"]))
    assert float((result - golden["jitter_poses_out"]).abs().max()) < 1e-6


def test_grid_distortion_equals_lgm(golden, fill):
    images = torch.from_numpy(fill.test_input("grid/images", (3, 3, 40, 40)))
    result = grid_distortion(images, draws=(golden["grid_draw_x"], golden["grid_draw_y"]))
    assert float((result - golden["grid_out"]).abs().max()) < 1e-5


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def test_no_strength_is_no_change_inside():
    image = torch.rand(2, 3, 64, 64, generator=seed())
    # Knots that fall on whole pixels: the grid is the identity but for its inclusive ends.
    axis = distorted_axis(64, torch.full((1, 9), 0.5), 0.0)[0]
    assert float(axis[0]) == -1 and float(axis[-1]) == 1
    assert bool((axis[1:] >= axis[:-1]).all())
    poses = torch.eye(4).expand(2, 4, 4)
    assert torch.allclose(camera_jitter(poses, 0.0, generator=seed()), poses)
    assert grid_distortion(image, 0.0, generator=seed()).shape == image.shape


@pytest.mark.parametrize("length", [1, 5, 17, 256])
def test_axes_are_monotonous(length):
    axis = distorted_axis(length, torch.rand(50, 16, generator=seed()), 1.0)
    assert axis.shape == (50, length)
    assert bool((axis[:, 1:] >= axis[:, :-1] - 1e-6).all()) and float(axis.abs().max()) <= 1


def test_non_square_pictures_and_dtypes():
    image = torch.rand(2, 4, 20, 50, generator=seed(), dtype=torch.float32).to(torch.bfloat16)
    result = grid_distortion(image, generator=seed())
    assert result.shape == image.shape and result.dtype == torch.bfloat16


def test_jitter_turns_rigidly_and_within_its_range():
    poses = torch.eye(4).expand(200, 4, 4).clone()
    poses[:, 2, 3] = 1.5
    result = camera_jitter(poses, generator=seed())
    rotation = result[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(200, 3, 3), atol=1e-5)
    assert torch.allclose(result[:, :3, 3].norm(dim=1), torch.full((200,), 1.5), atol=1e-5)
    position = result[:, :3, 3] / 1.5
    azimuth = torch.rad2deg(torch.atan2(position[:, 0], position[:, 2])).abs().max()
    elevation = torch.rad2deg(torch.asin(position[:, 1])).abs().max()
    assert 15 < float(azimuth) <= 18.001 and 7 < float(elevation) <= 9.001


def test_first_view_and_half_of_the_objects_stay():
    images, poses = torch.rand(64, 3, 3, 16, 16, generator=seed()), torch.eye(4).expand(64, 3, 4, 4)
    new_images, new_poses = augment_views(images, poses, generator=seed(3))
    assert torch.equal(new_images[:, 0], images[:, 0]) and torch.equal(new_poses[:, 0], poses[:, 0])
    bent = (new_images != images).flatten(1).any(1)
    turned = (new_poses != poses).flatten(1).any(1)
    assert 16 < int(bent.sum()) < 48 and 16 < int(turned.sum()) < 48
    assert bool((bent ^ turned).any())  # two coins, not one
    again = augment_views(images, poses, generator=seed(3))
    assert torch.equal(again[0], new_images) and torch.equal(again[1], new_poses)


def test_one_view_is_left_alone():
    images, poses = torch.rand(2, 1, 3, 8, 8), torch.eye(4).expand(2, 1, 4, 4)
    result = augment_views(images, poses)
    assert result[0] is images and result[1] is poses


def test_strength_must_be_sensible():
    with pytest.raises(ValueError, match="strength"):
        grid_distortion(torch.rand(1, 3, 8, 8), 1.5)
