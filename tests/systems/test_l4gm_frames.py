"""From a matted clip to the network's frames."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bozzetto.errors import ForegroundError, InputError
from bozzetto.systems.l4gm.frames import fit_frames, nearest_shown


def moving_square(count: int = 4) -> torch.Tensor:
    """A red square of 10 pixels that moves 3 pixels a frame to the right, [T, 40, 60, 4] uint8."""
    clip = torch.zeros(count, 40, 60, 4, dtype=torch.uint8)
    for i in range(count):
        clip[i, 15:25, 25 + 3 * i : 35 + 3 * i, 0] = 255
        clip[i, 15:25, 25 + 3 * i : 35 + 3 * i, 3] = 255
    return clip


def test_the_object_moves_as_it_did():
    frames = fit_frames(moving_square(), 64, border=0.2)
    assert frames.rgba.shape == (4, 4, 64, 64) and frames.empty == []
    middles = [float((alpha.sum(0) * torch.arange(64)).sum() / alpha.sum()) for alpha in frames.rgba[:, 3]]
    steps = [b - a for a, b in pairwise(middles)]
    assert middles[0] == pytest.approx(31.5, abs=1.0)  # centred in the first frame
    assert max(steps) - min(steps) < 0.2 and steps[0] > 3
    areas = frames.rgba[:, 3].sum((1, 2))
    assert torch.allclose(areas, areas[:1].expand(4), rtol=0.02)  # inside the picture to the end
    inside = frames.rgba[:, 3] > 0.99
    assert torch.allclose(frames.rgba[:, 0][inside], torch.ones(1)) and float(frames.rgba[:, 1][inside].max()) == 0


def test_frames_without_an_object_take_their_neighbours():
    clip = moving_square(5)
    clip[0] = clip[2] = 0
    frames = fit_frames(clip, 32)
    assert frames.empty == [0, 2]
    assert torch.equal(frames.rgba[0], frames.rgba[1]) and torch.equal(frames.rgba[2], frames.rgba[1])
    assert not torch.equal(frames.rgba[1], frames.rgba[3])
    assert nearest_shown([False, False, True, False, False, True]) == [2, 2, 2, 2, 5, 5]


def test_no_object_at_all():
    with pytest.raises(ForegroundError, match="none of the 3 frames"):
        fit_frames(torch.zeros(3, 8, 8, 4), 32)


def test_opaque_clips_are_taken_whole():
    frames = fit_frames(torch.full((2, 20, 40, 3), 0.25), 40)
    assert float(frames.rgba[0, 3, 0].max()) == 0  # the padding above is transparent
    assert torch.allclose(frames.rgba[0, :, 20, 20], torch.tensor([0.25, 0.25, 0.25, 1.0]))
    assert torch.allclose(frames.rgba[0, 3].mean(), torch.tensor(0.5))


def test_bad_clips():
    with pytest.raises(InputError, match="no frames"):
        fit_frames(torch.zeros(0, 8, 8, 4), 32)
    broken = torch.ones(2, 8, 8, 4)
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        fit_frames(broken, 32)
