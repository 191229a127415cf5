"""Photo to cut-out: find the object, clean its alpha for lifting to 3D, and take the background out of its edge colours.

A half-transparent pixel becomes a half-transparent Gaussian that floats beside the object in every other view, so alpha is
kept hard: a ramp of about two pixels at the silhouette, 0 and 1 elsewhere.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ForegroundError
from .recenter import bounding_box
from .refine import clean_edges, edge_width, guided_filter
from .u2netp import U2NetP, saliency

Box = tuple[float, float, float, float]

# Saliency that the network must reach somewhere. Black, white, grey and gradient pictures stay below 0.06.
FOUND = 0.3
# A photo "has alpha" when at least this share of its pixels is mostly transparent; a lossy alpha channel of a photo
# (rounded corners of a screenshot, a few stray pixels) stays below.
ALPHA_SHARE = 0.005
SMALLEST = 1e-4  # a foreground below this share of the picture is noise
MARGIN = 0.15  # of the object's size, around it, in the second look

ADVICE = "give a crop box around the object, or a picture with a transparent background, or skip matting (--no-matting)"


def has_alpha(image: Tensor) -> bool:
    """Whether the alpha channel of ``image`` [H, W, 4] already separates an object from its background."""
    if image.shape[-1] != 4:
        return False
    alpha = image[..., 3]
    opaque = alpha > 0.5 * alpha.max()
    return bool((~opaque).float().mean() >= ALPHA_SHARE) and bool(opaque.any())


def cutout(
    image: Tensor,
    *,
    box: Box | None = None,
    keep: Literal["largest", "all"] | None = None,
    model: U2NetP | None = None,
) -> Tensor:
    """Cut the object out of a photo.

    Args:
        image: [H, W, 3] or [H, W, 4] in 0..1, straight alpha. A picture whose alpha already separates an object is
            used as it is, apart from ``box`` and ``keep`` where given.
        box: (x0, y0, x1, y1) in pixels; everything outside is background, and matting looks only inside.
        keep: "largest" keeps the largest connected piece, "all" every piece. By default "largest" for a matted photo and
            "all" for a picture with its own alpha.
        model: the network; by default U2NETP with the bundled weights.

    Returns:
        [H, W, 4] float32 on the device of ``image``: straight alpha; of a matted photo, black where transparent.

    Raises:
        ForegroundError: fully transparent, nothing found, or a box outside of the picture; the message says what to try.
    """
    image = _checked(image)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = _pixels(box, height, width)
    if image.shape[2] == 4 and not bool((image[y0:y1, x0:x1, 3] > 0).any()):
        where = "picture" if box is None else "picture inside the crop box"
        raise ForegroundError(f"the {where} is fully transparent; use a photo in which the object can be seen")
    if has_alpha(image):
        result = torch.zeros_like(image)
        result[y0:y1, x0:x1] = image[y0:y1, x0:x1]
        if keep == "largest":
            result[..., 3] *= largest_component(result[..., 3] > 0.5 * result[..., 3].max())
        return result
    rgb = image[y0:y1, x0:x1, :3]
    alpha = find_alpha(rgb, model, keep or "largest")
    if float((alpha > 0.5).float().mean()) < SMALLEST:
        raise ForegroundError(f"no foreground was found in the picture; {ADVICE}")
    width_of_edge = edge_width(height, width)
    top, bottom, left, right = bounding_box(alpha > 0)
    margin = 8 * width_of_edge  # background to compare the edge's colours with
    rows, columns = slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)
    colours = torch.zeros_like(rgb)
    colours[rows, columns] = clean_edges(rgb[rows, columns], alpha[rows, columns], width_of_edge)
    result = image.new_zeros(height, width, 4)
    result[y0:y1, x0:x1] = torch.cat([colours, alpha[..., None]], dim=-1)
    return result


def find_alpha(rgb: Tensor, model: U2NetP | None = None, keep: Literal["largest", "all"] = "largest") -> Tensor:
    """Alpha [H, W] of the largest salient thing, or of all of them, in ``rgb`` [H, W, 3].

    Looks twice: at the whole picture, then closer at the surroundings of what it found, where the network's 320 pixels
    show more of the outline; the outline is then drawn along the picture's own edges.
    """
    coarse = saliency(rgb, model)
    peak = float(coarse.max())
    if peak < FOUND:
        raise ForegroundError(f"no foreground was found in the picture (best score {peak:.2f}); {ADVICE}")
    coarse = stretch(coarse)
    alpha = coarse
    found = coarse > 0.5
    top, bottom, left, right = _surroundings(found if keep == "all" else largest_component(found) > 0)
    if (bottom - top) * (right - left) < 0.7 * coarse.numel():
        fine = saliency(rgb[top:bottom, left:right], model)
        # The second look replaces the first only where the two speak of the same thing.
        if float(fine.max()) >= FOUND and _agree(stretch(fine) > 0.5, coarse[top:bottom, left:right] > 0.5):
            alpha = torch.zeros_like(coarse)
            alpha[top:bottom, left:right] = stretch(fine)
    alpha = ramp(guided_filter(rgb, alpha))
    return alpha if keep == "all" else alpha * largest_component(alpha > 0.5)


def stretch(saliency_map: Tensor) -> Tensor:
    """The map scaled so that its extremes are 0 and 1, as U^2-Net's authors do."""
    low, high = saliency_map.amin(), saliency_map.amax()
    return (saliency_map - low) / (high - low).clamp_min(1e-6)


def ramp(alpha: Tensor, low: float = 0.3, high: float = 0.7) -> Tensor:
    """Smooth step from 0 below ``low`` to 1 above ``high``."""
    t = ((alpha - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def largest_component(mask: Tensor) -> Tensor:
    """The largest 8-connected piece of ``mask`` [H, W] (bool), grown by two pixels so that its soft edge stays: float."""
    from scipy import ndimage

    labels, count = ndimage.label(mask.cpu().numpy(), structure=np.ones((3, 3), dtype=bool))
    if count == 0:
        return torch.zeros(mask.shape, device=mask.device)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = torch.from_numpy(labels == sizes.argmax()).to(mask.device, torch.float32)
    return F.max_pool2d(largest[None], 5, stride=1, padding=2)[0]


def _surroundings(mask: Tensor) -> tuple[int, int, int, int]:
    height, width = mask.shape
    top, bottom, left, right = bounding_box(mask)
    margin = round(MARGIN * max(bottom - top, right - left)) + 1
    return max(0, top - margin), min(height, bottom + margin), max(0, left - margin), min(width, right + margin)


def _agree(first: Tensor, second: Tensor) -> bool:
    union = float((first | second).sum())
    return union > 0 and float((first & second).sum()) / union > 0.6


def _checked(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise ValueError(f"expected a picture [H, W, 3 or 4], got shape {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image.float() / 255
    return image.float().clamp(0, 1)


def _pixels(box: Box | None, height: int, width: int) -> tuple[int, int, int, int]:
    if box is None:
        return 0, 0, width, height
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    if x1 <= x0 or y1 <= y0:
        raise ForegroundError(
            f"the crop box {tuple(box)} holds no pixel of the {width}x{height} picture; "
            "give x0,y0,x1,y1 in pixels with x0 < x1 <= width and y0 < y1 <= height"
        )
    return x0, y0, x1, y1
