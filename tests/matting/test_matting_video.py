"""Clips cut out: one object, alike in all frames, at one scale."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bozzetto.errors import ForegroundError
from bozzetto.files.video import VideoClip
from bozzetto.matting.cutout import cutout
from bozzetto.matting.temporal import follow, object_shift, shifted, weighted_mean, weighted_median
from bozzetto.matting.video import matte_clip, matte_frames, recenter_clip

SIZE = 128


def disc(x, y, radius, size=SIZE):
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return (radius + 0.5 - ((columns - x) ** 2 + (rows - y) ** 2).sqrt()).clamp(0, 1)


def pattern(size=SIZE, shift=0.0):
    """Red stripes, fixed to a thing that moved right by ``shift``."""
    columns = torch.arange(size) + 0.5 - shift
    stripes = 0.75 + 0.25 * torch.sin(columns / 3)
    return torch.stack([stripes, 0.2 * stripes, 0.1 * stripes], -1).expand(size, size, 3)


def ground(size=SIZE):
    rows = torch.linspace(0.5, 0.8, size)[:, None, None]
    return torch.tensor([0.1, 0.7, 0.8]) * rows.expand(size, size, 1)


def rolling(count=8, radius=28.0, step=3.0, noise=0.0):
    """A striped ball that moves right: frames [T, S, S, 3] and true alphas [T, S, S]."""
    generator = torch.Generator().manual_seed(0)
    frames, alphas = [], []
    for t in range(count):
        alpha = disc(45 + step * t, 64 + 2 * np.sin(t), radius)
        frame = torch.lerp(ground(), pattern(shift=step * t), alpha[..., None])
        frames.append((frame + noise * torch.randn(SIZE, SIZE, 3, generator=generator)).clamp(0, 1))
        alphas.append(alpha)
    return torch.stack(frames), torch.stack(alphas)


def redness(x):
    """Stands in for the network: red is salient."""
    return (torch.sigmoid(6 * (x[:, :1] - x[:, 1:2])),)


class Fickle:
    """As ``redness``, but every call forgets other parts of the object and sees other things beside it."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, x):
        seen = redness(x)[0]
        coarse = torch.rand(1, 1, 10, 10, generator=self.generator)
        spots = torch.nn.functional.interpolate(coarse, size=x.shape[-2:], mode="bilinear")
        return ((seen + 0.9 * (spots > 0.8) - 0.9 * (spots < 0.15)).clamp(0, 1),)


def flicker(found, true):
    """How much the mattes change from frame to frame where the truth does not say so."""
    return float(((found[1:] - found[:-1]) - (true[1:] - true[:-1])).abs().mean())


def iou(found, true):
    found, true = found > 0.5, true > 0.5
    return float(((found & true).sum((1, 2)) / (found | true).sum((1, 2))).min())


def test_smoothing_takes_the_flicker_away():
    frames, true = rolling(noise=0.02)
    network = Fickle()
    single = torch.stack([cutout(f, model=network)[..., 3] for f in frames])
    clip, missing = matte_frames(frames, model=Fickle())
    assert missing == []
    assert flicker(clip[..., 3], true) < 0.5 * flicker(single, true)
    assert iou(clip[..., 3], true) > max(0.9, iou(single, true))


def test_steady_network_is_not_made_worse():
    frames, true = rolling()
    single = torch.stack([cutout(f, model=redness)[..., 3] for f in frames])
    clip, _ = matte_frames(frames, model=redness)
    assert iou(clip[..., 3], true) > iou(single, true) - 0.01
    assert flicker(clip[..., 3], true) < 1.05 * flicker(single, true)
    assert float(clip[..., :3][clip[..., 3] == 0].abs().max()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("photo", "share"), [("orange.png", 0.3), ("roast_turkey.png", 0.6)])
def test_network_over_photo_backgrounds(shared, photo, share):
    """A ball before a photo of something else: frame by frame, the network wavers between the two."""
    from bozzetto.files.images import read_image, resize_image

    size = 2 * SIZE
    backdrop = resize_image(read_image(shared / "photos" / photo).rgba[..., :3], (size, size))
    generator = torch.Generator().manual_seed(0)
    frames, true = [], []
    for t in range(10):
        alpha = disc(100 + 4 * t, 128 + 6 * np.sin(0.5 * t), 52, size)
        frame = torch.lerp(backdrop, pattern(size, 4 * t), alpha[..., None])
        frames.append((frame + 0.02 * torch.randn(frame.shape, generator=generator)).clamp(0, 1))
        true.append(alpha)
    frames, true = torch.stack(frames), torch.stack(true)
    single = torch.stack([cutout(f)[..., 3] for f in frames])
    clip, missing = matte_frames(frames)
    print(f"{photo}: flicker {flicker(single, true):.4f} frame by frame, {flicker(clip[..., 3], true):.4f} as a clip")
    assert missing == []
    assert flicker(clip[..., 3], true) < share * flicker(single, true)


def test_one_object_is_followed_past_a_larger_one():
    frames, true = rolling(radius=14.0, step=1.0)
    for t in range(3, 8):  # a larger red thing comes in
        other = disc(110, 100, 10.0 + 2 * t)
        frames[t] = torch.lerp(frames[t], torch.tensor([0.9, 0.1, 0.1]), other[..., None])
    clip, missing = matte_frames(frames, model=redness)
    assert missing == []
    assert iou(clip[..., 3], true) > 0.85


