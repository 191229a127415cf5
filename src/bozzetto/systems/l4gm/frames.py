"""A matted clip -> square frames of the network's size, the object at one scale in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ForegroundError, InputError
from ...matting.recenter import resize_area
from ...matting.video import recenter_clip

BORDER = 0.2  # share of the side left free around the object in the first frame
SMALLEST = 1e-4  # a foreground below this share of the picture is noise


@dataclass
class Frames:
    """``rgba`` [T, 4, S, S] straight alpha; ``empty``: frames that showed no object, replaced by their neighbours."""

    rgba: Tensor
    empty: list[int]


def fit_frames(clip: Tensor, size: int, border: float = BORDER) -> Frames:
    """Frames of a clip from a still camera -> frames of the network.

    Args:
        clip: [T, H, W, 4] straight alpha, or [T, H, W, 3]; uint8, or float in 0..1. With alpha, one square around the object
            is cut out of all frames, so that the object moves as it did; without, the whole picture is taken (padded to a
            square).
        size: pixels.

    Raises:
        ForegroundError: no frame shows an object. InputError: no frames, or values that are no pictures.
    """
    if clip.ndim != 4 or clip.shape[-1] not in (3, 4) or 0 in clip.shape:
        raise InputError(
            f"the video has no frames that can be used (shape {tuple(clip.shape)}); use one that plays in a video player"
        )
    if clip.is_floating_point() and not bool(torch.isfinite(clip).all()):
        raise InputError("the video's frames hold NaN or infinity")
    if clip.shape[-1] == 3:
        rgba = torch.stack([_padded(_floating(frame), size) for frame in clip])
        return Frames(rgba.permute(0, 3, 1, 2).contiguous(), [])
    shown = [bool((_floating(frame[..., 3]) > 0.5).float().mean() >= SMALLEST) for frame in clip]
    if not any(shown):
        raise ForegroundError(
            f"none of the {len(clip)} frames shows an object; use a video of one object before a plain background, or frames "
            "with an alpha channel"
        )
    if not all(shown):
        clip = clip[nearest_shown(shown)]
    rgba = recenter_clip(clip, size, border)  # [T, S, S, 4]
    return Frames(rgba.permute(0, 3, 1, 2).contiguous(), [i for i, has in enumerate(shown) if not has])


def nearest_shown(shown: Sequence[bool]) -> list[int]:
    """For every frame the nearest one with an object, the earlier of two."""
    known = [i for i, has in enumerate(shown) if has]
    return [min(known, key=lambda k: (abs(k - i), k)) for i in range(len(shown))]


def _padded(picture: Tensor, size: int) -> Tensor:
    """A whole picture [H, W, 3] in the middle of a transparent square, [size, size, 4]."""
    scale = size / max(picture.shape[:2])
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    result = picture.new_zeros(size, size, 4)
    y, x = (size - height) // 2, (size - width) // 2
    result[y : y + height, x : x + width, :3] = resize_area(picture, height, width).clamp(0, 1)
    result[y : y + height, x : x + width, 3] = 1.0
    return result


def _floating(picture: Tensor) -> Tensor:
    return picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()
