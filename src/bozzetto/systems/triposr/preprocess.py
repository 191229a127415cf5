"""A cut-out photo -> the picture that TripoSR sees. The published arithmetic, with its quirks, so that results agree.

The foreground is never resampled here: it is padded so that it fills ``ratio`` of the side, and the whole is resized once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ForegroundError
from ...matting.recenter import FAINT, bounding_box

GREY = 0.5  # the background of the training pictures


def resize_foreground(rgba: Tensor, ratio: float) -> Tensor:
    """Crop to the foreground and pad it with transparent black to a square of which it fills ``ratio``.

    Args:
        rgba: [H, W, 4] uint8, straight alpha; foreground is where alpha > 0. Its last row and column are lost, as they are
            in the published code (the end of the box is taken as exclusive).
        ratio: longer side of the foreground by the side of the result, above 0 and at most 1.

    Returns:
        [S, S, 4] uint8.

    Raises:
        ForegroundError: no foreground, or fewer than two rows or columns of it.
    """
    top, bottom, left, right = bounding_box(rgba[..., 3] > 0)
    crop = rgba[top : bottom - 1, left : right - 1]
    if crop.numel() == 0:
        raise ForegroundError("the foreground is one pixel high or wide; use a larger picture of the object")
    side = max(crop.shape[:2])
    return _pad_to(_pad_to(crop, side), int(side / ratio))


def _pad_to(rgba: Tensor, side: int) -> Tensor:
    """[H, W, 4] in the middle of [side, side, 4]; an odd remainder goes to the right and to the bottom."""
    height, width = rgba.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(rgba, (0, 0, left, side - width - left, top, side - height - top))


def composite_on_grey(rgba: Tensor) -> Tensor:
    """[H, W, 4] uint8, straight alpha -> [H, W, 3] uint8 on grey (truncated, as published)."""
    # A tensor as divisor: CUDA multiplies by the reciprocal of a number, and truncation below shows the last bit.
    values = rgba.float() / torch.full((1,), 255.0, device=rgba.device)
    colour, alpha = values[..., :3], values[..., 3:]
    return ((colour * alpha + (1 - alpha) * GREY) * 255).to(torch.uint8)


def resize_photos(photos: Sequence[Tensor], size: int) -> Tensor:
    """Pictures [H, W, 3], uint8 or float 0..1, of any sizes -> [B, 3, size, size]; antialiased, aspect ratio not kept."""
    out = []
    for photo in photos:
        values = photo.float() / 255 if photo.dtype == torch.uint8 else photo.float()
        values = values.permute(2, 0, 1)[None]  # [1, 3, H, W]
        out.append(F.interpolate(values, (size, size), mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(out)


def prepare_photo(rgba: Tensor, ratio: float) -> Tensor:
    """A cut-out [H, W, 4] in 0..1, straight alpha -> [S, S, 3] uint8 on grey with the foreground at ``ratio`` of the side.

    What is fainter than 5 % does not count as foreground where something is stronger: a stray pixel of alpha 1/255 would
    shrink the object. A picture without any transparency is taken as it is: its background is then the caller's affair.
    """
    picture = (rgba.clamp(0, 1) * 255).round().to(torch.uint8)
    if bool((picture[..., 3] == 255).all()):
        return picture[..., :3]
    faint = picture[..., 3] <= FAINT * 255
    if not bool(faint.all()):
        picture[faint] = 0
    return composite_on_grey(resize_foreground(picture, ratio))
