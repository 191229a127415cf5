"""A clip -> its object, cut out alike in all frames; and the clip framed for networks, at one scale.

Frames are matted one by one as photos are, but the pieces that are kept follow one object through the clip, soft mattes
are smoothed over time where the clip shows the same thing again, and only then drawn sharply along each frame's edges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ForegroundError
from .cutout import FOUND, MARGIN, SMALLEST, ramp, stretch
from .recenter import FAINT, bounding_box, resize_area
from .refine import clean_edges, edge_width, guided_filter
from .temporal import follow, reduced, smoothed
from .u2netp import U2NetP, saliency

if TYPE_CHECKING:
    from ..files.video import VideoClip

VOUCHED = 0.6  # share of a borrowed matte that must lie on agreeing colours; else the object is not in the frame
ADVICE = "film one object before a plain background, or give a clip with a transparent background"


def matte_clip(
    clip: VideoClip,
    *,
    model: U2NetP | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> VideoClip:
    """The clip with four channels, its object cut out; a clip that has alpha is returned as it is.

    The arguments are :func:`matte_frames`'s. Frames in which no object was found repeat the nearest one; ``notes`` names them.

    Raises:
        ForegroundError: no frame shows an object.
    """
    if clip.has_alpha:
        if not bool((clip.pixels[..., 3] > 127).any()):
            raise ForegroundError(
                f"every frame of {clip.path} is transparent; use a clip in which the object can be seen"
            )
        return clip
    pixels, missing = matte_frames(clip.pixels, model=model, device=device, progress=progress)
    notes = list(clip.notes)
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        notes.append(
            f"no object was found in {len(missing)} of {len(pixels)} frames ({shown}); they repeat their neighbours"
        )
    return dataclasses.replace(clip, pixels=pixels, has_alpha=True, notes=notes)


def matte_frames(
    frames: Tensor,
    *,
    model: U2NetP | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[Tensor, list[int]]:
    """Cut one object out of a clip. Of several objects it is the largest in the first frame that shows any.

    Args:
        frames: [T, H, W, 3 or more] uint8 or float in 0..1; only the colours are used.
        model: the network; by default U2NETP with the bundled weights.
        device: where to compute, by default where ``frames`` is. progress: called with (stage, share done).

    Returns:
        [T, H, W, 4] straight alpha of the type and device of ``frames``, black where transparent; and the numbers of the
        frames in which the object was not found, which repeat the nearest one in which it was.

    Raises:
        ForegroundError: no frame shows an object.
    """
    if frames.ndim != 4 or frames.shape[-1] < 3 or 0 in frames.shape:
        raise ValueError(f"expected frames [T, H, W, 3], got {tuple(frames.shape)}")
    device = frames.device if device is None else torch.device(device)
    tell = progress or (lambda stage, share: None)
    count = len(frames)

    def colours(t: int) -> Tensor:
        return _floats(frames[t, ..., :3].to(device))

    soft, known = _soft_mattes(colours, count, model, lambda share: tell("finding the object", share))
    if not any(known):
        raise ForegroundError(f"no object was found in any of the {count} frames; {ADVICE}")
    if count > 1:
        small = lambda t: reduced(colours(t))  # noqa: E731
        soft, trust = smoothed(soft, small, known, lambda share: tell("smoothing over time", share))
        known = [own or vouched > VOUCHED for own, vouched in zip(known, trust, strict=True)]
    result = torch.zeros(*frames.shape[:3], 4, dtype=frames.dtype, device=frames.device)
    before, found = None, []
    for t in range(count):
        if known[t]:
            tell("cutting out the object", t / count)
            cut, before = _sharpened(colours(t), soft[t].float() / 255, before)
            if float((cut[..., 3] > 0.5).float().mean()) >= SMALLEST:
                found.append(t)
                result[t] = (cut * 255).round().to(frames) if frames.dtype == torch.uint8 else cut.to(frames)
    if not found:
        raise ForegroundError(f"no object was found in any of the {count} frames; {ADVICE}")
    missing = sorted(set(range(count)) - set(found))
    for t in missing:
        result[t] = result[min(found, key=lambda other: (abs(other - t), other))]
    return result, missing


def _floats(picture: Tensor) -> Tensor:
    return picture.float() / 255 if picture.dtype == torch.uint8 else picture.float().clamp(0, 1)


def _soft_mattes(
    colours: Callable[[int], Tensor], count: int, model: U2NetP | None, tell: Callable[[float], None]
) -> tuple[Tensor, list[bool]]:
    """Soft mattes [T, h, w] (uint8, small) of one object, and which frames have one.

    As for photos, the network looks twice: at the whole frame, then at the object's surroundings. The second look's frame
    is the union of the object's places in five frames, so that it does not jump.
    """
    coarse, objects, before = [], [], None
    for t in range(count):
        frame = reduced(colours(t))  # [3, h, w]
        seen = saliency(frame.permute(1, 2, 0), model)
        matte = stretch(seen) if float(seen.max()) >= FOUND else torch.zeros_like(seen)
        place = follow((matte > 0.5).cpu().numpy(), before)
        if place.any():
            before = place
        coarse.append((matte * 255).round().to(torch.uint8))
        objects.append(place)
        tell(0.5 * (t + 1) / count)
    soft, known = torch.zeros(count, *coarse[0].shape, dtype=torch.uint8, device=coarse[0].device), []
    for t in range(count):
        place = objects[t]
        known.append(bool(place.mean() >= SMALLEST))
        if known[-1]:
            matte = coarse[t].float() / 255
            around = [o for o in objects[max(0, t - 2) : t + 3] if o.any() and _near(o, place)]
            top, bottom, left, right = _window(np.logical_or.reduce(around))
            if (bottom - top) * (right - left) < 0.7 * place.size:
                # The network looks at the full picture's pixels, at most 320 of which it sees.
                frame = colours(t)
                sy, sx = frame.shape[0] / place.shape[0], frame.shape[1] / place.shape[1]
                view = frame[round(top * sy) : round(bottom * sy), round(left * sx) : round(right * sx)]
                fine = saliency(view, model)
                fine = F.interpolate(fine[None, None], (bottom - top, right - left), mode="area")[0, 0]
                if float(fine.max()) >= FOUND and _agree(stretch(fine) > 0.5, matte[top:bottom, left:right] > 0.5):
                    matte = torch.zeros_like(matte)
                    matte[top:bottom, left:right] = stretch(fine)
            soft[t] = (matte * _grown(follow((matte > 0.3).cpu().numpy(), place), matte) * 255).round().to(torch.uint8)
        tell(0.5 + 0.5 * (t + 1) / count)
    return soft, known


def _near(other: np.ndarray, place: np.ndarray) -> bool:
    return bool((other & place).any())


def _window(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a mask with a margin, inside the picture."""
    top, bottom, left, right = bounding_box(torch.from_numpy(mask))
    margin = round(MARGIN * max(bottom - top, right - left)) + 1
    height, width = mask.shape
    return max(0, top - margin), min(height, bottom + margin), max(0, left - margin), min(width, right + margin)