def test_frames_without_object():
    frames, _ = rolling()
    frames[3] = ground()
    frames[7] = ground()
    clip, missing = matte_frames(frames, model=redness)
    assert missing == [3, 7]
    assert torch.equal(clip[3], clip[2]) and torch.equal(clip[7], clip[6])
    with pytest.raises(ForegroundError, match="any of the 4 frames"):
        matte_frames(ground().expand(4, SIZE, SIZE, 3), model=redness)


def test_a_frame_that_only_the_network_missed():
    frames, true = rolling(step=1.0)

    class Blinking:
        calls = 0

        def __call__(self, x):
            self.calls += 1
            return (redness(x)[0] * (0 if self.calls == 4 else 1),)  # the first look at the fourth frame

    clip, missing = matte_frames(frames, model=Blinking())
    assert missing == []
    assert iou(clip[..., 3], true) > 0.9


def test_bytes_single_frames_and_alpha():
    frames, true = rolling(1)
    pixels = (frames * 255).round().to(torch.uint8)
    clip = VideoClip(pixels, 10.0, 10.0, False, Path("a.mp4"))
    cut = matte_clip(clip, model=redness)
    assert cut.pixels.shape == (1, SIZE, SIZE, 4) and cut.pixels.dtype == torch.uint8 and cut.has_alpha
    assert iou(cut.pixels[..., 3].float() / 255, true) > 0.95
    assert matte_clip(cut) is cut
    nothing = VideoClip(torch.zeros(2, 8, 8, 4, dtype=torch.uint8), 10.0, 10.0, True, Path("a.mov"))
    with pytest.raises(ForegroundError, match="transparent"):
        matte_clip(nothing)
    with pytest.raises(ValueError, match="frames"):
        matte_frames(frames[0])


def test_notes_name_the_frames():
    frames, _ = rolling(3)
    frames[1] = ground()
    clip = VideoClip((frames * 255).to(torch.uint8), 10.0, 10.0, False, Path("a.mp4"), ["before"])
    stages = []
    cut = matte_clip(clip, model=redness, progress=lambda stage, share: stages.append((stage, share)))
    assert cut.notes == ["before", "no object was found in 1 of 3 frames (1); they repeat their neighbours"]
    assert clip.notes == ["before"]
    assert all(0 <= share <= 1 for _, share in stages) and len({stage for stage, _ in stages}) == 3


def test_shift_and_combination():
    frames, alphas = rolling(2, step=7.0)
    first, second = (f.permute(2, 0, 1) for f in frames)
    down, right = object_shift(first, second, alphas[0], alphas[1])
    assert (down, right) == (2, 7)
    moved = shifted(torch.arange(12.0).reshape(1, 3, 4), (1, -1))
    assert moved[0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    values = torch.tensor([0.0, 1.0, 0.4]).view(3, 1, 1)
    weights = torch.tensor([1.0, 1.0, 0.5]).view(3, 1, 1)
    assert float(weighted_median(values, weights)) == pytest.approx(0.4)
    assert float(weighted_mean(values, weights)) == pytest.approx(0.48)


def test_follow():
    mask = np.zeros((20, 30), bool)
    mask[2:8, 2:8] = mask[10:19, 15:29] = True
    before = np.zeros_like(mask)
    before[3:9, 3:9] = True
    assert follow(mask, None)[15, 20] and not follow(mask, None)[4, 4]
    assert follow(mask, before)[4, 4] and not follow(mask, before)[15, 20]
    far = np.zeros_like(mask)
    far[2:8, 10:16] = True
    assert follow(mask, far)[4, 4]  # a fast object of the same size
    assert not follow(np.zeros_like(mask), before).any()


# ---- framing ------------------------------------------------------------------------------------------------------


def boxes(frames):
    found = []
    for frame in frames:
        rows, columns = (frame[..., 3] > 0.5).nonzero(as_tuple=True)
        found.append((int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1))
    return found


def test_recentred_at_one_scale():
    rgba = torch.zeros(4, 100, 160, 4)
    for t in range(4):
        rgba[t, 40:60, 50 + min(2 * t, 5) : 90 + min(2 * t, 5)] = torch.tensor([1.0, 0.5, 0.2, 1.0])
    result = recenter_clip(rgba, 100)
    assert result.shape == (4, 100, 100, 4)
    found = boxes(result)
    assert found[0] == (30, 70, 10, 90)  # 80 % wide, centred
    assert all(b[3] - b[2] == 80 and b[:2] == (30, 70) for b in found)  # never breathes
    assert [b[2] for b in found] == [10, 14, 18, 20]
    assert float((result[..., :3][result[..., 3] > 0.9] - torch.tensor([1.0, 0.5, 0.2])).abs().max()) < 1e-4


def test_recentred_so_that_nothing_leaves():
    rgba = torch.zeros(3, 100, 300, 4, dtype=torch.uint8)
    for t in range(3):
        rgba[t, 40:60, 40 + 80 * t : 60 + 80 * t] = 255
    result = recenter_clip(rgba, 128)
    found = boxes(result)
    assert abs(found[0][2] + found[0][3] - 128) <= 1 and abs(found[0][0] + found[0][1] - 128) <= 1
    assert found[2][3] <= 128 and found[2][3] >= 125
    widths = [b[3] - b[2] for b in found]
    assert max(widths) - min(widths) <= 1
    assert float(result[2, ..., 3].sum()) == pytest.approx(float(result[0, ..., 3].sum()), rel=0.02)
    rgba[0] = 0
    assert boxes(recenter_clip(rgba, 64)[1:])[0][2] > 0  # framed by the first frame that shows something
    with pytest.raises(ForegroundError):
        recenter_clip(rgba * 0, 64)
    with pytest.raises(ValueError, match="border"):
        recenter_clip(rgba, 64, border=1.0)
