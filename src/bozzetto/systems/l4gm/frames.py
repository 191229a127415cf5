"""A matted clip -> square frames of the network's size, the object at one place and scale in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ForegroundError, InputError
from ...matting.recenter import FAINT, bounding_box
from ..lgm.reconstruct import resize_rgba

BORDER = 0.2  # share of the side left free around everywhere the object goes
SMALLEST = 1e-4  # a foreground below this share of the picture is noise
Box = tuple[int, int, int, int]  # top, bottom, left, right, ends exclusive; may reach beyond the picture


@dataclass
class Frames:
    """``rgba`` [T, 4, S, S] straight alpha; ``empty``: frames that showed no object, replaced by their neighbours."""

    rgba: Tensor
    empty: list[int]


def union_box(alphas: Iterable[Tensor]) -> tuple[Box | None, list[bool]]:
    """The box that holds the foreground of all alphas [H, W], and for each of them whether it has any."""
    boxes, shown = [], []
    for alpha in alphas:
        mask = alpha > FAINT
        shown.append(bool((alpha > 0.5).float().mean() >= SMALLEST))
        if shown[-1]:
            boxes.append(bounding_box(mask))
    if not boxes:
        return None, shown
    tops, bottoms, lefts, rights = zip(*boxes)
    return (min(tops), max(bottoms), min(lefts), max(rights)), shown


def square_box(box: Box, border: float) -> Box:
    """The smallest square around ``box`` that leaves ``border`` of its side free."""
    top, bottom, left, right = box
    side = max(round(max(bottom - top, right - left) / (1 - border)), 1)
    y, x = (top + bottom - side) // 2, (left + right - side) // 2
    return y, y + side, x, x + side


def cut(rgba: Tensor, box: Box, size: int) -> Tensor:
    """The part of ``rgba`` [H, W, 4] inside a square ``box``, transparent outside of the picture: [4, size, size]."""
    height, width = rgba.shape[:2]
    top, bottom, left, right = box
    square = rgba.new_zeros(bottom - top, right - left, 4)
    y0, y1, x0, x1 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    if y0 < y1 and x0 < x1:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = rgba[y0:y1, x0:x1]
    return resize_rgba(square.permute(2, 0, 1)[None, None], size)[0, 0].clamp(0, 1)


def fit_frames(pictures: Sequence[Tensor], size: int, border: float = BORDER) -> Frames:
    """Frames of a clip from a still camera -> frames of the network.

    Args:
        pictures: T pictures [H, W, 4] of one size, straight alpha in 0..1 (or [H, W, 3], or uint8); a tensor
            [T, H, W, C] will do. With alpha, one box around everywhere the object goes is cut out of all of them, so that the
            object moves as it did; without, the whole picture is taken (padded to a square).
        size: pixels.

    Raises:
        ForegroundError: no frame shows an object.
        InputError: no frames, or frames of unequal sizes.
    """
    if len(pictures) == 0:
        raise InputError("the video has no frames; use one that plays in a video player")
    shape = tuple(pictures[0].shape)
    for i in range(len(pictures)):
        if tuple(pictures[i].shape) != shape or len(shape) != 3 or shape[-1] not in (3, 4):
            raise InputError(f"frame {i} has shape {tuple(pictures[i].shape)}, the first has {shape}; they must agree")
    height, width, channels = shape
    if channels == 3:
        side = max(height, width)
        y, x = -((side - height) // 2), -((side - width) // 2)
        box: Box = (y, y + side, x, x + side)
        shown = [True] * len(pictures)
    else:
        found, shown = union_box(_floating(pictures[i][..., 3]) for i in range(len(pictures)))
        if found is None:
            raise ForegroundError(
                f"none of the {len(pictures)} frames shows an object; use a video of one object before a plain background, "
                "or frames with an alpha channel"
            )
        box = square_box(found, border)
    frames = torch.empty(len(pictures), 4, size, size)
    for i, source in enumerate(nearest_shown(shown)):
        picture = _floating(pictures[source])
        if not bool(torch.isfinite(picture).all()):
            raise InputError(f"frame {source} holds NaN or infinity")
        if channels == 3:
            picture = torch.cat([picture, torch.ones_like(picture[..., :1])], dim=-1)
        frames[i] = cut(picture, box, size)
    return Frames(frames, [i for i, has in enumerate(shown) if not has])


def nearest_shown(shown: Sequence[bool]) -> list[int]:
    """For every frame the nearest one with an object, the earlier of two."""
    known = [i for i, has in enumerate(shown) if has]
    return [min(known, key=lambda k: (abs(k - i), k)) for i in range(len(shown))]


def _floating(picture: Tensor) -> Tensor:
    return picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()
