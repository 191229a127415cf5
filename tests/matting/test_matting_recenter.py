"""Recentring: exact against LGM's, and well-behaved on every size."""

import numpy as np
import pytest
import torch

from bozzetto.errors import ForegroundError
from bozzetto.matting.recenter import area_weights, recenter, recenter_lgm, resize_area


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "parity" / "lgm" / "recenter.npz") as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


@pytest.mark.parametrize(
    ("picture", "mask", "output"), [("rgba_in", "mask", "uint8_rgba_out"), ("big_in", "big_mask", "big_out")]
)
def test_lgm_uint8(golden, picture, mask, output):
    result = recenter_lgm(golden[picture], golden[mask])
    assert result.dtype == torch.uint8
    difference = (result.int() - golden[output].int()).abs()
    assert int(difference.max()) <= 1 and float((difference > 0).float().mean()) < 0.01


@pytest.mark.parametrize(("channels", "output"), [(4, "float_rgba_out"), (3, "float_rgb_out")])
def test_lgm_float(golden, channels, output):
    result = recenter_lgm(golden["rgba_in"][..., :channels].float() / 255, golden["mask"])
    assert float((result - golden[output]).abs().max()) < 1e-6


def test_lgm_needs_two_pixels():
    mask = torch.zeros(9, 9)
    with pytest.raises(ForegroundError, match="no foreground"):
        recenter_lgm(torch.rand(9, 9, 4), mask)
    mask[4, 2:7] = 1
    with pytest.raises(ForegroundError, match="one pixel"):
        recenter_lgm(torch.rand(9, 9, 4), mask)


def test_area_shrinking_by_hand():
    # 5 pixels to 2: each is the mean of 2.5 source pixels.
    expected = torch.tensor([[1, 1, 0.5, 0, 0], [0, 0, 0.5, 1, 1]], dtype=torch.float64) / 2.5
    assert torch.allclose(area_weights(5, 2), expected)


@pytest.mark.parametrize(("source", "target"), [(1, 1), (1, 7), (7, 1), (13, 40), (40, 13), (5, 5), (3, 300)])
def test_area_weights_are_means(source, target):
    weights = area_weights(source, target)
    assert weights.shape == (target, source)
    assert torch.allclose(weights.sum(1), torch.ones(target, dtype=torch.float64))
    assert float(weights.min()) >= 0


def test_area_resizing_keeps_a_constant_and_a_gradient():
    ramp = torch.linspace(0, 1, 64).view(1, 64, 1).expand(64, 64, 3)
    assert torch.allclose(resize_area(torch.full((30, 20, 3), 0.3), 17, 55), torch.full((17, 55, 3), 0.3), atol=1e-6)
    small = resize_area(ramp, 16, 16)
    assert float((small[3, 1:, 0] - small[3, :-1, 0] - 4 / 63).abs().max()) < 1e-6


def square(top: int, left: int, height: int, width: int, canvas: tuple[int, int]) -> torch.Tensor:
    rgba = torch.zeros(*canvas, 4)
    rgba[..., 0] = 1  # red under transparent pixels must not bleed
    rgba[top : top + height, left : left + width] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return rgba


def test_object_is_centred_and_of_the_right_size():
    result = recenter(square(3, 40, 20, 10, (50, 60)), border=0.2, size=100)
    alpha = result[..., 3]
    rows, columns = (alpha > 0.5).any(1).nonzero(), (alpha > 0.5).any(0).nonzero()
    assert result.shape == (100, 100, 4)
    assert (int(rows[0]), int(rows[-1])) == (10, 89)
    assert (int(columns[0]), int(columns[-1])) == (30, 69)


def test_no_colour_bleeds_in():
    rgba = square(10, 10, 20, 20, (64, 64))
    rgba[9, 10:30, 3] = 0.3  # a soft row, red underneath, but of the object's colour
    rgba[9, 10:30, :3] = torch.tensor([0.0, 0.0, 1.0])
    result = recenter(rgba, size=33)
    assert float(result[..., 0].max()) < 1e-5
    assert float(result[..., :3][result[..., 3] == 0].abs().max()) == 0


def test_default_size_and_mask():
    rgba = square(10, 10, 20, 20, (64, 48))
    rgba[0, 0, 3] = 0.01  # a stray faint pixel does not count
    assert recenter(rgba).shape == (64, 64, 4)
    assert torch.equal(recenter(rgba), recenter(rgba, mask=rgba[..., 3] > 0.5))


@pytest.mark.parametrize("canvas", [(1, 1), (1, 3000), (3000, 1), (2, 2), (7, 300)])
@pytest.mark.parametrize("size", [None, 1, 2, 64])
def test_every_size(canvas, size):
    if size is None and max(canvas) > 1000:
        size = 16
    result = recenter(torch.ones(*canvas, 4), size=size)
    assert result.shape[0] == result.shape[1] == (size or max(canvas))
    assert bool(result.isfinite().all()) and float(result[..., 3].max()) > 0


def test_one_pixel_foreground():
    rgba = torch.zeros(40, 30, 4)
    rgba[39, 29] = 1
    result = recenter(rgba, size=20)
    assert int((result[..., 3] > 0.5).sum()) == 16 * 16


def test_faint_picture_is_still_found():
    assert float(recenter(torch.full((8, 8, 4), 0.02), size=8)[..., 3].max()) == pytest.approx(0.02)


def test_errors():
    with pytest.raises(ForegroundError, match="transparent"):
        recenter(torch.zeros(5, 5, 4))
    with pytest.raises(ValueError, match="border"):
        recenter(torch.ones(5, 5, 4), border=1.0)
    with pytest.raises(ValueError, match="H, W, 4"):
        recenter(torch.ones(5, 5, 3))