def _agree(first: Tensor, second: Tensor) -> bool:
    union = float((first | second).sum())
    return union > 0 and float((first & second).sum()) / union > 0.6


def _grown(mask: np.ndarray, like: Tensor, pixels: int = 2) -> Tensor:
    """``mask`` [H, W] grown by some pixels, so that soft edges stay: float."""
    values = torch.from_numpy(mask).to(like)
    return F.max_pool2d(values[None], 2 * pixels + 1, stride=1, padding=pixels)[0]


def _sharpened(rgb: Tensor, soft: Tensor, before: np.ndarray | None) -> tuple[Tensor, np.ndarray]:
    """The cut-out [H, W, 4] of a frame by its soft matte [h, w], and the object's place for the next frame."""
    size = rgb.shape[:2]
    alpha = F.interpolate(soft[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    alpha = ramp(guided_filter(rgb, alpha))
    place = follow((alpha > 0.5).cpu().numpy(), before)
    alpha = alpha * _grown(place, alpha)
    cut = torch.zeros(*size, 4, device=rgb.device)
    if place.any():
        width = edge_width(*size)
        top, bottom, left, right = bounding_box(alpha > 0)
        margin = 8 * width  # background to compare the edge's colours with
        rows, columns = slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)
        cut[rows, columns, :3] = clean_edges(rgb[rows, columns], alpha[rows, columns], width)
        cut[..., 3] = alpha
    return cut, place if place.any() else before


def recenter_clip(rgba: Tensor, size: int, border: float = 0.2) -> Tensor:
    """Square frames with one transform for the whole clip: the object neither breathes nor jumps.

    In the first frame that shows it, the object is centred and its longer side fills ``1 - border`` of the picture, as
    LGM and L4GM expect; the picture is enlarged about that centre just enough that the object never leaves it.

    Args:
        rgba: [T, H, W, 4] uint8 or float in 0..1, straight alpha.
        size: side of the result in pixels.
        border: share of the side left free in the first frame, 0 <= border < 1.

    Returns:
        [T, size, size, 4] float32, straight alpha.

    Raises:
        ForegroundError: no frame shows anything.
    """
    if rgba.ndim != 4 or rgba.shape[-1] != 4:
        raise ValueError(f"expected frames [T, H, W, 4], got {tuple(rgba.shape)}")
    if not 0.0 <= border < 1.0 or size < 1:
        raise ValueError(f"border must lie in 0..1 and size be positive, got {border} and {size}")
    boxes = []
    for frame in rgba:
        mask = _floats(frame[..., 3]) > FAINT
        if bool(mask.any()):
            boxes.append(bounding_box(mask))
    if not boxes:
        raise ForegroundError(f"none of the {len(rgba)} frames shows an object; {ADVICE}")
    top, bottom, left, right = boxes[0]
    y, x = (top + bottom) / 2, (left + right) / 2
    side = max(bottom - top, right - left) / (1 - border)
    for t, b, l, r in boxes:
        side = max(side, 2.02 * max(y - t, b - y, x - l, r - x))
    side = max(1, round(side))
    y0, x0 = round(y - side / 2), round(x - side / 2)
    height, width = rgba.shape[1:3]
    rows, columns = slice(max(0, y0), min(height, y0 + side)), slice(max(0, x0), min(width, x0 + side))
    result = torch.empty(len(rgba), size, size, 4)
    for t, frame in enumerate(rgba):
        square = torch.zeros(side, side, 4, device=rgba.device)
        square[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = _floats(frame[rows, columns])
        square[..., :3] *= square[..., 3:]
        small = resize_area(square, size, size).clamp(0, 1)
        alpha = small[..., 3:]
        small[..., :3] = torch.where(alpha > 0, small[..., :3] / alpha.clamp_min(1e-8), 0.0).clamp(0, 1)
        result[t] = small
    return result
