"""Pictures are written as their suffix says, and resized without the colours under transparent pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bozzetto.errors import OutputError
from bozzetto.files.images import read_image, resize_image, to_uint8, write_image


def test_write_and_read_back(tmp_path):
    y, x = np.mgrid[0:8, 0:12]
    rgba = torch.from_numpy(np.stack([x * 20, y * 30, 255 - x * 10, 255 - x * 20], axis=-1)).float() / 255
    write_image(tmp_path / "new" / "x.png", rgba)
    np.testing.assert_array_equal(to_uint8(read_image(tmp_path / "new/x.png").rgba), to_uint8(rgba))
    write_image(tmp_path / "x.webp", rgba)
    assert read_image(tmp_path / "x.webp").has_alpha
    write_image(tmp_path / "x.JPG", torch.tensor([0.0, 0.0, 0.0, 0.0]).expand(16, 16, 4))
    assert float(read_image(tmp_path / "x.JPG").rgba.min()) > 0.99  # laid on white
    write_image(tmp_path / "clip.png", torch.tensor([-1.0, 2.0, float("nan")]).expand(3, 3, 3))
    assert to_uint8(read_image(tmp_path / "clip.png").rgba)[1, 1].tolist() == [0, 255, 0, 255]


def test_write_refuses(tmp_path):
    with pytest.raises(OutputError, match=r"\.png"):
        write_image(tmp_path / "x.bmp2", torch.zeros(2, 2, 3))
    with pytest.raises(ValueError, match="H, W"):
        write_image(tmp_path / "x.png", torch.zeros(3, 2, 2))
    with pytest.raises(OutputError, match=r"try \.png"):
        write_image(tmp_path / "x.webp", torch.zeros(1, 20_000, 3))
    assert list(tmp_path.iterdir()) == []


def test_resize_area_is_the_exact_mean():
    image = torch.rand(6, 10, 3, generator=torch.Generator().manual_seed(0))
    small = resize_image(image, (3, 5))
    expected = image.reshape(3, 2, 5, 2, 3).mean(dim=(1, 3))  # [3, 5, 3]
    torch.testing.assert_close(small, expected)
    # 10 -> 4: each new pixel covers 2.5 old ones
    row = resize_image(image, (6, 4))[:, 0]
    torch.testing.assert_close(row, (image[:, 0] + image[:, 1] + 0.5 * image[:, 2]) / 2.5)


def test_resize_keeps_hidden_colours_hidden():
    image = torch.zeros(4, 4, 4)
    image[:, :2] = torch.tensor([1.0, 0.5, 0.25, 1.0])
    image[:, 2:, 1] = 1.0  # bright green under alpha 0
    for method in ("area", "bilinear"):
        out = resize_image(image, (1, 1), method)
        torch.testing.assert_close(out[0, 0, :3], torch.tensor([1.0, 0.5, 0.25]))
        assert abs(float(out[0, 0, 3]) - 0.5) < 1e-6
    assert float(resize_image(torch.zeros(4, 4, 4), (2, 9)).abs().max()) == 0


def test_resize_enlarges_linearly():
    ramp = torch.linspace(0, 1, 4)[None, :, None].expand(2, 4, 3)
    out = resize_image(ramp, (2, 8))
    inner = torch.nn.functional.interpolate(ramp.permute(2, 0, 1)[None], size=(2, 8), mode="bilinear")[0].permute(
        1, 2, 0
    )
    torch.testing.assert_close(out, inner)
    with pytest.raises(ValueError, match="positive"):
        resize_image(ramp, (0, 4))
