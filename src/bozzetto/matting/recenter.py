"""Put the foreground in the middle of a square picture, at a fixed share of its side.

Reconstruction networks are trained with centred objects of one size, so this step decides much of their quality.
`recenter` is what the package uses; `recenter_lgm` repeats the arithmetic of LGM's inference script (its crop that loses
the last row and column, its truncations, straight rather than premultiplied colours), for exact comparison with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ForegroundError

# Fainter pixels do not count for the bounding box: one stray pixel of alpha 1/255 must not shrink the object.
FAINT = 0.05


def area_weights(source: int, target: int) -> Tensor:
    """Matrix [target, source] (float64) that resamples one axis as OpenCV's INTER_AREA does.

    Shrinking: pixel i is the mean of [i*s, (i+1)*s) with s = source/target, partly covered pixels counting in part.
    Enlarging: linear between source pixels j = floor(i*s) and j + 1; the weight of j + 1 is the part of target pixel i
    that lies beyond the border between the two.
    """
    i = torch.arange(target, dtype=torch.float64)
    j = torch.arange(source, dtype=torch.float64)
    s = source / target
    if target <= source:
        overlap = torch.minimum((i + 1)[:, None] * s, j + 1) - torch.maximum(i[:, None] * s, j)  # [target, source]
        weights = overlap.clamp_min(0)
        return weights / weights.sum(dim=1, keepdim=True)
    left = torch.floor(i * s).clamp(max=source - 1)
    beyond = (i + 1) - (left + 1) / s
    share = torch.where(beyond <= 0, torch.zeros_like(beyond), beyond - torch.floor(beyond))
    share = torch.where(left >= source - 1, torch.zeros_like(share), share)
    rows, left = torch.arange(target), left.long()
    weights = torch.zeros(target, source, dtype=torch.float64)
    weights[rows, left] = 1 - share
    weights[rows, (left + 1).clamp(max=source - 1)] += share
    return weights


def resize_area(image: Tensor, height: int, width: int) -> Tensor:
    """``image`` [H, W, C] resampled to [height, width, C] with `area_weights` on each axis; float32."""
    rows = area_weights(image.shape[0], height).to(device=image.device, dtype=torch.float32)
    columns = area_weights(image.shape[1], width).to(device=image.device, dtype=torch.float32)
    narrow = torch.einsum("xw,hwc->hxc", columns, image.float())
    return torch.einsum("yh,hxc->yxc", rows, narrow)


def bounding_box(mask: Tensor) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the true pixels of ``mask`` [H, W], ends exclusive.

    Raises :class:`ForegroundError` when there is none.
    """
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if rows.numel() == 0:
        raise ForegroundError(
            "the picture has no foreground: every pixel is transparent or background; "
            "give a crop box around the object, or a picture with an alpha channel"
        )
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def recenter(rgba: Tensor, mask: Tensor | None = None, border: float = 0.2, size: int | None = None) -> Tensor:
    """Square picture with the foreground centred, its longer side filling ``1 - border`` of the picture.

    Args:
        rgba: [H, W, 4] in 0..1, straight alpha; any aspect ratio, down to one pixel.
        mask: [H, W] bool, the foreground; by default where alpha is above 5 %.
        border: share of the side left free, 0 <= border < 1 (half of it on each side).
        size: side of the result in pixels; by default the longer side of ``rgba``.

    Returns:
        [size, size, 4] float32, straight alpha, transparent black around the object. Colours are resampled premultiplied,
        so whatever is stored under transparent pixels does not bleed into the edge.

    Raises:
        ForegroundError: there is no foreground.
    """
    if rgba.ndim != 3 or rgba.shape[2] != 4:
        raise ValueError(f"expected a picture [H, W, 4], got shape {tuple(rgba.shape)}")
    if not 0.0 <= border < 1.0:
        raise ValueError(f"border must be at least 0 and below 1, got {border}")
    rgba = rgba.float()
    if mask is None:
        mask = rgba[..., 3] > FAINT
        if not bool(mask.any()):
            mask = rgba[..., 3] > 0
    top, bottom, left, right = bounding_box(mask)
    side = max(rgba.shape[:2]) if size is None else int(size)
    if side < 1:
        raise ValueError(f"size must be positive, got {side}")
    crop = rgba[top:bottom, left:right]
    scale = max(1, round(side * (1 - border))) / max(bottom - top, right - left)
    height, width = (max(1, round(length * scale)) for length in (bottom - top, right - left))
    alpha = crop[..., 3:]
    small = resize_area(torch.cat([crop[..., :3] * alpha, alpha], dim=-1), height, width).clamp(0, 1)
    alpha = small[..., 3:]
    colour = torch.where(alpha > 0, small[..., :3] / alpha.clamp_min(1e-8), 0.0).clamp(0, 1)
    result = rgba.new_zeros(side, side, 4)
    y, x = (side - height) // 2, (side - width) // 2
    result[y : y + height, x : x + width] = torch.cat([colour, alpha], dim=-1)
    return result


def recenter_lgm(image: Tensor, mask: Tensor, border: float = 0.2) -> Tensor:
    """LGM's recentring, arithmetic for arithmetic.

    Args:
        image: [H, W, 4] or [H, W, 3], uint8 (0..255) or float (0..1).
        mask: [H, W], the foreground where above 0. Its last row and column are lost, as in LGM.
        border: share of the side left free.

    Returns:
        [S, S, 4] or [S, S, 3] of the input's type, S the longer side; around the object 0 (four channels) or 1 (three).

    Raises:
        ForegroundError: fewer than two rows or columns of foreground, on which LGM's script fails.
    """
    top, bottom, left, right = bounding_box(mask > 0)
    bottom, right = bottom - 1, right - 1
    if bottom <= top or right <= left:
        raise ForegroundError("the foreground is one pixel high or wide; use a larger picture of the object")
    integer = image.dtype == torch.uint8
    values = image.float() / 255 if integer else image.float()
    side = max(image.shape[:2])
    scale = int(side * (1 - border)) / max(bottom - top, right - left)
    height, width = max(1, int((bottom - top) * scale)), max(1, int((right - left) * scale))
    background = 0.0 if image.shape[2] == 4 else 1.0
    result = values.new_full((side, side, image.shape[2]), background)
    y, x = (side - height) // 2, (side - width) // 2
    result[y : y + height, x : x + width] = resize_area(values[top:bottom, left:right], height, width).clamp(0, 1)
    return (result * 255).to(torch.uint8) if integer else result
